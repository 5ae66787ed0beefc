//! Which processes may be touched: identity, protection and scope.

use inwarden_types::{BootTime, ProcessKey, RefusedReason, Scope, Tgid};

use crate::host::{Failure, Host, StartTicks, Status};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Deeper than any tree of processes; ends the walk should `/proc` show a loop.
const MAX_DEPTH: usize = 4_096;

/// Why a process was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotOpened {
    Gone,
    NotPermitted,
    /// Try again later.
    Unavailable,
}

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
) -> Result<(H::Handle, Status), NotOpened> {
    let handle = host.open(tgid).map_err(|failure| match failure {
        Failure::Gone => NotOpened::Gone,
        Failure::NotPermitted => NotOpened::NotPermitted,
        Failure::Unavailable => NotOpened::Unavailable,
    })?;
    match host.status(tgid) {
        Some(status) if status.start == start => Ok((handle, status)),
        _ => Err(NotOpened::Gone),
    }
}

/// Whether a process must never be touched: process 1, kernel threads, and
/// ourselves with our ancestors.
pub(crate) fn is_protected(host: &impl Host, status: &Status) -> bool {
    status.tgid.0 <= 1
        || status.kernel_thread
        || status.tgid == host.own_tgid()
        || ancestors(host, host.own_tgid()).any(|ancestor| ancestor.tgid == status.tgid)
}

/// The living ancestors of a process as `/proc` shows them, nearest first.
fn ancestors(host: &impl Host, tgid: Tgid) -> impl Iterator<Item = Status> {
    let mut next = host.status(tgid).map(|status| status.parent);
    std::iter::from_fn(move || {
        let status = host.status(next.filter(|parent| parent.0 != 0)?)?;
        next = Some(status.parent);
        Some(status)
    })
    .take(MAX_DEPTH)
}

/// Whether the decided process lies in `scope`. `status` is `None` when it is
/// gone; then a tree is judged by what was known, and a cgroup not at all: its
/// descendants are looked at one by one.
pub(crate) fn target_in_scope(
    host: &impl Host,
    scope: &Scope,
    target: ProcessKey,
    status: Option<&Status>,
    known_ancestors: &[ProcessKey],
) -> bool {
    match scope {
        Scope::AlertOnly => false,
        Scope::Cgroups(_) => status.is_none_or(|status| in_cgroups(host, scope, status.tgid)),
        Scope::ProcessTree { root, include_root } => {
            if target == *root {
                return *include_root;
            }
            let root_ticks = ticks(host, root.start);
            known_ancestors.contains(root)
                || status.is_some_and(|status| {
                    ancestors(host, status.tgid)
                        .any(|ancestor| ancestor.tgid == root.tgid && ancestor.start == root_ticks)
                })
        }
    }
}

/// Whether a descendant of a target in scope is in scope too.
pub(crate) fn descendant_in_scope(host: &impl Host, scope: &Scope, tgid: Tgid) -> bool {
    match scope {
        Scope::AlertOnly => false,
        Scope::Cgroups(_) => in_cgroups(host, scope, tgid),
        // The tree of a target inside the tree is inside the tree.
        Scope::ProcessTree { .. } => true,
    }
}

pub(crate) fn in_cgroups(host: &impl Host, scope: &Scope, tgid: Tgid) -> bool {
    match scope {
        Scope::Cgroups(ids) => host.cgroup(tgid).is_some_and(|id| ids.contains(&id)),
        Scope::AlertOnly | Scope::ProcessTree { .. } => false,
    }
}

/// Why a process that was found may not be touched.
pub(crate) fn refusal(host: &impl Host, status: &Status, in_scope: bool) -> Option<RefusedReason> {
    if is_protected(host, status) {
        return Some(RefusedReason::Protected);
    }
    (!in_scope).then_some(RefusedReason::OutsideScope)
}
