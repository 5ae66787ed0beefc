//! One case from verdict to report: decide, act, prove.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use inwarden_classifier::Observation;
use inwarden_policy::{Counters as CaseCounters, ResponseQuery, Target};
use inwarden_response::{KillRequest, Responder};
use inwarden_types::{
    Action, ActionOutcome, ActionReport, BootTime, Case, Decision, Event, Label, Mode, ProcessKey,
    RefusedReason, Scope, Score, SettledBy, Stage, StageTimes, UndeterminedReason, Verdict,
};

use crate::{Analyst, casebook::CaseBook, counters::Counters, exits::ExitTable, forks::ForkTable};

/// A case with everything that came of it.
#[derive(Clone, Debug)]
pub struct CaseReport {
    /// What was judged.
    pub case: Case,
    /// What the classifier believes.
    pub verdict: Verdict,
    /// What policy rules.
    pub decision: Decision,
    /// What was carried out.
    pub action: ActionReport,
    /// How long each stage took, waiting included.
    pub stages: StageTimes,
    /// From the event's boot time to the end of its action; `None` where the
    /// event has no boot time of this boot, as in a replay.
    pub event_to_action: Option<Duration>,
}

/// What the stages after the verdict need.
pub(crate) struct Pipeline {
    pub(crate) analyst: Arc<Analyst>,
    pub(crate) mode: Mode,
    pub(crate) scope: Scope,
    pub(crate) counters: Arc<Counters>,
    pub(crate) book: Arc<CaseBook>,
    /// `None` where nothing may be carried out: a replay.
    pub(crate) live: Option<Live>,
}

/// What it takes to act on this machine.
pub(crate) struct Live {
    pub(crate) responder: Responder,
    pub(crate) exits: Arc<ExitTable>,
    pub(crate) forks: Arc<ForkTable>,
    pub(crate) kill_deadline: Duration,
    /// Whether the audit log cannot be written: nothing is carried out then.
    pub(crate) unrecorded: bool,
}

impl Pipeline {
    /// Weighs the own verdict on a case's event with what its case shows, decides, and
    /// carries the decision out. What no stage had room for was not observed; events
    /// that nobody judges by themselves have no own verdict.
    pub(crate) fn finish(
        &self,
        case: Case,
        own: Option<Verdict>,
        seen: Option<Observation>,
        queued: Duration,
    ) -> CaseReport {
        let (verdict, before) = match (&seen, own) {
            (Some(seen), own) => self.book.conclude(seen, own),
            (None, Some(own)) => (own, CaseCounters::default()),
            (None, None) => {
                let missing = unjudged(UndeterminedReason::NotFullyRead);
                (missing, CaseCounters::default())
            }
        };
        self.counters.count_settled(&verdict.settled_by);
        let mut stages = StageTimes::default();
        stages.add(Stage::Queue, queued);
        for (stage, elapsed) in verdict.stages.as_slice() {
            stages.add(*stage, *elapsed);
        }
        let started = Instant::now();
        let mut decision = self.decide(&case, &verdict, (Target::Decided, before));
        stages.add(Stage::Policy, started.elapsed());

        let started = Instant::now();
        let mut action = self.act(&case, &decision);
        if action.outcome == ActionOutcome::AlreadyExited
            && let Some((ancestor_decision, mut report)) =
                self.act_on_ancestor(&case, &verdict, before)
        {
            // Both decisions and all processes stay in the record.
            decision.policies.extend(ancestor_decision.policies);
            decision.policies.sort();
            decision.policies.dedup();
            report.processes.splice(0..0, action.processes);
            action = report;
        }
        stages.add(Stage::Response, started.elapsed());
        if let Some(seen) = &seen {
            self.book.acted(seen, decision.enforced);
        }

        let event_to_action = self.live.as_ref().and_then(|_| {
            let at = case.last().at?;
            boot_now().0.checked_sub(at.0).map(Duration::from_nanos)
        });
        CaseReport {
            case,
            verdict,
            decision,
            action,
            stages,
            event_to_action,
        }
    }

    fn decide(
        &self,
        case: &Case,
        verdict: &Verdict,
        (target, before): (Target, CaseCounters),
    ) -> Decision {
        self.analyst.decide_response(&ResponseQuery {
            event: case.last(),
            verdict,
            in_scope: self.scope.contains(case.last()),
            mode: self.mode,
            target,
            protected: false,
            counters: before,
        })
    }

    fn act(&self, case: &Case, decision: &Decision) -> ActionReport {
        let event = case.last();
        let outcome = match (decision.enforced, &self.live) {
            (Action::Allow, _) => ActionOutcome::Allowed,
            (Action::Alert, _) => ActionOutcome::Alerted,
            (_, None) => ActionOutcome::Refused(RefusedReason::Replay),
            (_, Some(live)) if live.unrecorded => {
                ActionOutcome::Refused(RefusedReason::AuditFailed)
            }
            (Action::Deny | Action::Quarantine, Some(_)) => {
                ActionOutcome::Refused(RefusedReason::Unsupported)
            }
            (Action::Kill, Some(live)) => match event.process.key {
                None => ActionOutcome::Refused(RefusedReason::NoProcessKey),
                Some(target) => return self.kill(live, target, event),
            },
        };
        self.counters.count_action(decision.enforced, outcome);
        ActionReport {
            action: decision.enforced,
            judged: event.id.clone(),
            outcome,
            processes: Vec::new(),
        }
    }

    /// The decided process is gone: asks policy about its oldest live ancestor
    /// below the scope's root, and acts on it if policy permits.
    fn act_on_ancestor(
        &self,
        case: &Case,
        verdict: &Verdict,
        before: CaseCounters,
    ) -> Option<(Decision, ActionReport)> {
        let live = self.live.as_ref()?;
        let ancestor = live
            .responder
            .oldest_live_ancestor(case.last(), &self.scope)?;
        let decision = self.decide(case, verdict, (Target::OldestLiveAncestor, before));
        (decision.enforced == Action::Kill).then(|| {
            let report = self.kill(live, ancestor, case.last());
            (decision, report)
        })
    }

    fn kill(&self, live: &Live, target: ProcessKey, event: &Event) -> ActionReport {
        // Only those above the target: the event's process may be below it.
        let known_ancestors: Vec<ProcessKey> = event
            .ancestors
            .iter()
            .filter_map(|ancestor| ancestor.key)
            .skip_while(|key| event.process.key != Some(target) && *key != target)
            .filter(|key| *key != target)
            .collect();
        let mut known_descendants = live.forks.descendants(target);
        known_descendants.retain(|process| !live.exits.has_ended(*process));
        let request = KillRequest {
            target,
            judged: &event.id,
            scope: &self.scope,
            deadline: live.kill_deadline,
            known_ancestors: &known_ancestors,
            known_descendants: &known_descendants,
        };
        let report = live.responder.kill(&request, live.exits.as_ref());
        self.counters.count_action(Action::Kill, report.outcome);
        report
    }
}

/// Now, on the clock of [`inwarden_types::Event::at`].
pub(crate) fn boot_now() -> BootTime {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    BootTime(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The verdict on a case that no stage answered for: even odds.
pub(crate) fn unjudged(reason: UndeterminedReason) -> Verdict {
    Verdict {
        label: Label::Undetermined,
        score: Score::from_log_odds(0.0),
        technique: None,
        settled_by: SettledBy::Fallback,
        undetermined: Some(reason),
        evidence: Vec::new(),
        stages: StageTimes::default(),
    }
}
