//! The cases of one watcher, shared by its threads.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use inwarden_classifier::{Acted, Cases, Observation};
use inwarden_policy::Counters as PolicyCounters;
use inwarden_types::{Action, Event, Verdict};

use crate::{Analyst, counters::Counters};

/// Events go in in order; what they come to goes into policy and the next verdicts.
pub(crate) struct CaseBook {
    cases: Mutex<Cases>,
}

impl fmt::Debug for CaseBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaseBook").finish_non_exhaustive()
    }
}

impl CaseBook {
    pub(crate) fn new(analyst: &Analyst) -> Self {
        Self {
            cases: Mutex::new(analyst.new_cases()),
        }
    }

    /// Tells an agent's call or text what its session said before.
    pub(crate) fn complete(&self, event: &mut Event) {
        self.lock().complete(event);
    }

    /// Takes the next event.
    pub(crate) fn observe(&self, event: &Event, counters: &Counters) -> Observation {
        let mut cases = self.lock();
        let before = cases.evicted();
        let seen = cases.observe(event);
        counters.cases_forgotten.add(cases.evicted() - before);
        seen
    }

    /// The verdict on an observed event in the light of its case, and what happened
    /// in that before.
    pub(crate) fn conclude(
        &self,
        seen: &Observation,
        own: Option<Verdict>,
    ) -> (Verdict, PolicyCounters) {
        let mut cases = self.lock();
        let before = cases.counters(seen);
        let verdict = cases.conclude(seen, own);
        let counters = PolicyCounters {
            malicious: before.malicious,
            undetermined: before.undetermined,
            denied: before.denied,
            killed: before.killed,
        };
        (verdict, counters)
    }

    /// Remembers what was carried out.
    pub(crate) fn acted(&self, seen: &Observation, enforced: Action) {
        let acted = match enforced {
            Action::Kill => Acted::Killed,
            Action::Deny | Action::Quarantine => Acted::Denied,
            Action::Allow | Action::Alert => return,
        };
        self.lock().acted(seen, acted);
    }

    fn lock(&self) -> MutexGuard<'_, Cases> {
        // A panic within leaves facts of one case half updated, never out of bounds.
        self.cases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
