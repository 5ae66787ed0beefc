//! The public face.

use std::{fmt, ops::Range, time::Duration, time::Instant};

use inwarden_types::{
    ActionReport, BootId, BootTime, Event, EventId, ExitStatus, Image, ProcessKey, Scope, Tgid,
};

use crate::{
    ResponseError, ancestor, kill,
    linux::{self, Linux},
};

/// How a process was seen to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedExit {
    /// Its exit code and signal.
    pub status: ExitStatus,
    /// The program it ran when it ended, if known.
    pub image: Option<Image>,
}

/// The exit events of the sensor: what proves a kill.
pub trait ExitEvents: Send + Sync {
    /// Waits for the exit event of `process` until `deadline`; at once if the
    /// event has been seen already, before the call too.
    fn wait_exit(&self, process: ProcessKey, deadline: Instant) -> Option<ObservedExit>;

    /// As [`wait_exit`](Self::wait_exit), for a process found in `/proc`, which
    /// tells its start to the clock tick only: the process with this TGID whose
    /// start lies in `started`. Also returns its exact key.
    ///
    /// Without it, a descendant that the caller did not name in
    /// [`KillRequest::known_descendants`] is reported as `survived` for want of
    /// proof, though the action as a whole can still be `killed`, by the proof of
    /// the target.
    fn wait_exit_started_in(
        &self,
        tgid: Tgid,
        started: Range<BootTime>,
        deadline: Instant,
    ) -> Option<(ProcessKey, ObservedExit)> {
        let _ = (tgid, started, deadline);
        None
    }
}

/// What is to be killed.
#[derive(Clone, Copy, Debug)]
pub struct KillRequest<'a> {
    /// The decided process. Its descendants in scope die with it.
    pub target: ProcessKey,
    /// The event whose image was judged; only recorded.
    pub judged: &'a EventId,
    /// What may be touched.
    pub scope: &'a Scope,
    /// How long signals and waiting for exit events may take together.
    pub deadline: Duration,
    /// Descendants of `target` by the sensor's process tree, which knows the
    /// parents of processes that a dead parent left to process 1. Others are
    /// found in `/proc`.
    pub known_descendants: &'a [ProcessKey],
    /// Ancestors of `target` by its event, in any order: places a `target` that
    /// was left to process 1 in a [`Scope::ProcessTree`].
    pub known_ancestors: &'a [ProcessKey],
}

/// Kills processes of this boot. `Send` and `Sync`; keeps no state between calls.
pub struct Responder {
    host: Linux,
    boot_id: BootId,
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("boot_id", &self.boot_id)
            .finish_non_exhaustive()
    }
}

impl Responder {
    /// Prepares to act on the processes of events of `boot_id`.
    ///
    /// # Errors
    /// [`ResponseError::WrongBoot`] if that is not the boot that runs, else what
    /// the host lacks.
    pub fn new(boot_id: BootId) -> Result<Self, ResponseError> {
        let running = linux::running_boot()?;
        if running != boot_id {
            return Err(ResponseError::WrongBoot {
                events: boot_id,
                running,
            });
        }
        Ok(Self {
            host: Linux::new()?,
            boot_id,
        })
    }

    /// Kills `request.target` and its descendants in scope, and waits for the
    /// proof. Never fails: how it ended is in the report, the decided process
    /// first, then the others in the order they were found.
    ///
    /// The whole is `killed` when every process that was signalled has ended, and
    /// the target has an exit event with signal 9, or, if it ended by itself, one
    /// of its descendants; `already_exited` when there was nothing left to kill;
    /// `refused` when the target was not touched; `survived` otherwise, also when
    /// descendants may have been missed because `/proc` could not be read or the
    /// deadline passed. A descendant outside the scope is reported as refused and
    /// does not change the outcome of the whole. Known descendants that are gone
    /// are not reported.
    ///
    /// A process counts as gone only if the kernel says so (`ENOENT`, `ESRCH`).
    /// One that cannot be looked at is refused: `not_permitted` where `/proc` is
    /// closed to us (`hidepid`), `unsupported` where, say, descriptors are short.
    ///
    /// Costs two readings of `/proc` at least, about 15 µs a process each.
    #[must_use]
    pub fn kill(&self, request: &KillRequest<'_>, exits: &dyn ExitEvents) -> ActionReport {
        kill::kill(&self.host, self.boot_id, request, exits)
    }

    /// The oldest ancestor of the event's process that still runs, strictly below
    /// the root of the scope; `None` if there is none, or nothing is in scope.
    ///
    /// In a [`Scope::ProcessTree`] the root is the scope's root, whether or not
    /// it may be touched itself. In [`Scope::Cgroups`] an ancestor counts as the
    /// root if its own parent lies outside the cgroups (the program that was
    /// started in the cgroup); so an ancestor is returned only if both it and its
    /// parent are in scope now. Protected processes are never returned.
    #[must_use]
    pub fn oldest_live_ancestor(&self, event: &Event, scope: &Scope) -> Option<ProcessKey> {
        ancestor::oldest_live(&self.host, self.boot_id, event, scope)
    }
}
