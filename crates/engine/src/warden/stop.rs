//! How the threads learn that the end has come.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Two steps: first no new cases, then, when every case is answered, no sensor.
#[derive(Debug, Default)]
pub(super) struct Stop {
    asked: OnceLock<Instant>,
    answered: AtomicBool,
}

impl Stop {
    /// No new cases from now on. Returns whether this was the first call.
    pub(super) fn ask(&self) -> bool {
        self.asked.set(Instant::now()).is_ok()
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.get().is_some()
    }

    pub(super) fn is_asked_longer_than(&self, limit: Duration) -> bool {
        self.asked.get().is_some_and(|at| at.elapsed() > limit)
    }

    /// Every case has its report; the sensor's exit events are needed no more.
    pub(super) fn all_answered(&self) {
        self.answered.store(true, Ordering::Release);
    }

    pub(super) fn is_all_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }
}
