//! Hidden states on request, out of the pass that scores labels.

use std::ops::Range;

use super::{plan::Plan, plan::Tap};
use crate::error::InferenceError;

/// Which hidden states to return beside label scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenRequest {
    /// After how many layers each: 0 is the embedding, `num_hidden_layers` the
    /// last layer after the final norm.
    pub layers: Vec<usize>,
    /// Of which tokens.
    pub pooling: Pooling,
}

/// Which tokens' hidden states are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// That of the suffix's last token.
    Last,
    /// The mean over these tokens of the suffix, counted from its start; for
    /// example those of the event in it. At the last layer, each costs what a
    /// row of a layer costs.
    Mean(Range<usize>),
    /// As [`Self::Mean`], over each of these in turn; a single token is a range too.
    Means(Vec<Range<usize>>),
}

impl HiddenRequest {
    /// That it can be answered by a model of `n_layers` for a text of `n_suffix`
    /// tokens.
    pub(crate) fn check(&self, n_layers: usize, n_suffix: usize) -> Result<(), InferenceError> {
        if let Some(layer) = self.layers.iter().find(|&&layer| layer > n_layers) {
            return Err(InferenceError::InvalidOption {
                name: "layers",
                allowed: "at most the number of layers",
                value: layer.to_string(),
            });
        }
        let ranges = match &self.pooling {
            Pooling::Last => &[],
            Pooling::Mean(tokens) => std::slice::from_ref(tokens),
            Pooling::Means(ranges) => ranges.as_slice(),
        };
        let outside = |tokens: &&Range<usize>| tokens.is_empty() || tokens.end > n_suffix;
        match ranges.iter().find(outside) {
            Some(tokens) => Err(InferenceError::InvalidOption {
                name: "pooling",
                allowed: "tokens of the suffix, at least one",
                value: format!("{tokens:?}"),
            }),
            None => Ok(()),
        }
    }

    /// The tokens of each state's mean, in the order of the states; all layers
    /// of one range follow each other.
    pub(crate) fn ranges(&self, n_suffix: usize) -> Vec<Range<usize>> {
        match &self.pooling {
            Pooling::Last => std::iter::once(n_suffix - 1..n_suffix).collect(),
            Pooling::Mean(tokens) => vec![tokens.clone()],
            Pooling::Means(ranges) => ranges.clone(),
        }
    }

    /// How many states a text gets: one of each layer, for each range of tokens.
    pub(super) fn n_states(&self) -> usize {
        let n_ranges = match &self.pooling {
            Pooling::Last | Pooling::Mean(_) => 1,
            Pooling::Means(ranges) => ranges.len(),
        };
        n_ranges * self.layers.len()
    }

    /// Plans what is asked for of the suffix in the rows from `first` on; to be
    /// called before other rows of the sequence become wanted.
    pub(super) fn plan(&self, plan: &mut Plan, first: usize, n_suffix: usize, n_layers: usize) {
        match &self.pooling {
            Pooling::Last => self.plan_range(plan, first + n_suffix - 1..first + n_suffix),
            Pooling::Mean(tokens) => self.plan_range(plan, moved(tokens, first)),
            Pooling::Means(ranges) => ranges
                .iter()
                .for_each(|tokens| self.plan_range(plan, moved(tokens, first))),
        }
        if self.layers.contains(&n_layers) {
            let of_others = plan.wanted.partition_point(|&row| row < first);
            let taps = &plan.taps[plan.taps.len() - self.n_states()..];
            for tap in taps.iter().step_by(self.layers.len()) {
                plan.wanted.extend(tap.rows.clone());
            }
            plan.wanted[of_others..].sort_unstable();
            plan.wanted.dedup();
        }
    }

    fn plan_range(&self, plan: &mut Plan, rows: Range<usize>) {
        let taps = self.layers.iter().map(|&n_layers| Tap {
            n_layers,
            rows: rows.clone(),
        });
        plan.taps.extend(taps);
    }
}

fn moved(tokens: &Range<usize>, first: usize) -> Range<usize> {
    first + tokens.start..first + tokens.end
}
