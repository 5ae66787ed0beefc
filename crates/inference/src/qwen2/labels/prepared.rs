//! A closed set of labels, made ready for many texts.

use std::sync::Arc;

use crate::{
    error::InferenceError,
    label_plan::{LabelPlan, Normalization},
    linear::Linear,
    qwen2::{Qwen2, kv::Identity},
    tokenizer::TokenId,
};

/// Labels ready to be scored, made by [`Qwen2::prepare_labels`].
///
/// Costs little to keep, and may be used from many threads at once.
pub struct PreparedLabels {
    pub(super) plan: LabelPlan,
    /// The rows of the head that are needed; `None`: all.
    pub(super) head: Option<Linear>,
    pub(super) model: Identity,
}

impl Qwen2 {
    /// Makes `labels` ready: each at least one token; they may share first tokens.
    ///
    /// # Errors
    /// [`InferenceError::Empty`] without a label or a label's tokens,
    /// [`InferenceError::UnknownToken`]; among legal tokens
    /// [`InferenceError::AmbiguousLabel`] for a label that is there twice, or
    /// that another one begins with and no terminator tells apart.
    pub fn prepare_labels(
        &self,
        labels: &[Vec<TokenId>],
        normalization: Normalization,
    ) -> Result<Arc<PreparedLabels>, InferenceError> {
        let mut plan = LabelPlan::new(labels, normalization, |tokens| self.check_tokens(tokens))?;
        let tokens = plan.tokens.as_deref();
        let head = tokens.and_then(|tokens| self.layers.head.select_outputs(tokens));
        if head.is_none() {
            plan.use_all_outputs();
        }
        Ok(Arc::new(PreparedLabels {
            plan,
            head,
            model: Arc::clone(self.identity()),
        }))
    }
}

impl PreparedLabels {
    /// How many labels.
    #[must_use]
    pub fn n_labels(&self) -> usize {
        self.plan.n_labels
    }

    /// Rows that they add to a pass, behind each text.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.plan.nodes.len()
    }
}

impl std::fmt::Debug for PreparedLabels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedLabels")
            .field("n_labels", &self.n_labels())
            .field("n_rows", &self.n_rows())
            .finish_non_exhaustive()
    }
}
