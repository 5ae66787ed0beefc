//! What people read: errors, progress, one line per case.
//!
//! Command lines are shown redacted and with control characters escaped, since
//! whoever is watched chooses them.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::Duration,
};

use anyhow::Context;
use inwarden::{
    CaseReport, redact_argv,
    types::{ActionOutcome, Event, EventData, Verdict, WallTime},
};

/// The longest command line shown, in characters.
const SHOWN_COMMAND_CHARS: usize = 100;

/// The longest chain of ancestors shown.
const SHOWN_ANCESTORS: usize = 3;

/// Writes one line to standard output.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("standard output is closed")
}

/// Writes one line to standard error. If even that is closed, nobody listens.
pub(crate) fn note(text: &str) {
    let _closed = writeln!(io::stderr(), "{text}");
}

/// Writes an error with its causes to standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    note(&format!("inwarden: {error:#}"));
}

/// One case on one line: time, process and ancestors, verdict, what settled it,
/// decision, action, stage times.
pub(crate) fn case_line(report: &CaseReport) -> String {
    let event = report.case.last();
    let verdict = &report.verdict;
    let mut line = format!(
        "{}  {}  |  {} {:.3}",
        event.wall.map_or_else(|| "--:--:--.---".to_owned(), clock),
        subject(event),
        verdict.label.name(),
        verdict.score.probability(),
    );
    let likely = verdict.score.probability() >= 0.5;
    if let (Some(technique), true) = (&verdict.technique, likely) {
        let _infallible = write!(line, " {technique}");
    }
    let _infallible = write!(line, " by {}", verdict.settled_by.name());
    if let Some(source) = verdict.settled_by.source_id() {
        let _infallible = write!(line, " {}", source_name(verdict, source));
    }
    let policies: Vec<&str> = report
        .decision
        .policies
        .iter()
        .map(|id| id.0.as_str())
        .collect();
    let _infallible = write!(
        line,
        "  |  {} [{}] -> {}",
        report.decision.action.name(),
        match policies.is_empty() {
            true => report.decision.reason.name().to_owned(),
            false => policies.join(","),
        },
        outcome(report.action.outcome),
    );
    line.push_str("  |");
    for (stage, elapsed) in report.stages.as_slice() {
        let _infallible = write!(line, " {} {}", stage.name(), millis(*elapsed));
    }
    line
}

/// A command line, redacted, on one line, cut at a fixed length.
pub(crate) fn command(argv: &[String]) -> String {
    let words: Vec<String> = redact_argv(argv)
        .into_iter()
        .map(|word| match word.contains(char::is_whitespace) {
            true => format!("'{word}'"),
            false => word,
        })
        .collect();
    let text = words.join(" ");
    let mut shown: String = text
        .chars()
        .take(SHOWN_COMMAND_CHARS)
        .map(|c| if c.is_control() { '␤' } else { c })
        .collect();
    if text.chars().nth(SHOWN_COMMAND_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// A duration in milliseconds, such as `0.2ms`.
pub(crate) fn millis(elapsed: Duration) -> String {
    format!("{:.1}ms", elapsed.as_secs_f64() * 1e3)
}

/// What the source calls itself, if the evidence says so, else its id.
fn source_name<'a>(verdict: &'a Verdict, source: &'a str) -> &'a str {
    let mut evidence = verdict.evidence.iter();
    evidence
        .find(|evidence| evidence.provenance.source_id == source)
        .map_or(source, |evidence| evidence.summary.as_str())
}

fn subject(event: &Event) -> String {
    if let EventData::ToolCall(call) = &event.data {
        return command(&[call.agent.clone(), call.tool.clone()]);
    }
    if let EventData::Text(text) = &event.data {
        let giver = text.tool.clone();
        let giver = giver.unwrap_or_else(|| text.given_by.name().to_owned());
        return command(&[text.agent.clone(), giver]);
    }
    let mut text = match &event.data {
        EventData::File(access) => {
            let op = access.op.name().to_owned();
            command(&[event.process.image.exe.clone(), op, access.path.clone()])
        }
        EventData::Connect(connection) => {
            let peer = connection.peer.to_string();
            command(&[event.process.image.exe.clone(), "connect".to_owned(), peer])
        }
        EventData::Dns(query) => {
            let name = query.name.clone();
            command(&[event.process.image.exe.clone(), "dns".to_owned(), name])
        }
        _ => command(&event.process.image.argv.args),
    };
    for ancestor in event.ancestors.iter().take(SHOWN_ANCESTORS) {
        let comm = command(std::slice::from_ref(&ancestor.image.comm));
        let _infallible = write!(text, " < {comm}");
    }
    if event.ancestors.len() > SHOWN_ANCESTORS {
        text.push_str(" < …");
    }
    text
}

fn outcome(outcome: ActionOutcome) -> String {
    match outcome {
        ActionOutcome::Refused(reason) => format!("refused ({})", reason.name()),
        other => other.name().to_owned(),
    }
}

/// The time of day, UTC.
fn clock(time: WallTime) -> String {
    let millis = time.0 / 1_000_000;
    let seconds = millis / 1000;
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        millis % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_one_line_without_control_characters() {
        let argv = ["sh", "-c", "echo a\necho \u{1b}[31mb"].map(str::to_owned);
        let shown = command(&argv);
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        assert!(shown.starts_with("sh -c 'echo a"));
    }

    #[test]
    fn a_long_command_line_is_cut() {
        let shown = command(&["x".repeat(500)]);
        assert_eq!(shown.chars().count(), SHOWN_COMMAND_CHARS + 1);
    }

    #[test]
    fn the_clock_shows_utc() {
        assert_eq!(
            clock(WallTime(1_000_000_000 * 3_661 + 5_000_000)),
            "01:01:01.005"
        );
    }
}
