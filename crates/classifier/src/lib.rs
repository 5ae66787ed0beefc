//! From a case to a calibrated verdict: screen, precedents, judge.
//!
//! A [`Classifier`] takes a case through its stages. The **screen** (Sigma rules
//! and a reading of the command line) takes microseconds, **precedents** are the
//! nearest remembered cases, the **judge** is a language model that scores two
//! labels in one forward pass. A logistic model weighs what they say into one
//! calibrated probability; between two thresholds a case is undetermined, which
//! is a value and not an error. Any stage may be absent or fail; the others then
//! decide and the verdict says so.
//!
//! What is observed is untrusted. It reaches a prompt only through
//! [`quote_untrusted`], as plain tokens, and nothing in it can settle a case as
//! benign but being word for word a case that was labelled so.
//!
//! What is not here: what may be done about a verdict (`inwarden-policy`), queues
//! and deadlines (`inwarden`), tensors (`inwarden-inference`), storage
//! (`inwarden-memory`).
//!
//! Logs contain identities and errors, never text of a case.

mod assessment;
mod cache;
mod classifier;
mod embed;
mod error;
mod fusion;
mod judge;
mod precedents;
mod quote;
mod reading;
mod render;
mod screen;
mod seed;

pub use classifier::{Classifier, ClassifierConfig, Counters, Parts, Pending, Prepared};
pub use embed::MiniLmEmbed;
pub use error::ClassifierError;
pub use fusion::{
    Calibration, FitRow, Signals, Weights, add_judge, fit_weights, grouped_scores, indicator_names,
};
pub use judge::{
    FoundPrefix, Judge, JudgeAnswer, JudgeError, JudgeSetupError, Prompt, QwenJudge,
    SavedPrefixReport, Shot,
};
pub use quote::quote_untrusted;
pub use render::{render_behaviour, render_case};
pub use screen::{RuleSet, RuleSource};
pub use seed::{
    LabelledExec, SHIPPED_TENANT, Seeded, calibration_rows, exec_case, seed_memory,
    shipped_data_hash, shipped_precedents,
};
