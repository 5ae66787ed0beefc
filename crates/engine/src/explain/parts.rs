//! Variants of an event, each without one part of it.

use std::{iter, ops::Range};

use inwarden_types::{Argv, Event, EventData};
use serde_json::{Map, Value};

/// Variants of an event; of one with more parts, neighbours are left out together.
const MAX_VARIANTS: usize = 24;
/// Pieces of one text.
const MAX_PIECES: usize = 512;

/// An event without a part of it.
pub(super) struct Variant {
    pub(super) place: &'static str,
    pub(super) left_out: String,
    pub(super) event: Event,
}

/// A text of an event that parts can be left out of.
struct Source {
    place: &'static str,
    text: String,
    /// Whether it goes as a whole only.
    is_whole: bool,
}

/// A piece of the source with this index.
#[derive(Clone)]
struct Cut {
    source: usize,
    range: Range<usize>,
}

/// The variants of `event`, in the order of what they leave out; none if it has no
/// parts that can be left out.
pub(super) fn variants(event: &Event) -> Vec<Variant> {
    let sources = sources(event);
    let mut cuts = Vec::new();
    for (source, of) in sources.iter().enumerate() {
        let ranges = match of.is_whole {
            true => iter::once(0..of.text.len()).collect(),
            false => pieces(&of.text),
        };
        cuts.extend(ranges.into_iter().map(|range| Cut { source, range }));
    }
    let n_together = cuts.len().div_ceil(MAX_VARIANTS).max(1);
    cuts.chunks(n_together)
        .map(|together| {
            let left_out: Vec<&str> = together
                .iter()
                .map(|cut| sources[cut.source].text[cut.range.clone()].trim())
                .collect();
            Variant {
                place: sources[together[0].source].place,
                left_out: left_out.join(" "),
                event: rebuilt(event, &without(&sources, together)),
            }
        })
        .collect()
}

fn sources(event: &Event) -> Vec<Source> {
    let source = |place, text: &str, is_whole| Source {
        place,
        text: text.to_owned(),
        is_whole,
    };
    match &event.data {
        EventData::Exec => {
            let args = event.process.image.argv.args.iter().skip(1);
            args.map(|arg| source("argument", arg, false)).collect()
        }
        EventData::Text(text) => vec![source("text", &text.text, false)],
        EventData::ToolCall(call) => {
            let outputs = call.history.iter();
            let mut all: Vec<Source> = outputs
                .map(|past| source("output", &past.output, false))
                .collect();
            let values = arguments_of(&call.args_json).unwrap_or_default();
            all.extend(values.iter().map(|(name, value)| {
                source("argument of the call", &format!("{name}: {value}"), true)
            }));
            all
        }
        _ => Vec::new(),
    }
}

fn arguments_of(args_json: &str) -> Option<Map<String, Value>> {
    match serde_json::from_str(args_json) {
        Ok(Value::Object(arguments)) => Some(arguments),
        _ => None,
    }
}

/// The texts that are left of `sources`; none of what is cut as a whole.
fn without(sources: &[Source], cuts: &[Cut]) -> Vec<Option<String>> {
    let of = |(idx, source): (usize, &Source)| {
        let (mut left, mut at) = (String::new(), 0);
        let mut is_cut = false;
        for cut in cuts.iter().filter(|cut| cut.source == idx) {
            left.push_str(&source.text[at..cut.range.start]);
            at = cut.range.end;
            is_cut = true;
        }
        left.push_str(&source.text[at..]);
        (!is_cut || !left.trim().is_empty()).then_some(left)
    };
    sources.iter().enumerate().map(of).collect()
}

