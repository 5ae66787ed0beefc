//! The two threads between an event and its verdict.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use inwarden_classifier::{Observation, Pending, Prepared};
use inwarden_types::{Case, Stage, UndeterminedReason, Verdict};

use super::{Arrival, Judged, Outgoing, stop::Stop};
use crate::{
    Analyst, casebook::CaseBook, counters::Counters, judge_queue::JudgeQueue, pipeline::unjudged,
};

/// A case whose cheap stages did not settle it.
pub(super) struct Waiting {
    case: Case,
    arrived: Instant,
    seen: Observation,
    pending: Pending,
}

#[derive(Clone)]
pub(super) struct Stages {
    pub(super) analyst: Arc<Analyst>,
    pub(super) counters: Arc<Counters>,
    pub(super) book: Arc<CaseBook>,
    pub(super) queue: Arc<JudgeQueue<Waiting>>,
    pub(super) out: Sender<Outgoing>,
    pub(super) stop: Arc<Stop>,
    pub(super) case_deadline: Duration,
    pub(super) drain_deadline: Duration,
}

impl Stages {
    pub(super) fn run_screen(self, cases: &Receiver<Arrival>) {
        for Arrival { case, arrived } in cases {
            let classifier = self.analyst.classifier();
            let observe = || self.book.observe(case.last(), &self.counters);
            let seen = match self.isolate(Stage::Screen, observe) {
                Ok(seen) => seen,
                Err(verdict) => {
                    self.send((case, arrived, None), *verdict);
                    continue;
                }
            };
            match self.isolate(Stage::Screen, || classifier.prepare(&case)) {
                Ok(Prepared::Settled(verdict)) => self.send((case, arrived, Some(seen)), verdict),
                Ok(Prepared::NeedsJudge(pending)) => {
                    let priority = pending.priority;
                    let waiting = Waiting {
                        case,
                        arrived,
                        seen,
                        pending,
                    };
                    if let Some(overflow) = self.queue.push(priority, waiting) {
                        self.counters.queue_full.add_one();
                        self.fall_back(overflow, UndeterminedReason::Overloaded);
                    }
                }
                Err(verdict) => self.send((case, arrived, Some(seen)), *verdict),
            }
        }
        self.queue.close();
    }

    pub(super) fn run_judge(self) {
        while let Some(waiting) = self.queue.pop() {
            let late = waiting.arrived.elapsed() > self.case_deadline
                || self.stop.is_asked_longer_than(self.drain_deadline);
            if late {
                self.counters.deadline_passed.add_one();
                self.fall_back(waiting, UndeterminedReason::DeadlinePassed);
                continue;
            }
            let Waiting {
                case,
                arrived,
                seen,
                pending,
            } = waiting;
            let classifier = self.analyst.classifier();
            match self.isolate(Stage::Judge, || classifier.judge(pending)) {
                Ok(verdict) => self.send((case, arrived, Some(seen)), verdict),
                Err(verdict) => self.send((case, arrived, Some(seen)), *verdict),
            }
        }
    }

    fn fall_back(&self, waiting: Waiting, reason: UndeterminedReason) {
        let classifier = self.analyst.classifier();
        let Waiting {
            case,
            arrived,
            seen,
            pending,
        } = waiting;
        let verdict = classifier.fallback(pending, reason);
        self.send((case, arrived, Some(seen)), verdict);
    }

    fn send(&self, (case, arrived, seen): (Case, Instant, Option<Observation>), verdict: Verdict) {
        let judged = Judged {
            case,
            arrived,
            seen,
            verdict,
        };
        // Its receiver lives as long as this sender.
        let _closed = self.out.send(Outgoing::Judged(Box::new(judged)));
    }

    /// One event's panic must not stop the service: it becomes a verdict.
    fn isolate<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> Result<T, Box<Verdict>> {
        catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
            self.counters.panics.add_one();
            tracing::error!(stage = stage.name(), "a stage panicked on one case");
            Box::new(unjudged(UndeterminedReason::StageFailed {
                stage,
                error: "panicked".to_owned(),
            }))
        })
    }
}
