//! What was carried out, and the proof of it.

use crate::{Action, EventId, ExitStatus, Image, ProcessKey};

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ActionOutcome {
    /// Nothing was to be done.
    Allowed,
    /// An alert was written.
    Alerted,
    /// A guarded call was refused.
    Denied,
    /// Every decided process ended, and the exit event of at least one carries
    /// signal 9.
    Killed,
    /// The decided process had ended before the action reached it.
    AlreadyExited,
    /// The action was not attempted, see [`RefusedReason`].
    Refused(RefusedReason),
    /// Signals were sent, but a decided process was still alive, or its exit
    /// event had not arrived, at the deadline.
    Survived,
}

impl ActionOutcome {
    /// The name used in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Alerted => "alerted",
            Self::Denied => "denied",
            Self::Killed => "killed",
            Self::AlreadyExited => "already_exited",
            Self::Refused(_) => "refused",
            Self::Survived => "survived",
        }
    }
}

/// Why an action was not attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusedReason {
    /// The process is outside the scope.
    OutsideScope,
    /// The event names no process key.
    NoProcessKey,
    /// It is our own process, one of our ancestors, or process 1.
    Protected,
    /// The kernel refused (`EPERM`).
    NotPermitted,
    /// This build or host cannot carry the action out.
    Unsupported,
    /// The audit log cannot be written, and nothing is done unrecorded.
    AuditFailed,
    /// The event was replayed from a recording: there is nothing to act on.
    Replay,
}

impl RefusedReason {
    /// The name used in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OutsideScope => "outside_scope",
            Self::NoProcessKey => "no_process_key",
            Self::Protected => "protected",
            Self::NotPermitted => "not_permitted",
            Self::Unsupported => "unsupported",
            Self::AuditFailed => "audit_failed",
            Self::Replay => "replay",
        }
    }
}

/// How the action ended for one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessOutcome {
    /// Which process.
    pub process: ProcessKey,
    /// How it ended for it.
    pub outcome: ActionOutcome,
    /// Its exit event, if one arrived.
    pub exit: Option<ExitStatus>,
    /// The program it ran when it died, if known.
    pub image_at_end: Option<Image>,
}

/// What was carried out for one decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionReport {
    /// What was attempted.
    pub action: Action,
    /// The event whose image was judged.
    pub judged: EventId,
    /// How it ended as a whole.
    pub outcome: ActionOutcome,
    /// How it ended for each process touched, the decided one first.
    pub processes: Vec<ProcessOutcome>,
}
