//! A Qdrant server beside the embedded index.
//!
//! The journal is the truth, and what a server holds is made from it: vectors,
//! hashed words, the fields of filters, and a hash of each record's content. So a
//! server that is away, was emptied or restored from an old copy is brought up to
//! date again (`catch_up.rs`), and a server that lies can hide a record or bring it
//! up, but not make one.
//!
//! A search asks the server only while it is known to have every acknowledged change
//! of the collection; the embedded index answers all others. `remote.rs` and
//! `points.rs` alone know `qdrant-client`.

mod catch_up;
mod options;
mod points;
mod remote;

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use uuid::Uuid;

pub(crate) use catch_up::CatchUp;
pub use options::{ServerKey, ServerOptions};

use crate::{
    MemoryError, MemoryOptions,
    candidates::{Candidates, Lists, Wanted},
    counters::Counters,
    journal::CollectionId,
};
use remote::Remote;

/// How many changes are remembered one by one. Beyond it the server is compared with
/// the journal instead.
const MAX_KNOWN_GAP: usize = 65_536;

/// What is known of a server; shared by those who search, write and catch up.
pub(crate) struct ServerState {
    remote: Remote,
    options: ServerOptions,
    /// It failed last, and no call has succeeded since.
    is_away: AtomicBool,
    gaps: Mutex<[Gap; 3]>,
    wake: Sender<()>,
    woken: Receiver<()>,
}

/// What the server lacks of a collection.
#[derive(Default)]
struct Gap {
    /// The collection exists, and `points` is everything in which it differs from
    /// the journal.
    is_known: bool,
    points: BTreeSet<Uuid>,
}

impl Gap {
    fn forget(&mut self) {
        self.is_known = false;
        self.points.clear();
    }
}

impl ServerState {
    /// `origin` names the store. Does not connect.
    pub(crate) fn new(
        server: &ServerOptions,
        origin: u64,
        (dimension, options): (usize, &MemoryOptions),
    ) -> Result<Self, MemoryError> {
        // One wish to look is as good as many: what is full is already woken.
        let (wake, woken) = bounded(1);
        Ok(Self {
            remote: Remote::start(server, origin, (dimension, options))?,
            options: server.clone(),
            is_away: AtomicBool::new(false),
            gaps: Mutex::default(),
            wake,
            woken,
        })
    }

    /// The server's index of a collection; none while it may lack something.
    pub(crate) fn index(&self, collection: CollectionId) -> Option<ServerIndex<'_>> {
        if self.is_away.load(Ordering::Acquire) || self.remote.is_busy() {
            return None;
        }
        let gaps = self.gaps();
        let gap = &gaps[collection.index()];
        (gap.is_known && gap.points.is_empty()).then_some(ServerIndex {
            remote: &self.remote,
            collection,
        })
    }

    /// Notes that the journal and the state have changed. The caller holds the
    /// state, so that no comparison comes between.
    pub(crate) fn changed(&self, collection: CollectionId, points: &[Uuid]) {
        let mut gaps = self.gaps();
        let gap = &mut gaps[collection.index()];
        // A comparison that is still to come will find it.
        if gap.is_known {
            gap.points.extend(points);
            if gap.points.len() > MAX_KNOWN_GAP {
                gap.forget();
            }
        }
        drop(gaps);
        self.wake();
    }

    /// A search found fewer records than there are.
    pub(crate) fn fell_short(&self, counters: &Counters) {
        let error = self.remote.broken("search", "fewer records than it holds");
        self.failed(counters, &error);
    }

    /// Leaves the server alone for a while; what it holds is then compared anew.
    pub(crate) fn failed(&self, counters: &Counters, error: &MemoryError) {
        Counters::count(&counters.server_failures);
        let mut last = counters
            .last_server_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(error.to_string());
        drop(last);
        if !self.is_away.swap(true, Ordering::AcqRel) {
            tracing::warn!(%error, "the memory's server is away; the embedded index answers");
        }
        for gap in self.gaps().iter_mut() {
            gap.forget();
        }
        self.wake();
    }

    /// How many changes of the collection with this index the server is known to
    /// lack.
    pub(crate) fn lacking(&self, collection_idx: usize) -> usize {
        self.gaps()[collection_idx].points.len()
    }

    fn gaps(&self) -> MutexGuard<'_, [Gap; 3]> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        match self.wake.try_send(()) {
            // The other end is ours, so it is never gone.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

/// The server's index of one collection.
pub(crate) struct ServerIndex<'a> {
    remote: &'a Remote,
    collection: CollectionId,
}

impl Candidates for ServerIndex<'_> {
    type Failure = MemoryError;

    fn lists(&self, wanted: &Wanted<'_>) -> Result<Lists, MemoryError> {
        self.remote.search(self.collection, wanted)
    }
}
