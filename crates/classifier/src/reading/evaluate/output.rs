//! What commands print if that is constant: `echo`, `printf`, and filters over a
//! known input.

use super::super::{command::Command, decode, decode::Encoding, decode::Escapes, is_interpreter};

/// Known output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Printed {
    pub(super) bytes: Vec<u8>,
    /// What undid an encoding on the way.
    pub(super) encoding: Option<Encoding>,
}

/// Whether a command runs the text it reads: an interpreter without a script.
pub(crate) fn runs_its_input(command: &Command) -> bool {
    if matches!(command.name(), "source" | ".") {
        return command.arguments().iter().any(|arg| arg == "/dev/stdin");
    }
    is_interpreter(command.name())
        && command.name() != "eval"
        && command
            .arguments()
            .iter()
            .take_while(|arg| *arg != "-s" && *arg != "--")
            .all(|arg| {
                matches!(
                    arg.as_str(),
                    "-" | "/dev/stdin" | "/proc/self/fd/0" | "/dev/fd/0"
                ) || (arg.starts_with('-')
                    && !matches!(
                        arg.as_str(),
                        "-c" | "-e" | "-m" | "-n" | "-r" | "-pe" | "-ne" | "-lc" | "-ec"
                    ))
            })
}

/// What `command` prints for `input`.
pub(super) fn output_of(command: &Command, input: Option<&Printed>) -> Option<Printed> {
    let args = command.arguments();
    let plain = |bytes: Vec<u8>| {
        Some(Printed {
            bytes,
            encoding: None,
        })
    };
    match command.name() {
        "echo" => return plain(echo(args)),
        "printf" => {
            return args
                .split_first()
                .and_then(|(format, rest)| plain(printf(format, rest)));
        }
        "true" | ":" | "set" | "unset" | "export" | "" => return plain(Vec::new()),
        _ => {}
    }
    let input = input?;
    let (bytes, encoding) = filter(command.name(), args, &input.bytes)?;
    Some(Printed {
        bytes,
        encoding: encoding.or(input.encoding),
    })
}

fn echo(args: &[String]) -> Vec<u8> {
    let mut escapes = false;
    let mut newline = true;
    let mut words = args;
    while let [first, rest @ ..] = words {
        let is_option = first.len() > 1
            && first.starts_with('-')
            && first[1..].bytes().all(|b| b"neE".contains(&b));
        if !is_option {
            break;
        }
        newline &= !first.contains('n');
        escapes |= first.contains('e');
        words = rest;
    }
    let text = words.join(" ");
    let mut out = if escapes {
        decode::unescape(&text, Escapes::Echo).0
    } else {
        text.into_bytes()
    };
    if newline {
        out.push(b'\n');
    }
    out.truncate(decode::MAX_OUTPUT_BYTES);
    out
}

/// `printf`: the format is used again while arguments are left.
pub(super) fn printf(format: &str, args: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut left = args.iter();
    loop {
        let before = left.len();
        printf_once(format, &mut left, &mut out);
        let took = before != left.len();
        if left.len() == 0 || !took || out.len() >= decode::MAX_OUTPUT_BYTES {
            break;
        }
    }
    out.truncate(decode::MAX_OUTPUT_BYTES);
    out
}

fn printf_once(format: &str, args: &mut std::slice::Iter<'_, String>, out: &mut Vec<u8>) {
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.extend(decode::unescape(&rest[..at], Escapes::Printf).0);
        rest = &rest[at + 1..];
        let len = rest
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '-' | '+' | ' ' | '.' | '#' | '*')))
            .unwrap_or(rest.len());
        let flags = &rest[..len];
        let Some(conversion) = rest[len..].chars().next() else {
            break;
        };
        rest = &rest[len + conversion.len_utf8()..];
        if conversion == '%' {
            out.push(b'%');
            continue;
        }
        let arg = args.next().map_or("", String::as_str);
        match conversion {
            'b' => out.extend(decode::unescape(arg, Escapes::Echo).0),
            'c' => out.extend(arg.bytes().take(1)),
            // The width hardly matters; the precision cuts.
            _ => {
                let cut = flags.split_once('.').and_then(|(_, n)| n.parse().ok());
                out.extend(arg.bytes().take(cut.unwrap_or(usize::MAX)));
            }
        }
    }
    out.extend(decode::unescape(rest, Escapes::Printf).0);
}

