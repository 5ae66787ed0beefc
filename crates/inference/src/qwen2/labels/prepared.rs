//! A closed set of labels, made ready for many texts.

use std::sync::Arc;

use crate::{
    error::InferenceError,
    label_tree::{self, LabelTree},
    linear::Linear,
    qwen2::{Qwen2, kv::Identity},
    tokenizer::TokenId,
};

/// Among what a label's probability is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalization {
    /// Among all continuations: each step of a label competes with the whole
    /// vocabulary. Says how likely it is that none of the labels comes
    /// ([`LabelScores::outside`](super::LabelScores::outside)); one label may
    /// begin with another, and is then counted in it.
    WholeVocabulary,
    /// Among the labels alone: each step competes with the tokens that continue
    /// some label, as if decoding were held to them. The probabilities of the
    /// labels sum to 1. Steps without a choice cost nothing, and the head
    /// computes only what is needed.
    LegalTokens {
        /// What ends a label that another one begins with: the shorter of the
        /// two is then scored with this token behind it. Without it there is no
        /// way to tell "ends here" from "goes on", and such a set is refused.
        terminator: Option<TokenId>,
    },
}

/// Labels ready to be scored, made by [`Qwen2::prepare_labels`].
///
/// Costs little to keep, and may be used from many threads at once.
pub struct PreparedLabels {
    pub(super) n_labels: usize,
    /// Tokens of the longest one, terminators counted.
    pub(super) longest: usize,
    /// The rows behind a text, in their order.
    pub(super) nodes: Vec<PreparedNode>,
    /// The rows whose logits are needed, ascending by node.
    pub(super) rows: Vec<PreparedRow>,
    /// The rows of the head that are needed; `None`: all.
    pub(super) head: Option<Linear>,
    /// Labels whose continuations do not overlap, if all tokens compete.
    pub(super) disjoint: Option<Vec<usize>>,
    pub(super) model: Identity,
}

pub(super) struct PreparedNode {
    pub(super) token: TokenId,
    /// Places in `nodes`, ascending.
    pub(super) ancestors: Vec<usize>,
}

pub(super) struct PreparedRow {
    /// The place in `nodes` plus 1; 0 is the text's last token.
    pub(super) node: usize,
    /// The columns of the head's output that compete; empty: all.
    pub(super) legal: Vec<usize>,
    /// The steps of labels that are taken here.
    pub(super) steps: Vec<Step>,
}

pub(super) struct Step {
    pub(super) label_idx: usize,
    /// Of the head's output.
    pub(super) column: usize,
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
        if labels.is_empty() || labels.iter().any(Vec::is_empty) {
            return Err(InferenceError::Empty { what: "labels" });
        }
        for label in labels {
            self.check_tokens(label)?;
        }
        let prepared = match normalization {
            Normalization::WholeVocabulary => self.prepare_among_all(labels),
            Normalization::LegalTokens { terminator } => {
                self.check_tokens(terminator.as_slice())?;
                let labels = terminated(labels, terminator)?;
                self.prepare_among_legal(&labels)
            }
        };
        Ok(Arc::new(prepared))
    }

    fn prepare_among_all(&self, labels: &[Vec<TokenId>]) -> PreparedLabels {
        let tree = LabelTree::new(labels);
        let rows = steps(labels, &tree).into_iter().enumerate();
        let rows = rows.map(|(node, steps)| PreparedRow {
            node,
            legal: Vec::new(),
            steps: steps
                .into_iter()
                .map(|(label_idx, token)| Step {
                    label_idx,
                    column: token.0 as usize,
                })
                .collect(),
        });
        PreparedLabels {
            n_labels: labels.len(),
            longest: longest(labels),
            nodes: tree.nodes().map(PreparedNode::new).collect(),
            rows: rows.collect(),
            head: None,
            disjoint: Some(label_tree::disjoint(labels)),
            model: Arc::clone(self.identity()),
        }
    }

    fn prepare_among_legal(&self, labels: &[Vec<TokenId>]) -> PreparedLabels {
        let tree = LabelTree::new(labels);
        let steps = steps(labels, &tree);
        let has_choice =
            |steps: &[(usize, TokenId)]| steps.iter().any(|&(_, token)| token != steps[0].1);
        let (nodes, numbers) = pruned(&tree, |row| has_choice(&steps[row]));
        let choices = steps.iter().filter(|steps| has_choice(steps)).flatten();
        let mut tokens: Vec<usize> = choices.map(|&(_, token)| token.0 as usize).collect();
        tokens.sort_unstable();
        tokens.dedup();
        let head = self.layers.head.select_outputs(&tokens);
        let column = |token: TokenId| match &head {
            Some(_) => tokens.partition_point(|&legal| legal < token.0 as usize),
            None => token.0 as usize,
        };
        let rows = steps.iter().zip(numbers).filter_map(|(steps, node)| {
            let node = node.filter(|_| has_choice(steps))?;
            let steps = steps.iter().map(|&(label_idx, token)| Step {
                label_idx,
                column: column(token),
            });
            let steps: Vec<Step> = steps.collect();
            let mut legal: Vec<usize> = steps.iter().map(|step| step.column).collect();
            legal.sort_unstable();
            legal.dedup();
            Some(PreparedRow { node, legal, steps })
        });
        PreparedLabels {
            n_labels: labels.len(),
            longest: longest(labels),
            nodes,
            rows: rows.collect(),
            head,
            disjoint: None,
            model: Arc::clone(self.identity()),
        }
    }
}

impl PreparedLabels {
    /// How many labels.
    #[must_use]
    pub fn n_labels(&self) -> usize {
        self.n_labels
    }

    /// Rows that they add to a pass, behind each text.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.nodes.len()
    }
}

