//! A strict pull reader for one JSON text, and the one writer primitive.
//!
//! Follows RFC 8259. Differences to a general reader: depth is capped, doubled
//! keys are errors in every object that is read field by field, and an escape
//! that names half a surrogate pair becomes U+FFFD instead of an error.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;

use crate::FeedError;

/// A position in one JSON text.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    max_depth: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str, max_depth: usize) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
            max_depth,
        }
    }

    /// Skips white space; what stands there, if anything does.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    /// The place of the next value, white space skipped.
    pub(crate) fn offset(&mut self) -> usize {
        self.peek();
        self.at
    }

    /// Succeeds if nothing but white space is left.
    pub(crate) fn end(&mut self) -> Result<(), FeedError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.syntax("the end of the line")),
        }
    }

    /// Reads an object and hands each field's name to `field`, which must read
    /// its value.
    pub(crate) fn each_field(
        &mut self,
        mut field: impl FnMut(&mut Self, &str) -> Result<(), FeedError>,
    ) -> Result<(), FeedError> {
        self.open(b'{', "an object")?;
        let mut seen = HashSet::new();
        if self.close(b'}') {
            return Ok(());
        }
        loop {
            let offset = self.offset();
            let name = self.string()?;
            self.token(b':', "a colon")?;
            field(self, &name)?;
            if !seen.insert(name) {
                return Err(FeedError::DuplicateField { offset });
            }
            if self.close(b'}') {
                return Ok(());
            }
            self.token(b',', "a comma or a closing brace")?;
        }
    }

    /// Reads an array and calls `element` before each value, which it must read.
    pub(crate) fn each_element(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), FeedError>,
    ) -> Result<(), FeedError> {
        self.open(b'[', "an array")?;
        if self.close(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if self.close(b']') {
                return Ok(());
            }
            self.token(b',', "a comma or a closing bracket")?;
        }
    }

    /// Reads a string.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, FeedError> {
        self.token(b'"', "a string")?;
        let start = self.at;
        loop {
            match self.byte() {
                Some(b'"') => {
                    let text = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Cow::Borrowed(text));
                }
                Some(b'\\') => return self.escaped_string(start).map(Cow::Owned),
                Some(0..0x20) | None => return Err(self.syntax("a closing quote")),
                Some(_) => self.at += 1,
            }
        }
    }

    /// Reads a number; its text as it stands.
    pub(crate) fn number(&mut self) -> Result<&'a str, FeedError> {
        self.peek();
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    /// Reads `true` or `false`.
    pub(crate) fn boolean(&mut self) -> Result<bool, FeedError> {
        if self.literal("true") {
            Ok(true)
        } else if self.literal("false") {
            Ok(false)
        } else {
            Err(self.syntax("true or false"))
        }
    }

    /// Reads `null` if it stands there.
    pub(crate) fn null(&mut self) -> bool {
        self.literal("null")
    }

    /// Checks the next value, doubled keys included, and returns its text as it
    /// stands, without the white space around it.
    pub(crate) fn raw_value(&mut self) -> Result<&'a str, FeedError> {
        let start = self.offset();
        self.value(Keys::Distinct)?;
        Ok(&self.text[start..self.at])
    }

    /// Checks the syntax of the next value and passes over it.
    pub(crate) fn skip_value(&mut self) -> Result<(), FeedError> {
        self.value(Keys::Any)
    }

    /// Recursion is bounded by `max_depth`.
    fn value(&mut self, keys: Keys) -> Result<(), FeedError> {
        match self.peek() {
            Some(b'{') if keys == Keys::Distinct => self.each_field(|cursor, _| cursor.value(keys)),
            Some(b'{') => self.skip_object(),
            Some(b'[') => self.each_element(|cursor| cursor.value(keys)),
            Some(b'"') => self.string().map(drop),
            Some(b't' | b'f') => self.boolean().map(drop),
            Some(b'n') if self.null() => Ok(()),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            _ => Err(self.syntax("a value")),
        }
    }

    fn skip_object(&mut self) -> Result<(), FeedError> {
        self.open(b'{', "an object")?;
        if self.close(b'}') {
            return Ok(());
        }
        loop {
            self.string()?;
            self.token(b':', "a colon")?;
            self.value(Keys::Any)?;
            if self.close(b'}') {
                return Ok(());
            }
            self.token(b',', "a comma or a closing brace")?;
        }
    }

    /// The rest of a string whose first escape stands at the cursor.
    fn escaped_string(&mut self, start: usize) -> Result<String, FeedError> {
        let mut text = self.text[start..self.at].to_owned();
        loop {
            let from = self.at;
            while !matches!(self.byte(), Some(b'"' | b'\\' | 0..0x20) | None) {
                self.at += 1;
            }
            text.push_str(&self.text[from..self.at]);
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                _ => return Err(self.syntax("a closing quote")),
            }
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self) -> Result<char, FeedError> {
        let escaped = match self.byte() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.syntax("an escape")),
        };
        self.at += 1;
        Ok(escaped)
    }

    /// The four digits behind `\u`, with the second half of a pair if one
    /// follows; half a pair is U+FFFD.
    fn unicode_escape(&mut self) -> Result<char, FeedError> {
        let first = self.four_hex_digits()?;
        if !(0xD800..0xDC00).contains(&first) {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        let behind_first = self.at;
        self.at += 2;
        let second = self.four_hex_digits()?;
        if !(0xDC00..0xE000).contains(&second) {
            self.at = behind_first;
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        let point = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        Ok(char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn four_hex_digits(&mut self) -> Result<u32, FeedError> {
        let mut number = 0;
        for _ in 0..4 {
            let digit = self.byte().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.syntax("four hexadecimal digits"));
            };
            number = number * 16 + digit;
            self.at += 1;
        }
        Ok(number)
    }

    fn digits(&mut self) -> Result<(), FeedError> {
        if !matches!(self.byte(), Some(b'0'..=b'9')) {
            return Err(self.syntax("a digit"));
        }
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        Ok(())
    }

    fn literal(&mut self, literal: &str) -> bool {
        self.peek();
        let found = self.text[self.at..].starts_with(literal);
        if found {
            self.at += literal.len();
        }
        found
    }

    fn open(&mut self, bracket: u8, expected: &'static str) -> Result<(), FeedError> {
        self.token(bracket, expected)?;
        if self.depth == self.max_depth {
            return Err(FeedError::TooDeep {
                offset: self.at - 1,
                limit: self.max_depth,
            });
        }
        self.depth += 1;
        Ok(())
    }

    /// Passes over `bracket` if it stands there; every call follows an `open`.
    fn close(&mut self, bracket: u8) -> bool {
        let found = self.peek() == Some(bracket);
        if found {
            self.at += 1;
            self.depth -= 1;
        }
        found
    }

    fn token(&mut self, token: u8, expected: &'static str) -> Result<(), FeedError> {
        if self.peek() != Some(token) {
            return Err(self.syntax(expected));
        }
        self.at += 1;
        Ok(())
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn syntax(&self, expected: &'static str) -> FeedError {
        FeedError::Syntax {
            offset: self.at,
            expected,
        }
    }
}

/// Whether an object may name a field twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    Any,
    Distinct,
}

/// Appends `text` as a JSON string without raw control characters.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(json: &str) -> Result<String, FeedError> {
        Cursor::new(json, 8).string().map(Cow::into_owned)
    }

    /// Whether a text is one JSON value, as this reader sees it.
    fn accepts(json: &str) -> bool {
        let mut cursor = Cursor::new(json, 100);
        cursor.skip_value().and_then(|()| cursor.end()).is_ok()
    }

    #[test]
    fn surrogate_pairs_join_and_halves_become_replacement_characters() {
        assert_eq!(string(r#""\ud83d\ude00""#).unwrap(), "\u{1f600}");
        assert_eq!(string(r#""a\ud83db""#).unwrap(), "a\u{fffd}b");
        assert_eq!(string(r#""\ude00""#).unwrap(), "\u{fffd}");
        assert_eq!(
            string(r#""\ud83d\ud83d\ude00""#).unwrap(),
            "\u{fffd}\u{1f600}"
        );
        assert_eq!(string(r#""\ud83d\n""#).unwrap(), "\u{fffd}\n");
        assert!(string(r#""\ud83d\u12""#).is_err());
    }

    #[test]
    fn strings_survive_writing_and_reading() {
        for text in [
            "",
            "\0\u{1f}\u{7f}\u{9b}\u{2028}",
            "\"\\/\u{8}\u{c}\n\r\t",
            "é\u{10ffff}",
        ] {
            let mut json = String::new();
            push_string(&mut json, text);
            assert!(!json.contains(char::is_control), "{json:?}");
            assert_eq!(string(&json).unwrap(), text);
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn the_same_texts_are_json_here_and_for_serde() {
        let tokens = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"\\u0041\"",
            "0",
            "-1",
            "01",
            "1.",
            "1.5e+3",
            "-",
            ".5",
            "1e",
            "true",
            "false",
            "null",
            "nul",
            " ",
            "\t",
            "\"",
            "\"\\x\"",
            "\"\n\"",
        ];
        let mut state = 1_u64;
        let mut accepted = 0;
        for _ in 0..200_000 {
            let mut json = String::new();
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            for shift in 0..=usize::from(state.to_le_bytes()[7] >> 4) % 7 {
                let byte = state.to_le_bytes()[shift];
                json.push_str(tokens[usize::from(byte) % tokens.len()]);
            }
            let oracle = serde_json::from_str::<serde::de::IgnoredAny>(&json).is_ok();
            assert_eq!(accepts(&json), oracle, "{json:?}");
            accepted += usize::from(oracle);
        }
        assert!(accepted > 1000, "only {accepted} texts were JSON");
    }

    #[test]
    fn depth_is_capped_where_the_first_level_too_many_opens() {
        let json = "[".repeat(9);
        let error = Cursor::new(&json, 8).skip_value().unwrap_err();
        assert!(
            matches!(
                error,
                FeedError::TooDeep {
                    offset: 8,
                    limit: 8
                }
            ),
            "{error:?}"
        );
    }
}
