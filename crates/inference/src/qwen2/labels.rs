//! Scores a closed set of labels in one forward pass.
//!
//! The labels form a tree of tokens. Its inner nodes go through the model in
//! the same pass as the text, each seeing the text and its own ancestors only,
//! so a label of several tokens costs no further pass (teacher forcing).

use super::{Pass, Prefix, Qwen2, Reach};
use crate::{error::InferenceError, math::log_sum_exp, tokenizer::TokenId};

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
        let pass = tree.pass(prefix.len(), suffix, last);
        let mut cache = self.cache_after(Some(prefix), pass.tokens.len())?;
        let hidden = self.run(&mut cache, &pass)?;
        let logits = self.head(&hidden)?;
        let normalisers: Vec<f64> = logits.iter().map(log_sum_exp).collect();
        // Row 0 follows the text, row i the inner node i - 1.
        let log_probability = |row: usize, token: TokenId| {
            f64::from(logits.row(row)[token.0 as usize]) - normalisers[row]
        };
        let log_probabilities: Vec<f64> = labels
            .iter()
            .map(|label| {
                let mut row = 0;
                let steps = label.iter().map(|&token| {
                    let step = log_probability(row, token);
                    row = tree.find(row, token).unwrap_or(row);
                    step
                });
                // A sum of rounded numbers may pass 0; unlike `min`, `clamp`
                // does not make a number of NaN.
                steps.sum::<f64>().clamp(f64::NEG_INFINITY, 0.0)
            })
            .collect();
        let inside: f64 = disjoint(labels)
            .into_iter()
            .map(|label_idx| log_probabilities[label_idx].exp())
            .sum();
        Ok(LabelScores {
            log_probabilities,
            outside: (1.0 - inside).clamp(0.0, 1.0),
            hidden: hidden.row(0).to_vec(),
        })
    }
}

/// The inner nodes of the token tree: those after which a label goes on.
struct LabelTree {
    nodes: Vec<Node>,
}

struct Node {
    token: TokenId,
    /// 0 is the text's last token, i the node i - 1: the numbering of logits.
    parent: usize,
}

impl LabelTree {
    fn new(labels: &[Vec<TokenId>]) -> Self {
        let mut tree = Self { nodes: Vec::new() };
        for label in labels {
            let mut parent = 0;
            for &token in &label[..label.len() - 1] {
                parent = tree.find(parent, token).unwrap_or_else(|| {
                    tree.nodes.push(Node { token, parent });
                    tree.nodes.len()
                });
            }
        }
        tree
    }

    /// The number of the inner node `token` below `parent`.
    fn find(&self, parent: usize, token: TokenId) -> Option<usize> {
        let is_it = |node: &Node| node.parent == parent && node.token == token;
        self.nodes.iter().position(is_it).map(|idx| idx + 1)
    }

    fn ancestors(&self, node_idx: usize) -> Vec<usize> {
        let mut chain = vec![node_idx];
        let mut parent = self.nodes[node_idx].parent;
        while let Some(idx) = parent.checked_sub(1) {
            chain.push(idx);
            parent = self.nodes[idx].parent;
        }
        chain.reverse();
        chain
    }

    /// The text, then the inner nodes; wanted are its last token and the nodes.
    fn pass(&self, n_cached: usize, suffix: &[TokenId], last: usize) -> Pass {
        let mut pass = Pass::sequence(suffix, n_cached, vec![last]);
        for (node_idx, node) in self.nodes.iter().enumerate() {
            let chain = self.ancestors(node_idx);
            pass.tokens.push(node.token);
            pass.positions.push(n_cached + last + chain.len());
            pass.wanted.push(suffix.len() + node_idx);
            pass.reach.push(Reach {
                until: suffix.len(),
                beyond: chain.into_iter().map(|idx| suffix.len() + idx).collect(),
            });
        }
        pass
    }
}

/// The labels whose continuations do not overlap: no label in it begins with
/// another, and each is there once.
fn disjoint(labels: &[Vec<TokenId>]) -> Vec<usize> {
    let covered = |label_idx: usize| {
        labels.iter().enumerate().any(|(other_idx, other)| {
            other_idx != label_idx
                && labels[label_idx].starts_with(other)
                && (other.len() < labels[label_idx].len() || other_idx < label_idx)
        })
    };
    (0..labels.len()).filter(|&idx| !covered(idx)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[&[u32]]) -> Vec<Vec<TokenId>> {
        let label = |ids: &&[u32]| ids.iter().copied().map(TokenId).collect();
        labels.iter().map(label).collect()
    }

    #[test]
    fn shared_first_tokens_become_one_node() {
        let tree = LabelTree::new(&labels(&[&[1, 2], &[1, 3, 4], &[1, 3, 5], &[6]]));
        let pass = tree.pass(10, &[TokenId(9), TokenId(8)], 1);
        let ids: Vec<u32> = pass.tokens.iter().map(|token| token.0).collect();
        assert_eq!(ids, [9, 8, 1, 3]);
        assert_eq!(pass.positions, [10, 11, 12, 13]);
        assert_eq!(pass.wanted, [1, 2, 3]);
        assert_eq!(pass.reach[3].beyond, [2, 3]);
    }

    #[test]
    fn siblings_do_not_see_each_other() {
        let tree = LabelTree::new(&labels(&[&[1, 2], &[3, 4]]));
        let pass = tree.pass(0, &[TokenId(9)], 0);
        assert_eq!(pass.positions, [0, 1, 1]);
        assert_eq!(pass.reach[1].beyond, [1]);
        assert_eq!(pass.reach[2].beyond, [2]);
    }

    #[test]
    fn a_label_that_begins_with_another_adds_no_mass() {
        assert_eq!(disjoint(&labels(&[&[1, 2], &[1], &[3], &[3]])), [1, 2]);
    }
}
