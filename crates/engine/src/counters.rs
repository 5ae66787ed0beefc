//! Everything that is counted, under the names it is exported as.
//!
//! Each drop, fallback and failure has a counter here: a log line is not enough.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use inwarden_inference::Scheduler;
use inwarden_types::{Action, ActionOutcome, SettledBy};

use crate::{Analyst, judge_prefix::PrefixCounts};

macro_rules! counters {
    (
        engine: $($(#[$doc:meta])* $name:ident),+;
        model: $($(#[$model_doc:meta])* $exported:ident = $counted:ident),+;
        prefix: $($(#[$prefix_doc:meta])* $prefix:ident = $prefix_count:ident),+;
    ) => {
        /// Live counters of one engine; shared by its threads.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
            scheduler: Option<Arc<Scheduler>>,
            prefix: Arc<PrefixCounts>,
        }

        /// The counters at one moment. Counts since the start; they never fall.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct CounterSnapshot {
            $($(#[$doc])* pub $name: u64,)+
            $($(#[$model_doc])* pub $exported: u64,)+
            $($(#[$prefix_doc])* pub $prefix: u64,)+
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> CounterSnapshot {
                let scheduler = self.scheduler.as_ref();
                let model = scheduler.map(|scheduler| scheduler.counters());
                let model = model.unwrap_or_default();
                CounterSnapshot {
                    $($name: self.$name.read(),)+
                    $($exported: model.$counted,)+
                    $($prefix: self.prefix.$prefix_count.read(),)+
                }
            }
        }

        impl CounterSnapshot {
            /// Every counter with its exported name.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![
                    $((stringify!($name), self.$name),)+
                    $((stringify!($exported), self.$exported),)+
                    $((stringify!($prefix), self.$prefix),)+
                ]
            }
        }
    };
}

counters! {
    engine:
    /// Events handed over by the sensor or a recording.
    events,
    /// Cases opened.
    cases,
    /// Cases settled by a rule.
    settled_by_rule,
    /// Cases settled by a precedent.
    settled_by_precedent,
    /// Cases settled by the model.
    settled_by_model,
    /// Cases settled by what happened before in them.
    settled_by_case,
    /// Cases no stage settled in time.
    settled_by_fallback,
    /// Cases, processes and sessions that were forgotten for want of room.
    cases_forgotten,
    /// Cases that skipped stages because the queue before them was full.
    queue_full,
    /// Cases and loss records that no queue had room for: they have no report.
    cases_dropped,
    /// Execs that were read after the stop was asked for: they have no case.
    after_stop,
    /// Cases that skipped the model because their deadline had passed.
    deadline_passed,
    /// Panics caught while a case was worked on; its verdict is a fallback.
    panics,
    /// Decisions by an action stronger than an alert that were carried out.
    enforced,
    /// Actions that were refused, or whose process survived.
    not_enforced,
    /// Guarded calls answered by the failure mode.
    guard_failures,
    /// Reports that no subscriber took in time; they stand in the audit log.
    reports_dropped,
    /// Audit records that could not be written.
    audit_failures,
    /// Recording lines that could not be written.
    recording_failures;

    // Of all who share the analyst. Each case that is submitted ends as one of
    // those from `model_completed` to `model_rejected`.
    model:
    /// Cases that were handed to the model.
    model_submitted = submitted,
    /// Cases that the model scored.
    model_completed = completed,
    /// Cases that the model gave an error for.
    model_failed = failed,
    /// Cases whose deadline passed before the model scored them.
    model_expired = expired,
    /// Cases that were given up before the model scored them.
    model_cancelled = cancelled,
    /// Cases that the model's full queue had no room for.
    model_rejected = rejected,
    /// Passes of the model; cases that wait at the same time share one.
    model_passes = batches,
    /// Tokens that these passes computed.
    model_tokens = rows,
    /// Passes of the model that ended by a panic.
    model_panics = panics;

    // Of the judges, each of which has a prompt of its own, of all who share the
    // analyst.
    prefix:
    /// A prompt's saved prefix was used.
    saved_prefix_used = used,
    /// A saved prefix was there and not used: it is damaged, or of another
    /// model, prompt or release.
    saved_prefix_refused = refused,
    /// A prefix could not be saved; the next start computes it again.
    saved_prefix_not_saved = not_saved;
}

impl Counters {
    /// Also tells what the model did, and its saved prefixes, if there is one.
    pub(crate) fn with_model_of(analyst: &Analyst) -> Self {
        Self {
            scheduler: analyst.scheduler().cloned(),
            prefix: Arc::clone(analyst.prefix_counts()),
            ..Self::default()
        }
    }

    pub(crate) fn count_settled(&self, settled_by: &SettledBy) {
        match settled_by {
            SettledBy::Rule(_) => self.settled_by_rule.add_one(),
            SettledBy::Precedent(_) => self.settled_by_precedent.add_one(),
            SettledBy::Model => self.settled_by_model.add_one(),
            SettledBy::Case => self.settled_by_case.add_one(),
            _ => self.settled_by_fallback.add_one(),
        }
    }

    pub(crate) fn count_action(&self, action: Action, outcome: ActionOutcome) {
        if action <= Action::Alert {
            return;
        }
        match outcome {
            ActionOutcome::Killed | ActionOutcome::Denied => self.enforced.add_one(),
            ActionOutcome::AlreadyExited => {}
            _ => self.not_enforced.add_one(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_exported_under_its_field_name() {
        let counters = Counters::default();
        counters.queue_full.add_one();
        counters.queue_full.add_one();
        let named = counters.snapshot().named();
        assert!(named.contains(&("queue_full", 2)));
        assert!(named.contains(&("cases", 0)));
        assert!(named.contains(&("model_passes", 0)));
    }
}
