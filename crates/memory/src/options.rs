//! The limits of a store.

use std::time::Duration;

use crate::ServerOptions;

/// Limits that hold for every call on a store.
///
/// The defaults suit the command lines of one host with an embedder of a few
/// hundred dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// The longest text to store or to look for, in bytes.
    pub max_text_bytes: usize,
    /// The longest id, tenant, technique, kind, workload or version, in bytes.
    pub max_field_bytes: usize,
    /// The most records a call may bring.
    pub max_batch_records: usize,
    /// The most hits a query may ask for.
    pub max_top_k_retrieval: usize,
    /// The most values a filter may name for one field.
    pub max_filter_values: usize,
    /// How many texts the embedder gets at once.
    pub embed_batch_texts: usize,
    /// The free space that a write must leave, in bytes; otherwise it is
    /// refused. The storage engine maps its files, and a mapped page without
    /// disk behind it kills the process.
    pub min_free_bytes: u64,
    /// The most bytes the journal may have; a write that would pass it is refused.
    /// The index takes up to about twice as much again while it is rebuilt.
    pub max_journal_bytes: u64,
    /// The journal is compacted when this many of its bytes, and half of them, hold
    /// what is not there any more.
    pub compact_min_bytes: u64,
    /// How many writes wait at most for the journal; one more waits in its caller.
    pub max_queued_writes: usize,
    /// How long a write waits for the journal before it gives up. It may still be
    /// stored afterwards.
    pub write_deadline: Duration,
    /// From how many records on a collection gets an index that is searched
    /// approximately; below it every search is exact.
    pub index_from_records: usize,
    /// How many records may be in no part of the index before the next part is
    /// built. They are searched exactly.
    pub index_tail_records: usize,
    /// Threads that build the index.
    pub index_threads: usize,
    /// Edges of a node of the index's graph (`m` of HNSW).
    pub index_edges: usize,
    /// Candidates looked at when a node is added (`ef_construct` of HNSW).
    pub index_build_beam: usize,
    /// Candidates looked at when searching (`ef` of HNSW).
    pub index_search_beam: usize,
    /// Up to how many records of a part of the index, or of those that pass a filter,
    /// are compared one by one instead of through the graph.
    pub index_full_scan_records: usize,
    /// How many of each list a hybrid query fuses at least.
    pub min_fused_candidates: usize,
    /// How many other processes may be connected at once.
    pub max_clients: usize,
    /// How long the owner or a client of a shared store waits for the other's next
    /// bytes within a message, in both directions.
    pub message_deadline: Duration,
    /// How long a client may be silent before it is disconnected; it connects again
    /// by itself.
    pub client_idle: Duration,
    /// How long an opener or a client waits for the store to get an owner.
    pub takeover_deadline: Duration,
    /// A Qdrant server that indexes the same records; the owner of the store uses
    /// it. None: the embedded index alone.
    pub server: Option<ServerOptions>,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            max_text_bytes: 64 * 1024,
            max_field_bytes: 512,
            max_batch_records: 4096,
            max_top_k_retrieval: 256,
            max_filter_values: 64,
            embed_batch_texts: 32,
            min_free_bytes: 128 * 1024 * 1024,
            max_journal_bytes: 8 * 1024 * 1024 * 1024,
            compact_min_bytes: 16 * 1024 * 1024,
            max_queued_writes: 64,
            write_deadline: Duration::from_secs(30),
            index_from_records: 16_384,
            index_tail_records: 4096,
            index_threads: 1,
            index_edges: 16,
            index_build_beam: 100,
            index_search_beam: 128,
            index_full_scan_records: 2000,
            min_fused_candidates: 50,
            max_clients: 64,
            message_deadline: Duration::from_secs(10),
            client_idle: Duration::from_secs(600),
            takeover_deadline: Duration::from_secs(10),
            server: None,
        }
    }
}
