//! Byte-pair encoding: the merges, and one word at a time.
//!
//! Source: Sennrich et al. 2016, arXiv:1508.07909; order of merges as in
//! `Word::merge_all` of the `tokenizers` crate.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::TokenId;

/// Which two adjacent tokens become which third, and in what order.
pub(super) struct Merges {
    /// The token of each byte alone.
    byte_tokens: [u32; 256],
    /// Where the pairs of each left token begin in `pairs`; one entry more than tokens.
    starts: Vec<u32>,
    /// Sorted by left token, then by right token.
    pairs: Vec<Pair>,
}

#[derive(Clone, Copy)]
struct Pair {
    right: u32,
    rank: u32,
    merged: u32,
}

/// One merge as the file lists it; the lower the rank, the earlier it is done.
#[derive(Clone, Copy)]
pub(super) struct Merge {
    pub(super) left: u32,
    pub(super) right: u32,
    pub(super) rank: u32,
    pub(super) merged: u32,
}

impl Merges {
    /// `n_tokens`: above every id in `merges`. `Err` is a pair that occurs twice.
    pub(super) fn new(
        byte_tokens: [u32; 256],
        n_tokens: usize,
        mut merges: Vec<Merge>,
    ) -> Result<Self, Merge> {
        merges.sort_unstable_by_key(|merge| (merge.left, merge.right));
        let same = |pair: &[Merge]| (pair[0].left, pair[0].right) == (pair[1].left, pair[1].right);
        if let Some(twice) = merges.windows(2).find(|pair| same(pair)) {
            return Err(twice[0]);
        }
        let mut starts = vec![0; n_tokens + 1];
        for merge in &merges {
            starts[merge.left as usize + 1] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let pairs = merges.iter().map(|merge| Pair {
            right: merge.right,
            rank: merge.rank,
            merged: merge.merged,
        });
        Ok(Self {
            byte_tokens,
            starts,
            pairs: pairs.collect(),
        })
    }

    fn find(&self, left: u32, right: u32) -> Option<Pair> {
        let left = left as usize;
        let pairs = &self.pairs[self.starts[left] as usize..self.starts[left + 1] as usize];
        let idx = pairs.binary_search_by_key(&right, |pair| pair.right).ok()?;
        Some(pairs[idx])
    }

    /// Appends the tokens of one word.
    pub(super) fn encode(&self, word: &[u8], tokens: &mut Vec<TokenId>) {
        let mut symbols: Vec<Symbol> = (0..)
            .zip(word)
            .map(|(idx, &byte)| Symbol {
                token: self.byte_tokens[usize::from(byte)],
                previous: usize::wrapping_sub(idx, 1),
                next: idx + 1,
            })
            .collect();
        let mut candidates = BinaryHeap::with_capacity(word.len());
        for left in 0..symbols.len() {
            self.push_candidate(&symbols, left, &mut candidates);
        }
        while let Some(Reverse((rank, left))) = candidates.pop() {
            // Outdated if either token has become part of another since.
            match self.pair_at(&symbols, left) {
                Some(pair) if pair.rank == rank => {
                    join(&mut symbols, left, pair.merged);
                    if symbols[left].previous < left {
                        self.push_candidate(&symbols, symbols[left].previous, &mut candidates);
                    }
                    self.push_candidate(&symbols, left, &mut candidates);
                }
                _ => {}
            }
        }
        let left_over = symbols.iter().filter(|symbol| symbol.token != JOINED);
        tokens.extend(left_over.map(|symbol| TokenId(symbol.token)));
    }

    fn push_candidate(&self, symbols: &[Symbol], left: usize, candidates: &mut Candidates) {
        if let Some(pair) = self.pair_at(symbols, left) {
            candidates.push(Reverse((pair.rank, left)));
        }
    }

    /// The merge of the symbol at `left` with the next one.
    fn pair_at(&self, symbols: &[Symbol], left: usize) -> Option<Pair> {
        let symbol = symbols[left];
        let next = symbols.get(symbol.next)?;
        if symbol.token == JOINED {
            return None;
        }
        self.find(symbol.token, next.token)
    }
}

/// Merges that may be done, by rank, then from left to right.
type Candidates = BinaryHeap<Reverse<(u32, usize)>>;

/// A token of the word so far, linked with its neighbours.
#[derive(Clone, Copy)]
struct Symbol {
    token: u32,
    /// Index of the symbol before it; above all indices for the first.
    previous: usize,
    /// Index of the symbol behind it; above all indices for the last.
    next: usize,
}

/// In place of a token that has become part of the one before it.
const JOINED: u32 = u32::MAX;

/// Makes the symbol at `left`, which has one behind it, and that one `merged`.
fn join(symbols: &mut [Symbol], left: usize, merged: u32) {
    let right = symbols[left].next;
    let after = symbols[right].next;
    symbols[left].token = merged;
    symbols[left].next = after;
    symbols[right].token = JOINED;
    if let Some(after) = symbols.get_mut(after) {
        after.previous = left;
    }
}
