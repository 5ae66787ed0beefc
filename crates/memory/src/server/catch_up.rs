//! The thread that brings a server up to date and says when it is.
//!
//! It knows what the server lacks in one of two ways: from the writes since the last
//! comparison, or by a comparison of the ids and content hashes that the server has
//! with those of the journal. A comparison comes first, and after every failure: it
//! holds whatever became of journal or server meanwhile.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use crossbeam_channel::RecvTimeoutError;
use uuid::Uuid;

use super::{ServerState, points::HeldHash};
use crate::{
    MemoryError,
    counters::Counters,
    journal::{CollectionId, JournalFile, Location},
    record::ContentHash,
    store::Core,
    tail::Searchable,
};

/// The most records of a collection that a server may claim to hold of a store.
const MAX_HELD_RECORDS: usize = 1 << 24;

/// The handle of the thread. Dropping it stops the thread after what it is at.
pub(crate) struct CatchUp {
    server: Arc<ServerState>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl CatchUp {
    /// Starts the thread if the store has a server.
    pub(crate) fn start(core: &Arc<Core>) -> Result<Option<Self>, MemoryError> {
        let Some(server) = &core.server else {
            return Ok(None);
        };
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            core: Arc::downgrade(core),
            server: Arc::clone(server),
            stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new()
            .name("memory-catch-up".to_owned())
            .spawn(move || worker.run())
            .map_err(|source| MemoryError::Io {
                action: "start a thread for",
                path: core.dir.clone(),
                source,
            })?;
        server.wake();
        Ok(Some(Self {
            server: Arc::clone(server),
            stop,
            thread: Some(thread),
        }))
    }
}

impl Drop for CatchUp {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.server.wake();
        // A call can take as long as its deadline. The thread then ends; it holds
        // nothing of the store meanwhile.
        if let Some(thread) = self.thread.take()
            && thread.is_finished()
            && thread.join().is_err()
        {
            tracing::warn!("the thread that brings the server up to date had panicked");
        }
    }
}

struct Worker {
    core: Weak<Core>,
    server: Arc<ServerState>,
    stop: Arc<AtomicBool>,
}

/// The store is gone, or the server failed.
enum Cut {
    Stopped,
    Failed(MemoryError),
}

impl From<MemoryError> for Cut {
    fn from(error: MemoryError) -> Self {
        Self::Failed(error)
    }
}

/// Some of what the server lacks, and the journal to read it from.
struct Batch {
    points: Vec<(Uuid, Option<(ContentHash, Location)>)>,
    file: Arc<JournalFile>,
}

impl Worker {
    fn run(&self) {
        let options = &self.server.options;
        let mut failures = 0;
        let mut next_check = Instant::now();
        loop {
            let until = if failures == 0 {
                next_check
            } else {
                Instant::now() + options.retry_after * (1 << u32::min(failures - 1, 6))
            };
            self.wait(until, failures > 0);
            if self.is_stopped() {
                return;
            }
            // What a search found out counts too: the server is left alone first.
            if failures == 0 && self.server.is_away.load(Ordering::Acquire) {
                failures = 1;
                continue;
            }
            let is_check = Instant::now() >= next_check;
            match self.round(is_check) {
                Ok(()) => {
                    failures = 0;
                    self.server.is_away.store(false, Ordering::Release);
                }
                Err(Cut::Stopped) => return,
                Err(Cut::Failed(error)) => {
                    failures += 1;
                    if let Some(core) = self.core.upgrade() {
                        self.server.failed(&core.counters, &error);
                    }
                }
            }
            if is_check {
                next_check = Instant::now() + options.check_every;
            }
        }
    }

    /// Waits until somebody has something to do, or all the time if `is_retry`.
    fn wait(&self, until: Instant, is_retry: bool) {
        loop {
            match self.server.woken.recv_deadline(until) {
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
                Ok(()) if !is_retry || self.is_stopped() => return,
                Ok(()) => {}
            }
        }
    }

