//! What a scheduler counts.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What a scheduler did since its start; no number ever falls.
        ///
        /// Each submitted request ends as exactly one of completed, failed,
        /// expired, cancelled and rejected.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct SchedulerCounters {
            $($(#[$doc])* pub $name: u64,)+
        }

        /// The live counters. Atomic, so that reading them takes no lock, not
        /// even in a forked child.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)+
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> SchedulerCounters {
                SchedulerCounters { $($name: self.$name.read(),)+ }
            }
        }
    };
}

counters! {
    /// Requests handed in, the refused ones included.
    submitted,
    /// Requests that were answered with scores.
    completed,
    /// Requests that were answered with an error: their own, that of a panic,
    /// or that the scheduler was stopped.
    failed,
    /// Requests whose deadline passed before they were answered.
    expired,
    /// Requests whose caller dropped them before they were answered.
    cancelled,
    /// Requests that the full queue had no room for.
    rejected,
    /// Passes.
    batches,
    /// Rows (tokens that were not cached) of all passes.
    rows,
    /// Passes that ended by a panic. Where it had several requests, each of
    /// them then gets a pass of its own.
    panics,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(super) fn add_one(&self) {
        self.add(1);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
