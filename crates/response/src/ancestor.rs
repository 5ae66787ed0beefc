//! Whom to act on when the decided process is gone.

use inwarden_types::{BootId, Event, ProcessKey, Scope};

use crate::{
    host::{Host, Status},
    reach::{self, in_cgroups, is_protected, target_in_scope, ticks},
};

/// See [`crate::Responder::oldest_live_ancestor`].
pub(crate) fn oldest_live(
    host: &impl Host,
    boot_id: BootId,
    event: &Event,
    scope: &Scope,
) -> Option<ProcessKey> {
    let keys: Vec<ProcessKey> = event
        .ancestors
        .iter()
        .filter_map(|ancestor| ancestor.key)
        .collect();
    (0..keys.len()).rev().find_map(|index| {
        let key = keys[index];
        let status = running(host, boot_id, key)?;
        let above = &keys[index + 1..];
        // What cannot be told is not acted on.
        let is_open = is_protected(host, &status) == Ok(false);
        (is_open && is_below_root(host, scope, key, &status, above)).then_some(key)
    })
}

/// The process, if it runs: a zombie does not.
fn running(host: &impl Host, boot_id: BootId, key: ProcessKey) -> Option<Status> {
    if key.boot_id != boot_id {
        return None;
    }
    let (handle, status) = reach::open(host, key.tgid, ticks(host, key.start)).ok()?;
    (!host.ended(&handle, std::time::Instant::now())).then_some(status)
}

fn is_below_root(
    host: &impl Host,
    scope: &Scope,
    key: ProcessKey,
    status: &Status,
    above: &[ProcessKey],
) -> bool {
    match scope {
        Scope::AlertOnly => false,
        Scope::Cgroups(_) => {
            let is_inside = |tgid| in_cgroups(host, scope, tgid) == Ok(true);
            is_inside(status.tgid) && is_inside(status.parent)
        }
        Scope::ProcessTree { root, .. } => {
            key != *root && target_in_scope(host, scope, key, Some(status), above) == Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use inwarden_types::{Ancestor, CgroupId, EventData, EventId, Process};

    use crate::fake::{BOOT, Kernel, key};

    use super::*;

    fn event(ancestors: &[u32]) -> Event {
        Event {
            id: EventId::External("e".into()),
            at: None,
            wall: None,
            process: Process {
                key: Some(key(99)),
                ..Process::default()
            },
            ancestors: ancestors
                .iter()
                .map(|tgid| Ancestor {
                    key: Some(key(*tgid)),
                    ..Ancestor::default()
                })
                .collect(),
            data: EventData::Exec,
        }
    }

    fn check(kernel: &Kernel, scope: &Scope, expected: Option<u32>) {
        let event = event(&[63, 62, 61, 60, 50, 40, 1]);
        let found = oldest_live(kernel, BOOT, &event, scope);
        assert_eq!(found, expected.map(key), "{scope:?}");
    }

    #[test]
    fn in_a_tree_it_is_the_live_one_nearest_to_the_root() {
        let kernel = Kernel::new(&[(60, 50, 5), (61, 60, 5), (62, 61, 5), (63, 62, 5)]);
        for include_root in [false, true] {
            let root = key(60);
            let scope = Scope::ProcessTree { root, include_root };
            check(&kernel, &scope, Some(61));
        }
        kernel.edit(61, |process| process.zombie = true);
        let root = key(60);
        let include_root = false;
        check(
            &kernel,
            &Scope::ProcessTree { root, include_root },
            Some(62),
        );
        let root = key(63);
        check(&kernel, &Scope::ProcessTree { root, include_root }, None);
        check(&kernel, &Scope::AlertOnly, None);
    }

    #[test]
    fn in_a_cgroup_the_first_program_there_is_spared() {
        let kernel = Kernel::new(&[(60, 50, 5), (61, 60, 5), (62, 61, 5), (63, 62, 5)]);
        let scope = Scope::Cgroups(BTreeSet::from([CgroupId(5)]));
        check(&kernel, &scope, Some(61));
        kernel.edit(61, |process| process.start += 1);
        check(&kernel, &scope, Some(62));
        check(
            &kernel,
            &Scope::Cgroups(BTreeSet::from([CgroupId(6)])),
            None,
        );
    }

    #[test]
    fn ourselves_and_our_ancestors_are_never_named() {
        let kernel = Kernel::new(&[(60, 50, 1)]);
        check(
            &kernel,
            &Scope::Cgroups(BTreeSet::from([CgroupId(1)])),
            Some(60),
        );
        kernel.edit(60, |process| process.zombie = true);
        check(
            &kernel,
            &Scope::Cgroups(BTreeSet::from([CgroupId(1)])),
            None,
        );
    }
}
