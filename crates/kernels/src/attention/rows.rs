//! One task of attention: some rows of a sequence, all heads of one key/value head.

use std::cell::RefCell;
use std::f32::consts::LOG2_E;
use std::ops::Range;

use super::int8::Widened;
use super::portable::{multiply_numbers, multiply_pairs};
use super::softmax::{Scales, State, limits, take_scores};
use super::{Visible, bf16};
use crate::Variant;
use crate::kv::{KV_BLOCK, KvBlock, KvShape, KvType, LINE_WORDS, Line};
use crate::variant::{Kind, compiled_for};

/// Heads, of one row or several, whose scores of a block are held together, at most:
/// two tiles of the bf16 products.
const TILE_HEADS: usize = 12;

/// Numbers of the left side of a product that lie together.
pub(super) const CHUNK: usize = 64;

/// One head's scores, and then weights, of a block.
pub(super) type Scores = [f32; KV_BLOCK];

/// `c = c * factor + a b` for some heads, of one row or several.
pub(super) struct Product<'a, A, const N: usize> {
    /// `(head, chunk, N)`: f32, or pairs of bf16.
    pub(super) a: &'a [[A; N]],
    pub(super) n_chunks: usize,
    /// `(n_rows or more, row_lines)`: rows of words, each an f32 or two bf16 that are
    /// multiplied with numbers of `a` that follow each other.
    pub(super) b: &'a [Line],
    pub(super) row_lines: usize,
    pub(super) n_rows: usize,
    /// Lines of each row to use.
    pub(super) n_lines: usize,
    /// `(head, c_lines)` lines, of which the first `n_lines` are written.
    pub(super) c: &'a mut [[f32; LINE_WORDS]],
    pub(super) c_lines: usize,
    /// A factor for each head's row of `c`; none if `c` is to be overwritten.
    pub(super) factors: Option<&'a [f32]>,
}

impl<'p, A, const N: usize> Product<'p, A, N> {
    pub(super) fn n_heads(&self) -> usize {
        self.a.len() / self.n_chunks
    }

