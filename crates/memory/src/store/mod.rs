//! The store in the process that owns it: journal, state and index together.
//!
//! Writers hand their change to one thread (`writer.rs`), which makes all that wait
//! safe with one `fdatasync`, then shows them to readers, then answers. Readers
//! never wait for the disk's writes or for the index (`search.rs`). Opening is in
//! `open.rs`.

mod open;
mod search;
mod writer;

use std::{
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

pub(crate) use search::{Found, Question};
pub(crate) use writer::Change;

use crate::{
    MemoryError, MemoryOptions, MemoryStats,
    counters::{ByCollection, Counters},
    directory::{self, disk_bytes},
    index::{Indexer, ShardOptions},
    journal::{CollectionId, Entry},
    query::{Fields, Filter},
    record::{ContentHash, Record},
    server::{CatchUp, ServerState},
    state::State,
};
use writer::Writer;

/// What the store's threads share.
pub(crate) struct Core {
    pub(crate) dir: PathBuf,
    /// Where the index is: `dir`, or that of a private copy.
    pub(crate) index_home: PathBuf,
    pub(crate) options: MemoryOptions,
    pub(crate) counters: Counters,
    /// A server that has an index of the same records; none if there is none.
    pub(crate) server: Option<Arc<ServerState>>,
    dimension: usize,
    next_shard: AtomicU64,
    state: RwLock<State>,
}

impl Core {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_shard(&self) -> u64 {
        self.next_shard.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn shard_options(&self) -> ShardOptions {
        ShardOptions {
            dimension: self.dimension,
            edges: self.options.index_edges,
            build_beam: self.options.index_build_beam,
            search_beam: self.options.index_search_beam,
            threads: self.options.index_threads,
            full_scan_records: self.options.index_full_scan_records,
        }
    }

    pub(crate) fn index_failed(&self, error: &MemoryError) {
        Counters::count(&self.counters.failed_index_builds);
        self.note_index_error(error);
    }

    fn note_index_error(&self, error: &MemoryError) {
        let mut last = self
            .counters
            .last_index_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(error.to_string());
    }
}

/// Records with their vectors, and the id to go on after.
pub(crate) type Page = (Vec<(Record, Vec<f32>)>, Option<Uuid>);

/// An open store.
// The fields are dropped in this order: the threads before what they work on.
pub(crate) struct Store {
    /// None when it is open for reading only.
    writer: Option<Writer>,
    _catch_up: Option<CatchUp>,
    indexer: Option<Arc<Indexer>>,
    core: Arc<Core>,
}

impl Store {
    pub(crate) fn options(&self) -> &MemoryOptions {
        &self.core.options
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.core.counters
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.writer.is_none()
    }

    /// Which of these contents are not stored: those that need a vector.
    pub(crate) fn differing(
        &self,
        collection: CollectionId,
        contents: &[(Uuid, ContentHash)],
    ) -> Vec<bool> {
        let state = self.core.read();
        let shelf = state.shelf(collection);
        contents
            .iter()
            .map(|(point, hash)| shelf.get(*point).is_none_or(|slot| slot.hash != *hash))
            .collect()
    }

    /// Makes a change last. Returns how many records it changed.
    pub(crate) fn change(&self, change: Change) -> Result<u64, MemoryError> {
        let Some(writer) = &self.writer else {
            return Err(MemoryError::ReadOnly {
                path: self.core.dir.clone(),
            });
        };
        let needed = self.core.options.min_free_bytes;
        let needed_bytes = needed.saturating_add(change.max_written_bytes(self.core.dimension));
        directory::check_free_space(&self.core.dir, needed_bytes)?;
        writer.change(change, &self.core)
    }

    /// The next records after `after` in the order of ids, at most `limit` that
    /// pass, and the id to go on after; none when that was all.
    pub(crate) fn list(
        &self,
        collection: CollectionId,
        filter: &Filter,
        (after, limit): (Option<Uuid>, usize),
    ) -> Result<Page, MemoryError> {
        // How many records a page looks at, whatever passes.
        const MOST_READ: usize = 8192;
        let (file, slots) = {
            let state = self.core.read();
            let slots = state.shelf(collection).after(after);
            let slots: Vec<_> = slots
                .take(MOST_READ)
                .map(|(point, slot)| (point, slot.at))
                .collect();
            (Arc::clone(&state.file), slots)
        };
        let mut found = Vec::new();
        for (point, at) in &slots {
            if found.len() == limit {
                break;
            }
            if let Entry::Put { record, vector } = file.read(*at)?.1
                && filter.passes(&Fields::of(&record))
            {
                found.push((record, vector));
            }
            if found.len() == limit {
                return Ok((found, Some(*point)));
            }
        }
        let last = slots.last().filter(|_| slots.len() == MOST_READ);
        Ok((found, last.map(|(point, _)| *point)))
    }

    pub(crate) fn len(&self, collection: CollectionId) -> usize {
        self.core.read().shelf(collection).len()
    }

    /// The SHA-256 over all contents.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let state = self.core.read();
        let mut hasher = Sha256::new();
        for shelf in &state.shelves {
            hasher.update(shelf.digest());
        }
        hasher.finalize().into()
    }

    pub(crate) fn stats(&self) -> MemoryStats {
        let mut stats = MemoryStats::default();
        {
            let state = self.core.read();
            let shelves = &state.shelves;
            stats.records = ByCollection::of(|idx| shelves[idx].len());
            stats.unindexed_records = ByCollection::of(|idx| shelves[idx].tail.len());
            stats.index_parts = ByCollection::of(|idx| shelves[idx].shards.len());
            stats.journal_live_bytes = state.live_bytes();
            stats.journal_bytes = state.file.bytes();
        }
        if let Some(server) = &self.core.server {
            stats.server_lacks = ByCollection::of(|idx| server.lacking(idx));
            stats.server_answers = CollectionId::ALL
                .into_iter()
                .all(|collection| server.index(collection).is_some());
        }
        stats.index_bytes = disk_bytes(&self.core.index_home.join("index"));
        self.core.counters.fill(&mut stats);
        stats
    }
}
