//! The limits of a store.

/// Limits that hold for every call on a store.
///
/// The defaults suit the command lines of one host with an embedder of a few
/// hundred dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// The longest text to store or to look for, in bytes.
    pub max_text_bytes: usize,
    /// The longest id, tenant, technique or version, in bytes.
    pub max_field_bytes: usize,
    /// The most records a call may bring.
    pub max_batch_records: usize,
    /// The most hits a query may ask for.
    pub max_top_k_retrieval: usize,
    /// How many texts the embedder gets at once.
    pub embed_batch_texts: usize,
    /// The free space that a write must leave, in bytes; otherwise it is
    /// refused. The storage engine maps its files, and a mapped page without
    /// disk behind it kills the process.
    pub min_free_bytes: u64,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            max_text_bytes: 64 * 1024,
            max_field_bytes: 512,
            max_batch_records: 4096,
            max_top_k_retrieval: 256,
            embed_batch_texts: 32,
            min_free_bytes: 128 * 1024 * 1024,
        }
    }
}
