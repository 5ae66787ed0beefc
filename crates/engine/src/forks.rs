//! Who forked whom, so that a kill also reaches descendants whose parent ended
//! before and who now belong to process 1.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use inwarden_types::ProcessKey;

/// How many forks are remembered; the oldest are forgotten first. A forgotten
/// one is reached only if its ancestors still live.
const REMEMBERED_FORKS: usize = 65_536;

/// Filled by the sensor's thread, asked by the responder's.
#[derive(Debug, Default)]
pub(crate) struct ForkTable(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    children: HashMap<ProcessKey, Vec<ProcessKey>>,
    order: VecDeque<(ProcessKey, ProcessKey)>,
}

impl ForkTable {
    pub(crate) fn record(&self, parent: ProcessKey, child: ProcessKey) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.children.entry(parent).or_default().push(child);
        state.order.push_back((parent, child));
        if state.order.len() > REMEMBERED_FORKS
            && let Some((parent, child)) = state.order.pop_front()
            && let Some(children) = state.children.get_mut(&parent)
        {
            children.retain(|one| *one != child);
            if children.is_empty() {
                state.children.remove(&parent);
            }
        }
    }

    /// Everything that descends from `ancestor`, nearest first.
    pub(crate) fn descendants(&self, ancestor: ProcessKey) -> Vec<ProcessKey> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        let mut known = HashSet::from([ancestor]);
        let mut next = VecDeque::from([ancestor]);
        while let Some(parent) = next.pop_front() {
            for child in state.children.get(&parent).into_iter().flatten() {
                if known.insert(*child) {
                    found.push(*child);
                    next.push_back(*child);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use inwarden_types::{BootId, BootTime, Tgid};

    use super::*;

    fn key(tgid: u32) -> ProcessKey {
        ProcessKey {
            boot_id: BootId([0; 16]),
            tgid: Tgid(tgid),
            start: BootTime(u64::from(tgid)),
        }
    }

    #[test]
    fn descendants_are_found_through_processes_that_ended() {
        let table = ForkTable::default();
        for (parent, child) in [(1, 2), (2, 3), (3, 4), (1, 5), (9, 10)] {
            table.record(key(parent), key(child));
        }
        assert_eq!(table.descendants(key(2)), [key(3), key(4)]);
        assert_eq!(table.descendants(key(1)), [key(2), key(5), key(3), key(4)]);
        assert!(table.descendants(key(4)).is_empty());
    }

    #[test]
    fn a_circle_in_forged_events_ends() {
        let table = ForkTable::default();
        table.record(key(1), key(2));
        table.record(key(2), key(1));
        assert_eq!(table.descendants(key(1)), [key(2)]);
    }

    #[test]
    fn the_table_is_bounded() {
        let table = ForkTable::default();
        for child in 0..=u32::try_from(REMEMBERED_FORKS).unwrap() {
            table.record(key(u32::MAX), key(child));
        }
        assert_eq!(table.descendants(key(u32::MAX)).len(), REMEMBERED_FORKS);
    }
}
