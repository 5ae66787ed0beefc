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
    /// Children of each process, oldest first.
    children: HashMap<ProcessKey, VecDeque<ProcessKey>>,
    parents: HashMap<ProcessKey, ProcessKey>,
    /// All forks, oldest first; those already forgotten, too.
    order: VecDeque<ProcessKey>,
}

impl ForkTable {
    pub(crate) fn record(&self, parent: ProcessKey, child: ProcessKey) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.parents.insert(child, parent).is_some() {
            // Told twice; only forged events do that.
            return;
        }
        state.children.entry(parent).or_default().push_back(child);
        state.order.push_back(child);
        while state.order.len() > REMEMBERED_FORKS {
            if let Some(oldest) = state.order.pop_front() {
                state.forget(oldest);
            }
        }
    }

    /// `process` ended. If it has no children it leads to nobody any more.
    pub(crate) fn ended(&self, process: ProcessKey) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.children.contains_key(&process) {
            state.forget(process);
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

impl State {
    fn forget(&mut self, child: ProcessKey) {
        let Some(parent) = self.parents.remove(&child) else {
            return;
        };
        let Some(children) = self.children.get_mut(&parent) else {
            return;
        };
        // Nearly always the oldest, or the youngest, which just ended.
        if children.front() == Some(&child) {
            children.pop_front();
        } else if children.back() == Some(&child) {
            children.pop_back();
        } else {
            children.retain(|one| *one != child);
        }
        if children.is_empty() {
            self.children.remove(&parent);
        }
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
    fn a_process_that_ended_stays_only_while_it_leads_to_others() {
        let table = ForkTable::default();
        for (parent, child) in [(1, 2), (2, 3), (1, 4)] {
            table.record(key(parent), key(child));
        }
        table.ended(key(4));
        table.ended(key(2));
        assert_eq!(table.descendants(key(1)), [key(2), key(3)]);
        table.ended(key(3));
        assert_eq!(table.descendants(key(1)), [key(2)]);
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
