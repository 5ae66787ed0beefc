//! The tree that a set of labels forms.
//!
//! Plain token arithmetic, shared by the passes on the processor and on a
//! device; nothing here runs a model.

use crate::tokenizer::TokenId;

/// The inner nodes of the token tree: those after which a label goes on.
///
/// Rows are numbered as the logits are: 0 follows the text, `i` the node
/// `i - 1`.
pub(crate) struct LabelTree {
    nodes: Vec<Node>,
}

struct Node {
    token: TokenId,
    /// The row that it is a child of.
    parent: usize,
}

impl LabelTree {
    /// `labels`: each at least one token.
    pub(crate) fn new(labels: &[Vec<TokenId>]) -> Self {
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

    /// Each inner node's token and the indices of the nodes from the root down
    /// to it, itself the last.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (TokenId, Vec<usize>)> + '_ {
        let nodes = self.nodes.iter().enumerate();
        nodes.map(|(node_idx, node)| (node.token, self.chain(node_idx)))
    }

    /// The row of the logits that each token of `label` is read from, and the
    /// token.
    pub(crate) fn steps<'a>(
        &'a self,
        label: &'a [TokenId],
    ) -> impl Iterator<Item = (usize, TokenId)> + 'a {
        let mut row = 0;
        label.iter().map(move |&token| {
            let step = (row, token);
            row = self.find(row, token).unwrap_or(row);
            step
        })
    }

    /// The row of the inner node `token` below `parent`.
    fn find(&self, parent: usize, token: TokenId) -> Option<usize> {
        let is_it = |node: &Node| node.parent == parent && node.token == token;
        self.nodes.iter().position(is_it).map(|idx| idx + 1)
    }

    fn chain(&self, node_idx: usize) -> Vec<usize> {
        let mut chain = vec![node_idx];
        let mut parent = self.nodes[node_idx].parent;
        while let Some(idx) = parent.checked_sub(1) {
            chain.push(idx);
            parent = self.nodes[idx].parent;
        }
        chain.reverse();
        chain
    }
}

/// The labels whose continuations do not overlap: no label in it begins with
/// another, and each is there once.
pub(crate) fn disjoint(labels: &[Vec<TokenId>]) -> Vec<usize> {
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
        let nodes: Vec<_> = tree.nodes().collect();
        let expected = [(TokenId(1), vec![0]), (TokenId(3), vec![0, 1])];
        assert_eq!(nodes, expected);
        let steps: Vec<_> = tree.steps(&[TokenId(1), TokenId(3), TokenId(5)]).collect();
        assert_eq!(steps, [(0, TokenId(1)), (1, TokenId(3)), (2, TokenId(5))]);
    }

    #[test]
    fn siblings_are_not_each_other_s_ancestors() {
        let tree = LabelTree::new(&labels(&[&[1, 2], &[3, 4]]));
        let chains: Vec<_> = tree.nodes().map(|(_, chain)| chain).collect();
        assert_eq!(chains, [vec![0], vec![1]]);
    }

    #[test]
    fn a_label_that_begins_with_another_adds_no_mass() {
        let labels = labels(&[&[1, 2], &[1], &[3], &[3]]);
        assert_eq!(disjoint(&labels), [1, 2]);
    }
}