impl PreparedNode {
    fn new((token, chain): (TokenId, Vec<usize>)) -> Self {
        let above = chain.len() - 1;
        Self {
            token,
            ancestors: chain[..above].to_vec(),
        }
    }
}

impl std::fmt::Debug for PreparedLabels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedLabels")
            .field("n_labels", &self.n_labels)
            .field("n_rows", &self.n_rows())
            .finish_non_exhaustive()
    }
}

fn longest(labels: &[Vec<TokenId>]) -> usize {
    labels.iter().map(Vec::len).max().unwrap_or_default()
}

/// For each row of logits, which labels take which token there.
fn steps(labels: &[Vec<TokenId>], tree: &LabelTree) -> Vec<Vec<(usize, TokenId)>> {
    let n_rows = tree.nodes().count() + 1;
    let mut steps: Vec<Vec<(usize, TokenId)>> = vec![Vec::new(); n_rows];
    for (label_idx, label) in labels.iter().enumerate() {
        for (row, token) in tree.steps(label) {
            steps[row].push((label_idx, token));
        }
    }
    steps
}

/// Only the nodes whose row `keep` says, and those above them; and for each row
/// of the tree the number it has then.
fn pruned(
    tree: &LabelTree,
    keep: impl Fn(usize) -> bool,
) -> (Vec<PreparedNode>, Vec<Option<usize>>) {
    let nodes: Vec<(TokenId, Vec<usize>)> = tree.nodes().collect();
    let mut is_kept = vec![false; nodes.len()];
    for (node_idx, (_, chain)) in nodes.iter().enumerate() {
        if keep(node_idx + 1) {
            chain.iter().for_each(|&above| is_kept[above] = true);
        }
    }
    let mut places: Vec<Option<usize>> = Vec::with_capacity(nodes.len());
    let mut n_kept = 0;
    for &is_kept in &is_kept {
        places.push(is_kept.then_some(n_kept));
        n_kept += usize::from(is_kept);
    }
    let kept = nodes
        .into_iter()
        .zip(&places)
        .filter(|(_, place)| place.is_some());
    let kept = kept.map(|((token, chain), _)| {
        let chain = chain.into_iter().filter_map(|above| places[above]);
        PreparedNode::new((token, chain.collect()))
    });
    let kept = kept.collect();
    let rows = places.iter().map(|place| place.map(|place| place + 1));
    (kept, std::iter::once(Some(0)).chain(rows).collect())
}

/// The labels with `terminator` behind those that another one begins with; in
/// the result no label begins with another.
fn terminated(
    labels: &[Vec<TokenId>],
    terminator: Option<TokenId>,
) -> Result<Vec<Vec<TokenId>>, InferenceError> {
    let is_start_of_other = |labels: &[Vec<TokenId>], idx: usize| {
        let mut others = labels.iter().enumerate();
        others.any(|(other_idx, other)| other_idx != idx && other.starts_with(&labels[idx]))
    };
    let terminated = labels.iter().enumerate().map(|(idx, label)| {
        let mut label = label.clone();
        if is_start_of_other(labels, idx) {
            label.extend(terminator);
        }
        label
    });
    let terminated: Vec<Vec<TokenId>> = terminated.collect();
    match (0..labels.len()).find(|&idx| is_start_of_other(&terminated, idx)) {
        Some(label_idx) => Err(InferenceError::AmbiguousLabel { label_idx }),
        None => Ok(terminated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[&[u32]]) -> Vec<Vec<TokenId>> {
        let label = |ids: &&[u32]| ids.iter().copied().map(TokenId).collect();
        labels.iter().map(label).collect()
    }

    #[test]
    fn a_terminator_ends_only_what_another_label_begins_with() {
        let given = labels(&[&[1], &[1, 2], &[3]]);
        let ended = terminated(&given, Some(TokenId(9))).unwrap();
        assert_eq!(ended, labels(&[&[1, 9], &[1, 2], &[3]]));
    }

    #[test]
    fn labels_that_cannot_be_told_apart_are_refused() {
        for (given, terminator, ambiguous) in [
            (labels(&[&[3], &[1], &[1, 2]]), None, 1),
            (labels(&[&[1, 2], &[1, 2]]), None, 0),
            (labels(&[&[1, 2], &[1, 2]]), Some(TokenId(9)), 0),
            (labels(&[&[1], &[1, 9]]), Some(TokenId(9)), 0),
            (labels(&[&[1], &[1, 9, 4]]), Some(TokenId(9)), 0),
        ] {
            let refused = terminated(&given, terminator);
            assert!(matches!(
                refused,
                Err(InferenceError::AmbiguousLabel { label_idx }) if label_idx == ambiguous
            ));
        }
    }

    #[test]
    fn each_step_is_taken_at_its_node() {
        let labels = labels(&[&[1, 2], &[1, 3], &[4]]);
        let tree = LabelTree::new(&labels);
        let expected = [
            vec![(0, TokenId(1)), (1, TokenId(1)), (2, TokenId(4))],
            vec![(0, TokenId(2)), (1, TokenId(3))],
        ];
        assert_eq!(steps(&labels, &tree), expected);
    }

    #[test]
    fn pruning_keeps_what_lies_above() {
        let tree = LabelTree::new(&labels(&[&[9, 9, 9], &[1, 2, 3, 4, 5]]));
        let (nodes, rows) = pruned(&tree, |row| row == 5);
        let expected = [Some(0), None, None, Some(1), Some(2), Some(3), None];
        assert_eq!(rows, expected);
        assert_eq!(nodes.len(), 3);
        assert_eq!(nodes[2].token, TokenId(3));
        assert_eq!(nodes[2].ancestors, [0, 1]);
    }
}