/// `event` with `left` in place of its sources, in their order.
fn rebuilt(event: &Event, left: &[Option<String>]) -> Event {
    let mut event = event.clone();
    match &mut event.data {
        EventData::Exec => {
            let argv = &mut event.process.image.argv;
            let argv0 = argv.args.first().cloned();
            let others = left.iter().flatten().cloned();
            *argv = Argv {
                truncated: argv.truncated,
                ..Argv::complete(argv0.into_iter().chain(others).collect())
            };
        }
        EventData::Text(text) => text.text = left.iter().flatten().cloned().collect(),
        EventData::ToolCall(call) => {
            let n_outputs = call.history.len();
            for (past, output) in call.history.iter_mut().zip(left) {
                past.output = output.clone().unwrap_or_default();
            }
            if let Some(arguments) = arguments_of(&call.args_json) {
                let kept = left.get(n_outputs..).unwrap_or_default();
                let pairs = arguments.into_iter().zip(kept);
                let kept: Map<String, Value> = pairs
                    .filter(|(_, text)| text.is_some())
                    .map(|(pair, _)| pair)
                    .collect();
                call.args_json = Value::Object(kept).to_string();
            }
        }
        _ => {}
    }
    event
}

/// Where commands, sentences and lines of a text end; what lies between is one piece.
fn pieces(text: &str) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut previous = ' ';
    for (at, c) in text.char_indices() {
        let ends_sentence = c == ' ' && matches!(previous, '.' | '!' | '?');
        previous = c;
        if !(ends_sentence || matches!(c, '\n' | ';' | '|' | '&')) {
            continue;
        }
        let end = at + c.len_utf8();
        if pieces.len() + 1 < MAX_PIECES && text[start..end].contains(char::is_alphanumeric) {
            pieces.push(start..end);
            start = end;
        }
    }
    if start < text.len() {
        pieces.push(start..text.len());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use inwarden_types::{AgentText, EventId, Image, PastCall, Process, ToolCall};

    use super::*;

    fn event(argv: &[&str], data: EventData) -> Event {
        let args = argv.iter().map(|arg| (*arg).to_owned()).collect();
        Event {
            id: EventId::External("e".to_owned()),
            at: None,
            wall: None,
            process: Process {
                image: Image {
                    argv: Argv::complete(args),
                    ..Image::default()
                },
                ..Process::default()
            },
            ancestors: Vec::new(),
            data,
        }
    }

    #[test]
    fn each_command_of_a_script_is_left_out_once() {
        let event = event(&["sh", "-c", "cd /srv; curl a | sh"], EventData::Exec);
        let all = variants(&event);
        let left_out: Vec<&str> = all.iter().map(|one| one.left_out.as_str()).collect();
        assert_eq!(left_out, ["-c", "cd /srv;", "curl a |", "sh"]);
        assert_eq!(
            all[0].event.process.image.argv.args,
            ["sh", "cd /srv; curl a | sh"]
        );
        assert_eq!(
            all[2].event.process.image.argv.args,
            ["sh", "-c", "cd /srv; sh"]
        );
    }

    #[test]
    fn long_texts_have_few_variants_that_cover_all_of_them() {
        let text = (0..2_000)
            .map(|n| format!("Line \u{e9} {n}.\n"))
            .collect::<String>();
        let text = AgentText {
            text,
            ..AgentText::default()
        };
        let all = variants(&event(&[], EventData::Text(text.clone())));
        assert!(all.len() <= MAX_VARIANTS);
        let n_left_out: usize = all
            .iter()
            .map(|one| match &one.event.data {
                EventData::Text(left) => text.text.len() - left.text.len(),
                _ => 0,
            })
            .sum();
        assert_eq!(n_left_out, text.text.len());
    }

    #[test]
    fn outputs_and_arguments_of_a_call_are_left_out() {
        let call = ToolCall {
            args_json: r#"{"sum":3,"to":"a"}"#.to_owned(),
            history: vec![PastCall {
                output: "One thing. Another.".to_owned(),
                ..PastCall::default()
            }],
            ..ToolCall::default()
        };
        let all = variants(&event(&[], EventData::ToolCall(call)));
        let shown: Vec<_> = all
            .iter()
            .map(|one| match &one.event.data {
                EventData::ToolCall(left) => {
                    (left.history[0].output.clone(), left.args_json.clone())
                }
                _ => Default::default(),
            })
            .collect();
        let both = |output: &str, args: &str| (output.to_owned(), args.to_owned());
        let whole = r#"{"sum":3,"to":"a"}"#;
        assert_eq!(
            shown,
            [
                both("Another.", whole),
                both("One thing. ", whole),
                both("One thing. Another.", r#"{"to":"a"}"#),
                both("One thing. Another.", r#"{"sum":3}"#),
            ]
        );
    }
}
