//! One word: quotes resolved, expansions marked.
//!
//! Source: POSIX.1-2024, Shell Command Language, 2.2 (quoting) and 2.6 (word
//! expansions); `$'…'` as in 2.2.4.

use std::ops::Range;

use super::{Part, VariablePrefix, Word};
use crate::reading::decode::{Escapes, unescape};

/// The substitutions in a text: where each stands, in order.
pub(super) type Places<'a> = &'a [(Range<usize>, usize)];

/// Reads the word at `span` of `text`; `places` says where substitutions are.
pub(super) fn word_at(text: &str, span: Range<usize>, places: Places<'_>) -> Word {
    let mut scanner = Scanner {
        text,
        position: span.start,
        end: span.end,
        places,
        word: Word::default(),
        literal: String::new(),
        literal_is_quoted: false,
    };
    scanner.run(false);
    scanner.flush();
    scanner.word
}

/// Reads text in which only `$` and backticks are special: here-documents.
pub(super) fn text_at(text: &str, span: Range<usize>, places: Places<'_>) -> Word {
    let mut scanner = Scanner {
        text,
        position: span.start,
        end: span.end,
        places,
        word: Word::default(),
        literal: String::new(),
        literal_is_quoted: true,
    };
    scanner.run(true);
    scanner.flush();
    scanner.word
}

struct Scanner<'a> {
    text: &'a str,
    position: usize,
    end: usize,
    places: Places<'a>,
    word: Word,
    literal: String,
    literal_is_quoted: bool,
}

