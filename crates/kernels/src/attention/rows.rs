//! One task of attention: some rows of a sequence, all heads of one key/value head.

use std::cell::RefCell;
use std::f32::consts::LOG2_E;

use super::softmax::{self, State};
use super::{Visible, portable};
use crate::Variant;
use crate::kv::{KV_BLOCK, KvBlock, KvShape, KvType, LINE_WORDS, Line};
use crate::variant::{Kind, compiled_for};

/// Heads that are multiplied together, at most.
pub(super) const TILE_HEADS: usize = 7;

/// Numbers of the left side of a product that lie together: `(chunk, head, CHUNK)`.
pub(super) const CHUNK: usize = 64;

/// One head's scores, and then weights, of a block.
pub(super) type Scores = [f32; KV_BLOCK];

/// `c = c * factor + a b`, for the heads of a tile.
pub(super) struct Product<'a> {
    /// `(n_rows, row_lines)`: rows of words, each an f32 or two bf16 that are
    /// multiplied with numbers of `a` that follow each other.
    pub(super) b: &'a [Line],
    pub(super) row_lines: usize,
    /// Rows of `b` to use.
    pub(super) n_rows: usize,
    /// Lines of each row to use.
    pub(super) n_lines: usize,
    /// `(n_heads, c_len)`, of which the first `n_lines` lines are written.
    pub(super) c: &'a mut [f32],
    pub(super) c_len: usize,
    /// A factor for each head's row of `c`; none if `c` is to be overwritten.
    pub(super) factors: Option<&'a [f32; TILE_HEADS]>,
}

/// The heads of one key/value head, for some rows of a sequence.
pub(super) struct Group<'a> {
    pub(super) variant: Variant,
    pub(super) shape: &'a KvShape,
    pub(super) kv_head: usize,
    pub(super) n_heads: usize,
    pub(super) blocks: &'a [&'a KvBlock],
    /// What each row sees.
    pub(super) visible: &'a [Visible<'a>],
}

