//! Kills a tree and says how each of its processes ended.

use std::time::Instant;

use inwarden_types::{
    Action, ActionOutcome, ActionReport, BootId, ProcessKey, ProcessOutcome, RefusedReason,
};

use crate::{
    ExitEvents, KillRequest, ObservedExit,
    host::{Host, Status},
    reach::{target_in_scope, tick_range},
    tree::{Member, State, Tree},
};

/// SIGKILL, signal(7).
const SIGKILL: u8 = 9;
/// A stopped tree grows no more after a few searches; one that still grows is
/// killed as it is, and searched again.
const MAX_STOP_ROUNDS: usize = 8;

/// See [`crate::Responder::kill`].
pub(crate) fn kill(
    host: &impl Host,
    boot_id: BootId,
    request: &KillRequest<'_>,
    exits: &dyn ExitEvents,
) -> ActionReport {
    let now = Instant::now();
    let deadline = now.checked_add(request.deadline).unwrap_or(now);
    let mut tree = Tree::new(host, request.scope);
    let mut complete = true;
    if request.target.boot_id == boot_id {
        let in_scope = |status: Option<&Status>| {
            let known = request.known_ancestors;
            target_in_scope(host, request.scope, request.target, status, known)
        };
        let reached = match tree.add_target(request.target, |status| in_scope(Some(status))) {
            State::Refused(_) => false,
            // It is gone, but what it left behind is not.
            State::Gone => in_scope(None) == Ok(true),
            State::Open | State::Stopped | State::Killed => true,
        };
        if reached {
            complete = end_tree(&mut tree, request, deadline);
        }
    }
    let processes: Vec<ProcessOutcome> = if tree.members().is_empty() {
        // A process of an earlier boot.
        vec![not_signalled(request.target, ActionOutcome::AlreadyExited)]
    } else {
        let members = tree.members().iter();
        members
            .map(|member| outcome(host, boot_id, member, exits, deadline))
            .collect()
    };
    ActionReport {
        action: Action::Kill,
        judged: request.judged.clone(),
        outcome: whole(&processes, tree.members(), complete),
        processes,
    }
}

/// False if descendants may have been missed: they could not be looked at, or not
/// in time.
fn end_tree<H: Host>(tree: &mut Tree<'_, H>, request: &KillRequest<'_>, deadline: Instant) -> bool {
    let mut complete = true;
    tree.stop();
    for &descendant in request.known_descendants {
        // The target is stopped while this lasts.
        if Instant::now() >= deadline {
            complete = false;
            break;
        }
        if descendant.boot_id == request.target.boot_id && descendant != request.target {
            tree.add_descendant(descendant);
        }
    }
    let mut searched = false;
    for _ in 0..MAX_STOP_ROUNDS {
        tree.stop();
        let search = tree.discover();
        searched = search.complete;
        if (searched && !search.grown) || Instant::now() >= deadline {
            break;
        }
    }
    // The children of what is killed now are left to process 1, where no later
    // search finds them.
    complete &= searched;
    loop {
        tree.kill();
        let ended = tree.wait(deadline);
        let search = tree.discover();
        complete &= search.complete;
        if (ended && !search.grown) || Instant::now() >= deadline {
            break;
        }
    }
    // What the last search found dies too, even when time is up.
    tree.kill();
    tree.wait(deadline);
    complete
}

fn outcome<T>(
    host: &impl Host,
    boot_id: BootId,
    member: &Member<T>,
    exits: &dyn ExitEvents,
    deadline: Instant,
) -> ProcessOutcome {
    let started = tick_range(host, member.start);
    let approximate = ProcessKey {
        boot_id,
        tgid: member.tgid,
        start: started.start,
    };
    let process = member.key.unwrap_or(approximate);
    let deadline = match member.state {
        State::Refused(reason) => {
            return not_signalled(process, ActionOutcome::Refused(reason));
        }
        State::Gone => Instant::now(),
        State::Open | State::Stopped | State::Killed => deadline,
    };
    let (process, exit) = match member.key {
        Some(key) => (key, exits.wait_exit(key, deadline)),
        None => match exits.wait_exit_started_in(member.tgid, started, deadline) {
            Some((key, exit)) => (key, Some(exit)),
            None => (process, None),
        },
    };
    let outcome = match (member.state, &exit) {
        (State::Gone, _) => ActionOutcome::AlreadyExited,
        (State::Killed, Some(exit)) if exit.status.signal == SIGKILL => ActionOutcome::Killed,
        // It ended by itself while the signal was on its way.
        (_, Some(_)) => ActionOutcome::AlreadyExited,
        (_, None) => ActionOutcome::Survived,
    };
    let (status, image) = match exit {
        Some(ObservedExit { status, image }) => (Some(status), image),
        None => (None, None),
    };
    ProcessOutcome {
        process,
        outcome,
        exit: status,
        image_at_end: image,
    }
}

