//! Where one answer is waited for, by a thread or by a future.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

/// Holds one answer. Whoever claims it first answers; a late one is told so.
#[derive(Debug)]
pub(super) struct Slot<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct State<T> {
    claimed: bool,
    answer: Option<T>,
    waker: Option<Waker>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                claimed: false,
                answer: None,
                waker: None,
            }),
            filled: Condvar::new(),
        }
    }
}

impl<T> Slot<T> {
    /// Whether the caller is the one to answer.
    pub(super) fn claim(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        !std::mem::replace(&mut state.claimed, true)
    }

    /// Answers; call it once, after a successful [`Slot::claim`].
    pub(super) fn fill(&self, answer: T) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.answer = Some(answer);
        let waker = state.waker.take();
        drop(state);
        self.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether somebody answers or has answered.
    pub(super) fn is_claimed(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.claimed
    }

    /// Waits until there is an answer, or until `deadline`; leaves it there.
    pub(super) fn wait_filled(&self, deadline: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.claimed {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return;
            };
            state = self
                .filled
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for the answer; `None` if there is none at `deadline`.
    pub(super) fn wait(&self, deadline: Instant) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = state.answer.take() {
                return Some(answer);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self
                .filled
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// The answer of a slot as a future; needs no particular runtime.
pub(super) struct SlotFuture<T>(pub(super) Arc<Slot<T>>);

impl<T> Future for SlotFuture<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_the_first_claim_answers() {
        let slot = Slot::<u8>::default();
        assert!(slot.claim());
        assert!(!slot.claim());
        slot.fill(1);
        assert_eq!(slot.wait(Instant::now()), Some(1));
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let slot = Slot::<u8>::default();
        assert_eq!(slot.wait(Instant::now() + Duration::from_millis(5)), None);
    }

    #[tokio::test]
    async fn a_future_wakes_when_another_thread_answers() {
        let slot = Arc::new(Slot::<u8>::default());
        let writer = Arc::clone(&slot);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(10));
            writer.fill(7);
        });
        assert_eq!(SlotFuture(slot).await, 7);
    }
}
