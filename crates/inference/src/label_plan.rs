//! What scoring a closed set of labels takes, before any model runs.
//!
//! Shared by the passes on the processor (`qwen2/labels`) and on a device
//! (`cuda/labels.rs`): which rows go behind a text, which logits are needed of
//! them, and what these add up to. Plain token arithmetic.

use crate::{
    error::InferenceError,
    label_tree::{self, LabelTree},
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

/// The rows behind a text, and the logits that its labels need of them.
pub(crate) struct LabelPlan {
    pub(crate) n_labels: usize,
    /// Tokens of the longest one, terminators counted.
    pub(crate) longest: usize,
    /// The rows behind a text, in their order.
    pub(crate) nodes: Vec<PlannedNode>,
    /// The rows whose logits are needed, ascending by node.
    pub(crate) rows: Vec<PlannedRow>,
    /// The tokens whose logits are needed, ascending: columns are places among
    /// them. `None`: all, and columns are ids.
    pub(crate) tokens: Option<Vec<usize>>,
    /// Labels whose continuations do not overlap, if all tokens compete.
    pub(crate) disjoint: Option<Vec<usize>>,
}

pub(crate) struct PlannedNode {
    pub(crate) token: TokenId,
    /// Places in `nodes`, ascending.
    pub(crate) ancestors: Vec<usize>,
}

pub(crate) struct PlannedRow {
    /// The place in `nodes` plus 1; 0 is the text's last token.
    pub(crate) node: usize,
    /// The columns of the head's output that compete; empty: all.
    pub(crate) legal: Vec<usize>,
    /// The steps of labels that are taken here.
    pub(crate) steps: Vec<Step>,
}

pub(crate) struct Step {
    pub(crate) label_idx: usize,
    /// Of the head's output.
    pub(crate) column: usize,
}

impl LabelPlan {
    /// `check` is asked about all tokens first.
    ///
    /// # Errors
    /// [`InferenceError::Empty`] without a label or a label's tokens, what `check`
    /// returns, and [`InferenceError::AmbiguousLabel`] among legal tokens.
    pub(crate) fn new(
        labels: &[Vec<TokenId>],
        normalization: Normalization,
        check: impl Fn(&[TokenId]) -> Result<(), InferenceError>,
    ) -> Result<Self, InferenceError> {
        if labels.is_empty() || labels.iter().any(Vec::is_empty) {
            return Err(InferenceError::Empty { what: "labels" });
        }
        for label in labels {
            check(label)?;
        }
        match normalization {
            Normalization::WholeVocabulary => Ok(Self::among_all(labels)),
            Normalization::LegalTokens { terminator } => {
                check(terminator.as_slice())?;
                Ok(Self::among_legal(&terminated(labels, terminator)?))
            }
        }
    }

    fn among_all(labels: &[Vec<TokenId>]) -> Self {
        let tree = LabelTree::new(labels);
        let rows = steps(labels, &tree).into_iter().enumerate();
        let rows = rows.map(|(node, steps)| PlannedRow {
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
        Self {
            n_labels: labels.len(),
            longest: longest(labels),
            nodes: tree.nodes().map(PlannedNode::new).collect(),
            rows: rows.collect(),
            tokens: None,
            disjoint: Some(label_tree::disjoint(labels)),
        }
    }

    fn among_legal(labels: &[Vec<TokenId>]) -> Self {
        let tree = LabelTree::new(labels);
        let steps = steps(labels, &tree);
        let has_choice =
            |steps: &[(usize, TokenId)]| steps.iter().any(|&(_, token)| token != steps[0].1);
        let (nodes, numbers) = pruned(&tree, |row| has_choice(&steps[row]));
        let choices = steps.iter().filter(|steps| has_choice(steps)).flatten();
        let mut tokens: Vec<usize> = choices.map(|&(_, token)| token.0 as usize).collect();
        tokens.sort_unstable();
        tokens.dedup();
        let column = |token: TokenId| tokens.partition_point(|&legal| legal < token.0 as usize);
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
            Some(PlannedRow { node, legal, steps })
        });
        Self {
            n_labels: labels.len(),
            longest: longest(labels),
            nodes,
            rows: rows.collect(),
            tokens: Some(tokens),
            disjoint: None,
        }
    }

    /// For a head whose outputs cannot be chosen: columns become ids.
    pub(crate) fn use_all_outputs(&mut self) {
        let Some(tokens) = self.tokens.take() else {
            return;
        };
        for row in &mut self.rows {
            let steps = row.steps.iter_mut().map(|step| &mut step.column);
            for column in row.legal.iter_mut().chain(steps) {
                *column = tokens[*column];
            }
        }
    }
}

impl PlannedRow {
    /// The logarithm of the sum of exponentials of the legal columns of one row.
    pub(crate) fn normaliser(&self, logits: &[f32]) -> f64 {
        let legal = || self.legal.iter().map(|&column| f64::from(logits[column]));
        let largest = legal().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = legal().map(|logit| (logit - largest).exp()).sum();
        largest + sum.ln()
    }
}

impl PlannedNode {
    fn new((token, chain): (TokenId, Vec<usize>)) -> Self {
        let above = chain.len() - 1;
        Self {
            token,
            ancestors: chain[..above].to_vec(),
        }
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
) -> (Vec<PlannedNode>, Vec<Option<usize>>) {
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
        PlannedNode::new((token, chain.collect()))
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

    #[test]
    fn columns_are_places_among_the_legal_tokens_or_ids() {
        let given = labels(&[&[40, 7], &[40, 9], &[30]]);
        let normalization = Normalization::LegalTokens { terminator: None };
        let mut plan = LabelPlan::new(&given, normalization, |_| Ok(())).unwrap();
        assert_eq!(plan.tokens.as_deref(), Some(&[7, 9, 30, 40][..]));
        let columns = |plan: &LabelPlan| -> Vec<Vec<usize>> {
            plan.rows.iter().map(|row| row.legal.clone()).collect()
        };
        assert_eq!(columns(&plan), [[2, 3], [0, 1]]);
        plan.use_all_outputs();
        assert_eq!(columns(&plan), [[30, 40], [7, 9]]);
        assert_eq!(plan.rows[1].steps[1].column, 9);
    }
}