/// Filters over known input.
fn filter(name: &str, args: &[String], input: &[u8]) -> Option<(Vec<u8>, Option<Encoding>)> {
    let has = |letters: &[char]| {
        args.iter()
            .any(|arg| arg.starts_with('-') && !arg.starts_with("--") && arg.contains(letters))
    };
    let long = |option: &str| args.iter().any(|arg| arg == option);
    let files = || {
        args.iter()
            .any(|arg| !arg.starts_with('-') && arg != "/dev/stdin")
    };
    match name {
        "cat" | "tee" | "sort" | "uniq" | "tac" | "stdbuf" | "pv" if name == "tee" || !files() => {
            Some((input.to_vec(), None))
        }
        "base64" if has(&['d', 'D']) || long("--decode") => {
            Some((decode::base64(input)?, Some(Encoding::Base64)))
        }
        "base32" if has(&['d']) || long("--decode") => {
            Some((decode::base32(input)?, Some(Encoding::Base32)))
        }
        "openssl" => {
            let decodes = long("-d") && (long("-base64") || long("-a") || long("base64"));
            let is_plain = !args
                .iter()
                .any(|arg| arg.starts_with("-aes") || arg.starts_with("-k") || arg == "-pass");
            (decodes && is_plain)
                .then(|| decode::base64(input))?
                .map(|b| (b, Some(Encoding::Base64)))
        }
        "xxd" if has(&['r']) => Some((decode::hex(input)?, Some(Encoding::Hex))),
        "gunzip" | "zcat" | "zlib-flate" => {
            Some((decode::inflate(input)?, Some(Encoding::Compressed)))
        }
        "gzip" if has(&['d']) || long("--decompress") => {
            Some((decode::inflate(input)?, Some(Encoding::Compressed)))
        }
        "rev" => {
            let text = str::from_utf8(input).ok()?;
            let lines: Vec<String> = text
                .split('\n')
                .map(|line| line.chars().rev().collect())
                .collect();
            Some((lines.join("\n").into_bytes(), Some(Encoding::Reversed)))
        }
        "tr" => translate(args, input),
        "sed" => {
            let script = match args {
                [script] => script,
                [option, script] if option == "-e" => script,
                _ => return None,
            };
            Some((
                decode::substitute(input, script)?,
                Some(Encoding::Substituted),
            ))
        }
        "cut" | "head" => cut(name, args, input).map(|bytes| (bytes, None)),
        _ => None,
    }
}

fn translate(args: &[String], input: &[u8]) -> Option<(Vec<u8>, Option<Encoding>)> {
    let (options, sets): (Vec<&String>, Vec<&String>) = args
        .iter()
        .partition(|arg| arg.len() > 1 && arg.starts_with('-') && !arg.contains(' '));
    let deletes = options.iter().any(|option| option.contains('d'));
    let complement = options.iter().any(|option| option.contains(['c', 'C']));
    let squeezes_only = sets.len() < 2 && !deletes;
    if squeezes_only {
        return Some((input.to_vec(), None));
    }
    let to = if deletes {
        None
    } else {
        sets.get(1).map(|set| set.as_str())
    };
    let bytes = decode::translate(input, sets.first()?, to, complement);
    Some((bytes, Some(Encoding::Substituted)))
}

/// `cut -c` with one range, `head -c`.
fn cut(name: &str, args: &[String], input: &[u8]) -> Option<Vec<u8>> {
    let range = match args {
        [option, range] if option == "-c" => range.as_str(),
        [option] => option.strip_prefix("-c")?,
        _ => return None,
    };
    if name == "head" {
        return Some(input.iter().copied().take(range.parse().ok()?).collect());
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let first: usize = if first.is_empty() {
        1
    } else {
        first.parse().ok()?
    };
    let last: usize = if last.is_empty() {
        usize::MAX
    } else {
        last.parse().ok()?
    };
    let text = str::from_utf8(input).ok()?;
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            line.chars()
                .take(last)
                .skip(first.saturating_sub(1))
                .collect()
        })
        .collect();
    Some((lines.join("\n") + "\n").into_bytes())
}
