//! A radix tree over blocks: which sequences of tokens have keys and values.
//!
//! Every edge is one block of exact tokens; only leaves may be shorter than 64.
//! Sequences that begin alike share the nodes of all whole blocks they have in
//! common, and one that branches off inside a block starts from a copy of it.

use std::sync::Arc;

use inwarden_kernels::KV_BLOCK;

use super::block::Block;
use crate::tokenizer::TokenId;

type NodeIdx = usize;

pub(super) struct Tree {
    /// `None` is a place to be used again, listed in `free`.
    nodes: Vec<Option<Node>>,
    free: Vec<NodeIdx>,
    roots: Vec<NodeIdx>,
    size_bytes: usize,
    n_evicted: u64,
    /// Counts lookups and insertions; the time of [`Node::last_used`].
    clock: u64,
}

struct Node {
    /// `1..=KV_BLOCK` tokens; a node with fewer than `KV_BLOCK` has no children.
    tokens: Vec<TokenId>,
    block: Arc<Block>,
    parent: Option<NodeIdx>,
    children: Vec<NodeIdx>,
    last_used: u64,
    /// For each pin that ends in this block, how many of its tokens it needs.
    pins: Vec<usize>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            roots: Vec::new(),
            size_bytes: 0,
            n_evicted: 0,
            clock: 0,
        }
    }

    /// Memory of all blocks in it, in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    pub(super) fn n_evicted(&self) -> u64 {
        self.n_evicted
    }

    pub(super) fn n_pins(&self) -> usize {
        let nodes = self.nodes.iter().flatten();
        nodes.map(|node| node.pins.len()).sum()
    }

    /// The longest start of `tokens` that is in the tree: how many, and their
    /// blocks. Counts as a use of them.
    pub(super) fn longest_match(&mut self, tokens: &[TokenId]) -> (usize, Vec<Arc<Block>>) {
        self.clock += 1;
        let mut n_matched = 0;
        let mut blocks = Vec::new();
        let mut parent = None;
        loop {
            let rest = &tokens[n_matched..];
            let children = self.children(parent).iter();
            let best = children
                .map(|&node_idx| (common(&self.node(node_idx).tokens, rest), node_idx))
                .max_by_key(|&(n_common, node_idx)| (n_common, std::cmp::Reverse(node_idx)));
            let Some((n_common @ 1.., node_idx)) = best else {
                return (n_matched, blocks);
            };
            self.touch(node_idx);
            n_matched += n_common;
            blocks.push(Arc::clone(&self.node(node_idx).block));
            if n_common < KV_BLOCK {
                return (n_matched, blocks);
            }
            parent = Some(node_idx);
        }
    }

    /// Adds a sequence; what is already there stays. Returns its last node.
    ///
    /// `blocks`: as many as `tokens` need.
    pub(super) fn insert(&mut self, tokens: &[TokenId], blocks: &[Arc<Block>]) -> Option<NodeIdx> {
        self.clock += 1;
        let mut last = None;
        for (tokens, block) in tokens.chunks(KV_BLOCK).zip(blocks) {
            last = Some(self.insert_below(last, tokens, block));
        }
        last
    }

    fn insert_below(
        &mut self,
        parent: Option<NodeIdx>,
        tokens: &[TokenId],
        block: &Arc<Block>,
    ) -> NodeIdx {
        if let Some(node_idx) = self.child(parent, |node| node.tokens.starts_with(tokens)) {
            self.touch(node_idx);
            return node_idx;
        }
        if let Some(node_idx) = self.child(parent, |node| tokens.starts_with(&node.tokens)) {
            // A leaf that ended inside this block; its pins hold for the longer one.
            self.touch(node_idx);
            let node = self.node_mut(node_idx);
            let old_bytes = node.block.size_bytes();
            node.tokens = tokens.to_vec();
            node.block = Arc::clone(block);
            self.size_bytes += block.size_bytes();
            self.size_bytes -= old_bytes;
            return node_idx;
        }
        let node = Node {
            tokens: tokens.to_vec(),
            block: Arc::clone(block),
            parent,
            children: Vec::new(),
            last_used: self.clock,
            pins: Vec::new(),
        };
        self.size_bytes += block.size_bytes();
        let node_idx = match self.free.pop() {
            Some(node_idx) => {
                self.nodes[node_idx] = Some(node);
                node_idx
            }
            None => {
                self.nodes.push(Some(node));
                self.nodes.len() - 1
            }
        };
        match parent {
            Some(parent_idx) => self.node_mut(parent_idx).children.push(node_idx),
            None => self.roots.push(node_idx),
        }
        node_idx
    }

    /// Adds a sequence and keeps it until it is unpinned as often as pinned.
    pub(super) fn pin(&mut self, tokens: &[TokenId], blocks: &[Arc<Block>]) {
        if let Some(node_idx) = self.insert(tokens, blocks) {
            let n_needed = (tokens.len() - 1) % KV_BLOCK + 1;
            self.node_mut(node_idx).pins.push(n_needed);
        }
    }

    /// Takes one pin of exactly these tokens away; whether there was one.
    pub(super) fn unpin(&mut self, tokens: &[TokenId]) -> bool {
        let Some(last) = tokens.len().checked_sub(1) else {
            return false;
        };
        let (whole, rest) = tokens.split_at(last / KV_BLOCK * KV_BLOCK);
        let mut parent = None;
        for chunk in whole.chunks(KV_BLOCK) {
            parent = self.child(parent, |node| node.tokens == chunk);
            if parent.is_none() {
                return false;
            }
        }
        let holds = |node: &Node| node.tokens.starts_with(rest) && node.pins.contains(&rest.len());
        let Some(node_idx) = self.child(parent, holds) else {
            return false;
        };
        let pins = &mut self.node_mut(node_idx).pins;
        if let Some(pin_idx) = pins.iter().position(|&n_needed| n_needed == rest.len()) {
            pins.swap_remove(pin_idx);
        }
        true
    }

    /// Drops least recently used leaves until at most `budget_bytes` are held.
    ///
    /// Pinned sequences stay, and so do blocks that a prefix outside of the tree
    /// holds: dropping those would free nothing. Hence it may end above.
    pub(super) fn evict(&mut self, budget_bytes: usize) {
        while self.size_bytes > budget_bytes {
            let evictable = self
                .nodes
                .iter()
                .enumerate()
                .filter_map(|(node_idx, node)| {
                    let node = node.as_ref()?;
                    let is_free = node.children.is_empty()
                        && node.pins.is_empty()
                        && Arc::strong_count(&node.block) == 1;
                    is_free.then_some((node.last_used, node_idx))
                });
            let Some((_, node_idx)) = evictable.min() else {
                return;
            };
            self.remove_leaf(node_idx);
            self.n_evicted += 1;
        }
    }

    fn remove_leaf(&mut self, node_idx: NodeIdx) {
        let Some(node) = self.nodes[node_idx].take() else {
            return;
        };
        debug_assert!(node.children.is_empty());
        self.size_bytes -= node.block.size_bytes();
        self.free.push(node_idx);
        let siblings = match node.parent {
            Some(parent_idx) => &mut self.node_mut(parent_idx).children,
            None => &mut self.roots,
        };
        siblings.retain(|&sibling| sibling != node_idx);
    }

    fn child(&self, parent: Option<NodeIdx>, is_it: impl Fn(&Node) -> bool) -> Option<NodeIdx> {
        let mut children = self.children(parent).iter().copied();
        children.find(|&node_idx| is_it(self.node(node_idx)))
    }

    fn children(&self, parent: Option<NodeIdx>) -> &[NodeIdx] {
        parent.map_or(&self.roots, |node_idx| &self.node(node_idx).children)
    }

    fn node(&self, node_idx: NodeIdx) -> &Node {
        let node = self.nodes[node_idx].as_ref();
        node.expect("a node is removed from its parent's list first")
    }

    fn node_mut(&mut self, node_idx: NodeIdx) -> &mut Node {
        let node = self.nodes[node_idx].as_mut();
        node.expect("a node is removed from its parent's list first")
    }

    fn touch(&mut self, node_idx: NodeIdx) {
        let now = self.clock;
        self.node_mut(node_idx).last_used = now;
    }
}

