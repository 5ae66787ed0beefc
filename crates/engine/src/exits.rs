//! The exit events seen so far, so that a kill can be proved.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{Condvar, Mutex, PoisonError},
    time::Instant,
};

use inwarden_response::{ExitEvents, ObservedExit};
use inwarden_types::{BootTime, ProcessKey, Tgid};

/// How many exits are remembered; the oldest are forgotten first. A kill waits
/// for exits that follow it, so only a burst of this size within the kill's
/// deadline could hide one, and then the outcome is `survived`, never `killed`.
const REMEMBERED_EXITS: usize = 65_536;

/// Filled by the sensor's thread, waited on by the responder's.
#[derive(Debug, Default)]
pub(crate) struct ExitTable {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Nearly always one per TGID; more when the kernel used it again.
    exits: HashMap<Tgid, Vec<(ProcessKey, ObservedExit)>>,
    order: VecDeque<ProcessKey>,
}

impl ExitTable {
    pub(crate) fn record(&self, process: ProcessKey, exit: ObservedExit) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .exits
            .entry(process.tgid)
            .or_default()
            .push((process, exit));
        state.order.push_back(process);
        if state.order.len() > REMEMBERED_EXITS
            && let Some(oldest) = state.order.pop_front()
            && let Some(exits) = state.exits.get_mut(&oldest.tgid)
        {
            exits.remove(0);
            if exits.is_empty() {
                state.exits.remove(&oldest.tgid);
            }
        }
        drop(state);
        self.arrived.notify_all();
    }

    /// Whether the exit of `process` was seen.
    pub(crate) fn has_ended(&self, process: ProcessKey) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut exits = state.exits.get(&process.tgid).into_iter().flatten();
        exits.any(|(key, _)| *key == process)
    }

    /// Waits for an exit of `tgid` that `is_wanted`.
    fn wait(
        &self,
        tgid: Tgid,
        deadline: Instant,
        is_wanted: impl Fn(&ProcessKey) -> bool,
    ) -> Option<(ProcessKey, ObservedExit)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let exits = state.exits.get(&tgid).into_iter().flatten();
            if let Some(found) = exits.into_iter().find(|(key, _)| is_wanted(key)) {
                return Some(found.clone());
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self
                .arrived
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl ExitEvents for ExitTable {
    fn wait_exit(&self, process: ProcessKey, deadline: Instant) -> Option<ObservedExit> {
        self.wait(process.tgid, deadline, |key| *key == process)
            .map(|(_, exit)| exit)
    }

    fn wait_exit_started_in(
        &self,
        tgid: Tgid,
        started: Range<BootTime>,
        deadline: Instant,
    ) -> Option<(ProcessKey, ObservedExit)> {
        self.wait(tgid, deadline, |key| started.contains(&key.start))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use inwarden_types::{BootId, ExitStatus};

    use super::*;

    fn key(tgid: u32) -> ProcessKey {
        ProcessKey {
            boot_id: BootId([0; 16]),
            tgid: Tgid(tgid),
            start: BootTime(1),
        }
    }

    fn killed() -> ObservedExit {
        ObservedExit {
            status: ExitStatus {
                signal: 9,
                ..ExitStatus::default()
            },
            image: None,
        }
    }

    #[test]
    fn a_waiter_wakes_when_the_exit_arrives() {
        let table = Arc::new(ExitTable::default());
        let writer = Arc::clone(&table);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            writer.record(key(7), killed());
        });
        let exit = table.wait_exit(key(7), Instant::now() + Duration::from_secs(5));
        thread.join().unwrap();
        assert_eq!(exit.unwrap().status.signal, 9);
    }

    #[test]
    fn a_process_is_found_by_the_time_it_started() {
        let table = ExitTable::default();
        let mut earlier = key(7);
        earlier.start = BootTime(100);
        table.record(earlier, killed());
        table.record(key(7), killed());
        let found = |from, to| {
            let started = BootTime(from)..BootTime(to);
            table
                .wait_exit_started_in(Tgid(7), started, Instant::now())
                .map(|(key, _)| key)
        };
        assert_eq!(found(100, 101), Some(earlier));
        assert_eq!(found(0, 50), Some(key(7)));
        assert_eq!(found(200, 300), None);
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let table = ExitTable::default();
        let deadline = Instant::now() + Duration::from_millis(10);
        assert!(table.wait_exit(key(8), deadline).is_none());
    }

    #[test]
    fn old_exits_are_forgotten_first() {
        let table = ExitTable::default();
        for tgid in 0..=u32::try_from(REMEMBERED_EXITS).unwrap() {
            table.record(key(tgid), killed());
        }
        assert!(table.wait_exit(key(0), Instant::now()).is_none());
        assert!(table.wait_exit(key(1), Instant::now()).is_some());
    }
}