impl Scanner<'_> {
    fn run(&mut self, is_document: bool) {
        let mut in_double = false;
        while let Some(character) = self.peek() {
            if self.take_substitution(in_double || is_document) {
                continue;
            }
            let quoted = in_double || is_document;
            match character {
                '\\' => self.backslash(quoted),
                '"' if !is_document => {
                    self.quote_seen(character);
                    self.position += 1;
                    in_double = !in_double;
                    // An empty pair is still a word.
                    self.push_str("", true);
                }
                '\'' if !quoted => self.single_quotes(),
                '$' => self.dollar(quoted),
                _ => {
                    self.position += character.len_utf8();
                    self.push(character, quoted);
                }
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.position..self.end)?.chars().next()
    }

    fn rest(&self) -> &str {
        self.text.get(self.position..self.end).unwrap_or("")
    }

    fn push(&mut self, character: char, quoted: bool) {
        self.push_str(character.encode_utf8(&mut [0; 4]), quoted);
    }

    fn push_str(&mut self, text: &str, quoted: bool) {
        if quoted != self.literal_is_quoted {
            self.flush();
            self.literal_is_quoted = quoted;
        }
        self.literal.push_str(text);
        if text.is_empty() && self.literal.is_empty() {
            // Remembers that there was a pair of quotes.
            self.part(Part::Literal {
                text: String::new(),
                quoted: true,
            });
        }
    }

    fn flush(&mut self) {
        if self.literal.is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.literal);
        let quoted = self.literal_is_quoted;
        self.part(Part::Literal { text, quoted });
    }

    fn part(&mut self, part: Part) {
        let empty = |p: &Part| matches!(p, Part::Literal { text, .. } if text.is_empty());
        if empty(&part) && self.word.parts.last().is_some_and(empty) {
            return;
        }
        self.word.parts.push(part);
    }

    /// Counts a quote that stands between two letters.
    fn quote_seen(&mut self, quote: char) {
        let before = self.text[..self.position].chars().next_back();
        if !before.is_some_and(|c| c.is_ascii_alphabetic()) {
            return;
        }
        let after = self.rest().trim_start_matches([quote, '\\']).chars().next();
        if after.is_some_and(|c| c.is_ascii_alphabetic()) {
            self.word.idle_quotes += 1;
        }
    }

    fn backslash(&mut self, in_double: bool) {
        let mut chars = self.rest().chars();
        chars.next();
        let Some(next) = chars.next() else {
            self.position += 1;
            self.push('\\', in_double);
            return;
        };
        if next == '\n' {
            self.position += 2;
            return;
        }
        if in_double && !matches!(next, '$' | '`' | '"' | '\\') {
            self.position += 1;
            self.push('\\', true);
            return;
        }
        if next.is_ascii_alphabetic() {
            self.word.idle_quotes += 1;
        }
        self.position += 1 + next.len_utf8();
        self.push(next, true);
    }

    fn single_quotes(&mut self) {
        self.quote_seen('\'');
        self.position += 1;
        let rest = self.rest();
        let len = rest.find('\'').unwrap_or(rest.len());
        let body = rest[..len].to_owned();
        self.position = (self.position + len + 1).min(self.end);
        self.push_str(&body, true);
    }

    fn dollar(&mut self, quoted: bool) {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        match bytes.get(1) {
            Some(b'\'') if !quoted => self.ansi_quotes(),
            // The locale's translation of a text is the text.
            Some(b'"') if !quoted => self.position += 1,
            Some(b'{') => self.braces(quoted),
            Some(b'(') if bytes.get(2) == Some(&b'(') => self.arithmetic(),
            Some(first) if first.is_ascii_alphabetic() || *first == b'_' => {
                let len = rest[1..]
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                    .unwrap_or(rest.len() - 1);
                let name = rest[1..=len].to_owned();
                self.position += 1 + len;
                self.variable(name, VariablePrefix::None, String::new(), quoted);
            }
            Some(special @ (b'0'..=b'9' | b'@' | b'*' | b'#' | b'?' | b'-' | b'$' | b'!')) => {
                let name = char::from(*special).to_string();
                self.position += 2;
                self.variable(name, VariablePrefix::None, String::new(), quoted);
            }
            _ => {
                self.position += 1;
                self.push('$', quoted);
            }
        }
    }

    fn variable(&mut self, name: String, prefix: VariablePrefix, operation: String, quoted: bool) {
        self.flush();
        self.part(Part::Variable {
            name,
            prefix,
            operation,
            quoted,
        });
    }

    fn ansi_quotes(&mut self) {
        self.position += 2;
        let rest = self.rest();
        let mut len = rest.len();
        let mut escaped = false;
        for (idx, byte) in rest.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'\'' => {
                    len = idx;
                    break;
                }
                _ => {}
            }
        }
        let body = &rest[..len];
        let (bytes, n_escapes) = unescape(body, Escapes::Ansi);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.word.escaped_chars += n_escapes;
        self.position = (self.position + len + 1).min(self.end);
        self.push_str(&text, true);
    }

    /// `${name…}`, up to its closing brace.
    fn braces(&mut self, quoted: bool) {
        let rest = self.rest();
        let mut depth = 0_usize;
        let mut escaped = false;
        let mut len = rest.len();
        for (idx, byte) in rest.bytes().enumerate().skip(1) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'{' => depth += 1,
                b'}' => {
                    depth -= 1;
                    if depth == 0 {
                        len = idx;
                        break;
                    }
                }
                _ => {}
            }
        }
        let inner = rest.get(2..len).unwrap_or("").to_owned();
        self.position = (self.position + len + 1).min(self.end);
        let (prefix, inner) = match inner.as_bytes() {
            [b'#', _, ..] => (VariablePrefix::Length, &inner[1..]),
            [b'!', _, ..] => (VariablePrefix::Indirect, &inner[1..]),
            _ => (VariablePrefix::None, inner.as_str()),
        };
        let name_len = inner
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(inner.len());
        // A special parameter is one character.
        let name_len = if name_len == 0 {
            inner.chars().next().map_or(0, char::len_utf8)
        } else {
            name_len
        };
        let (name, operation) = inner.split_at(name_len);
        self.variable(name.to_owned(), prefix, operation.to_owned(), quoted);
    }

    fn arithmetic(&mut self) {
        let rest = self.rest();
        let len = rest.find("))").map_or(rest.len(), |idx| idx + 2);
        let text = rest[..len].to_owned();
        self.position += len;
        self.flush();
        self.part(Part::Arithmetic { text });
    }

    /// Takes a substitution that begins here.
    fn take_substitution(&mut self, quoted: bool) -> bool {
        let found = self
            .places
            .iter()
            .find(|(place, _)| place.start == self.position);
        let Some((place, substitution)) = found else {
            return false;
        };
        self.position = place.end.clamp(self.position + 1, self.end);
        while !self.text.is_char_boundary(self.position) {
            self.position += 1;
        }
        self.flush();
        self.part(Part::Output {
            substitution: *substitution,
            quoted,
        });
        true
    }
}
