//! What one pass computes: rows of several sequences, each behind its own prefix.
//!
//! A plan is filled anew for each pass and keeps its memory.

use std::{ops::Range, sync::Arc};

use inwarden_kernels::KV_BLOCK;

use super::kv::{Block, SpareBlocks};
use crate::tokenizer::TokenId;

/// The rows of a pass, sequence by sequence, and where each belongs.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) rows: PlannedRows,
    pub(super) sequences: Vec<PlannedSequence>,
    /// Blocks that sequences share with prefixes; they are only read.
    pub(super) shared: Vec<Arc<Block>>,
    /// Blocks that belong to one sequence of this pass each.
    pub(super) tails: Vec<Block>,
    /// The rows whose result is wanted, ascending.
    pub(super) wanted: Vec<usize>,
    /// Hidden states to be taken on the way, in the order of their places.
    pub(super) taps: Vec<Tap>,
}

/// What is known of each row; all but `beyond` are as long as there are rows.
#[derive(Default)]
pub(super) struct PlannedRows {
    pub(super) tokens: Vec<TokenId>,
    /// The angle of each row. Siblings in a label tree share one.
    pub(super) positions: Vec<usize>,
    /// Each row sees the slots `0..until` of its sequence,
    pub(super) until: Vec<usize>,
    /// and those of `beyond` in this range, ascending and behind `until`.
    pub(super) beyond_ranges: Vec<Range<usize>>,
    pub(super) beyond: Vec<usize>,
}

/// One sequence of a pass: its rows go behind `first_slot` others.
#[derive(Clone, Debug)]
pub(super) struct PlannedSequence {
    pub(super) rows: Range<usize>,
    /// Of the first row; the others follow.
    pub(super) first_slot: usize,
    /// Of [`Plan::shared`]; its slots are the first ones, all in use.
    pub(super) shared: Range<usize>,
    /// Of [`Plan::tails`]; their slots are the ones behind.
    pub(super) tails: Range<usize>,
}

impl PlannedSequence {
    /// The rows that lie in these slots.
    pub(super) fn rows_in(&self, slots: Range<usize>) -> Range<usize> {
        let row = |slot: usize| self.rows.start + slot.saturating_sub(self.first_slot);
        row(slots.start).min(self.rows.end)..row(slots.end).min(self.rows.end)
    }

    /// Where the keys and values of `row` go.
    pub(super) fn slot(&self, row: usize) -> usize {
        self.first_slot + row - self.rows.start
    }
}

/// The mean of the hidden states of some rows, taken after so many layers.
#[derive(Clone, Debug)]
pub(super) struct Tap {
    /// `num_hidden_layers` means after the final norm.
    pub(super) n_layers: usize,
    pub(super) rows: Range<usize>,
}

/// A sequence that grows: shared blocks, and blocks of its own behind them.
#[derive(Default)]
pub(super) struct Chain {
    /// Whole blocks.
    pub(super) shared: Vec<Arc<Block>>,
    pub(super) tails: Vec<Block>,
    /// Slots in use, those of both.
    pub(super) len: usize,
}

impl Chain {
    /// Begins with `len` slots of `blocks`, a block in part copied.
    pub(super) fn begin(&mut self, blocks: &[Arc<Block>], len: usize, spare: &mut SpareBlocks) {
        debug_assert!(self.shared.is_empty() && self.tails.is_empty());
        let (whole, n_rest) = (len / KV_BLOCK, len % KV_BLOCK);
        self.shared.extend_from_slice(&blocks[..whole]);
        if n_rest > 0 {
            let mut tail = spare.take();
            tail.copy_slots_from(&blocks[whole], n_rest);
            self.tails.push(tail);
        }
        self.len = len;
    }

    /// Keeps `len` slots, which are no fewer than the shared ones.
    pub(super) fn truncate(&mut self, len: usize, spare: &mut SpareBlocks) {
        debug_assert!(len >= self.shared.len() * KV_BLOCK && len <= self.len);
        self.len = len;
        let n_tails = len.div_ceil(KV_BLOCK) - self.shared.len();
        spare.give_back(self.tails.drain(n_tails..));
    }

