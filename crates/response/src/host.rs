//! What we need of the kernel, as a trait, so that the logic is tested without
//! root and without processes.

use std::time::Instant;

use inwarden_types::{CgroupId, Tgid};

/// When a process started, in clock ticks since boot: all `/proc` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StartTicks(pub(crate) u64);

/// One line of `/proc/PID/stat`, as far as we need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) tgid: Tgid,
    /// 0 for process 1 and for the first kernel thread.
    pub(crate) parent: Tgid,
    pub(crate) start: StartTicks,
    pub(crate) kernel_thread: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Stop,
    Continue,
    Kill,
}

/// Why a process was not opened or signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No such process any more.
    Gone,
    /// The kernel refused.
    NotPermitted,
    /// Something is short, such as file descriptors; try again later.
    Unavailable,
}

/// The kernel. A `Handle` keeps naming the process it was opened for, even when
/// the process is gone and its TGID belongs to another.
pub(crate) trait Host {
    type Handle;

    fn own_tgid(&self) -> Tgid;
    fn clock_ticks_per_second(&self) -> u64;
    fn open(&self, tgid: Tgid) -> Result<Self::Handle, Failure>;
    /// `None` if there is no such process.
    fn status(&self, tgid: Tgid) -> Option<Status>;
    /// All processes, in any order. Not atomic.
    fn processes(&self) -> Vec<Status>;
    /// `None` if the process is gone or its cgroup cannot be named from here.
    fn cgroup(&self, tgid: Tgid) -> Option<CgroupId>;
    fn signal(&self, handle: &Self::Handle, signal: Signal) -> Result<(), Failure>;
    /// Waits until all threads of the process have ended; a zombie has ended.
    fn ended(&self, handle: &Self::Handle, deadline: Instant) -> bool;
}
