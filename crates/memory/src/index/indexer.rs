//! The thread that owns the index: builds shards beside the store's work, puts them
//! in place of the tail and of older shards, and survives what the engine does.

use std::{
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use super::shard::{Member, Shard, ShardOptions};
use crate::{
    MemoryError, MemoryOptions,
    directory::{index_dir, make_dir},
    journal::{CollectionId, JournalFile},
    state::Shelf,
    store::Core,
};

/// How long the thread waits after a failure before it builds again; doubled with
/// each failure in a row, up to sixty-four times.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The handle of the thread. Dropping it stops the thread after what it is at.
pub(crate) struct Indexer {
    wake: Sender<()>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Indexer {
    pub(crate) fn start(core: &Arc<Core>) -> Result<Self, MemoryError> {
        // One wish to look is as good as many: what is full is already woken.
        let (wake, woken) = bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            core: Arc::downgrade(core),
            stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new()
            .name("memory-index".to_owned())
            .spawn(move || worker.run(&woken))
            .map_err(|source| MemoryError::Io {
                action: "start a thread for",
                path: core.dir.clone(),
                source,
            })?;
        Ok(Self {
            wake,
            stop,
            thread: Some(thread),
        })
    }

    /// Has the thread look whether there is something to build.
    pub(crate) fn wake(&self) {
        match self.wake.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => {
                tracing::warn!("the thread that builds the index is gone");
            }
        }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
        // A build cannot be interrupted and can take minutes. The thread then throws
        // its result away and ends; it holds nothing of the store.
        if let Some(thread) = self.thread.take()
            && thread.is_finished()
            && thread.join().is_err()
        {
            tracing::warn!("the thread that builds the index had panicked");
        }
    }
}

struct Worker {
    core: Weak<Core>,
    stop: Arc<AtomicBool>,
}

/// What to build next.
struct Plan {
    collection: CollectionId,
    parent: PathBuf,
    number: u64,
    file: Arc<JournalFile>,
    members: Vec<Member>,
    merged: Vec<u64>,
}

impl Worker {
    fn run(&self, woken: &Receiver<()>) {
        let mut failures = 0;
        loop {
            let received = if failures == 0 {
                woken.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                woken.recv_timeout(RETRY_AFTER * (1 << u32::min(failures, 6)))
            };
            if received == Err(RecvTimeoutError::Disconnected) || self.is_stopped() {
                return;
            }
            match self.build_all() {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, "the index could not be built; searching goes on without");
                    if let Some(core) = self.core.upgrade() {
                        core.index_failed(&error);
                    }
                }
            }
        }
    }

    fn build_all(&self) -> Result<(), MemoryError> {
        for collection in CollectionId::ALL {
            while let Some((plan, options)) = self.plan(collection) {
                self.build(&plan, options)?;
            }
        }
        Ok(())
    }

    fn plan(&self, collection: CollectionId) -> Option<(Plan, ShardOptions)> {
        if self.is_stopped() {
            return None;
        }
        let core = self.core.upgrade()?;
        let state = core.read();
        let shelf = state.shelf(collection);
        let merged = to_merge(shelf, &core.options)?;
        let plan = Plan {
            collection,
            parent: index_dir(&core.index_home, collection.name()),
            number: core.next_shard(),
            file: Arc::clone(&state.file),
            members: shelf.members(&merged),
            merged,
        };
        Some((plan, core.shard_options()))
    }

    /// Builds without holding the store, which may be closed meanwhile.
    fn build(&self, plan: &Plan, options: ShardOptions) -> Result<(), MemoryError> {
        make_dir(&plan.parent)?;
        let place = (plan.collection, plan.parent.as_path(), plan.number);
        let keep = || !self.is_stopped() && self.core.strong_count() > 0;
        let built = Shard::build(place, options, &plan.file, &plan.members, keep)?;
        let (Some(shard), Some(core)) = (built, self.core.upgrade()) else {
            return Ok(());
        };
        let members: Vec<_> = plan
            .members
            .iter()
            .map(|member| (member.point, member.hash))
            .collect();
        let gone = core
            .write()
            .shelf_mut(plan.collection)
            .install(shard, &members, &plan.merged);
        core.counters.index_builds.fetch_add(1, Ordering::Relaxed);
        for shard in gone {
            shard.discard();
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Which shards the next one replaces, besides the tail; none if nothing is to be
/// built.
///
/// A shard is built again with the tail when it is at most twice as large as what it
/// is put together with, or when more than a third of it is stale: so there are few
/// shards, and a record is built again a number of times that grows with the
/// logarithm of the collection.
fn to_merge(shelf: &Shelf, options: &MemoryOptions) -> Option<Vec<u64>> {
    let tail = shelf.tail.len();
    let start = if shelf.shards.is_empty() {
        options.index_from_records
    } else {
        options.index_tail_records
    };
    let stale = |live: usize, stale: usize| stale * 2 > live && stale > options.index_tail_records;
    let any_stale = shelf.shards.iter().any(|part| stale(part.live, part.stale));
    if tail < start.max(1) && !any_stale {
        return None;
    }
    let mut parts: Vec<_> = shelf.shards.iter().collect();
    parts.sort_by_key(|part| part.live);
    let mut together = tail;
    let mut merged = Vec::new();
    for part in parts {
        if part.live <= together * 2 || stale(part.live, part.stale) {
            together += part.live;
            merged.push(part.shard.number);
        }
    }
    // Nothing left of it: nothing to build, and an empty shard would stay stale.
    (together > 0).then_some(merged)
}