    /// Empties it.
    pub(super) fn clear(&mut self, spare: &mut SpareBlocks) {
        self.shared.clear();
        spare.give_back(self.tails.drain(..));
        self.len = 0;
    }

    /// All its blocks, to be shared.
    pub(super) fn into_blocks(self) -> Vec<Arc<Block>> {
        let tails = self.tails.into_iter().map(Arc::new);
        self.shared.into_iter().chain(tails).collect()
    }

    /// Copies of its own blocks, and the shared ones.
    pub(super) fn to_blocks(&self, spare: &mut SpareBlocks) -> Vec<Arc<Block>> {
        let tails = self.tails.iter().map(|tail| {
            let mut copy = spare.take();
            copy.copy_slots_from(tail, KV_BLOCK);
            Arc::new(copy)
        });
        self.shared.iter().cloned().chain(tails).collect()
    }

    fn reserve(&mut self, n_slots: usize, spare: &mut SpareBlocks) {
        let needed = (self.len + n_slots).div_ceil(KV_BLOCK) - self.shared.len();
        while self.tails.len() < needed {
            self.tails.push(spare.take());
        }
    }
}

impl Plan {
    /// Empties it; blocks that a failed pass has left are dropped.
    pub(super) fn clear(&mut self) {
        self.rows.tokens.clear();
        self.rows.positions.clear();
        self.rows.until.clear();
        self.rows.beyond_ranges.clear();
        self.rows.beyond.clear();
        self.sequences.clear();
        self.shared.clear();
        self.tails.clear();
        self.wanted.clear();
        self.taps.clear();
    }

    /// Moves `chain` in, with room for `n_slots` more.
    ///
    /// Its rows follow by [`Self::push_run`] and [`Self::push_branch`].
    pub(super) fn begin_sequence(
        &mut self,
        chain: &mut Chain,
        n_slots: usize,
        spare: &mut SpareBlocks,
    ) {
        chain.reserve(n_slots, spare);
        let row = self.rows.len();
        let (shared, tails) = (self.shared.len(), self.tails.len());
        self.shared.append(&mut chain.shared);
        self.tails.append(&mut chain.tails);
        self.sequences.push(PlannedSequence {
            rows: row..row,
            first_slot: chain.len,
            shared: shared..self.shared.len(),
            tails: tails..self.tails.len(),
        });
    }

    /// Adds `tokens` to the last sequence, each seeing all before it.
    pub(super) fn push_run(&mut self, tokens: &[TokenId]) {
        for &token in tokens {
            let slot = self.push_row(token);
            self.rows.positions.push(slot);
            self.rows.until.push(slot + 1);
            let nothing = self.rows.beyond.len();
            self.rows.beyond_ranges.push(nothing..nothing);
        }
    }

    /// Adds one row of a tree that grows behind the slots `0..until` of the last
    /// sequence; it sees these, and the slots of `ancestors`, ascending, and its own.
    pub(super) fn push_branch(
        &mut self,
        token: TokenId,
        until: usize,
        ancestors: impl IntoIterator<Item = usize>,
    ) {
        let slot = self.push_row(token);
        let start = self.rows.beyond.len();
        self.rows.beyond.extend(ancestors);
        self.rows
            .positions
            .push(until + self.rows.beyond.len() - start);
        self.rows.beyond.push(slot);
        self.rows.until.push(until);
        self.rows.beyond_ranges.push(start..self.rows.beyond.len());
    }

    /// Returns its slot.
    fn push_row(&mut self, token: TokenId) -> usize {
        let row = self.rows.len();
        self.rows.tokens.push(token);
        let sequence = self.sequences.last_mut();
        let sequence = sequence.expect("rows are added to a sequence that was begun");
        sequence.rows.end = row + 1;
        sequence.slot(row)
    }

    /// Moves the last sequence's blocks back into `chain`, `n_slots` longer.
    pub(super) fn end_sequence(&mut self, chain: &mut Chain, n_slots: usize) {
        if let Some(sequence) = self.sequences.pop() {
            chain.shared.extend(self.shared.drain(sequence.shared));
            chain.tails.extend(self.tails.drain(sequence.tails));
            chain.len += n_slots;
        }
    }
}

impl PlannedRows {
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }
}