/// With how many equal tokens both begin.
fn common(left: &[TokenId], right: &[TokenId]) -> usize {
    let pairs = left.iter().zip(right);
    pairs.take_while(|(left, right)| left == right).count()
}

#[cfg(test)]
mod tests {
    use inwarden_kernels::{KvShape, KvType};

    use super::{super::block::BlockShape, *};

    fn tokens(ids: impl IntoIterator<Item = u32>) -> Vec<TokenId> {
        ids.into_iter().map(TokenId).collect()
    }

    fn blocks(tokens: &[TokenId]) -> Vec<Arc<Block>> {
        let shape = BlockShape {
            layer: KvShape {
                n_kv_heads: 1,
                head_dim: 2,
                kv_type: KvType::F32,
            },
            n_layers: 1,
        };
        let n_blocks = tokens.len().div_ceil(KV_BLOCK);
        (0..n_blocks)
            .map(|_| Arc::new(Block::new(&shape)))
            .collect()
    }

    fn insert(tree: &mut Tree, sequence: &[TokenId]) {
        tree.insert(sequence, &blocks(sequence));
    }

    fn n_matched(tree: &mut Tree, sequence: &[TokenId]) -> usize {
        let (n_matched, blocks) = tree.longest_match(sequence);
        assert_eq!(blocks.len(), n_matched.div_ceil(KV_BLOCK));
        n_matched
    }

