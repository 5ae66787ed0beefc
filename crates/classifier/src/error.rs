//! What can go wrong when a classifier is set up.
//!
//! Judging never fails: what a stage could not say becomes part of the verdict.

use inwarden_memory::MemoryError;

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
    /// The stored calibration cannot be used.
    #[error("calibration: {0}")]
    Calibration(String),
    /// The store refused.
    #[error("memory")]
    Memory(#[from] MemoryError),
}
