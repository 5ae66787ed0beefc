//! The security analyst that lives inside the process.
//!
//! Two doors into one way of judging:
//!
//! * [`Guard`], inline: an agent asks before it acts and waits for the answer;
//! * [`Warden`], background: watches the kernel, judges, responds, and accounts
//!   for it in an audit log. [`Warden::replay`] does the same on a recording.
//!
//! Both stand on an [`Analyst`], which holds the model, the rules, the memory
//! and the policies, and is shared by reference.
//!
//! Features: none yet. Logs (`tracing`) contain counts, names and paths of our
//! own files; never a command line, an argument or a prompt. The audit log does
//! contain command lines, redacted by [`redact_argv`].

mod analyst;
mod audit;
mod casebook;
mod counters;
mod error;
mod exits;
mod explain;
mod feedback;
mod forks;
mod guard;
mod judge_prefix;
mod judge_queue;
mod knowledge;
mod learn;
mod pipeline;
mod record;
mod redact;
mod replay;
mod store;
#[cfg(test)]
mod test_embedder;
mod texts;
mod warden;

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Event formats: recordings and event JSON.
pub mod feeds {
    pub use inwarden_feeds::*;
}

/// NVIDIA cards of this host, asked without linking CUDA.
pub mod gpu {
    pub use inwarden_inference::{ComputeCapability, Gpu, GpuError, Telemetry, gpus};
}

/// Model files: the manifest, and the cache they are pulled into.
pub mod models {
    pub use inwarden_models::*;
}

/// What the kernel's side needs and what this host offers.
pub mod sensor {
    pub use inwarden_sensor::{
        Capabilities, Check, CheckState, SensorConfig, SensorError, probe, read_boot_id,
    };
}

/// The shared nouns.
pub mod types {
    pub use inwarden_types::*;
}

pub use analyst::{Analyst, AnalystConfig, DEFAULT_MODEL, HeadChoice, MemoryPlace, RuleChoice};
pub use audit::AUDIT_SCHEMA;
pub use counters::CounterSnapshot;
pub use error::EngineError;
pub use explain::{DecidingPart, Explanation};
pub use feedback::{Feedback, FeedbackEntry, FeedbackError, JudgedCase};
pub use guard::{FailureMode, Guard, GuardConfig};
pub use inwarden_classifier::{
    Extraction, FamilyCount, LearnedError, Question, ReportCard, SetCard,
};
pub use inwarden_inference::{LoadOptions, ModelDevice, SchedulerConfig};
pub use inwarden_memory::{ServerKey as MemoryServerKey, ServerOptions as MemoryServer};
pub use inwarden_policy::PolicySource;
pub use knowledge::{ImportError, Imported, Knowledge, KnowledgeKind, KnowledgeNote};
pub use learn::{
    CorpusChoice, HeadSource, LearnConfig, LearnOutcome, LearnStep, LearnedUse, Mined,
    RecordedWork, WorkRecorder, head_sources, learn,
};
pub use pipeline::CaseReport;
pub use record::verdict_json;
pub use redact::{redact_argv, redact_json, redact_text};
pub use replay::{Replay, ReplayConfig};
pub use store::EMBEDDING_MODEL;
pub use warden::{Warden, WardenConfig, WardenLimits, WardenSummary};
