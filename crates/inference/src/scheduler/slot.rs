//! Where one answer is waited for, by a thread or by a future.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Instant,
};

use super::counters::Counter;
use crate::error::InferenceError;

/// Holds one outcome. Whoever settles it first decides; all later ones are told
/// that they came too late.
#[derive(Debug)]
pub(super) struct Slot<A> {
    state: Mutex<State<A>>,
    settled: Condvar,
}

#[derive(Debug)]
pub(super) enum State<A> {
    /// Without outcome; a future may wait.
    Open(Option<Waker>),
    Settled(Result<A, InferenceError>),
    /// Nobody wants an answer any more, or it was taken.
    Closed,
}

/// That a slot was settled; its future, if there is one, is still to be woken.
#[must_use = "a future that is not woken waits for ever"]
#[derive(Debug)]
pub(super) struct Settled(pub(super) Option<Waker>);

impl<A> Slot<A> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State::Open(None)),
            settled: Condvar::new(),
        }
    }

    /// Settles and counts it, unless that has happened. Runs no foreign code: the
    /// caller wakes the future where it holds no lock.
    pub(super) fn settle(
        &self,
        outcome: Result<A, InferenceError>,
        counter: &Counter,
    ) -> Option<Settled> {
        let mut state = self.lock();
        let State::Open(waker) = &mut *state else {
            return None;
        };
        let waker = waker.take();
        // Before anybody can see the outcome.
        counter.add_one();
        *state = State::Settled(outcome);
        self.settled.notify_all();
        Some(Settled(waker))
    }

    /// Wants no answer any more; what it was before.
    pub(super) fn close(&self) -> State<A> {
        std::mem::replace(&mut *self.lock(), State::Closed)
    }

    /// Takes the outcome, or leaves `waker` to be woken when there is one.
    pub(super) fn take_or_wake(&self, waker: &Waker) -> Option<Result<A, InferenceError>> {
        // Wakers are foreign code: cloned and dropped without the lock.
        let mut waker = Some(waker.clone());
        let mut state = self.lock();
        if let State::Open(known) = &mut *state {
            std::mem::swap(known, &mut waker);
        }
        take(&mut state)
    }

    /// Waits for the outcome, at most until `until`.
    pub(super) fn wait(&self, until: Option<Instant>) -> Option<Result<A, InferenceError>> {
        let mut state = self.lock();
        while matches!(&*state, State::Open(_)) {
            state = match until {
                None => self
                    .settled
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.checked_duration_since(Instant::now())?;
                    self.settled
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        take(&mut state)
    }

    /// Whole after any panic: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take<A>(state: &mut State<A>) -> Option<Result<A, InferenceError>> {
    if matches!(state, State::Open(_)) {
        return None;
    }
    match std::mem::replace(state, State::Closed) {
        State::Settled(outcome) => Some(outcome),
        State::Open(_) | State::Closed => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settle(slot: &Slot<u8>, answer: u8) -> bool {
        slot.settle(Ok(answer), &Counter::default()).is_some()
    }

    #[test]
    fn the_first_settlement_stands() {
        let slot = Slot::new();
        assert!(settle(&slot, 1));
        assert!(!settle(&slot, 2));
        assert!(matches!(slot.wait(None), Some(Ok(1))));
        assert!(slot.wait(None).is_none(), "an outcome is taken once");
        assert!(!settle(&slot, 3));
    }

    #[test]
    fn a_closed_slot_takes_no_answer() {
        let slot = Slot::new();
        assert!(matches!(slot.close(), State::Open(None)));
        assert!(!settle(&slot, 1));
        assert!(matches!(slot.close(), State::Closed));
    }

    #[test]
    fn a_wait_ends_at_its_time() {
        let slot = Slot::new();
        let until = Instant::now() + Duration::from_millis(2);
        assert!(slot.wait(Some(until)).is_none());
        assert!(settle(&slot, 1), "it is still open");
    }
}
