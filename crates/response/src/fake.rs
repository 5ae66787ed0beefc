//! A kernel made of a table, for the tests of the logic.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use inwarden_types::{BootId, BootTime, CgroupId, ExitStatus, ProcessKey, Tgid};

use crate::{
    ExitEvents, ObservedExit,
    host::{Failure, Host, Listing, Signal, StartTicks, Status},
};

pub(crate) const BOOT: BootId = BootId([7; 16]);
const TICKS_PER_SECOND: u64 = 100;
const OWN: Tgid = Tgid(50);

#[derive(Clone, Debug)]
pub(crate) struct Fake {
    pub(crate) parent: u32,
    pub(crate) start: u64,
    pub(crate) cgroup: u64,
    pub(crate) kernel_thread: bool,
    pub(crate) zombie: bool,
    pub(crate) stopped: bool,
    /// Forks this often, once at each reading of the table, unless stopped.
    pub(crate) forks: u32,
    /// Forks this often although it was sent SIGSTOP.
    pub(crate) forks_on: u32,
    /// Does not die of SIGKILL, as in uninterruptible sleep.
    pub(crate) stubborn: bool,
    /// SIGKILL is refused, SIGSTOP not.
    pub(crate) kill_refused: bool,
    /// How reading its status fails, if it does.
    pub(crate) unreadable: Option<Failure>,
    /// How reading its cgroup fails, if it does.
    pub(crate) cgroup_unreadable: Option<Failure>,
}

/// Processes, and the exits that happened.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) processes: Mutex<BTreeMap<u32, Fake>>,
    pub(crate) exits: Mutex<BTreeMap<ProcessKey, u8>>,
    pub(crate) signalled: Mutex<Vec<(u32, &'static str)>>,
    /// The list of processes cannot be read.
    pub(crate) unlisted: AtomicBool,
}

/// Started `tgid` ticks after boot, and a bit.
pub(crate) fn key(tgid: u32) -> ProcessKey {
    ProcessKey {
        boot_id: BOOT,
        tgid: Tgid(tgid),
        start: BootTime(u64::from(tgid) * 10_000_000 + 1_234_567),
    }
}

impl Kernel {
    /// Process 1 with ourselves below, and `others` as (tgid, parent, cgroup).
    pub(crate) fn new(others: &[(u32, u32, u64)]) -> Self {
        let kernel = Self::default();
        for (tgid, parent, cgroup) in [(1, 0, 1), (40, 1, 1), (OWN.0, 40, 1)].iter().chain(others) {
            kernel.edit(*tgid, |process| {
                (process.parent, process.cgroup) = (*parent, *cgroup);
            });
        }
        kernel
    }

    pub(crate) fn edit(&self, tgid: u32, change: impl FnOnce(&mut Fake)) {
        let mut processes = self.processes.lock().unwrap();
        change(processes.entry(tgid).or_insert_with(|| Fake {
            parent: 1,
            start: u64::from(tgid),
            cgroup: 1,
            kernel_thread: false,
            zombie: false,
            stopped: false,
            forks: 0,
            forks_on: 0,
            stubborn: false,
            kill_refused: false,
            unreadable: None,
            cgroup_unreadable: None,
        }));
    }

    pub(crate) fn alive(&self) -> Vec<u32> {
        self.processes.lock().unwrap().keys().copied().collect()
    }

    fn end(processes: &mut BTreeMap<u32, Fake>, tgid: u32) {
        processes.remove(&tgid);
        for process in processes.values_mut() {
            if process.parent == tgid {
                process.parent = 1;
            }
        }
    }
}

impl Host for Kernel {
    type Handle = (u32, u64);

    fn own_tgid(&self) -> Tgid {
        OWN
    }

    fn clock_ticks_per_second(&self) -> u64 {
        TICKS_PER_SECOND
    }

    fn open(&self, tgid: Tgid) -> Result<(u32, u64), Failure> {
        let processes = self.processes.lock().unwrap();
        let process = processes.get(&tgid.0).ok_or(Failure::Gone)?;
        Ok((tgid.0, process.start))
    }

    fn status(&self, tgid: Tgid) -> Result<Status, Failure> {
        let processes = self.processes.lock().unwrap();
        let process = processes.get(&tgid.0).ok_or(Failure::Gone)?;
        process.unreadable.map_or(Ok(()), Err)?;
        Ok(Status {
            tgid,
            parent: Tgid(process.parent),
            start: StartTicks(process.start),
            kernel_thread: process.kernel_thread,
        })
    }