    fn round(&self, is_check: bool) -> Result<(), Cut> {
        for collection in CollectionId::ALL {
            let is_known = || self.server.gaps()[collection.index()].is_known;
            if is_check && is_known() && !self.counts_agree(collection)? {
                self.server.gaps()[collection.index()].forget();
            }
            loop {
                if !is_known() {
                    self.compare(collection)?;
                }
                match self.batch(collection)? {
                    Some(batch) => self.send(collection, batch)?,
                    // Unless it has become unknown meanwhile.
                    None if is_known() => break,
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Whether the server holds as many records as the journal, if nothing is on
    /// its way.
    fn counts_agree(&self, collection: CollectionId) -> Result<bool, Cut> {
        let quiet_len = || -> Result<Option<usize>, Cut> {
            let core = self.core()?;
            let state = core.read();
            let len = state.shelf(collection).len();
            Ok((self.server.lacking(collection.index()) == 0).then_some(len))
        };
        let before = quiet_len()?;
        let held = self.server.remote.count(collection)?;
        let after = quiet_len()?;
        Ok(before.is_none() || before != after || after == usize::try_from(held).ok())
    }

    /// Finds out in what the server differs from the journal.
    fn compare(&self, collection: CollectionId) -> Result<(), Cut> {
        self.server.remote.ensure(collection)?;
        let mut held: HashMap<Uuid, HeldHash> = HashMap::new();
        let mut after = None;
        loop {
            self.core()?;
            let (page, next) = self.server.remote.held(collection, after)?;
            let before = held.len();
            let n_page = page.len();
            held.extend(page);
            // A server must not keep us here for ever.
            if held.len() != before + n_page || held.len() > MAX_HELD_RECORDS {
                let reason = "it lists a record twice, or too many";
                return Err(self.server.remote.broken("list", reason).into());
            }
            match next {
                Some(_) if n_page == 0 => {
                    let reason = "an empty page that is not the last";
                    return Err(self.server.remote.broken("list", reason).into());
                }
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let core = self.core()?;
        // Until the gap is known, nobody changes the state.
        let state = core.read();
        let mut differing = Vec::new();
        for (point, slot) in state.shelf(collection).iter() {
            if held.remove(&point) != Some(HeldHash::of(&slot.hash)) {
                differing.push(point);
            }
        }
        let mut gaps = self.server.gaps();
        let gap = &mut gaps[collection.index()];
        gap.points = differing.into_iter().chain(held.into_keys()).collect();
        gap.is_known = true;
        drop(gaps);
        drop(state);
        Counters::count(&core.counters.server_comparisons);
        Ok(())
    }

    /// The next changes to send; none if there are none.
    fn batch(&self, collection: CollectionId) -> Result<Option<Batch>, Cut> {
        let core = self.core()?;
        let state = core.read();
        let gaps = self.server.gaps();
        let shelf = state.shelf(collection);
        let points: Vec<_> = gaps[collection.index()]
            .points
            .iter()
            .take(self.server.options.batch_records.max(1))
            .map(|point| (*point, shelf.get(*point).map(|slot| (slot.hash, slot.at))))
            .collect();
        let file = Arc::clone(&state.file);
        Ok((!points.is_empty()).then_some(Batch { points, file }))
    }

    fn send(&self, collection: CollectionId, batch: Batch) -> Result<(), Cut> {
        let (mut puts, mut removals) = (Vec::new(), Vec::new());
        for (point, slot) in &batch.points {
            match slot {
                Some((hash, at)) => {
                    puts.push((
                        Searchable::read(&batch.file, *at, *point)?,
                        HeldHash::of(hash),
                    ));
                }
                None => removals.push(*point),
            }
        }
        let (n_puts, n_removals) = (puts.len() as u64, removals.len() as u64);
        if !puts.is_empty() {
            self.server.remote.put(collection, puts)?;
        }
        if !removals.is_empty() {
            self.server.remote.remove(collection, removals)?;
        }
        let core = self.core()?;
        let counters = &core.counters;
        counters.server_puts.fetch_add(n_puts, Ordering::Relaxed);
        let removed = &counters.server_removals;
        removed.fetch_add(n_removals, Ordering::Relaxed);
        // What has changed again since it was read stays in the gap.
        let state = core.read();
        let shelf = state.shelf(collection);
        let mut gaps = self.server.gaps();
        for (point, sent) in batch.points {
            let stored = shelf.get(point).map(|slot| slot.hash);
            if stored == sent.map(|(hash, _)| hash) {
                gaps[collection.index()].points.remove(&point);
            }
        }
        Ok(())
    }

    fn core(&self) -> Result<Arc<Core>, Cut> {
        if self.is_stopped() {
            return Err(Cut::Stopped);
        }
        self.core.upgrade().ok_or(Cut::Stopped)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.core.strong_count() == 0
    }
}
