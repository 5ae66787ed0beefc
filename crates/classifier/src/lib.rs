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
mod cases;
mod classifier;
mod embed;
mod error;
mod fusion;
mod head;
mod judge;
mod learn;
mod precedents;
mod program;
mod quote;
mod reading;
mod render;
mod screen;
mod seed;
mod terms;
mod texts;
mod views;

pub use cases::{
    Acted, CaseCounters, CaseLimits, CaseReader, CaseWeights, Cases, FittedCases, Observation,
    OwnVerdict, PlainJudges, Sequence, SequenceVerdict, fit_cases, play, shipped_sequences,
};
pub use classifier::{Classifier, ClassifierConfig, Counters, Parts, Pending, Prepared};
pub use embed::MiniLmEmbed;
pub use error::ClassifierError;
pub use fusion::{
    Calibration, FeatureModel, FitRow, Fitted, SignalKind, Signals, Weights, feature_names,
    fit_calibration, indicator_names,
};
pub use head::{
    Head, HeadError, HeadOrigin, LearnRow, LearnSource, Position, Separation, StateChoice,
    StateStore, TextStates, TrainedHead, TriedHead, folds_of, read_rows, rows_hash, train_head,
};
pub use judge::{
    CallText, FoundPrefix, HeadUse, Judge, JudgeAnswer, JudgeError, JudgeSetupError, PastCall,
    Prompt, Question, QwenJudge, SavedPrefixReport, Shot, render_text,
};
pub use learn::{
    Extraction, FamilyCount, LearnTask, LearnedError, LearnedOrigin, LearnedParts, LearnedSet,
    LearnedWeights, ReportCard, SetCard, distinct_rows, extract_states, kept_states, learn,
    ordinary_exec, recorded_family, shipped_corpus,
};
pub use quote::quote_untrusted;
pub use render::{render_behaviour, render_case};
pub use screen::{RuleNote, RuleSet, RuleSource, rule_notes};
pub use seed::{
    FEEDBACK_TENANT, LabelledExec, SHIPPED_TENANT, Seeded, calibration_rows, exec_case,
    rendering_hash, seed_memory, shipped_data_hash, shipped_precedents,
};
pub use terms::{TermFileError, TermModel, TermOrigin, cross_fitted as cross_fitted_terms};
pub use texts::{
    FittedTexts, TextCalibration, TextClassifier, TextFitRow, TextWeights, fit_texts,
    may_run_command, more_severe, render_call,
};
