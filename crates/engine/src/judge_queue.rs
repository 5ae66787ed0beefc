//! The queue before the model: bounded, most suspicious first.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    sync::{Condvar, Mutex, PoisonError},
};

use inwarden_types::RawScore;

/// Threads of a guard or a warden that ask the model: as many cases share its
/// passes. With more, passes of 40-token cases measured no faster, and a case
/// that came first, or is more suspicious than the others, would wait for them.
pub(crate) const JUDGE_THREADS: usize = 2;

/// Higher scores first; among equals, first come first served.
#[derive(Clone, Copy, Debug)]
struct Rank {
    priority: f64,
    arrival: u64,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .priority
            .total_cmp(&self.priority)
            .then(self.arrival.cmp(&other.arrival))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Rank {}

/// A bounded priority queue. When it is full, the least suspicious item, which
/// may be the new one, is handed back to the caller for its fallback.
#[derive(Debug)]
pub(crate) struct JudgeQueue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    waiting: BTreeMap<Rank, T>,
    arrivals: u64,
    closed: bool,
}

impl<T> JudgeQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: BTreeMap::new(),
                arrivals: 0,
                closed: false,
            }),
            arrived: Condvar::new(),
            capacity,
        }
    }

    /// Adds an item; returns the one that had to leave, if the queue was full.
    pub(crate) fn push(&self, priority: RawScore, item: T) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.arrivals += 1;
        let rank = Rank {
            priority: priority.0,
            arrival: state.arrivals,
        };
        state.waiting.insert(rank, item);
        let overflow = if state.waiting.len() > self.capacity {
            state.waiting.pop_last().map(|(_, item)| item)
        } else {
            None
        };
        drop(state);
        self.arrived.notify_one();
        overflow
    }

    /// The most suspicious item; waits for one. `None` once closed and empty.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some((_, item)) = state.waiting.pop_first() {
                return Some(item);
            }
            if state.closed {
                return None;
            }
            state = self
                .arrived
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// No item is awaited any more; what waits is still handed out.
    pub(crate) fn close(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .closed = true;
        self.arrived.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_suspicious_leaves_first_and_equals_keep_their_order() {
        let queue = JudgeQueue::new(8);
        for (priority, name) in [(0.1, "c"), (2.0, "a"), (0.1, "d"), (1.0, "b")] {
            assert!(queue.push(RawScore(priority), name).is_none());
        }
        queue.close();
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_full_queue_hands_back_the_least_suspicious() {
        let queue = JudgeQueue::new(2);
        assert_eq!(queue.push(RawScore(1.0), "x"), None);
        assert_eq!(queue.push(RawScore(3.0), "y"), None);
        assert_eq!(queue.push(RawScore(2.0), "z"), Some("x"));
        assert_eq!(queue.push(RawScore(0.0), "w"), Some("w"));
    }

    #[test]
    fn a_priority_that_is_not_a_number_does_not_break_the_order() {
        let queue = JudgeQueue::new(8);
        queue.push(RawScore(f64::NAN), "nan");
        queue.push(RawScore(1.0), "one");
        queue.close();
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), 2);
    }
}