    fn block_bytes() -> usize {
        blocks(&tokens([1]))[0].size_bytes()
    }

    #[test]
    fn sequences_that_begin_alike_share_their_whole_blocks() {
        let mut tree = Tree::new();
        let trunk = tokens(0..128);
        let [left, right] =
            [200, 300].map(|first| [&trunk[..], &tokens(first..first + 9)].concat());
        insert(&mut tree, &left);
        insert(&mut tree, &right);
        assert_eq!(tree.size_bytes(), 4 * block_bytes());
        let (_, of_left) = tree.longest_match(&left);
        let (_, of_right) = tree.longest_match(&right);
        assert!(Arc::ptr_eq(&of_left[1], &of_right[1]));
        assert!(!Arc::ptr_eq(&of_left[2], &of_right[2]));
    }

    #[test]
    fn the_longest_match_may_end_inside_a_block() {
        let mut tree = Tree::new();
        insert(&mut tree, &tokens(0..100));
        assert_eq!(n_matched(&mut tree, &tokens(0..100)), 100);
        assert_eq!(n_matched(&mut tree, &tokens(0..150)), 100);
        assert_eq!(n_matched(&mut tree, &tokens(0..70)), 70);
        assert_eq!(n_matched(&mut tree, &tokens((0..80).chain([1; 40]))), 80);
        assert_eq!(n_matched(&mut tree, &tokens((0..30).chain([1; 40]))), 30);
        assert_eq!(n_matched(&mut tree, &tokens([5, 6])), 0);
        assert_eq!(n_matched(&mut tree, &[]), 0);
    }

    #[test]
    fn a_longer_leaf_takes_the_place_of_the_shorter() {
        let mut tree = Tree::new();
        for n_tokens in [70, 90, 80, 64, 3, 128, 130] {
            insert(&mut tree, &tokens(0..n_tokens));
        }
        assert_eq!(tree.size_bytes(), 3 * block_bytes());
        assert_eq!(n_matched(&mut tree, &tokens(0..200)), 130);
    }

    #[test]
    fn the_least_recently_used_leaf_goes_first() {
        let mut tree = Tree::new();
        let sequences = [1000, 2000, 3000].map(|first| tokens(first..first + 70));
        for sequence in &sequences {
            insert(&mut tree, sequence);
        }
        assert_eq!(n_matched(&mut tree, &sequences[0]), 70);
        tree.evict(5 * block_bytes());
        assert_eq!(tree.n_evicted(), 1);
        assert_eq!(n_matched(&mut tree, &sequences[1]), 64);
        assert_eq!(n_matched(&mut tree, &sequences[2]), 70);
        tree.evict(0);
        assert_eq!((tree.size_bytes(), tree.n_evicted()), (0, 6));
        insert(&mut tree, &sequences[1]);
        assert_eq!(n_matched(&mut tree, &sequences[1]), 70);
    }

    #[test]
    fn pinned_and_held_sequences_are_not_evicted() {
        let mut tree = Tree::new();
        let [pinned, held, other] = [1000, 2000, 3000].map(|first| tokens(first..first + 70));
        tree.pin(&pinned, &blocks(&pinned));
        insert(&mut tree, &held);
        insert(&mut tree, &other);
        let (_, blocks) = tree.longest_match(&held);
        tree.evict(0);
        assert_eq!(n_matched(&mut tree, &pinned), 70);
        assert_eq!(n_matched(&mut tree, &held), 70);
        assert_eq!(n_matched(&mut tree, &other), 0);
        drop(blocks);
        assert!(tree.unpin(&pinned));
        assert!(!tree.unpin(&pinned));
        tree.evict(0);
        assert_eq!(tree.size_bytes(), 0);
    }

    #[test]
    fn a_pin_outlives_the_growth_of_its_leaf_and_is_told_from_others() {
        let mut tree = Tree::new();
        let [short, long] = [70, 90].map(|n_tokens| tokens(0..n_tokens));
        let branch: Vec<TokenId> = [&short[..], &tokens(500..510)].concat();
        tree.pin(&short, &blocks(&short));
        insert(&mut tree, &long);
        tree.pin(&branch, &blocks(&branch));
        assert!(tree.unpin(&short));
        assert_eq!(tree.n_pins(), 1);
        tree.evict(0);
        assert_eq!(n_matched(&mut tree, &branch), 80);
        assert_eq!(n_matched(&mut tree, &long), 70);
        assert!(!tree.unpin(&tokens(0..64)) && !tree.unpin(&[]));
    }
}