/// What a thread needs while it computes; kept, so that it is allocated once.
#[derive(Default)]
struct Scratch {
    /// `(row, tile, chunk, head, CHUNK)`, scaled.
    queries: Vec<[f32; CHUNK]>,
    /// The same as pairs of bf16.
    query_pairs: Vec<[u32; CHUNK / 2]>,
    /// `(row, head)`.
    states: Vec<State>,
    /// `(row, head, padded head_dim)`.
    sums: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Group<'_> {
    /// Calls `write` with each row and its result, `(n_heads, head_dim)`; `query`
    /// gives a row's queries in the same shape.
    pub(super) fn attend<'q>(
        &self,
        query: impl Fn(usize) -> &'q [f32],
        mut write: impl FnMut(usize, &[f32]),
    ) {
        SCRATCH.with_borrow_mut(|scratch| {
            self.prepare(query, scratch);
            let end = self.visible.iter().map(Visible::end).max();
            let n_blocks = end.unwrap_or_default().div_ceil(KV_BLOCK);
            for (block_idx, block) in self.blocks[..n_blocks].iter().enumerate() {
                for (row, visible) in self.visible.iter().enumerate() {
                    let slots = visible.slots_of_block(block_idx);
                    if slots != 0 {
                        self.take_block(block, slots, row, scratch);
                    }
                }
            }
            for row in 0..self.visible.len() {
                write(row, self.finish(row, scratch));
            }
        });
    }

    fn padded_dim(&self) -> usize {
        self.shape.head_dim.next_multiple_of(LINE_WORDS)
    }

    /// Chunks of one head's query.
    fn n_chunks(&self) -> usize {
        self.shape.head_dim.div_ceil(CHUNK)
    }

    /// Whether queries and weights are bf16 too.
    fn multiplies_bf16(&self) -> bool {
        self.shape.kv_type == KvType::Bf16 && self.variant.kind() == Kind::Avx512VnniBf16
    }

    /// The heads of each tile: as even as they can be.
    fn tiles(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let most = if self.multiplies_bf16() {
            TILE_HEADS
        } else {
            portable::TILE_HEADS
        };
        let n_tiles = self.n_heads.div_ceil(most);
        let n_heads = self.n_heads;
        (0..n_tiles).map(move |tile| n_heads * tile / n_tiles..n_heads * (tile + 1) / n_tiles)
    }

    /// Packs and scales the queries, and sets all else to its start.
    fn prepare<'q>(&self, query: impl Fn(usize) -> &'q [f32], scratch: &mut Scratch) {
        let n_rows = self.visible.len();
        let n_chunks = n_rows * self.n_heads * self.n_chunks();
        scratch.queries.clear();
        scratch.queries.resize(n_chunks, [0.0; CHUNK]);
        scratch.states.clear();
        scratch.states.resize(n_rows * self.n_heads, State::START);
        scratch.sums.clear();
        let n_sums = n_rows * self.n_heads * self.padded_dim();
        scratch.sums.resize(n_sums, 0.0);

        // Powers of two are cheaper than powers of e.
        let scale = LOG2_E / (self.shape.head_dim as f32).sqrt();
        let mut chunks = scratch.queries.iter_mut();
        for row in 0..n_rows {
            let query = query(row);
            for heads in self.tiles() {
                for start in (0..self.shape.head_dim).step_by(CHUNK) {
                    for head in heads.clone() {
                        let len = CHUNK.min(self.shape.head_dim - start);
                        let part = &query[head * self.shape.head_dim + start..][..len];
                        let chunk = chunks.next().expect("counted above");
                        for (packed, query) in chunk.iter_mut().zip(part) {
                            *packed = query * scale;
                        }
                    }
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        if self.multiplies_bf16() {
            scratch.query_pairs.resize(n_chunks, [0; CHUNK / 2]);
            super::avx512::round_to_pairs(&scratch.queries, &mut scratch.query_pairs);
        }
    }

    /// Lets a row see the `slots` of a block.
    fn take_block(&self, block: &KvBlock, slots: u64, row: usize, scratch: &mut Scratch) {
        let (keys, values) = (block.keys(self.kv_head), block.values(self.kv_head));
        let is_bad = slots & block.not_finite() != 0;
        // Slots from here on are not even looked at.
        let end = KV_BLOCK - slots.leading_zeros() as usize;
        let slots_a_row = KV_BLOCK / self.shape.value_rows();
        let padded_dim = self.padded_dim();
        for heads in self.tiles() {
            let n_heads = heads.len();
            let first = row * self.n_heads + heads.start;
            let mut scores = [[0.0; KV_BLOCK]; TILE_HEADS];
            let a = first * self.n_chunks()..(first + n_heads) * self.n_chunks();
            self.multiply(
                n_heads,
                &scratch.queries[a.clone()],
                scratch.query_pairs.get(a).unwrap_or_default(),
                Product {
                    b: keys,
                    row_lines: KV_BLOCK / LINE_WORDS,
                    n_rows: self.shape.key_rows(),
                    n_lines: end.div_ceil(LINE_WORDS),
                    c: scores.as_flattened_mut(),
                    c_len: KV_BLOCK,
                    factors: None,
                },
            );
            let scores = &mut scores[..n_heads];
            let states = &mut scratch.states[first..][..n_heads];
            let mut factors = [0.0; TILE_HEADS];
            let factors_out = &mut factors[..n_heads];
            compiled_for!(
                self.variant,
                take_scores(
                    slots: u64,
                    scores: &mut [Scores],
                    states: &mut [State],
                    factors_out: &mut [f32],
                )
            );
            if is_bad {
                states.iter_mut().for_each(State::spoil);
            }
            let mut pairs = [[0; CHUNK / 2]; TILE_HEADS];
            let pairs = &mut pairs[..n_heads];
            #[cfg(target_arch = "x86_64")]
            if self.multiplies_bf16() {
                super::avx512::round_to_pairs(scores, pairs);
            }
            self.multiply(
                n_heads,
                scores,
                pairs,
                Product {
                    b: values,
                    row_lines: self.shape.value_row_lines(),
                    n_rows: end.div_ceil(slots_a_row),
                    n_lines: self.shape.value_row_lines(),
                    c: &mut scratch.sums[first * padded_dim..][..n_heads * padded_dim],
                    c_len: padded_dim,
                    factors: Some(&factors),
                },
            );
        }
    }

    /// `a`: `(chunk, head, CHUNK)`; `pairs`: the same as bf16, where they are used.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_variables, reason = "bf16 instructions are of x86-64")
    )]
    fn multiply(
        &self,
        n_heads: usize,
        a: &[[f32; CHUNK]],
        pairs: &[[u32; CHUNK / 2]],
        product: Product<'_>,
    ) {
        #[cfg(target_arch = "x86_64")]
        if self.multiplies_bf16() {
            return super::avx512::multiply(n_heads, pairs, product);
        }
        match self.shape.kv_type {
            KvType::Bf16 => compiled_for!(
                self.variant,
                multiply_pairs(n_heads: usize, a: &[[f32; CHUNK]], product: Product<'_>)
            ),
            KvType::F32 => compiled_for!(
                self.variant,
                multiply_numbers(n_heads: usize, a: &[[f32; CHUNK]], product: Product<'_>)
            ),
        }
    }

    /// A row's result, `(n_heads, head_dim)`.
    fn finish<'s>(&self, row: usize, scratch: &'s mut Scratch) -> &'s [f32] {
        let (head_dim, padded_dim) = (self.shape.head_dim, self.padded_dim());
        let row_len = self.n_heads * padded_dim;
        let sums = &mut scratch.sums[row * row_len..][..row_len];
        for head in 0..self.n_heads {
            let weight = scratch.states[row * self.n_heads + head].inverse_sum();
            for dim in 0..head_dim {
                // To the left, where the padding of the heads before was.
                sums[head * head_dim + dim] = sums[head * padded_dim + dim] * weight;
            }
        }
        &sums[..self.n_heads * head_dim]
    }
}

use portable::{multiply_numbers, multiply_pairs};
use softmax::take_scores;
