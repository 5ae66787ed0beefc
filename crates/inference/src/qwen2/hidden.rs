//! Hidden states on request, out of the pass that scores labels.

use std::ops::Range;

use super::{Qwen2, plan::Plan, plan::Tap};
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
}

impl Qwen2 {
    pub(super) fn check_hidden(
        &self,
        request: &HiddenRequest,
        n_suffix: usize,
    ) -> Result<(), InferenceError> {
        let n_layers = self.config.num_hidden_layers;
        if let Some(layer) = request.layers.iter().find(|&&layer| layer > n_layers) {
            return Err(InferenceError::InvalidOption {
                name: "layers",
                allowed: "at most the number of layers",
                value: layer.to_string(),
            });
        }
        if let Pooling::Mean(tokens) = &request.pooling
            && (tokens.is_empty() || tokens.end > n_suffix)
        {
            return Err(InferenceError::InvalidOption {
                name: "pooling",
                allowed: "tokens of the suffix, at least one",
                value: format!("{tokens:?}"),
            });
        }
        Ok(())
    }
}

impl HiddenRequest {
    /// The rows of a pass whose first suffix row is `first`.
    fn rows(&self, first: usize, n_suffix: usize) -> Range<usize> {
        match &self.pooling {
            Pooling::Last => first + n_suffix - 1..first + n_suffix,
            Pooling::Mean(tokens) => first + tokens.start..first + tokens.end,
        }
    }

    /// Plans what is asked for of the suffix in the rows from `first` on; to be
    /// called before other rows of the sequence become wanted.
    pub(super) fn plan(&self, plan: &mut Plan, first: usize, n_suffix: usize, n_layers: usize) {
        let rows = self.rows(first, n_suffix);
        let taps = self.layers.iter().map(|&n_layers| Tap {
            n_layers,
            rows: rows.clone(),
        });
        plan.taps.extend(taps);
        if self.layers.contains(&n_layers) {
            plan.wanted.extend(rows);
        }
    }
}
