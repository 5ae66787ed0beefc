//! The shared nouns of Inwarden.
//!
//! An [`Event`] is what happened, a [`Verdict`] what the classifier believes
//! about the [`Case`] it belongs to, a [`Decision`] what policy rules, and an
//! [`ActionReport`] what was then carried out. The four are never merged.
//!
//! This crate holds values only: no I/O, no async, no serialisation. File and
//! wire formats are versioned structs of their own at the edges
//! (`inwarden-feeds`, the bindings).
//!
//! Values here can hold command lines, which can hold secrets. The `Debug`
//! output of [`Argv`], [`ToolCall`], [`PastCall`], [`AgentText`], [`FileAccess`] and
//! [`DnsQuery`] is therefore redacted: it shows lengths, never content.

mod action;
mod activity;
mod agent_text;
mod case;
mod decision;
mod event;
mod ids;
mod process;
mod provenance;
mod scope;
mod score;
mod time;
mod tool_call;
mod verdict;

pub use action::{ActionOutcome, ActionReport, ProcessOutcome, RefusedReason};
pub use activity::{Connection, DnsQuery, FileAccess, FileOp, Peer, Protocol};
pub use agent_text::{AgentText, TextGiver};
pub use case::{Case, EmptyCase};
pub use decision::{Action, Decision, DecisionReason, Mode, PolicyId};
pub use event::{Event, EventData, EventKind, ExitStatus, Losses};
pub use ids::{
    BootId, CaseId, CgroupId, EventId, Gid, NamespaceInode, ParseBootIdError, ProcessKey, Tgid,
    Tid, Uid,
};
pub use process::{Ancestor, Argv, Image, Process};
pub use provenance::{Provenance, SourceKind};
pub use scope::Scope;
pub use score::{RawScore, Score, ScoreOutOfRange};
pub use time::{BootTime, WallTime};
pub use tool_call::{PastCall, ToolCall};
pub use verdict::{
    Evidence, Label, SettledBy, Stage, StageTimes, Technique, UndeterminedReason, Verdict,
};
