//! What a store counts, and how that looks from outside.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};

/// What a store did and holds since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Records of each collection.
    pub records: ByCollection,
    /// Records that are in no part of the index yet and are searched exactly.
    pub unindexed_records: ByCollection,
    /// Parts of the index.
    pub index_parts: ByCollection,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// Bytes of the journal that hold records that are there.
    pub journal_live_bytes: u64,
    /// Bytes that the index takes on the disk.
    pub index_bytes: u64,
    /// Writes that were acknowledged.
    pub acknowledged_writes: u64,
    /// Groups of writes, each made safe by one `fdatasync`.
    pub commit_groups: u64,
    /// Writes that failed.
    pub failed_writes: u64,
    /// Bytes of an interrupted write that were cut off when the store was opened.
    pub torn_bytes: u64,
    /// How often the journal was compacted.
    pub compactions: u64,
    /// How often compacting it failed; it is tried again when it has grown.
    pub failed_compactions: u64,
    /// Parts of the index that were built.
    pub index_builds: u64,
    /// Parts of the index that could not be built.
    pub failed_index_builds: u64,
    /// Parts of the index that were found broken and are made again.
    pub broken_index_parts: u64,
    /// The last thing that went wrong with the index; never a stored text.
    pub last_index_error: Option<String>,
    /// Other processes that are connected.
    pub clients: u64,
    /// Connections refused because there were too many.
    pub refused_clients: u64,
    /// Connections refused because another user's process made them.
    pub foreign_clients: u64,
    /// Connections ended because what came was not of the protocol or too late.
    pub broken_clients: u64,
    /// Whether searches go to the configured server: it answers and lacks nothing.
    pub server_answers: bool,
    /// Changes that the server does not have yet, as far as that is known.
    pub server_lacks: ByCollection,
    /// Searches that the server answered.
    pub server_searches: u64,
    /// Searches that the embedded index answered although there is a server.
    pub server_fallbacks: u64,
    /// Records that were sent to the server.
    pub server_puts: u64,
    /// Records that were removed from the server.
    pub server_removals: u64,
    /// How often what the server holds was compared with the journal.
    pub server_comparisons: u64,
    /// Calls that the server refused, failed or did not answer in time.
    pub server_failures: u64,
    /// The last thing that went wrong with the server; never a stored text.
    pub last_server_error: Option<String>,
}

/// A number for each collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ByCollection {
    /// Of the precedents.
    pub precedents: u64,
    /// Of the documents.
    pub knowledge: u64,
    /// Of the baselines.
    pub baselines: u64,
}

impl ByCollection {
    pub(crate) fn of(mut number: impl FnMut(usize) -> usize) -> Self {
        let mut count = |idx| number(idx) as u64;
        Self {
            precedents: count(0),
            knowledge: count(1),
            baselines: count(2),
        }
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) acknowledged_writes: AtomicU64,
    pub(crate) commit_groups: AtomicU64,
    pub(crate) failed_writes: AtomicU64,
    pub(crate) torn_bytes: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) failed_compactions: AtomicU64,
    pub(crate) index_builds: AtomicU64,
    pub(crate) failed_index_builds: AtomicU64,
    pub(crate) broken_index_parts: AtomicU64,
    pub(crate) last_index_error: Mutex<Option<String>>,
    pub(crate) clients: AtomicU64,
    pub(crate) refused_clients: AtomicU64,
    pub(crate) foreign_clients: AtomicU64,
    pub(crate) broken_clients: AtomicU64,
    pub(crate) server_searches: AtomicU64,
    pub(crate) server_fallbacks: AtomicU64,
    pub(crate) server_puts: AtomicU64,
    pub(crate) server_removals: AtomicU64,
    pub(crate) server_comparisons: AtomicU64,
    pub(crate) server_failures: AtomicU64,
    pub(crate) last_server_error: Mutex<Option<String>>,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fill(&self, stats: &mut MemoryStats) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.acknowledged_writes = read(&self.acknowledged_writes);
        stats.commit_groups = read(&self.commit_groups);
        stats.failed_writes = read(&self.failed_writes);
        stats.torn_bytes = read(&self.torn_bytes);
        stats.compactions = read(&self.compactions);
        stats.failed_compactions = read(&self.failed_compactions);
        stats.index_builds = read(&self.index_builds);
        stats.failed_index_builds = read(&self.failed_index_builds);
        stats.broken_index_parts = read(&self.broken_index_parts);
        stats.clients = read(&self.clients);
        stats.refused_clients = read(&self.refused_clients);
        stats.foreign_clients = read(&self.foreign_clients);
        stats.broken_clients = read(&self.broken_clients);
        stats.server_searches = read(&self.server_searches);
        stats.server_fallbacks = read(&self.server_fallbacks);
        stats.server_puts = read(&self.server_puts);
        stats.server_removals = read(&self.server_removals);
        stats.server_comparisons = read(&self.server_comparisons);
        stats.server_failures = read(&self.server_failures);
        let last = self.last_server_error.lock();
        stats.last_server_error = last.unwrap_or_else(PoisonError::into_inner).clone();
        let last = self.last_index_error.lock();
        stats.last_index_error = last.unwrap_or_else(PoisonError::into_inner).clone();
    }
}
