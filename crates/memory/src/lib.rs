//! Remembers labelled cases and documents and finds the nearest with provenance.
//!
//! A [`Memory`] is one directory with two collections: *precedents* (cases with
//! the label they turned out to have) and *knowledge* (technique notes,
//! runbooks). A caller brings the embedder through the trait [`Embed`]; a text
//! is found again by the cosine similarity of its embedding, exactly, not by an
//! approximate index.
//!
//! What a caller can rely on:
//!
//! * A write that returned `Ok` survives the death of the process (SIGKILL
//!   included). A write that returned an error may or may not be there after
//!   reopening.
//! * Writing what is already there changes nothing, neither on disk nor in
//!   [`Memory::content_hash`].
//! * Results are ordered by score, highest first, and among equal scores by id
//!   and then tenant: the same contents give the same answer.
//! * One process owns a store; a second one gets [`MemoryError::Locked`]. A
//!   read-only opening works on a private copy and leaves the store untouched.
//!
//! What is not here: tensors, prompts, approximate search, replication, and
//! protection against the loss of power between two writes of the file system
//! (a flush is a `msync`; directories made later are not synced separately).
//!
//! The vectors are kept by `qdrant-edge` 0.7.2, whose types do not appear
//! outside `collection.rs`. It does not replay its write-ahead log, and its
//! `flush` and drop can panic; hence the flush before every acknowledgement and
//! the guards there.
//!
//! Texts are command lines and can hold secrets. They lie unencrypted in the
//! store's directory (created with mode 0700) and never appear in the logs, the
//! errors or the `Debug` output of this crate.

mod collection;
mod directory;
mod embed;
mod error;
mod memory;
mod options;
mod record;

pub use embed::{Embed, EmbedError};
pub use error::MemoryError;
pub use memory::Memory;
pub use options::MemoryOptions;
pub use record::{Document, KnowledgeHit, Precedent, PrecedentHit, PrecedentQuery, RecordKey};
