//! What is known of a text or tool call besides the judge's answer, and the texts
//! that the judge is asked about.

use super::{
    provenance::{CallProvenance, highest},
    spans::{INSTRUCTION, spans_of},
};
use crate::judge::{CallText, render_text};

/// Bytes of a window over a long text, and of what two neighbours share.
const WINDOW_BYTES: usize = 800;
const OVERLAP_BYTES: usize = 200;
pub(super) const MAX_WINDOWS: usize = 24;

/// What is known of a text or call besides the judge's answer, `(name, value)` in
/// a fixed order for each question; values are about `-1..=2` and higher is more
/// suspicious.
pub(crate) type Columns = Vec<(&'static str, f64)>;

/// The columns of a text.
#[must_use]
pub(crate) fn text_columns(text: &str) -> Columns {
    let spans = spans_of(text);
    let instructions = spans.iter().filter(|span| span.score >= INSTRUCTION);
    let hidden = text.chars().filter(|c| is_hidden(*c)).count();
    let coded = text.split_whitespace().filter(|word| is_coded(word));
    let at_most = |count: usize, most: u8| (count.min(usize::from(most)) as f64) / f64::from(most);
    vec![
        (
            "highest_span",
            (highest(spans.iter().map(|span| span.score)) / 4.0).min(2.0),
        ),
        ("instruction_spans", at_most(instructions.count(), 4)),
        ("hidden_characters", at_most(hidden, 8)),
        ("coded_words", at_most(coded.count(), 2)),
    ]
}

/// The columns of a tool call.
#[must_use]
pub(crate) fn call_columns(call: &CallText) -> Columns {
    call_columns_or_cut(call).0
}

/// As [`call_columns`], and whether a part of the call was not read.
pub(super) fn call_columns_or_cut(call: &CallText) -> (Columns, bool) {
    let found = CallProvenance::of(call);
    let of_score = |score: f64| (score / 4.0).min(2.0);
    let columns = vec![
        ("not_from_task", found.not_from_task),
        ("only_instructed", found.only_instructed),
        ("from_nowhere", found.from_nowhere),
        ("instructing_score", of_score(found.instructing_score)),
        ("highest_span", of_score(found.highest_score)),
        ("tool_instructed", found.tool_instructed),
        ("resisted", if found.is_resisted { -1.0 } else { 0.0 }),
    ];
    (columns, found.incomplete)
}

/// Characters that a reader does not see; joiners of scripts and emoji are not
/// among them.
fn is_hidden(c: char) -> bool {
    matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
        | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

fn is_coded(word: &str) -> bool {
    let of_base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/=_-".contains(&b);
    let has = |is: fn(&u8) -> bool| word.bytes().filter(is).count();
    word.len() >= 24
        && word.bytes().all(of_base64)
        && has(u8::is_ascii_uppercase) >= 3
        && has(u8::is_ascii_lowercase) >= 3
        && has(u8::is_ascii_digit) >= 1
}

/// The texts that the judge is asked about: the whole, and windows of a long text;
/// and whether the windows leave a part out.
pub(super) fn renderings(
    text: &str,
    user_task: Option<&str>,
    tool: Option<&str>,
) -> (Vec<String>, bool) {
    let mut all = vec![render_text(text, user_task, tool)];
    if text.len() <= WINDOW_BYTES {
        return (all, false);
    }
    let floor = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let step = WINDOW_BYTES - OVERLAP_BYTES;
    let n_windows = text.len().div_ceil(step);
    // Of a very long text, windows evenly spread.
    let stride = n_windows.div_ceil(MAX_WINDOWS);
    for window in (0..n_windows).step_by(stride) {
        let start = floor(window * step);
        let end = floor((window * step + WINDOW_BYTES).min(text.len()));
        all.push(render_text(&text[start..end], user_task, tool));
    }
    (all, stride > 1)
}

/// What a column says, for people.
pub(super) fn summary(column: &str) -> &'static str {
    match column {
        "head" => "the trained head's reading of the text",
        "judge" => "the language model's answer",
        "terms" => "the words of the text",
        "highest_span" => "a sentence that reads like an order to an assistant",
        "instruction_spans" => "sentences that read like orders to an assistant",
        "hidden_characters" => "characters that a reader does not see",
        "coded_words" => "words that look encoded",
        "not_from_task" => "values that the user did not name",
        "only_instructed" => "values that only an order in an output names",
        "from_nowhere" => "values that stand nowhere",
        "instructing_score" => "an order in an output names a value of the call",
        "tool_instructed" => "an order in an output names the tool",
        "resisted" => "the call has nothing of what an order in an output names",
        _ => "another signal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_a_text() {
        let text = "a\u{e9}".repeat(1500);
        let (all, is_cut) = renderings(&text, None, None);
        let windows: usize = all[1..].iter().map(|window| window.len() - 6).sum();
        assert!(windows >= text.len() && !is_cut);
        let long = "word ".repeat(200_000);
        let (all, is_cut) = renderings(&long, None, None);
        assert!(all.len() <= MAX_WINDOWS + 1 && is_cut);
    }
}
