//! What one pass over a device computes, as tables that a kernel can read.
//!
//! Plain vectors: which tokens at which positions, which slots of the keys and
//! values each row sees, and which rows are wanted. Nothing here knows a device.

use super::buckets;
use crate::tokenizer::TokenId;

/// The new rows of one sequence behind its prefix.
///
/// They need not be a run: each says which of the others it sees, so that the
/// branches of a tree of labels go through in one pass.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NewRows {
    pub(super) tokens: Vec<TokenId>,
    /// Absolute position of each row, the prefix counted.
    pub(super) positions: Vec<usize>,
    /// Which of the new rows each row sees; it always sees the whole prefix.
    pub(super) sees: Vec<Sees>,
    /// Indices of the rows whose result is wanted, ascending.
    pub(super) wanted: Vec<usize>,
}

/// The rows `0..until`, and those in `beyond`, ascending.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sees {
    pub(super) until: usize,
    pub(super) beyond: Vec<usize>,
}

impl NewRows {
    /// A run of tokens behind `n_prefix` positions.
    pub(super) fn run(tokens: &[TokenId], n_prefix: usize, wanted: Vec<usize>) -> Self {
        let sees = (1..=tokens.len()).map(|until| Sees {
            until,
            beyond: Vec::new(),
        });
        Self {
            tokens: tokens.to_vec(),
            positions: (n_prefix..n_prefix + tokens.len()).collect(),
            sees: sees.collect(),
            wanted,
        }
    }

    fn is_seen(&self, row: usize, other: usize) -> bool {
        let sees = &self.sees[row];
        other < sees.until || sees.beyond.contains(&other)
    }
}

/// The sizes of a slab: all that kernels choose their way by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// Sequences, padding counted.
    pub(super) n_sequences: usize,
    /// Rows of each sequence, padding counted.
    pub(super) n_rows: usize,
    /// Wanted rows of each sequence, padding counted; 0 for none.
    pub(super) n_wanted: usize,
    /// Slots of the shared prefix.
    pub(super) n_prefix: usize,
    /// Slots that each sequence attends over: prefix, own rows, padding.
    pub(super) n_slots: usize,
}

impl Shape {
    /// The shape of the slabs in which `sequence` runs; depends on it alone.
    pub(super) fn of(sequence: &NewRows, n_prefix: usize, slab_rows: usize) -> Self {
        let n_rows = buckets::rows(sequence.tokens.len());
        let n_wanted = match sequence.wanted.len() {
            0 => 0,
            n_wanted => buckets::rows(n_wanted),
        };
        Self {
            n_sequences: buckets::sequences_per_slab(n_rows, slab_rows),
            n_rows,
            n_wanted,
            n_prefix,
            n_slots: buckets::slots(n_prefix + n_rows),
        }
    }

    /// Rows of the slab.
    pub(super) fn total_rows(&self) -> usize {
        self.n_sequences * self.n_rows
    }

    /// Slots behind those of the prefix.
    pub(super) fn own_slots(&self) -> usize {
        self.n_slots - self.n_prefix
    }
}

/// Where keys and values are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places<'a> {
    /// The slot of each position of the prefix.
    pub(super) prefix: &'a [u32],
    /// The first of the slots that the rows are written to.
    pub(super) first_own: u32,
    /// A slot that holds zeros, for padding.
    pub(super) zeros: u32,
}

/// The tables of one pass.
#[derive(Debug, PartialEq)]
pub(super) struct Slab {
    pub(super) shape: Shape,
    /// The first of the slots that the rows are written to, one after another.
    pub(super) first_own: u32,
    /// `(n_sequences * n_rows,)`.
    pub(super) tokens: Vec<u32>,
    /// `(n_sequences * n_rows,)`.
    pub(super) positions: Vec<u32>,
    /// `(n_sequences * n_slots,)`: the slots to attend over.
    pub(super) slots: Vec<u32>,
    /// `(n_sequences, n_rows, own_slots)`, 0 for what is seen, else minus
    /// infinity. The prefix is seen by all.
    pub(super) mask: Vec<f32>,
    /// `(n_sequences * n_wanted,)`: indices of rows.
    pub(super) wanted: Vec<u32>,
}

impl Slab {
    /// `sequences`: at most `shape.n_sequences`, all of this shape.
    pub(super) fn new(shape: Shape, sequences: &[&NewRows], places: Places<'_>) -> Self {
        debug_assert!(sequences.len() <= shape.n_sequences);
        debug_assert_eq!(places.prefix.len(), shape.n_prefix);
        let mut slab = Self {
            shape,
            first_own: places.first_own,
            tokens: Vec::with_capacity(shape.total_rows()),
            positions: Vec::with_capacity(shape.total_rows()),
            slots: Vec::with_capacity(shape.n_sequences * shape.n_slots),
            mask: vec![f32::NEG_INFINITY; shape.total_rows() * shape.own_slots()],
            wanted: Vec::with_capacity(shape.n_sequences * shape.n_wanted),
        };
        for sequence_idx in 0..shape.n_sequences {
            let sequence = sequences.get(sequence_idx).copied();
            slab.push_rows(sequence);
            slab.push_slots(sequence_idx, places);
            slab.open_mask(sequence_idx, sequence);
            slab.push_wanted(sequence_idx, sequence);
        }
        slab
    }

    fn push_rows(&mut self, sequence: Option<&NewRows>) {
        let end = self.tokens.len() + self.shape.n_rows;
        if let Some(sequence) = sequence {
            self.tokens
                .extend(sequence.tokens.iter().map(|token| token.0));
            let positions = sequence.positions.iter();
            self.positions
                .extend(positions.map(|&position| index(position)));
        }
        self.tokens.resize(end, 0);
        self.positions.resize(end, 0);
    }

