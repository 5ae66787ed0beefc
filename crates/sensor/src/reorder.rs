//! Puts records of several CPUs back into the order of their time stamps.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use crate::wire::Record;

/// Time, kind, CPU, sequence: the order; then the place in `waiting`.
type Rank = (u64, u8, u32, u64, u64);

/// Holds records until nothing earlier is to be expected.
///
/// Bounded by the caller: what waits beyond the limit given to
/// [`Reorder::release`] is released early.
#[derive(Debug, Default)]
pub(crate) struct Reorder {
    order: BinaryHeap<Reverse<Rank>>,
    waiting: BTreeMap<u64, Record>,
    next_place: u64,
}

impl Reorder {
    pub(crate) fn push(&mut self, record: Record) {
        let header = &record.header;
        let place = self.next_place;
        self.next_place += 1;
        self.order.push(Reverse((
            header.boot_time_ns,
            header.kind,
            header.cpu,
            header.sequence,
            place,
        )));
        self.waiting.insert(place, record);
    }

    /// The earliest record, if it is not later than `until_ns` or more than
    /// `max_waiting` wait.
    pub(crate) fn release(&mut self, until_ns: u64, max_waiting: usize) -> Option<Record> {
        let Reverse((at, .., place)) = *self.order.peek()?;
        if at > until_ns && self.order.len() <= max_waiting {
            return None;
        }
        self.order.pop();
        self.waiting.remove(&place)
    }

    /// The time of the earliest record that waits.
    pub(crate) fn earliest_ns(&self) -> Option<u64> {
        self.order.peek().map(|Reverse((at, ..))| *at)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encode;

    fn times(reorder: &mut Reorder, until: u64, max: usize) -> Vec<u64> {
        std::iter::from_fn(|| reorder.release(until, max))
            .map(|record| record.header.boot_time_ns)
            .collect()
    }

    #[test]
    fn records_leave_in_time_order_once_the_window_has_passed() {
        let mut reorder = Reorder::default();
        for at in [30, 10, 20, 40] {
            reorder.push(encode::exit((at, 1), at.into(), 0));
        }
        assert_eq!(times(&mut reorder, 30, 100), [10, 20, 30]);
        assert_eq!(times(&mut reorder, 39, 100), [0u64; 0]);
        assert_eq!(times(&mut reorder, u64::MAX, 100), [40]);
    }

    #[test]
    fn at_equal_times_birth_comes_before_exec_and_exec_before_the_end() {
        let mut reorder = Reorder::default();
        reorder.push(encode::exit((2, 5), 5, 0));
        reorder.push(encode::exec((2, 5), (1, 1), 5, b"a\0"));
        reorder.push(encode::fork((2, 5), (1, 1), 5));
        let kinds: Vec<u8> = std::iter::from_fn(|| reorder.release(5, 10))
            .map(|record| record.header.kind)
            .collect();
        assert_eq!(kinds, [0, 1, 2]);
    }

    #[test]
    fn beyond_the_limit_the_oldest_leave_early_and_none_is_lost() {
        let mut reorder = Reorder::default();
        for at in 0..10u32 {
            reorder.push(encode::exit((at, 1), (100 - at).into(), 0));
        }
        assert_eq!(times(&mut reorder, 0, 6), [91, 92, 93, 94]);
        assert_eq!(reorder.len(), 6);
    }
}