fn not_signalled(process: ProcessKey, outcome: ActionOutcome) -> ProcessOutcome {
    ProcessOutcome {
        process,
        outcome,
        exit: None,
        image_at_end: None,
    }
}

/// The outcome of the whole; `processes` and `members` are in the same order, and
/// `complete` says whether no descendant was missed.
fn whole<T>(processes: &[ProcessOutcome], members: &[Member<T>], complete: bool) -> ActionOutcome {
    match processes.first().map(|decided| decided.outcome) {
        Some(ActionOutcome::Refused(reason)) => return ActionOutcome::Refused(reason),
        // The end of a descendant proves nothing about the decided process.
        Some(ActionOutcome::Survived) => return ActionOutcome::Survived,
        _ => {}
    }
    let alive = members.iter().any(|member| match member.state {
        State::Gone => false,
        // In reach by scope, but the kernel did not let us.
        State::Refused(reason) => {
            matches!(
                reason,
                RefusedReason::NotPermitted | RefusedReason::Unsupported
            )
        }
        State::Open | State::Stopped => true,
        State::Killed => !member.ended,
    });
    let any = |outcome| processes.iter().any(|process| process.outcome == outcome);
    if alive || !complete {
        ActionOutcome::Survived
    } else if any(ActionOutcome::Killed) {
        ActionOutcome::Killed
    } else if any(ActionOutcome::Survived) {
        ActionOutcome::Survived
    } else {
        ActionOutcome::AlreadyExited
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

    use inwarden_types::{BootTime, CgroupId, EventId, Scope};

    use crate::{
        fake::{BOOT, DEADLINE, Kernel, NoExits, key},
        host::Failure,
    };

    use super::*;

    fn tree_of(root: u32) -> Scope {
        Scope::ProcessTree {
            root: key(root),
            include_root: false,
        }
    }

    fn cgroups(ids: &[u64]) -> Scope {
        Scope::Cgroups(ids.iter().copied().map(CgroupId).collect::<BTreeSet<_>>())
    }

    struct Ask<'a> {
        target: ProcessKey,
        scope: Scope,
        descendants: &'a [ProcessKey],
        ancestors: &'a [ProcessKey],
        deadline: Duration,
    }

    fn ask(target: u32, scope: Scope) -> Ask<'static> {
        Ask {
            target: key(target),
            scope,
            descendants: &[],
            ancestors: &[],
            deadline: DEADLINE,
        }
    }

    fn run(kernel: &Kernel, ask: &Ask<'_>, exits: &dyn ExitEvents) -> ActionReport {
        let request = KillRequest {
            target: ask.target,
            judged: &EventId::External("judged".into()),
            scope: &ask.scope,
            deadline: ask.deadline,
            known_descendants: ask.descendants,
            known_ancestors: ask.ancestors,
        };
        kill(kernel, BOOT, &request, exits)
    }

    /// Each process as `tgid outcome`, the whole first.
    fn told(report: &ActionReport) -> Vec<String> {
        let each = report
            .processes
            .iter()
            .map(|process| format!("{} {}", process.process.tgid, process.outcome.name()));
        std::iter::once(report.outcome.name().to_owned())
            .chain(each)
            .collect()
    }

    #[test]
    fn the_tree_dies_from_the_top_and_the_stranger_lives() {
        let kernel = Kernel::new(&[
            (60, 50, 1),
            (61, 60, 1),
            (62, 61, 1),
            (63, 62, 1),
            (70, 60, 1),
        ]);
        let report = run(&kernel, &ask(61, tree_of(60)), &kernel);
        assert_eq!(
            told(&report),
            ["killed", "61 killed", "62 killed", "63 killed"]
        );
        assert_eq!(kernel.alive(), [1, 40, 50, 60, 70]);
        assert_eq!(report.processes[2].process, key(63));
        assert_eq!(report.judged, EventId::External("judged".into()));
        let signals = kernel.signalled.lock().unwrap();
        assert_eq!(signals[..3], [(61, "stop"), (62, "stop"), (63, "stop")]);
    }

    #[test]
    fn a_tree_that_forks_while_it_is_stopped_dies_whole() {
        let kernel = Kernel::new(&[(60, 50, 1), (61, 60, 1), (62, 61, 1)]);
        kernel.edit(62, |process| (process.forks, process.forks_on) = (5, 2));
        let report = run(&kernel, &ask(61, tree_of(60)), &kernel);
        assert_eq!(report.outcome, ActionOutcome::Killed);
        assert!(report.processes.len() > 5, "{:?}", told(&report));
        assert_eq!(kernel.alive(), [1, 40, 50, 60]);
    }

    #[test]
    fn outside_the_scope_nothing_is_signalled() {
        let kernel = Kernel::new(&[(60, 50, 1), (61, 1, 5), (62, 61, 4)]);
        for scope in [tree_of(60), cgroups(&[4]), cgroups(&[]), Scope::AlertOnly] {
            let report = run(&kernel, &ask(61, scope), &kernel);
            assert_eq!(
                report.outcome,
                ActionOutcome::Refused(RefusedReason::OutsideScope)
            );
        }
        let root = run(&kernel, &ask(60, tree_of(60)), &kernel);
        assert_eq!(
            root.outcome,
            ActionOutcome::Refused(RefusedReason::OutsideScope)
        );
        assert!(kernel.signalled.lock().unwrap().is_empty());
    }

    #[test]
    fn a_descendant_outside_the_cgroups_is_passed_over_and_its_child_is_not() {
        let kernel = Kernel::new(&[(61, 1, 5), (62, 61, 6), (63, 62, 5)]);
        let report = run(&kernel, &ask(61, cgroups(&[5])), &kernel);
        assert_eq!(
            told(&report),
            ["killed", "61 killed", "62 refused", "63 killed"]
        );
        assert_eq!(kernel.alive(), [1, 40, 50, 62]);
    }

    #[test]
    fn an_orphan_that_the_caller_knows_dies_too() {
        let kernel = Kernel::new(&[(60, 50, 1), (61, 60, 1), (62, 1, 1), (63, 62, 1)]);
        let report = run(
            &kernel,
            &Ask {
                descendants: &[key(62)],
                ..ask(61, tree_of(60))
            },
            &kernel,
        );
        assert_eq!(
            told(&report),
            ["killed", "61 killed", "62 killed", "63 killed"]
        );
    }

    #[test]
    fn what_a_gone_target_left_behind_dies_if_the_target_was_in_scope() {
        let kernel = Kernel::new(&[(60, 50, 1), (62, 1, 1)]);
        let gone = Ask {
            descendants: &[key(62)],
            ..ask(61, tree_of(60))
        };
        let report = run(&kernel, &gone, &kernel);
        assert_eq!(told(&report), ["already_exited", "61 already_exited"]);
        let placed = Ask {
            ancestors: &[key(60)],
            ..gone
        };
        let report = run(&kernel, &placed, &kernel);
        assert_eq!(told(&report), ["killed", "61 already_exited", "62 killed"]);
    }

    #[test]
    fn a_target_left_to_process_1_is_placed_by_its_known_ancestors() {
        let kernel = Kernel::new(&[(60, 50, 1), (61, 1, 1)]);
        let orphan = ask(61, tree_of(60));
        let report = run(&kernel, &orphan, &kernel);
        assert_eq!(
            report.outcome,
            ActionOutcome::Refused(RefusedReason::OutsideScope)
        );
        let placed = Ask {
            ancestors: &[key(60), key(50)],
            ..orphan
        };
        assert_eq!(
            run(&kernel, &placed, &kernel).outcome,
            ActionOutcome::Killed
        );
    }

    #[test]
    fn another_start_is_another_process() {
        let kernel = Kernel::new(&[(60, 50, 1), (61, 60, 1), (62, 61, 1)]);
        let mut reused = ask(61, tree_of(60));
        reused.target.start = BootTime(reused.target.start.0 - 10_000_000);
        let report = run(&kernel, &reused, &kernel);
        assert_eq!(told(&report), ["already_exited", "61 already_exited"]);
        let mut earlier = ask(61, tree_of(60));
        earlier.target.boot_id = inwarden_types::BootId([8; 16]);
        let report = run(&kernel, &earlier, &kernel);
        assert_eq!(told(&report), ["already_exited", "61 already_exited"]);
        assert!(kernel.signalled.lock().unwrap().is_empty());
    }

    #[test]
    fn a_zombie_has_already_exited() {
        let kernel = Kernel::new(&[(60, 50, 1), (61, 60, 1)]);
        kernel.edit(61, |process| process.zombie = true);
        let report = run(&kernel, &ask(61, tree_of(60)), &NoExits);
        assert_eq!(told(&report), ["already_exited", "61 already_exited"]);
    }

    #[test]
    fn the_protected_are_refused() {
        let kernel = Kernel::new(&[(2, 0, 1), (3, 2, 1)]);
        kernel.edit(3, |process| process.kernel_thread = true);
        for target in [1, 3, 40, 50] {
            let report = run(&kernel, &ask(target, cgroups(&[1])), &kernel);
            assert_eq!(
                report.outcome,
                ActionOutcome::Refused(RefusedReason::Protected)
            );
        }
        assert!(kernel.signalled.lock().unwrap().is_empty());
    }

    #[test]
    fn a_process_that_does_not_die_survived() {
        let kernel = Kernel::new(&[(60, 50, 1), (61, 60, 1), (62, 61, 1)]);
        kernel.edit(62, |process| process.stubborn = true);
        let report = run(&kernel, &ask(61, tree_of(60)), &kernel);
        assert_eq!(told(&report), ["survived", "61 killed", "62 survived"]);
    }

    #[test]
    fn without_an_exit_event_nothing_is_called_killed() {
        let kernel = Kernel::new(&[(60, 50, 1), (61, 60, 1)]);
        let report = run(&kernel, &ask(61, tree_of(60)), &NoExits);
        assert_eq!(told(&report), ["survived", "61 survived"]);
    }

    #[test]
    fn the_proof_of_a_child_is_none_of_the_decided_process() {
        struct OnlyChild<'a>(&'a Kernel);

        impl ExitEvents for OnlyChild<'_> {
            fn wait_exit(&self, process: ProcessKey, deadline: Instant) -> Option<ObservedExit> {
                let exit = self.0.wait_exit(process, deadline);
                exit.filter(|_| process == key(62))
            }
        }

        let kernel = Kernel::new(&[(60, 50, 1), (61, 60, 1), (62, 61, 1)]);
        let asked = Ask {
            descendants: &[key(62)],
            ..ask(61, tree_of(60))
        };
        let report = run(&kernel, &asked, &OnlyChild(&kernel));
        assert_eq!(told(&report), ["survived", "61 survived", "62 killed"]);
    }

    #[test]
    fn known_descendants_that_are_gone_are_not_reported() {
        let kernel = Kernel::new(&[(60, 50, 1), (61, 60, 1), (62, 1, 1), (63, 1, 1)]);
        kernel.edit(63, |process| process.zombie = true);
        let gone = (1_000..66_000).map(key);
        let descendants: Vec<_> = [key(63), key(62)].into_iter().chain(gone).collect();
        let asked = Ask {
            descendants: &descendants,
            deadline: Duration::from_secs(60),
            ..ask(61, tree_of(60))
        };
        let report = run(&kernel, &asked, &kernel);
        assert_eq!(told(&report), ["killed", "61 killed", "62 killed"]);
    }

    #[test]
    fn known_descendants_are_looked_at_only_until_the_deadline() {
        let kernel = Kernel::new(&[(60, 50, 1), (61, 60, 1), (62, 1, 1)]);
        let asked = Ask {
            descendants: &[key(62)],
            deadline: Duration::ZERO,
            ..ask(61, tree_of(60))
        };
        let report = run(&kernel, &asked, &kernel);
        assert_eq!(told(&report), ["survived", "61 killed"]);
        assert_eq!(kernel.alive(), [1, 40, 50, 60, 62]);
    }

    #[test]
    fn a_target_that_cannot_be_read_is_refused_and_not_called_gone() {
        for (failure, reason) in [
            (Failure::Unavailable, RefusedReason::Unsupported),
            (Failure::NotPermitted, RefusedReason::NotPermitted),
            // As hidepid=invisible shows it: there is a pidfd, but no directory.
            (Failure::Gone, RefusedReason::NotPermitted),
        ] {
            let kernel = Kernel::new(&[(60, 50, 1), (61, 60, 1)]);
            kernel.edit(61, |process| process.unreadable = Some(failure));
            let report = run(&kernel, &ask(61, tree_of(60)), &kernel);
            assert_eq!(report.outcome, ActionOutcome::Refused(reason));
            assert_eq!(told(&report), ["refused", "61 refused"]);
        }
    }

    #[test]
    fn without_the_list_of_processes_nothing_is_called_killed_as_a_whole() {
        for orphans in [&[][..], &[key(62)]] {
            let kernel = Kernel::new(&[(60, 50, 1), (61, 60, 1), (62, 61, 1)]);
            kernel.unlisted.store(true, Ordering::Relaxed);
            let asked = Ask {
                descendants: orphans,
                ancestors: &[key(60)],
                ..ask(61, tree_of(60))
            };
            let report = run(&kernel, &asked, &kernel);
            assert_eq!(report.outcome, ActionOutcome::Survived);
            assert_eq!(report.processes[0].outcome, ActionOutcome::Killed);
            assert_eq!(kernel.alive().contains(&62), orphans.is_empty());
            // The target is gone now; what it left behind cannot be told.
            let report = run(&kernel, &asked, &kernel);
            assert_eq!(told(&report), ["survived", "61 already_exited"]);
        }
    }

    #[test]
    fn a_child_that_cannot_be_read_keeps_the_whole_from_being_killed() {
        let kernel = Kernel::new(&[(60, 50, 1), (61, 60, 1), (62, 61, 1)]);
        kernel.edit(62, |process| {
            process.unreadable = Some(Failure::Unavailable)
        });
        let report = run(&kernel, &ask(61, tree_of(60)), &kernel);
        assert_eq!(told(&report), ["survived", "61 killed"]);

        let kernel = Kernel::new(&[(61, 1, 5), (62, 61, 5)]);
        kernel.edit(62, |process| {
            process.cgroup_unreadable = Some(Failure::NotPermitted);
        });
        let report = run(&kernel, &ask(61, cgroups(&[5])), &kernel);
        assert_eq!(told(&report), ["survived", "61 killed", "62 refused"]);
    }

    #[test]
    fn nothing_is_touched_while_our_own_ancestors_cannot_be_told() {
        let kernel = Kernel::new(&[(61, 1, 1)]);
        kernel.edit(40, |process| {
            process.unreadable = Some(Failure::Unavailable)
        });
        for target in [40, 61] {
            let report = run(&kernel, &ask(target, cgroups(&[1])), &kernel);
            let untold = ActionOutcome::Refused(RefusedReason::Unsupported);
            assert_eq!(report.outcome, untold, "{target}");
        }
        assert!(kernel.signalled.lock().unwrap().is_empty());
    }

    #[test]
    fn an_exit_by_itself_is_not_a_kill() {
        let kernel = Kernel::new(&[(60, 50, 1), (61, 60, 1)]);
        let exits = Kernel::default();
        exits.exits.lock().unwrap().insert(key(61), 0);
        let report = run(&kernel, &ask(61, tree_of(60)), &exits);
        assert_eq!(told(&report), ["already_exited", "61 already_exited"]);
        assert_eq!(report.processes[0].exit.map(|exit| exit.signal), Some(0));
    }

    #[test]
    fn what_was_stopped_and_may_not_be_killed_goes_on() {
        let kernel = Kernel::new(&[(60, 50, 1), (61, 60, 1), (62, 61, 1)]);
        kernel.edit(62, |process| process.kill_refused = true);
        let report = run(&kernel, &ask(61, tree_of(60)), &kernel);
        assert_eq!(told(&report), ["survived", "61 killed", "62 refused"]);
        assert!(kernel.signalled.lock().unwrap().contains(&(62, "continue")));
        assert!(!kernel.processes.lock().unwrap()[&62].stopped);
    }
}
