//! When workers may be inside a region, and how they wait for the next one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::lock;

/// How long a thread looks before it sleeps: more than the pause between two
/// regions of a forward pass, less than a scheduler's time slice by far.
const SPIN: Duration = Duration::from_micros(30);

/// Looks between two looks at the clock.
const LOOKS: usize = 32;

/// The bit of `Gate::inside` that says the region is open; the bits below count
/// the workers in it.
const OPEN: usize = 1 << (usize::BITS - 1);

/// The door of the current region.
#[derive(Default)]
pub(super) struct Gate {
    /// [`OPEN`] and the number of workers inside.
    inside: AtomicUsize,
    /// Regions opened so far, by which workers notice a new one.
    opened: AtomicUsize,
    stopping: AtomicBool,
    /// Workers that sleep or are about to.
    sleepers: AtomicUsize,
    /// Whether the caller sleeps, or is about to, until the last worker leaves.
    caller_sleeps: AtomicBool,
    sleep: Mutex<()>,
    wake_workers: Condvar,
    wake_caller: Condvar,
}

impl Gate {
    /// Lets workers in and wakes those that sleep.
    pub(super) fn open(&self) {
        self.inside.store(OPEN, Ordering::SeqCst);
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.wake_sleepers();
    }

    /// Lets no further worker in and waits until all inside have left.
    pub(super) fn close(&self) {
        self.inside.fetch_and(!OPEN, Ordering::SeqCst);
        if spin_until(|| self.inside.load(Ordering::SeqCst) == 0) {
            return;
        }
        self.caller_sleeps.store(true, Ordering::SeqCst);
        let mut asleep = lock(&self.sleep);
        while self.inside.load(Ordering::SeqCst) != 0 {
            asleep = self
                .wake_caller
                .wait(asleep)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        drop(asleep);
        self.caller_sleeps.store(false, Ordering::SeqCst);
    }

    /// Ends the workers: their next [`Gate::wait_for_region`] is false.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.wake_sleepers();
    }

    /// A worker waits until more regions were opened than it has `seen`; false when
    /// it is to end.
    pub(super) fn wait_for_region(&self, seen: &mut usize) -> bool {
        let is_new = || self.opened.load(Ordering::SeqCst) != *seen;
        if !spin_until(is_new) {
            let mut asleep = lock(&self.sleep);
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            while !is_new() {
                asleep = self
                    .wake_workers
                    .wait(asleep)
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
        *seen = self.opened.load(Ordering::SeqCst);
        !self.stopping.load(Ordering::SeqCst)
    }

    /// A worker goes in; false if the region is closed. Between a true one and
    /// [`Gate::leave`] the region cannot end.
    pub(super) fn enter(&self) -> bool {
        self.inside
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |inside| {
                (inside & OPEN != 0).then_some(inside + 1)
            })
            .is_ok()
    }

    /// A worker that went in goes out.
    pub(super) fn leave(&self) {
        let before = self.inside.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.caller_sleeps.load(Ordering::SeqCst) {
            // The lock makes sure that the caller is not between look and sleep.
            let _asleep = lock(&self.sleep);
            self.wake_caller.notify_one();
        }
    }

    fn wake_sleepers(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // The lock makes sure that none is between look and sleep.
            let _asleep = lock(&self.sleep);
            self.wake_workers.notify_all();
        }
    }
}

/// Looks at `done` for [`SPIN`]; whether it became true.
fn spin_until(done: impl Fn() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..LOOKS {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() > SPIN {
            return false;
        }
    }
}
