//! Normalises text and splits it into the words that are encoded one by one.

use std::borrow::Cow;

use regex::Regex;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// `tokenizer.ggml.pre` = `qwen2`, and the pattern in `tokenizer.json`.
pub(super) const QWEN2_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The same without the one construct that an automaton cannot have.
const WITHOUT_LOOK_AHEAD: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";

/// Unicode's composed form (NFC) of `text`.
pub(super) fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.nfc().collect())
}

/// Splits text where [`QWEN2_WORDS`] does, in time linear in its length.
pub(super) struct Words(Regex);

impl Words {
    pub(super) fn new() -> Self {
        Self(Regex::new(WITHOUT_LOOK_AHEAD).expect("a constant, compiled by every test"))
    }

    /// The words of `text`; together they are `text`.
    pub(super) fn split<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let found = self.0.find_at(text, start)?;
            let end = found.end() - given_back(&text[start..], found.end() - start);
            let word = &text[start..end];
            start = end;
            Some(word)
        })
    }
}

/// Bytes at the end of the word `text[..len]` that belong to the next one.
///
/// `\s+(?!\S)` leaves the last of several spaces before a word to that word. It
/// is the alternative that matched if the match ends in white space other than
/// a line break: no other can, and it takes no run with a line break in it.
fn given_back(text: &str, len: usize) -> usize {
    let (word, rest) = text.split_at(len);
    let last = word.chars().next_back();
    let spaces = last.filter(|last| last.is_whitespace() && !matches!(last, '\r' | '\n'));
    match spaces.map(char::len_utf8) {
        Some(last_len) if !rest.is_empty() && last_len < len => last_len,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let words: Vec<&str> = Words::new().split(text).collect();
        assert_eq!(words, expected, "{text:?}");
    }

    #[test]
    fn the_last_space_of_a_run_goes_to_the_word_behind_it() {
        check("a   b", &["a", "  ", " b"]);
        check("a   1", &["a", "  ", " ", "1"]);
        check("a\u{3000}\u{3000}.", &["a", "\u{3000}", "\u{3000}", "."]);
        check("a b ", &["a", " b", " "]);
        check("a   ", &["a", "   "]);
    }

    #[test]
    fn line_breaks_end_a_run_of_white_space() {
        check("a \n\n  b", &["a", " \n\n", " ", " b"]);
        check("x;\r\n\ty", &["x", ";\r\n", "\ty"]);
        check(" \n ", &[" \n", " "]);
    }

    #[test]
    fn the_two_patterns_differ_by_the_look_ahead_alone() {
        let without = QWEN2_WORDS.replacen(r"\s+(?!\S)|", "", 1);
        assert_eq!(without, WITHOUT_LOOK_AHEAD);
    }

    #[test]
    fn text_that_is_composed_is_not_copied() {
        assert!(matches!(composed("größer"), Cow::Borrowed(_)));
        assert_eq!(composed("e\u{301}"), "é");
    }
}