    fn push_slots(&mut self, sequence_idx: usize, places: Places<'_>) {
        let end = self.slots.len() + self.shape.n_slots;
        self.slots.extend_from_slice(places.prefix);
        let first = places.first_own + index(sequence_idx * self.shape.n_rows);
        self.slots.extend(first..first + index(self.shape.n_rows));
        self.slots.resize(end, places.zeros);
    }

    /// Lets each row see what it may; a padding row sees itself, since a row
    /// that sees nothing would be no number.
    fn open_mask(&mut self, sequence_idx: usize, sequence: Option<&NewRows>) {
        let (n_rows, width) = (self.shape.n_rows, self.shape.own_slots());
        let rows = self.mask[sequence_idx * n_rows * width..].chunks_exact_mut(width);
        for (row_idx, row) in rows.take(n_rows).enumerate() {
            match sequence.filter(|sequence| row_idx < sequence.tokens.len()) {
                Some(sequence) => {
                    for (other, seen) in row[..sequence.tokens.len()].iter_mut().enumerate() {
                        if sequence.is_seen(row_idx, other) {
                            *seen = 0.0;
                        }
                    }
                }
                None => row[row_idx] = 0.0,
            }
        }
    }

    fn push_wanted(&mut self, sequence_idx: usize, sequence: Option<&NewRows>) {
        let end = self.wanted.len() + self.shape.n_wanted;
        let first = index(sequence_idx * self.shape.n_rows);
        let wanted = sequence.map_or(&[][..], |sequence| &sequence.wanted);
        self.wanted
            .extend(wanted.iter().map(|&row| first + index(row)));
        self.wanted.resize(end, first);
    }
}

/// As the kernels take it. All are bounded by the slots of a device.
pub(super) fn index(value: usize) -> u32 {
    u32::try_from(value).expect("a device has fewer than 2^32 slots")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: Places<'static> = Places {
        prefix: &[70, 71, 3],
        first_own: 128,
        zeros: 999,
    };

    fn tokens(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().copied().map(TokenId).collect()
    }

    #[test]
    fn two_events_share_a_slab_without_seeing_each_other() {
        let events = [
            NewRows::run(&tokens(&[5, 6]), 3, vec![1]),
            NewRows::run(&tokens(&[7, 8, 9]), 3, vec![2]),
        ];
        let shape = Shape::of(&events[0], 3, 16);
        assert_eq!(shape, Shape::of(&events[1], 3, 16));
        assert_eq!((shape.n_sequences, shape.n_rows, shape.n_slots), (2, 8, 64));
        let slab = Slab::new(shape, &[&events[0], &events[1]], PLACES);
        assert_eq!(slab.tokens[..9], [5, 6, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(slab.positions[8..12], [3, 4, 5, 0]);
        assert_eq!(slab.slots[..5], [70, 71, 3, 128, 129]);
        assert_eq!(slab.slots[64..69], [70, 71, 3, 136, 137]);
        assert_eq!(slab.slots[11], 999);
        assert_eq!(slab.wanted, [1, 8 + 2]);
        let row = |row: usize| &slab.mask[row * 61..][..61];
        let n_seen = |row: &[f32]| row.iter().filter(|seen| **seen == 0.0).count();
        assert_eq!(row(1)[..3], [0.0, 0.0, f32::NEG_INFINITY]);
        assert_eq!(
            [0, 1, 8, 9, 10].map(|idx| n_seen(row(idx))),
            [1, 2, 1, 2, 3]
        );
        // Padding rows see themselves.
        assert_eq!((n_seen(row(5)), row(5)[5]), (1, 0.0));
    }

    #[test]
    fn the_slab_of_an_event_is_the_same_in_any_company() {
        let event = NewRows::run(&tokens(&[5, 6]), 3, vec![1]);
        let other = NewRows::run(&tokens(&[1, 2, 3, 4]), 3, vec![3]);
        let shape = Shape::of(&event, 3, 16);
        let alone = Slab::new(shape, &[&event], PLACES);
        let first = Slab::new(shape, &[&event, &other], PLACES);
        assert_eq!(alone.shape, first.shape);
        assert_eq!(alone.tokens[..8], first.tokens[..8]);
        assert_eq!(alone.slots, first.slots);
        assert_eq!(alone.mask[..8 * 61], first.mask[..8 * 61]);
    }

    #[test]
    fn branches_of_a_tree_see_the_text_and_themselves() {
        let mut event = NewRows::run(&tokens(&[5, 6]), 3, vec![1]);
        for node in [2, 3] {
            event.tokens.push(TokenId(40));
            event.positions.push(5);
            event.sees.push(Sees {
                until: 2,
                beyond: vec![node],
            });
            event.wanted.push(node);
        }
        let slab = Slab::new(Shape::of(&event, 3, 8), &[&event], PLACES);
        assert_eq!(slab.positions[..5], [3, 4, 5, 5, 0]);
        let seen = |row: usize| {
            let row = &slab.mask[row * 61..][..61];
            (0..61).filter(|&slot| row[slot] == 0.0).collect::<Vec<_>>()
        };
        assert_eq!(seen(2), [0, 1, 2]);
        assert_eq!(seen(3), [0, 1, 3]);
        assert_eq!(slab.wanted, [1, 2, 3, 0, 0, 0, 0, 0]);
    }
}
