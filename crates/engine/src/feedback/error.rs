//! Why a correction was not taken.

use std::{io, path::PathBuf, time::Duration};

use inwarden_types::{EventKind, Label};

/// Errors of feedback. They never repeat a text of a case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedbackError {
    // The caller must act.
    /// No case of this name was judged, as far as the audit log tells.
    #[error(
        "no case {case:?} in the audit log {path}{}",
        match unread { 0 => String::new(), lines => format!(" ({lines} lines of it cannot be read)") }
    )]
    UnknownCase {
        /// The log.
        path: PathBuf,
        /// The name that was asked for.
        case: String,
        /// Lines that are too long, or name the case and are no record.
        unread: u64,
    },
    /// There is no correction of this name.
    #[error("no feedback {id:?}; `inwarden feedback --list` names what there is")]
    UnknownFeedback {
        /// The name that was asked for.
        id: String,
    },
    /// There is no store of one's own to keep it in.
    #[error("feedback needs a store of your own: name its directory (--memory DIR)")]
    NoStore,
    /// A case is either benign or malicious.
    #[error("feedback says benign or malicious, not {}", label.name())]
    Label {
        /// What was said.
        label: Label,
    },
    /// Only program starts, tool calls and texts are judged.
    #[error("there is no feedback about a case of kind {}", kind.name())]
    Kind {
        /// What the case is.
        kind: EventKind,
    },
    /// The note is too long.
    #[error("the note has {bytes} bytes; allowed are {max}")]
    Note {
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        max: usize,
    },

    // The operator must act.
    /// The audit log cannot be read.
    #[error("audit log {path} cannot be read")]
    AuditRead {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process holds the rows.
    #[error("the rows in {path} are held by another process for {waited:?}")]
    Busy {
        /// The directory.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The rows cannot be read or written.
    #[error("cannot {action} {path}")]
    Rows {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There are too many rows.
    #[error("{path} would have {bytes} bytes; allowed are {max}")]
    RowsFull {
        /// The file.
        path: PathBuf,
        /// How large it is, or would be.
        bytes: u64,
        /// The most allowed.
        max: u64,
    },

    // The data.
    /// A file of rows does not hold what was written.
    #[error("{path} line {line} is no row of feedback: {reason}")]
    RowDamaged {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong, without any text of it.
        reason: String,
    },
}
