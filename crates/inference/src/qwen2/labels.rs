//! Scores a closed set of labels in one forward pass.
//!
//! The labels form a tree of tokens. Its inner nodes go through the model in
//! the same pass as the text, each seeing the text and its own ancestors only,
//! so a label of several tokens costs no further pass (teacher forcing).

use super::{Pass, Prefix, Qwen2, Reach};
use crate::{
    error::InferenceError,
    label_tree::{self, LabelTree},
    math::log_sum_exp,
    tokenizer::TokenId,
};

/// How likely each label is to come next.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelScores {
    /// Natural logarithm of each label's probability, in the order given: the
    /// sum over all its tokens. At most 0.
    pub log_probabilities: Vec<f64>,
    /// Probability that what comes next begins with none of the labels,
    /// `0.0..=1.0`. A label that begins with another one is counted in it.
    pub outside: f64,
    /// The hidden state after the text's last token, after the final norm:
    /// `(hidden_size,)`, f32.
    pub hidden: Vec<f32>,
}

impl Qwen2 {
    /// Scores `labels` as continuations of `prefix` and `suffix`, in one pass.
    ///
    /// `labels`: each at least one token; they may share first tokens, and one
    /// may begin with another. Cost grows with `suffix`, hardly with labels.
    ///
    /// # Errors
    /// [`InferenceError::Empty`] without a suffix, a label or a label's tokens,
    /// [`InferenceError::ContextOverflow`], [`InferenceError::UnknownToken`],
    /// [`InferenceError::ForeignPrefix`], [`InferenceError::NotFinite`].
    /// `prefix` never changes.
    pub fn score_labels(
        &self,
        prefix: &Prefix,
        suffix: &[TokenId],
        labels: &[Vec<TokenId>],
    ) -> Result<LabelScores, InferenceError> {
        if labels.is_empty() || labels.iter().any(Vec::is_empty) {
            return Err(InferenceError::Empty { what: "labels" });
        }
        for label in labels {
            self.check_tokens(label)?;
        }
        let longest = labels.iter().map(Vec::len).max().unwrap_or_default();
        self.check_room(Some(prefix), suffix.len().saturating_add(longest))?;
        let last = self.check_call(Some(prefix), suffix)?;

        let tree = LabelTree::new(labels);
        let pass = pass(&tree, prefix.len(), suffix, last);
        let mut cache = self.cache_after(Some(prefix), pass.tokens.len())?;
        let hidden = self.run(&mut cache, &pass)?;
        let logits = self.head(&hidden)?;
        let normalisers: Vec<f64> = logits.iter().map(log_sum_exp).collect();
        // Row 0 follows the text, row i the inner node i - 1.
        let steps = labels.iter().flat_map(|label| tree.steps(label));
        let steps: Vec<f64> = steps
            .map(|(row, token)| f64::from(logits.row(row)[token.0 as usize]) - normalisers[row])
            .collect();
        Ok(LabelScores::from_steps(
            labels,
            &steps,
            hidden.row(0).to_vec(),
        ))
    }
}

impl LabelScores {
    /// From the log-probability of each token of each label, in their order.
    pub(crate) fn from_steps(labels: &[Vec<TokenId>], steps: &[f64], hidden: Vec<f32>) -> Self {
        let log_probabilities = label_tree::log_probabilities(labels, steps);
        Self {
            outside: label_tree::outside(labels, &log_probabilities),
            log_probabilities,
            hidden,
        }
    }
}

/// The text, then the inner nodes; wanted are its last token and the nodes.
fn pass(tree: &LabelTree, n_cached: usize, suffix: &[TokenId], last: usize) -> Pass {
    let mut pass = Pass::sequence(suffix, n_cached, vec![last]);
    for (node_idx, (token, chain)) in tree.nodes().enumerate() {
        pass.tokens.push(token);
        pass.positions.push(n_cached + last + chain.len());
        pass.wanted.push(suffix.len() + node_idx);
        pass.reach.push(Reach {
            until: suffix.len(),
            beyond: chain.into_iter().map(|idx| suffix.len() + idx).collect(),
        });
    }
    pass
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_follow_the_text_at_the_position_of_their_depth() {
        let labels = [vec![1, 2], vec![1, 3, 4], vec![1, 3, 5], vec![6, 7]];
        let labels = labels.map(|ids| ids.into_iter().map(TokenId).collect::<Vec<_>>());
        let pass = pass(&LabelTree::new(&labels), 10, &[TokenId(9), TokenId(8)], 1);
        let ids: Vec<u32> = pass.tokens.iter().map(|token| token.0).collect();
        assert_eq!(ids, [9, 8, 1, 3, 6]);
        assert_eq!(pass.positions, [10, 11, 12, 13, 12]);
        assert_eq!(pass.wanted, [1, 2, 3, 4]);
        assert_eq!(pass.reach[3].beyond, [2, 3]);
        assert_eq!(pass.reach[4].beyond, [4]);
    }
}
