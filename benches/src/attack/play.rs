//! Plays attempts to the product.

use anyhow::Context;
use inwarden::{
    ReplayConfig, Warden,
    feeds::FeedError,
    types::{Action, CgroupId, Label, Mode, Scope},
};

use super::payload::{Attempt, CGROUP};
use crate::eval::product::Product;

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Whether any part of the attack was called malicious.
    pub(crate) is_detected: bool,
    /// Whether policy would kill for any part, everything in scope.
    pub(crate) is_killed: bool,
    /// The highest score of a part.
    pub(crate) score: f64,
}

/// Counts what it plays.
pub(crate) struct Player<'a> {
    product: &'a Product,
    pub(crate) starts: usize,
}

impl<'a> Player<'a> {
    pub(crate) fn new(product: &'a Product) -> Self {
        Self { product, starts: 0 }
    }

    /// One after the other, as a warden sees them, with decisions enforced.
    pub(crate) fn play(&mut self, attempt: &Attempt) -> anyhow::Result<Outcome> {
        let config = ReplayConfig {
            mode: Mode::Enforce,
            scope: Scope::Cgroups([CgroupId(CGROUP)].into()),
        };
        let events = attempt.events()?;
        self.starts += events.len();
        let parts: Vec<_> = events[attempt.before.len()..]
            .iter()
            .map(|event| event.id.clone())
            .collect();
        let events = events.into_iter().map(Ok::<_, FeedError>);
        let mut outcome = Outcome {
            is_detected: false,
            is_killed: false,
            score: 0.0,
        };
        for report in Warden::replay(self.product.analyst.clone(), config, events) {
            let report = report.context("an attempt cannot be replayed")?;
            if !parts.contains(&report.case.last().id) {
                continue;
            }
            let verdict = &report.verdict;
            outcome.is_detected |= verdict.label == Label::Malicious;
            outcome.is_killed |= report.decision.action == Action::Kill;
            outcome.score = outcome.score.max(verdict.score.probability());
        }
        Ok(outcome)
    }
}
