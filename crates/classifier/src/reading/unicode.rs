//! Characters that a reader does not see or takes for others, and the text without
//! them.
//!
//! The table of look-alikes holds the Cyrillic, Greek and full-width letters that
//! are drawn like ASCII ones in common fonts (Unicode TR39, confusables, the
//! single-character subset).

/// What was found in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnicodeMarks {
    /// Characters of the tag block, which spell hidden ASCII.
    pub(crate) tags: usize,
    /// Zero-width and other invisible characters inside the text.
    pub(crate) invisible: usize,
    /// Characters that change the direction of what follows.
    pub(crate) direction: usize,
    /// Words in which ASCII letters and look-alikes of other scripts are mixed.
    pub(crate) mixed_words: usize,
}

impl UnicodeMarks {
    /// Whether anything was found that ordinary text has not.
    pub(crate) fn suspicious(&self) -> bool {
        self.tags > 0 || self.invisible > 0 || self.direction > 0 || self.mixed_words > 0
    }
}

/// What hides in `text`.
pub(crate) fn marks_in(text: &str) -> UnicodeMarks {
    let mut marks = UnicodeMarks::default();
    if text.is_ascii() {
        return marks;
    }
    let mut word = WordScripts::default();
    let mut before = None;
    for character in text.chars() {
        match character {
            '\u{e0000}'..='\u{e007f}' => marks.tags += 1,
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => marks.direction += 1,
            // Emoji are joined and varied by these.
            '\u{200d}' | '\u{fe00}'..='\u{fe0f}' if before.is_some_and(|c| !is_letter(c)) => {}
            // A byte-order mark at the start is none.
            '\u{feff}' if before.is_none() => {}
            _ if is_invisible(character) => marks.invisible += 1,
            _ if is_letter(character) => word.see(character),
            _ => marks.mixed_words += word.end(),
        }
        before = Some(character);
    }
    marks.mixed_words += word.end();
    marks
}

#[derive(Default)]
struct WordScripts {
    ascii: bool,
    look_alike: bool,
    other: bool,
}

impl WordScripts {
    fn see(&mut self, character: char) {
        if character.is_ascii_alphabetic() {
            self.ascii = true;
        } else if look_alike(character).is_some() {
            self.look_alike = true;
        } else {
            self.other = true;
        }
    }

    /// 1 if the word was ASCII with look-alikes in it.
    fn end(&mut self) -> usize {
        let word = std::mem::take(self);
        usize::from(word.ascii && word.look_alike && !word.other)
    }
}

fn is_letter(character: char) -> bool {
    character.is_alphabetic() || character == '_'
}

fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0080}'..='\u{e0fff}')
}

/// The ASCII letter that a character is drawn like.
fn look_alike(character: char) -> Option<char> {
    const CYRILLIC: &str = "аAеEоOрPсCуYхXіIјJѕSһhԁdԛqԝwАAВBЕEКKМMНHОOРPСCТTУYХXІIЈJЅS";
    const GREEK: &str = "οoαaνvρpιiκkυuτtΑAΒBΕEΖZΗHΙIΚKΜMΝNΟOΡPΤTΥYΧX";
    if let full_width @ '\u{ff01}'..='\u{ff5e}' = character {
        return char::from_u32(full_width as u32 - 0xfee0);
    }
    let pair = |table: &str| {
        let mut chars = table.chars();
        while let (Some(foreign), Some(ascii)) = (chars.next(), chars.next()) {
            if foreign == character {
                let lower = character.is_lowercase();
                return Some(if lower {
                    ascii.to_ascii_lowercase()
                } else {
                    ascii
                });
            }
        }
        None
    };
    match character {
        '\u{0400}'..='\u{052f}' => pair(CYRILLIC),
        '\u{0370}'..='\u{03ff}' => pair(GREEK),
        '\u{2044}' | '\u{2215}' => Some('/'),
        '\u{2010}'..='\u{2015}' | '\u{2212}' => Some('-'),
        '\u{2018}' | '\u{2019}' => Some('\''),
        '\u{201c}' | '\u{201d}' => Some('"'),
        _ => None,
    }
}

/// The text as it is meant to be read: tags spelled out, invisible characters
/// dropped, look-alikes in words of ASCII replaced. `None` if nothing changes.
pub(crate) fn normalised(text: &str) -> Option<String> {
    if text.is_ascii() || !marks_in(text).suspicious() {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        let mixed = word.bytes().any(|b| b.is_ascii_alphabetic()) && !word.is_ascii();
        if mixed {
            out.extend(word.chars().map(|c| look_alike(c).unwrap_or(c)));
        } else {
            out.push_str(word);
        }
        word.clear();
    };
    for character in text.chars() {
        match character {
            '\u{e0020}'..='\u{e007e}' => {
                flush(&mut word, &mut out);
                out.extend(char::from_u32(character as u32 - 0xe0000));
            }
            '\u{e0000}'..='\u{e001f}'
            | '\u{e007f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => {}
            _ if is_invisible(character) => {}
            _ if is_letter(character) => word.push(character),
            _ => {
                flush(&mut word, &mut out);
                out.push(character);
            }
        }
    }
    flush(&mut word, &mut out);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_found_and_resolved() {
        let tagged: String = "run id"
            .chars()
            .map(|c| char::from_u32(0xe0000 + c as u32).unwrap())
            .collect();
        for (text, expected) in [
            (format!("hello{tagged}"), "hellorun id"),
            ("ig\u{200b}nore".to_owned(), "ignore"),
            ("a\u{202e}b".to_owned(), "ab"),
            ("c\u{0443}rl".to_owned(), "cyrl"),
            ("p\u{0430}ssword".to_owned(), "password"),
        ] {
            assert!(marks_in(&text).suspicious(), "{text}");
            assert_eq!(normalised(&text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn ordinary_text_of_any_script_is_left_alone() {
        for text in [
            "Grüße, naïve café",
            "привет мир",
            "日本語のテキスト",
            "👩\u{200d}💻 ok ❤\u{fe0f}",
            "\u{feff}first",
            "Ελλάδα",
            "plain",
        ] {
            assert!(!marks_in(text).suspicious(), "{text}: {:?}", marks_in(text));
            assert_eq!(normalised(text), None);
        }
    }
}
