//! What can go wrong, grouped by who must act.

use std::{io, path::PathBuf, time::Duration};

use inwarden_types::Tgid;

use crate::EmbedError;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    // The caller.
    /// The store was opened read-only.
    #[error("the store {path} is open read-only; open it for writing to change it")]
    ReadOnly {
        /// The store's directory.
        path: PathBuf,
    },
    /// A text or field is empty or too long.
    #[error("{field} has {bytes} bytes; allowed are {min} to {max}")]
    Length {
        /// Which field.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The shortest allowed.
        min: usize,
        /// The longest allowed.
        max: usize,
    },
    /// A vector that is not of the store's dimension, or not finite and of length 1.
    #[error("a vector of {len} components that is not a unit vector of {dimension}")]
    Vector {
        /// How many components came.
        len: usize,
        /// How many it must have.
        dimension: usize,
    },
    /// Too many records in one call.
    #[error("{records} records in one call; allowed are {max}")]
    BatchTooLarge {
        /// How many came.
        records: usize,
        /// How many may come.
        max: usize,
    },
    /// The number of hits asked for is out of range.
    #[error("top_k_retrieval is {given}; allowed are 1 to {max}")]
    TopKRetrieval {
        /// What was asked for.
        given: usize,
        /// The most allowed.
        max: usize,
    },
    /// A filter that names too many values.
    #[error("the filter on {field} names {values} values; allowed are {max}")]
    FilterTooLarge {
        /// Which filter.
        field: &'static str,
        /// How many values it names.
        values: usize,
        /// The most allowed.
        max: usize,
    },
    /// A filter that nothing can pass.
    #[error("the filter on {field} names no value, so nothing can pass it")]
    EmptyFilter {
        /// Which filter.
        field: &'static str,
    },

    // The operator.
    /// Another opener, in this process or another, owns the store;
    /// [`crate::Memory::open_shared`] would connect to it.
    #[error(
        "the store {path} is in use by {}; one process owns a store at a time",
        owner.map_or_else(|| "another reader or writer".to_owned(), |tgid| format!("process {}", tgid.0))
    )]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The owner's TGID, as it wrote it into the lock file.
        owner: Option<Tgid>,
    },
    /// There is no store to read.
    #[error("there is no store at {path}; it is made when it is first opened for writing")]
    Absent {
        /// The directory asked for.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error("{path} is not a store and not empty; choose a directory of its own")]
    NotAStore {
        /// The directory asked for.
        path: PathBuf,
    },
    /// The store was written by a newer version of this crate.
    #[error("the store {path} has format {found}; this version reads up to {supported}")]
    NewerFormat {
        /// The store's directory.
        path: PathBuf,
        /// The format found.
        found: u64,
        /// The newest format that can be read.
        supported: u64,
    },
    /// The store's vectors come from another embedder.
    #[error(
        "the store {path} was embedded by {stored}, not {given}; use that embedder or a store of its own"
    )]
    DifferentEmbedder {
        /// The store's directory.
        path: PathBuf,
        /// The embedder of the store.
        stored: String,
        /// The embedder given.
        given: String,
    },
    /// The store's vectors have another length than the embedder's.
    #[error("the store {path} has vectors of length {stored}; the embedder gives {given}")]
    DifferentDimension {
        /// The store's directory.
        path: PathBuf,
        /// The length in the store.
        stored: usize,
        /// The length the embedder gives.
        given: usize,
    },
    /// The journal has reached its largest size; remove records, or allow more with
    /// [`crate::MemoryOptions::max_journal_bytes`].
    #[error("the journal of {path} would have {bytes} bytes; allowed are {max}")]
    JournalFull {
        /// The store's directory.
        path: PathBuf,
        /// How large it would be.
        bytes: u64,
        /// The most allowed.
        max: u64,
    },
    /// The disk refused a write to the journal.
    #[error("the journal of {path} could not be written: {reason}")]
    JournalWrite {
        /// The store's directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The disk was too slow for a write; it may still be stored.
    #[error("a write was not safe on the disk after {waited:?}")]
    WriteDeadline {
        /// How long the caller waited.
        waited: Duration,
    },
    /// The process that owns the store has gone or does not answer.
    #[error("the owner of the store {path} does not answer ({step})")]
    OwnerGone {
        /// The store's directory.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
    },
    /// The process that owns the store refused.
    #[error("the owner of the store {path} refused: {reason}")]
    OwnerRefused {
        /// The store's directory.
        path: PathBuf,
        /// Its error; never a stored text.
        reason: String,
    },
    /// The address, key or prefix of a server cannot be used.
    #[error("the {option} of the memory's server {reason}")]
    ServerOption {
        /// Which part.
        option: &'static str,
        /// What is wrong with it; never the value of a key.
        reason: &'static str,
    },
    /// The Qdrant server failed, refused or did not answer. Writes and searches go on
    /// with the journal and the embedded index; the server is tried again.
    #[error("the server {url} failed to {step}: {reason}")]
    Server {
        /// The server's address.
        url: String,
        /// What it was asked for.
        step: &'static str,
        /// What it said, or what came of it; never a stored text.
        reason: String,
    },
    /// The file system is too full to write safely.
    #[error("{path} has {free_bytes} bytes free; a write needs {needed_bytes}")]
    DiskSpace {
        /// The store's directory.
        path: PathBuf,
        /// What is free to this user.
        free_bytes: u64,
        /// What must be free.
        needed_bytes: u64,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },

    // The data.
    /// The journal is damaged where it was complete before: not the trace of a
    /// crash. Nothing was changed. [`crate::Memory::repair`] keeps what is whole.
    #[error("the journal {path} is damaged at byte {offset} ({reason}); `repair` keeps the rest")]
    JournalDamaged {
        /// The journal.
        path: PathBuf,
        /// Where the damage begins, in bytes from the start of the file.
        offset: u64,
        /// What does not check.
        reason: &'static str,
    },
    /// A file to be imported is not what an export wrote. Nothing was imported.
    #[error("{path} cannot be imported: line {line}: {reason}")]
    Import {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong; never a text.
        reason: String,
    },
    /// The store's files do not hold what was written.
    #[error("the store is damaged at {path}: {reason}")]
    Corrupt {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong; never a stored text.
        reason: String,
    },

    // The embedder.
    /// The embedder failed; nothing was written.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// The embedder broke the contract of [`crate::Embed`]; nothing was written.
    #[error("embedder {embedder} broke its contract: {reason}")]
    EmbedderContract {
        /// The identity of the embedder.
        embedder: String,
        /// How.
        reason: String,
    },

    // The storage engine.
    /// The storage engine failed or panicked.
    #[error("the storage engine failed to {step} the {collection}: {reason}")]
    Engine {
        /// Which collection.
        collection: &'static str,
        /// What it was doing.
        step: &'static str,
        /// What it said.
        reason: String,
    },
    /// An earlier write failed, so no further write is acknowledged.
    #[error("an earlier write to the store {path} failed; reopen it")]
    Failed {
        /// The store's directory.
        path: PathBuf,
    },
}
