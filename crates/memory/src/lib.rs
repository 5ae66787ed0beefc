//! Remembers labelled cases and documents and finds the nearest with provenance.
//!
//! A [`Memory`] is one directory with three collections: *precedents* (cases with
//! the label they turned out to have), *knowledge* (technique notes, runbooks) and
//! *baselines* (what a workload ordinarily does). A caller brings the embedder
//! through the trait [`Embed`]; a text is found again by the cosine similarity of
//! its embedding, or by that and its words together ([`Ranking::Hybrid`]).
//!
//! What a caller can rely on:
//!
//! * A write that returned `Ok` survives the death of the process (SIGKILL
//!   included) and, where `fdatasync` keeps its promise, the loss of power. A write
//!   that returned an error may or may not be there after reopening.
//! * What was written is found by the next search, whatever the index is doing.
//! * Writing what is already there changes nothing, neither on disk nor in
//!   [`Memory::content_hash`].
//! * Results are ordered by score, highest first, and among equal scores by id
//!   and then tenant. Scores are computed from the stored vectors. Up to
//!   [`MemoryOptions::index_from_records`] records of a collection the search is
//!   exact: the same contents give the same answer. Above it an index (HNSW) may
//!   miss a neighbour.
//! * One process owns a store; others of the same user share it through a socket
//!   ([`Memory::open_shared`]) or get [`MemoryError::Locked`]. A read-only opening
//!   leaves the store untouched.
//! * What is lost or broken of the index is made again from the journal; what is
//!   broken of the journal is a typed error that names the place.
//!
//! * A Qdrant server ([`MemoryOptions::server`]) can index the same records. It says
//!   which records are near, never what they are: contents, labels and scores come
//!   from the journal. While it is away or lacks something, the embedded index
//!   answers, and it catches up afterwards.
//!
//! What is not here: tensors, prompts, a store that several hosts share.
//!
//! The journal (`journal/`) holds everything that was acknowledged; the state
//! (`state.rs`) says what is there and where; the index (`index/`) is `qdrant-edge`
//! 0.7.2, whose types do not appear outside `index/engine.rs`; the newest records
//! are searched in memory (`tail.rs`). A search goes to an index through the trait in
//! `candidates.rs`, which the embedded index and that of a server (`server/`, the only
//! place that knows `qdrant-client`) implement.
//!
//! Texts are command lines and can hold secrets. They lie unencrypted in the
//! store's directory (created with mode 0700) and never appear in the logs, the
//! errors or the `Debug` output of this crate.

mod candidates;
mod counters;
mod directory;
mod embed;
mod error;
mod index;
mod journal;
mod link;
mod memory;
mod options;
mod query;
mod record;
mod retrieval;
mod server;
mod socket;
mod state;
mod store;
mod tail;
mod transfer;
mod wire;
mod words;

pub use counters::{ByCollection, MemoryStats};
pub use embed::{Embed, EmbedError};
pub use error::MemoryError;
pub use memory::{Memory, RepairReport};
pub use options::MemoryOptions;
pub use query::{BaselineQuery, KnowledgeQuery, PrecedentQuery, RECIPROCAL_RANK_K, Ranking};
pub use record::{
    Baseline, BaselineHit, Document, KnowledgeHit, Precedent, PrecedentHit, RecordKey,
};
pub use retrieval::PageMark;
pub use server::{ServerKey, ServerOptions};
pub use transfer::{Retention, Transferred};