    fn processes(&self) -> Listing {
        if self.unlisted.load(Ordering::Relaxed) {
            return Listing::default();
        }
        let mut processes = self.processes.lock().unwrap();
        let mut next = processes.keys().max().unwrap() + 1;
        for (tgid, process) in processes.clone() {
            let goes_on = !process.stopped || process.forks_on > 0;
            if process.forks > 0 && goes_on && !process.zombie {
                let parent = processes.get_mut(&tgid).unwrap();
                parent.forks -= 1;
                parent.forks_on = parent.forks_on.saturating_sub(1);
                let child = Fake {
                    parent: tgid,
                    start: u64::from(next),
                    forks: process.forks - 1,
                    stopped: false,
                    ..process
                };
                processes.insert(next, child);
                next += 1;
            }
        }
        let tgids: Vec<u32> = processes.keys().copied().collect();
        drop(processes);
        let read = tgids.into_iter().map(|tgid| self.status(Tgid(tgid)));
        let (found, failed): (Vec<_>, Vec<_>) = read.partition(Result::is_ok);
        Listing {
            processes: found.into_iter().flatten().collect(),
            complete: failed.iter().all(|read| *read == Err(Failure::Gone)),
        }
    }

    fn cgroup(&self, tgid: Tgid) -> Result<Option<CgroupId>, Failure> {
        let processes = self.processes.lock().unwrap();
        let process = processes.get(&tgid.0).ok_or(Failure::Gone)?;
        process.cgroup_unreadable.map_or(Ok(()), Err)?;
        Ok(Some(CgroupId(process.cgroup)))
    }

    fn signal(&self, handle: &(u32, u64), signal: Signal) -> Result<(), Failure> {
        let mut processes = self.processes.lock().unwrap();
        let process = processes.get_mut(&handle.0).ok_or(Failure::Gone)?;
        if process.start != handle.1 {
            return Err(Failure::Gone);
        }
        let name = match signal {
            Signal::Stop => "stop",
            Signal::Continue => "continue",
            Signal::Kill => "kill",
        };
        self.signalled.lock().unwrap().push((handle.0, name));
        if process.zombie {
            return Ok(());
        }
        match signal {
            Signal::Stop => process.stopped = true,
            Signal::Continue => process.stopped = false,
            Signal::Kill if process.kill_refused => return Err(Failure::NotPermitted),
            Signal::Kill if process.stubborn => {}
            Signal::Kill => {
                let start = BootTime(process.start * 10_000_000 + 1_234_567);
                let exit = ProcessKey {
                    start,
                    ..key(handle.0)
                };
                self.exits.lock().unwrap().insert(exit, 9);
                Self::end(&mut processes, handle.0);
            }
        }
        Ok(())
    }

    fn ended(&self, handle: &(u32, u64), _: Instant) -> bool {
        let processes = self.processes.lock().unwrap();
        processes
            .get(&handle.0)
            .is_none_or(|process| process.start != handle.1 || process.zombie)
    }
}

fn observed(signal: u8) -> ObservedExit {
    ObservedExit {
        status: ExitStatus {
            signal,
            ..ExitStatus::default()
        },
        image: None,
    }
}

impl ExitEvents for Kernel {
    fn wait_exit(&self, process: ProcessKey, _: Instant) -> Option<ObservedExit> {
        self.exits
            .lock()
            .unwrap()
            .get(&process)
            .copied()
            .map(observed)
    }

    fn wait_exit_started_in(
        &self,
        tgid: Tgid,
        started: Range<BootTime>,
        _: Instant,
    ) -> Option<(ProcessKey, ObservedExit)> {
        let exits = self.exits.lock().unwrap();
        let found = exits
            .iter()
            .find(|(key, _)| key.tgid == tgid && started.contains(&key.start));
        found.map(|(key, signal)| (*key, observed(*signal)))
    }
}

/// Exit events that never come.
pub(crate) struct NoExits;

impl ExitEvents for NoExits {
    fn wait_exit(&self, _: ProcessKey, _: Instant) -> Option<ObservedExit> {
        None
    }
}

pub(crate) const DEADLINE: Duration = Duration::from_millis(50);
