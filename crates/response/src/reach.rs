//! Which processes may be touched: identity, protection and scope. What cannot be
//! told is an error, never a no: a process that `/proc` does not let us read is
//! neither gone nor harmless.

use std::time::Instant;

use inwarden_types::{BootTime, ProcessKey, RefusedReason, Scope, Tgid};

use crate::host::{Failure, Host, StartTicks, Status};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Deeper than any tree of processes; ends the walk should `/proc` show a loop.
const MAX_DEPTH: usize = 4_096;

fn nanos_per_tick(host: &impl Host) -> u64 {
    NANOS_PER_SECOND / host.clock_ticks_per_second().max(1)
}

/// The kernel's `nsec_to_clock_t`: truncates.
pub(crate) fn ticks(host: &impl Host, start: BootTime) -> StartTicks {
    StartTicks(start.0 / nanos_per_tick(host).max(1))
}

/// The boot times that are `start` in ticks.
pub(crate) fn tick_range(host: &impl Host, start: StartTicks) -> std::ops::Range<BootTime> {
    let length = nanos_per_tick(host).max(1);
    let first = start.0.saturating_mul(length);
    BootTime(first)..BootTime(first.saturating_add(length))
}

/// Opens the process with this TGID and start, or none.
///
/// The start is read after the handle is open: if the TGID was reused before,
/// the start differs; if it is reused later, the handle still names the first.
pub(crate) fn open<H: Host>(
    host: &H,
    tgid: Tgid,
    start: StartTicks,
) -> Result<(H::Handle, Status), Failure> {
    let handle = host.open(tgid)?;
    match host.status(tgid) {
        Ok(status) if status.start == start => Ok((handle, status)),
        Ok(_) => Err(Failure::Gone),
        // `hidepid=invisible` hides processes of others as if they were gone.
        Err(Failure::Gone) if !host.ended(&handle, Instant::now()) => Err(Failure::NotPermitted),
        Err(failure) => Err(failure),
    }
}

/// Whether a process must never be touched: process 1, kernel threads, and
/// ourselves with our ancestors.
///
/// # Errors
/// If an ancestor of ours cannot be read.
pub(crate) fn is_protected(host: &impl Host, status: &Status) -> Result<bool, Failure> {
    let own = host.own_tgid();
    if status.tgid.0 <= 1 || status.kernel_thread || status.tgid == own {
        return Ok(true);
    }
    has_ancestor(host, own, |ancestor| ancestor.tgid == status.tgid)
}

/// Whether one of the living ancestors of a process, as `/proc` shows them, is wanted.
fn has_ancestor(
    host: &impl Host,
    tgid: Tgid,
    is_wanted: impl Fn(&Status) -> bool,
) -> Result<bool, Failure> {
    let mut next = tgid;
    for depth in 0..=MAX_DEPTH {
        let status = match host.status(next) {
            Ok(status) => status,
            Err(Failure::Gone) => return Ok(false),
            Err(failure) => return Err(failure),
        };
        if depth > 0 && is_wanted(&status) {
            return Ok(true);
        }
        if status.parent.0 == 0 {
            return Ok(false);
        }
        next = status.parent;
    }
    Ok(false)
}

/// Whether the decided process lies in `scope`. `status` is `None` when it is
/// gone; then a tree is judged by what was known, and a cgroup not at all: its
/// descendants are looked at one by one.
///
/// # Errors
/// If `/proc` would tell, but cannot be read.
pub(crate) fn target_in_scope(
    host: &impl Host,
    scope: &Scope,
    target: ProcessKey,
    status: Option<&Status>,
    known_ancestors: &[ProcessKey],
) -> Result<bool, Failure> {
    match (scope, status) {
        (Scope::AlertOnly, _) => Ok(false),
        (Scope::Cgroups(_), None) => Ok(true),
        (Scope::Cgroups(_), Some(status)) => in_cgroups(host, scope, status.tgid),
        (Scope::ProcessTree { root, include_root }, _) if target == *root => Ok(*include_root),
        (Scope::ProcessTree { root, .. }, _) if known_ancestors.contains(root) => Ok(true),
        (Scope::ProcessTree { .. }, None) => Ok(false),
        (Scope::ProcessTree { root, .. }, Some(status)) => {
            let start = ticks(host, root.start);
            has_ancestor(host, status.tgid, |ancestor| {
                ancestor.tgid == root.tgid && ancestor.start == start
            })
        }
    }
}

/// Whether a descendant of a target in scope is in scope too.
///
/// # Errors
/// As [`in_cgroups`].
pub(crate) fn descendant_in_scope(
    host: &impl Host,
    scope: &Scope,
    tgid: Tgid,
) -> Result<bool, Failure> {
    match scope {
        Scope::AlertOnly => Ok(false),
        Scope::Cgroups(_) => in_cgroups(host, scope, tgid),
        // The tree of a target inside the tree is inside the tree.
        Scope::ProcessTree { .. } => Ok(true),
    }
}

/// # Errors
/// If the process may live, but its cgroup cannot be read.
pub(crate) fn in_cgroups(host: &impl Host, scope: &Scope, tgid: Tgid) -> Result<bool, Failure> {
    let Scope::Cgroups(ids) = scope else {
        return Ok(false);
    };
    match host.cgroup(tgid) {
        Ok(id) => Ok(id.is_some_and(|id| ids.contains(&id))),
        Err(Failure::Gone) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Why a process that was found may not be touched.
pub(crate) fn refusal(
    host: &impl Host,
    status: &Status,
    in_scope: Result<bool, Failure>,
) -> Option<RefusedReason> {
    match (is_protected(host, status), in_scope) {
        (Ok(true), _) => Some(RefusedReason::Protected),
        (Err(failure), _) | (Ok(false), Err(failure)) => Some(untold(failure)),
        (Ok(false), Ok(false)) => Some(RefusedReason::OutsideScope),
        (Ok(false), Ok(true)) => None,
    }
}

/// The reason for not touching what may live and cannot be looked at.
pub(crate) fn untold(failure: Failure) -> RefusedReason {
    match failure {
        Failure::NotPermitted => RefusedReason::NotPermitted,
        Failure::Gone | Failure::Unavailable => RefusedReason::Unsupported,
    }
}
