//! What can go wrong, grouped by who must act.

use std::path::PathBuf;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferenceError {
    // The caller must act.
    /// The tokens do not fit the context; nothing was changed.
    #[error("{positions} positions exceed the context length of {limit}")]
    ContextOverflow {
        /// Positions that the call needs, the prefix counted.
        positions: usize,
        /// Positions that the model was loaded for.
        limit: usize,
    },
    /// A call that needs at least one token or label got none.
    #[error("{what} must not be empty")]
    Empty {
        /// The argument.
        what: &'static str,
    },
    /// A token id that the vocabulary does not have.
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Number of ids, counted from 0.
        vocab_size: usize,
    },
    /// The prefix was computed by another model.
    #[error("the prefix was computed by another model")]
    ForeignPrefix,
    /// A label that cannot be told from another one: it is there twice, or the
    /// other one begins with it and no terminator ends it.
    #[error("label {label_idx} cannot be told from one that begins with it")]
    AmbiguousLabel {
        /// Its place among the labels.
        label_idx: usize,
    },
    /// Text is asked of a model that was made without a vocabulary.
    #[error("the model has random weights and no tokenizer")]
    NoTokenizer,
    /// Prefixes are saved and loaded only where it is known of which weights.
    #[error("the model was loaded without a fingerprint of its weights")]
    NoFingerprint,
    /// A saved prefix of another model or in another format; it must be computed
    /// anew.
    #[error("{}: the prefix is of another {what}: expected {expected}, found {found}", path.display())]
    OtherPrefixFormat {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What this model needs.
        expected: String,
        /// What the file says.
        found: String,
    },
    /// An option outside its range.
    #[error("{name} must be {allowed}, got {value}")]
    InvalidOption {
        /// The field's name.
        name: &'static str,
        /// The legal range.
        allowed: &'static str,
        /// What was given.
        value: String,
    },
    /// So many requests wait that this one was refused, or had to give way.
    #[error("the queue is full: {limit} requests wait, {waiting} of them of this caller")]
    QueueFull {
        /// Requests of all callers that may wait.
        limit: usize,
        /// Requests of this caller that wait.
        waiting: usize,
    },
    /// There was no answer by the request's deadline.
    #[error("the deadline passed before there was an answer")]
    DeadlinePassed,
    /// The scheduler was stopped or dropped.
    #[error("the scheduler was stopped")]
    SchedulerStopped,
    /// The process forked after the start; threads stay in the parent.
    #[error("started in process {started}, which forked: start it in process {process} too")]
    ForkedProcess {
        /// The process that has the threads.
        started: u32,
        /// The calling process.
        process: u32,
    },
    /// A token that the constraint does not offer now.
    #[error("token id {id} is not among the legal ones")]
    IllegalToken {
        /// The id.
        id: u32,
    },
    /// A grammar that is malformed, exceeds a limit, or leads nowhere.
    #[error("the grammar cannot be used: {0}")]
    Grammar(String),
    /// A text longer than the tokenizer accepts.
    #[error("a text of {bytes} bytes exceeds the limit of {limit_bytes}")]
    TextTooLong {
        /// Its length.
        bytes: usize,
        /// The most bytes accepted.
        limit_bytes: usize,
    },

    // The operator must act.
    /// A file could not be opened or read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A card cannot be used; see the reason.
    #[error(transparent)]
    Gpu(#[from] crate::cuda::GpuError),
    /// The worker threads could not be started.
    #[error("cannot start {threads} worker threads: {detail}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        detail: String,
    },

    // The model file is wrong.
    /// The file does not hold what its format promises.
    #[error("{}: {what} at byte {at}: {corruption}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The field or tensor.
        what: String,
        /// Byte offset of the field in the file; 0 for what has no single place.
        at: u64,
        /// What is wrong with it.
        corruption: Corruption,
    },

    /// The weights gave numbers that are infinite or no numbers: they are damaged.
    #[error("the model computed {what} that are not finite: its weights are damaged")]
    NotFinite {
        /// What was computed.
        what: &'static str,
    },

    // A bug of ours.
    /// A forward pass panicked on this request; please report it.
    #[error("a forward pass panicked, please report")]
    PassPanicked,
    /// An operation of the tensor library failed; please report it.
    #[error("tensor operation failed, please report: {0}")]
    Tensor(String),
    /// The tokenizer library failed on legal input; please report it.
    #[error("tokenizer failed, please report: {0}")]
    Tokenizer(String),
}

/// What is wrong with a field of a model file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Corruption {
    /// The file ends inside the field.
    #[error("needs {needed} bytes, {available} are left")]
    Truncated {
        /// Bytes that the field needs.
        needed: u64,
        /// Bytes from the field's start to the end of the file.
        available: u64,
    },
    /// A count, length or size above what is accepted.
    #[error("{value} exceeds the limit of {limit}")]
    OverLimit {
        /// The value in the file.
        value: u64,
        /// The largest accepted.
        limit: u64,
    },
    /// A value that is not one of the legal ones.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What would be legal.
        expected: String,
        /// What the file has, shortened.
        found: String,
    },
    /// A required field or tensor is absent.
    #[error("is missing")]
    Missing,
    /// The same name occurs twice.
    #[error("occurs twice")]
    Duplicate,
    /// Two tensors share bytes.
    #[error("overlaps {with}")]
    Overlap {
        /// The other tensor.
        with: String,
    },
    /// A tensor has another shape than the configuration demands.
    #[error("shape {found:?} instead of {expected:?}")]
    Shape {
        /// Rows first, as the model uses it.
        expected: Vec<usize>,
        /// Rows first, as in the file.
        found: Vec<usize>,
    },
    /// Sizes whose product or sum does not fit 64 bits.
    #[error("its size overflows")]
    Overflow,
}

/// A fault found while parsing, before the path is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) what: String,
    pub(crate) at: u64,
    pub(crate) corruption: Corruption,
}

impl Fault {
    pub(crate) fn new(what: impl Into<String>, at: usize, corruption: Corruption) -> Self {
        Self {
            what: what.into(),
            at: at as u64,
            corruption,
        }
    }

    pub(crate) fn unexpected(
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl std::fmt::Display,
    ) -> Self {
        let mut found = found.to_string();
        if let Some((cut, _)) = found.char_indices().nth(80) {
            found.truncate(cut);
            found.push('…');
        }
        let expected = expected.into();
        Self::new(what, 0, Corruption::Unexpected { expected, found })
    }

    pub(crate) fn missing(what: impl Into<String>) -> Self {
        Self::new(what, 0, Corruption::Missing)
    }

    pub(crate) fn at(mut self, at: usize) -> Self {
        self.at = at as u64;
        self
    }

    pub(crate) fn in_file(self, path: &std::path::Path) -> InferenceError {
        InferenceError::Corrupt {
            path: path.to_owned(),
            what: self.what,
            at: self.at,
            corruption: self.corruption,
        }
    }
}

impl From<candle_core::Error> for InferenceError {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(error.to_string())
    }
}