    /// The same with another left side.
    fn with<B, const M: usize>(self, a: &'p [[B; M]]) -> Product<'p, B, M> {
        Product {
            a,
            n_chunks: self.n_chunks,
            b: self.b,
            row_lines: self.row_lines,
            n_rows: self.n_rows,
            n_lines: self.n_lines,
            c: self.c,
            c_lines: self.c_lines,
            factors: self.factors,
        }
    }

    /// Lines of a head's row of `c`.
    #[inline(always)]
    pub(super) fn c_lines<const LINES: usize>(
        &mut self,
        head: usize,
        first_line: usize,
    ) -> &mut [[f32; LINE_WORDS]; LINES] {
        let lines = &mut self.c[head * self.c_lines + first_line..];
        lines.first_chunk_mut().expect("a row of c has so many")
    }
}

/// Splits `0..n` into as few parts of at most `most` as can be, as even as can be.
pub(super) fn parts(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let n_parts = n.div_ceil(most);
    (0..n_parts).map(move |part| n * part / n_parts..n * (part + 1) / n_parts)
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
struct Scratch {
    /// `(row, head, chunk, CHUNK)`, scaled, zeros behind `head_dim`.
    queries: Vec<[f32; CHUNK]>,
    /// The same as pairs of bf16.
    query_pairs: Vec<[u32; CHUNK / 2]>,
    /// `(row, head)`.
    states: Vec<State>,
    /// `(row, head)`: sums of weighted values, in lines.
    sums: Vec<[f32; LINE_WORDS]>,
    /// Of the heads of a tile, of one block.
    scores: [Scores; TILE_HEADS],
    /// The weights as pairs of bf16.
    weight_pairs: [[u32; CHUNK / 2]; TILE_HEADS],
    /// Of the block at hand, if it is of int8.
    widened: Widened,
}

/// One head's numbers of a block, in words of one f32 or two bf16.
struct HeadOfBlock<'a> {
    keys: &'a [Line],
    values: &'a [Line],
    /// What the products with them are to be multiplied with; none if they are as
    /// they should be.
    scales: Option<&'a Scales>,
    not_finite: u64,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch {
            queries: Vec::new(),
            query_pairs: Vec::new(),
            states: Vec::new(),
            sums: Vec::new(),
            scores: [[0.0; KV_BLOCK]; TILE_HEADS],
            weight_pairs: [[0; CHUNK / 2]; TILE_HEADS],
            widened: Widened::EMPTY,
        })
    };
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
            let mut widened = std::mem::replace(&mut scratch.widened, Widened::EMPTY);
            for (block_idx, block) in self.blocks[..n_blocks].iter().enumerate() {
                let head = self.head_of(block, &mut widened);
                let slots = |visible: &Visible<'_>| visible.slots_of_block(block_idx);
                let mut row = 0;
                for alike in self.visible.chunk_by(|a, b| slots(a) == slots(b)) {
                    let rows = row..row + alike.len();
                    row = rows.end;
                    let slots = slots(&alike[0]);
                    if slots != 0 {
                        self.take_block(&head, slots, rows, scratch);
                    }
                }
            }
            scratch.widened = widened;
            for row in 0..self.visible.len() {
                write(row, self.finish(row, scratch));
            }
        });
    }

    /// Chunks of one head's query.
    fn n_chunks(&self) -> usize {
        self.shape.head_dim.div_ceil(CHUNK)
    }

    /// Numbers of a word that is multiplied.
    fn numbers_a_word(&self) -> usize {
        match self.shape.kv_type {
            KvType::F32 => 1,
            KvType::Bf16 | KvType::Int8 => 2,
        }
    }

    /// What of a block is multiplied.
    fn head_of<'b>(&self, block: &'b KvBlock, widened: &'b mut Widened) -> HeadOfBlock<'b> {
        let (keys, values, scales) = match self.shape.kv_type {
            KvType::F32 | KvType::Bf16 => {
                (block.keys(self.kv_head), block.values(self.kv_head), None)
            }
            KvType::Int8 => {
                widened.take(self.variant, block, self.kv_head);
                (
                    &widened.keys[..],
                    &widened.values[..],
                    Some(&widened.scales),
                )
            }
        };
        HeadOfBlock {
            keys,
            values,
            scales,
            not_finite: block.not_finite(),
        }
    }

    /// Whether queries and weights are bf16 too.
    fn multiplies_bf16(&self) -> bool {
        self.shape.kv_type != KvType::F32 && self.variant.kind() == Kind::Avx512VnniBf16
    }

    /// Packs and scales the queries, and sets all else to its start.
    fn prepare<'q>(&self, query: impl Fn(usize) -> &'q [f32], scratch: &mut Scratch) {
        let n_rows = self.visible.len();
        let n_chunks = n_rows * self.n_heads * self.n_chunks();
        let n_lines = n_rows * self.n_heads * self.shape.value_row_lines();
        scratch.queries.clear();
        scratch.queries.resize(n_chunks, [0.0; CHUNK]);
        scratch.states.clear();
        scratch.states.resize(n_rows * self.n_heads, State::START);
        scratch.sums.clear();
        scratch.sums.resize(n_lines, [0.0; LINE_WORDS]);

        // Powers of two are cheaper than powers of e.
        let scale = LOG2_E / (self.shape.head_dim as f32).sqrt();
        let mut chunks = scratch.queries.iter_mut();
        for row in 0..n_rows {
            for head in query(row).chunks_exact(self.shape.head_dim) {
                for (part, chunk) in head.chunks(CHUNK).zip(&mut chunks) {
                    for (packed, query) in chunk.iter_mut().zip(part) {
                        *packed = query * scale;
                    }
                }
            }
        }
        if self.multiplies_bf16() {
            scratch.query_pairs.resize(n_chunks, [0; CHUNK / 2]);
            bf16::round_to_pairs(&scratch.queries, &mut scratch.query_pairs);
        }
    }

    /// Lets some rows see the `slots` of a block.
    fn take_block(
        &self,
        block: &HeadOfBlock<'_>,
        slots: u64,
        rows: Range<usize>,
        scratch: &mut Scratch,
    ) {
        let is_spoilt = slots & block.not_finite != 0;
        let has_limits = slots != u64::MAX && !self.multiplies_bf16();
        let limits = has_limits.then(|| limits(slots));
        let limits = limits.as_ref();
        let first_head = rows.start * self.n_heads;
        for heads in parts(rows.len() * self.n_heads, TILE_HEADS) {
            let heads = first_head + heads.start..first_head + heads.end;
            self.multiply_keys(block.keys, slots, heads.clone(), scratch);

            let mut factors = [0.0; TILE_HEADS];
            let factors = &mut factors[..heads.len()];
            let scores = &mut scratch.scores[..heads.len()];
            let pairs = &mut scratch.weight_pairs[..heads.len()];
            let states = &mut scratch.states[heads.clone()];
            if self.multiplies_bf16() {
                bf16::take_scores(slots, block.scales, scores, states, factors, pairs);
            } else {
                let scores = scores.iter_mut().zip(states.iter_mut());
                for (factor, (scores, state)) in factors.iter_mut().zip(scores) {
                    *factor = self.take_scores(limits, block.scales, scores, state);
                }
            }
            if is_spoilt {
                states.iter_mut().for_each(State::spoil);
            }

            let lines = self.shape.value_row_lines();
            let sums = &mut scratch.sums[heads.start * lines..heads.end * lines];
            let product = Product {
                a: scores,
                n_chunks: 1,
                b: block.values,
                row_lines: lines,
                n_rows: end(slots).div_ceil(self.numbers_a_word()),
                n_lines: lines,
                c: sums,
                c_lines: lines,
                factors: Some(factors),
            };
            self.multiply(product, pairs);
        }
    }

    /// Makes a head's scores weights. One call a head: with the loop inside, the
    /// compiler would make vectors of heads instead of slots.
    fn take_scores(
        &self,
        limits: Option<&Scores>,
        scales: Option<&Scales>,
        scores: &mut Scores,
        state: &mut State,
    ) -> f32 {
        compiled_for!(
            self.variant,
            take_scores(
                limits: Option<&Scores>,
                scales: Option<&Scales>,
                scores: &mut Scores,
                state: &mut State,
            ) -> f32
        )
    }

    /// Writes the scores of a block's slots, up to the last one of `slots`.
    fn multiply_keys(&self, keys: &[Line], slots: u64, heads: Range<usize>, scratch: &mut Scratch) {
        let n_chunks = self.n_chunks();
        let chunks = heads.start * n_chunks..heads.end * n_chunks;
        let (c, _) = scratch.scores[..heads.len()]
            .as_flattened_mut()
            .as_chunks_mut();
        let product = Product {
            a: &scratch.queries[chunks.clone()],
            n_chunks,
            b: keys,
            row_lines: KV_BLOCK / LINE_WORDS,
            n_rows: self.shape.head_dim / self.numbers_a_word(),
            n_lines: end(slots).div_ceil(LINE_WORDS),
            c,
            c_lines: KV_BLOCK / LINE_WORDS,
            factors: None,
        };
        // Empty where they are not multiplied.
        let pairs = scratch.query_pairs.get(chunks).unwrap_or_default();
        self.multiply(product, pairs);
    }

    /// `pairs`: the left side as pairs of bf16, for where these are multiplied.
    fn multiply(&self, product: Product<'_, f32, CHUNK>, pairs: &[[u32; CHUNK / 2]]) {
        match self.shape.kv_type {
            KvType::Bf16 | KvType::Int8 if self.multiplies_bf16() => {
                bf16::multiply(product.with(pairs));
            }
            KvType::Bf16 | KvType::Int8 => compiled_for!(
                self.variant,
                multiply_pairs(product: Product<'_, f32, CHUNK>)
            ),
            KvType::F32 => compiled_for!(
                self.variant,
                multiply_numbers(product: Product<'_, f32, CHUNK>)
            ),
        }
    }

    /// A row's result, `(n_heads, head_dim)`.
    fn finish<'s>(&self, row: usize, scratch: &'s mut Scratch) -> &'s [f32] {
        let head_dim = self.shape.head_dim;
        let lines = self.shape.value_row_lines();
        let sums = &mut scratch.sums[row * self.n_heads * lines..][..self.n_heads * lines];
        let sums = sums.as_flattened_mut();
        for head in 0..self.n_heads {
            let weight = scratch.states[row * self.n_heads + head].inverse_sum();
            let start = head * lines * LINE_WORDS;
            for sum in &mut sums[start..start + head_dim] {
                *sum *= weight;
            }
            // To the left, over the padding of the heads before.
            sums.copy_within(start..start + head_dim, head * head_dim);
        }
        &sums[..self.n_heads * head_dim]
    }
}

/// One more than the last of `slots`.
fn end(slots: u64) -> usize {
    KV_BLOCK - slots.leading_zeros() as usize
}
