//! What can go wrong when a classifier is set up.
//!
//! Judging never fails: what a stage could not say becomes part of the verdict.

use std::path::PathBuf;

use inwarden_inference::InferenceError;
use inwarden_memory::MemoryError;

use crate::TermFileError;

/// Why a classifier, its rules or its data could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifierError {
    /// A setting is out of range: the caller must change it.
    #[error("{key} is {got}, allowed is {allowed}")]
    Setting {
        /// The field of [`crate::ClassifierConfig`].
        key: &'static str,
        /// Its value.
        got: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// A rule file is over its size cap: the operator must split it.
    #[error("rule file {file} has {bytes} bytes, at most {max_bytes} are read")]
    RuleFileTooLarge {
        /// The file's name as given.
        file: String,
        /// Its size.
        bytes: usize,
        /// The cap.
        max_bytes: usize,
    },
    /// A rule file cannot be used: the operator must correct it.
    #[error("rule file {file}: {problem}")]
    RuleFile {
        /// The file's name as given.
        file: String,
        /// What the Sigma parser or compiler said.
        problem: String,
    },
    /// Two rules carry the same id: the operator must rename one.
    #[error("rule file {file}: rule id {id} is already taken")]
    DuplicateRule {
        /// The later file.
        file: String,
        /// The id.
        id: String,
    },
    /// More rules than the cap: the operator must load fewer.
    #[error("more than {max_rules} rules")]
    TooManyRules {
        /// The cap.
        max_rules: usize,
    },
    /// A line of a data file is not what the format asks for.
    #[error("{file} line {line}: {problem}")]
    DataLine {
        /// The file's name.
        file: &'static str,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A line of a file to learn from is not what the format asks for: whoever wrote
    /// it must correct it.
    #[error("{file} line {line}: {problem}")]
    LearnLine {
        /// The file's name as given.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The rows cannot be learnt from: the caller must give others.
    #[error("rows to learn from: {0}")]
    LearnRows(&'static str),
    /// The stored calibration cannot be used.
    #[error("calibration: {0}")]
    Calibration(String),
    /// The stored model of the words cannot be used.
    #[error(transparent)]
    Terms(#[from] TermFileError),
    /// The model could not compute what is needed.
    #[error("language model")]
    Model(#[from] InferenceError),
    /// A file of hidden states cannot be read or written: the operator must look.
    #[error("hidden states in {}", path.display())]
    StateFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store refused.
    #[error("memory")]
    Memory(#[from] MemoryError),
}
