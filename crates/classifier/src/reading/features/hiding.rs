//! Ways to hide: assembled words, idle quotes, characters nobody sees, randomness.

use super::{Act, Features, counted, flag};
use crate::reading::{Language, is_shell, unicode};
use crate::render::script_index;

/// Letters of a word that are looked at for randomness.
const MAX_WORD_BYTES: usize = 4096;

pub(super) fn mark(act: &Act<'_>, out: &mut Features) {
    let command = act.command;
    out.assembled = flag(command.assembled);
    out.idle_quotes = counted(command.idle_quotes as usize, 6);
    let inline = script_index(&command.words).is_some();
    out.inline_program = flag(
        inline
            && !is_shell(act.name)
            && !matches!(
                Language::of_interpreter(act.name),
                None | Some(Language::Shell)
            ),
    );
}

/// What the characters of a text show.
pub(crate) fn text_features(text: &str) -> Features {
    let marks = unicode::marks_in(text);
    Features {
        hidden_characters: flag(marks.suspicious()),
        random_word: random_word(text),
        ..Features::default()
    }
}

/// How long the longest run of letters and digits is that looks random, as a
/// share of 64: many different characters, cases and digits mixed.
fn random_word(text: &str) -> f32 {
    let mut longest = 0;
    for run in text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '='))) {
        if run.len() < 20 || run.len() <= longest {
            continue;
        }
        let run = run.get(..MAX_WORD_BYTES).unwrap_or(run);
        let is_hex = run.bytes().all(|b| b.is_ascii_hexdigit());
        // Digests are hex of fixed sizes; they are everywhere.
        if is_hex && matches!(run.len(), 32 | 40 | 56 | 64 | 96 | 128) {
            continue;
        }
        if entropy(run.as_bytes()) > 3.6 && changes_kind(run) {
            longest = run.len();
        }
    }
    counted(longest, 64)
}

/// Shannon entropy in bits a byte.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let total = f64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX).max(1));
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / total;
            -share * share.log2()
        })
        .sum()
}

/// Whether lower case, upper case and digits alternate more than names do.
fn changes_kind(run: &str) -> bool {
    let kind = |b: u8| match b {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        _ => 2,
    };
    let changes = run
        .as_bytes()
        .windows(2)
        .filter(|w| kind(w[0]) != kind(w[1]))
        .count();
    changes * 4 >= run.len()
}
