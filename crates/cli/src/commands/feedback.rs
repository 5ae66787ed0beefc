//! `inwarden feedback`: what a judged case really was; listing and undo.

use inwarden::{EngineError, Feedback, FeedbackEntry, FeedbackError, JudgedCase, types::Label};

use crate::{Ended, Misuse, arguments::FeedbackOptions, config::Config, console};

pub(crate) fn run(config: &Config, options: &FeedbackOptions) -> anyhow::Result<Ended> {
    let open = || config.open_feedback().map_err(whose_fault);
    if options.list {
        for entry in open()?.list()? {
            console::line(&entry_line(&entry))?;
        }
        return Ok(Ended::Done);
    }
    if let Some(id) = &options.undo {
        let entry = open()?.undo(id).map_err(whose_fault)?;
        console::line(&format!("undone: {}", entry_line(&entry)))?;
        return Ok(Ended::Done);
    }
    let log = options
        .audit
        .clone()
        .unwrap_or_else(|| config.state_dir.join("audit.jsonl"));
    let case = options.case.as_deref().unwrap_or_default();
    // Found before the store is opened, which takes longer.
    let judged = JudgedCase::in_audit_log(&log, case)?;
    let label = match options.malicious {
        true => Label::Malicious,
        false => Label::Benign,
    };
    let feedback = open()?;
    let entry = feedback
        .give(&judged, label, options.note.as_deref())
        .map_err(whose_fault)?;
    console::line(&entry_line(&entry))?;
    console::note(&format!(
        "inwarden: a precedent from now on; rows to learn from: {}",
        Feedback::rows_dir(&feedback).display()
    ));
    Ok(Ended::Done)
}

/// One correction on one line: id, label, case, what it was, note.
fn entry_line(entry: &FeedbackEntry) -> String {
    let shown = |text: &str| console::command(&[text.to_owned()]);
    let note = entry.note.as_deref();
    let note = note.map(|note| format!("  # {}", shown(note)));
    format!(
        "{}  {}  {}  {}{}",
        entry.id,
        entry.label.name(),
        shown(&entry.case.0),
        shown(&entry.summary),
        note.unwrap_or_default()
    )
}

/// What the caller must change is misuse.
fn whose_fault(error: EngineError) -> anyhow::Error {
    let is_misuse = matches!(
        error,
        EngineError::Feedback(FeedbackError::NoStore | FeedbackError::Note { .. })
    );
    let error = anyhow::Error::from(error);
    match is_misuse {
        true => error.context(Misuse),
        false => error,
    }
}
