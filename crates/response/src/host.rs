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

/// Why a process was not opened, read or signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No such process any more.
    Gone,
    /// The kernel refused.
    NotPermitted,
    /// Something is short, such as file descriptors, or not as the kernel writes
    /// it; try again later.
    Unavailable,
}

/// What a reading of the table of processes gave.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Listing {
    /// In any order. Not atomic.
    pub(crate) processes: Vec<Status>,
    /// Whether these are all; false if a process that may live could not be read.
    pub(crate) complete: bool,
}

/// The kernel. A `Handle` keeps naming the process it was opened for, even when
/// the process is gone and its TGID belongs to another.
pub(crate) trait Host {
    type Handle;

    fn own_tgid(&self) -> Tgid;
    fn clock_ticks_per_second(&self) -> u64;
    fn open(&self, tgid: Tgid) -> Result<Self::Handle, Failure>;
    fn status(&self, tgid: Tgid) -> Result<Status, Failure>;
    fn processes(&self) -> Listing;
    /// `None` if the cgroup lies outside our view of the hierarchy.
    fn cgroup(&self, tgid: Tgid) -> Result<Option<CgroupId>, Failure>;
    fn signal(&self, handle: &Self::Handle, signal: Signal) -> Result<(), Failure>;
    /// Waits until all threads of the process have ended; a zombie has ended.
    fn ended(&self, handle: &Self::Handle, deadline: Instant) -> bool;
}
