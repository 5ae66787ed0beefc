//! AVX-512 with VNNI: Cascade Lake, Ice Lake, Zen 4 and later.

#![expect(unsafe_code, reason = "bytes become vectors, and vectors bytes")]

use std::{
    arch::x86_64::{
        __m128i, __m512, __m512i, _MM_HINT_T1, _mm_prefetch, _mm512_and_si512, _mm512_cvtepi32_ps,
        _mm512_cvtepu8_epi32, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps,
        _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srli_epi16,
    },
    hint::black_box,
    mem::transmute,
};

use super::{
    super::{
        PANEL_WIDTH, VECTOR_BYTES, VECTORS,
        blocks::{Int4Block, Int4Half, Int8Block, QUADS, SUB_QUADS, SUBS},
        quantize::half,
        rows::{RowGroup, RowsView},
    },
    Sums,
};

/// Lanes of a vector.
const LANES: usize = 16;

/// Rows of a tile: 6 x 4 sums, 4 weights and 1 broadcast fill 29 of 32 registers.
const TILE_ROWS: usize = 6;

/// Rows of a tile of 4-bit weights, and its vectors: 4 x 2 sums of integers for
/// each of two sub-blocks, 4 x 2 scaled ones, the nibbles and 1 broadcast fill 28
/// of 32 registers. Unpacking in registers is faster than to memory once for many
/// rows: the rows, the sums and what is unpacked do not fit the first cache.
const INT4_ROWS: usize = 4;
const INT4_VECTORS: usize = 2;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn int8(blocks: &[Int8Block], rows: RowsView<'_>, sums: &mut [Sums]) {
    let n_tiles = sums.len().div_ceil(TILE_ROWS);
    for (group_idx, block) in blocks.iter().enumerate() {
        let mut row_idx = 0;
        for sums in sums.chunks_mut(TILE_ROWS) {
            // A single tile is read so fast that the processor does better alone.
            let ahead = match n_tiles {
                1 => Ahead::NONE,
                _ => Ahead::new(block, 1, (row_idx / TILE_ROWS, n_tiles), QUADS),
            };
            let at = (rows, row_idx, group_idx);
            match sums.len() {
                1 => int8_tile::<1>(block, ahead, at, sums),
                2 => int8_tile::<2>(block, ahead, at, sums),
                3 => int8_tile::<3>(block, ahead, at, sums),
                4 => int8_tile::<4>(block, ahead, at, sums),
                5 => int8_tile::<5>(block, ahead, at, sums),
                _ => int8_tile::<TILE_ROWS>(block, ahead, at, sums),
            }
            row_idx += TILE_ROWS;
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn int4(blocks: &[Int4Block], rows: RowsView<'_>, sums: &mut [Sums]) {
    // Unrolled, the loop over the quads of a sub-block would keep more in registers
    // than there are, so its length is kept from the compiler.
    let quads = black_box(SUB_QUADS);
    let n_tiles = sums.len().div_ceil(INT4_ROWS);
    let distance = if n_tiles == 1 { 3 } else { 1 };
    let width = if sums.len() == 1 {
        VECTORS
    } else {
        INT4_VECTORS
    };
    let steps = SUBS / 2 * SUB_QUADS * (VECTORS / width);
    for (block_idx, block) in blocks.iter().enumerate() {
        let factors = (&block.d.map(half), &block.d_min.map(half));
        for (half_idx, weights) in block.halves.iter().enumerate() {
            let mut row_idx = 0;
            for sums in sums.chunks_mut(INT4_ROWS) {
                let tile = (row_idx / INT4_ROWS, n_tiles);
                let ahead = Ahead::new(weights, distance, tile, steps);
                let at = (rows, row_idx, 2 * block_idx + half_idx);
                let weights = (weights, quads);
                match sums.len() {
                    1 => int4_tile::<1, VECTORS>(weights, ahead, factors, at, sums),
                    2 => int4_tile::<2, INT4_VECTORS>(weights, ahead, factors, at, sums),
                    3 => int4_tile::<3, INT4_VECTORS>(weights, ahead, factors, at, sums),
                    _ => int4_tile::<INT4_ROWS, INT4_VECTORS>(weights, ahead, factors, at, sums),
                }
                row_idx += INT4_ROWS;
            }
        }
    }
}

/// The first row and the group of a tile.
type Place<'a> = (RowsView<'a>, usize, usize);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[expect(
    clippy::needless_range_loop,
    reason = "with constant indices the sums stay in registers"
)]
fn int8_tile<const ROWS: usize>(
    block: &Int8Block,
    mut ahead: Ahead,
    (rows, row_idx, group_idx): Place<'_>,
    sums: &mut [Sums],
) {
    let rows: [&RowGroup; ROWS] = std::array::from_fn(|row| rows.group(row_idx + row, group_idx));
    let sums = sums
        .first_chunk_mut::<ROWS>()
        .expect("the tile has a sum for each row");
    let mut dots = [[_mm512_setzero_si512(); VECTORS]; ROWS];
    for row in 0..ROWS {
        dots[row] = [_mm512_set1_epi32(rows[row].offset); VECTORS];
    }
    for (quad_idx, weights) in block.weights.iter().enumerate() {
        ahead.fetch();
        let weights = [
            bytes(&weights[0]),
            bytes(&weights[1]),
            bytes(&weights[2]),
            bytes(&weights[3]),
        ];
        for row in 0..ROWS {
            let quad = _mm512_set1_epi32(rows[row].quads[quad_idx]);
            for vector in 0..VECTORS {
                dots[row][vector] = _mm512_dpbusd_epi32(dots[row][vector], weights[vector], quad);
            }
        }
    }
    for vector in 0..VECTORS {
        let scales = floats(&block.scales, vector);
        for row in 0..ROWS {
            let scale = _mm512_mul_ps(scales, _mm512_set1_ps(rows[row].scale));
            let sum = floats(&sums[row].0, vector);
            let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[row][vector]), scale, sum);
            store(sum, &mut sums[row].0, vector);
        }
    }
}

/// `WIDTH` vectors at a time, unpacked in registers; `quads` is [`SUB_QUADS`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[expect(
    clippy::needless_range_loop,
    reason = "with constant indices the sums stay in registers"
)]
fn int4_tile<const ROWS: usize, const WIDTH: usize>(
    (weights, quads): (&Int4Half, usize),
    mut ahead: Ahead,
    (d, d_min): (&[f32; PANEL_WIDTH], &[f32; PANEL_WIDTH]),
    (rows, row_idx, group_idx): Place<'_>,
    sums: &mut [Sums],
) {
    let rows: [&RowGroup; ROWS] = std::array::from_fn(|row| rows.group(row_idx + row, group_idx));
    let sums = sums
        .first_chunk_mut::<ROWS>()
        .expect("the tile has a sum for each row");
    let mask = _mm512_set1_epi8(15);
    for first in (0..VECTORS).step_by(WIDTH) {
        let mut scaled = [[_mm512_setzero_ps(); WIDTH]; ROWS];
        for pair in 0..SUBS / 2 {
            let mut low = [[_mm512_setzero_si512(); WIDTH]; ROWS];
            let mut high = [[_mm512_setzero_si512(); WIDTH]; ROWS];
            for quad_idx in 0..quads {
                // No change, but it tells the compiler that the indices are in bounds.
                let quad_idx = quad_idx % SUB_QUADS;
                let low_idx = 2 * pair * SUB_QUADS + quad_idx;
                ahead.fetch();
                for vector in 0..WIDTH {
                    let packed = bytes(&weights.nibbles[pair][quad_idx][first + vector]);
                    let low_nibbles = _mm512_and_si512(packed, mask);
                    let high_nibbles = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), mask);
                    for row in 0..ROWS {
                        let quad = _mm512_set1_epi32(rows[row].quads[low_idx]);
                        let dot = &mut low[row][vector];
                        *dot = _mm512_dpbusd_epi32(*dot, low_nibbles, quad);
                        let quad = _mm512_set1_epi32(rows[row].quads[low_idx + SUB_QUADS]);
                        let dot = &mut high[row][vector];
                        *dot = _mm512_dpbusd_epi32(*dot, high_nibbles, quad);
                    }
                }
            }
            for vector in 0..WIDTH {
                let low_scales = small(&weights.scales[2 * pair], first + vector);
                let high_scales = small(&weights.scales[2 * pair + 1], first + vector);
                for row in 0..ROWS {
                    let low = _mm512_cvtepi32_ps(low[row][vector]);
                    let high = _mm512_cvtepi32_ps(high[row][vector]);
                    let sum = _mm512_fmadd_ps(low, low_scales, scaled[row][vector]);
                    scaled[row][vector] = _mm512_fmadd_ps(high, high_scales, sum);
                }
            }
        }
        for vector in 0..WIDTH {
            let mins = bytes(&weights.mins[first + vector]);
            let factors = (floats(d, first + vector), floats(d_min, first + vector));
            for row in 0..ROWS {
                let value = with_minimum(scaled[row][vector], mins, rows[row], factors);
                let sum = floats(&sums[row].0, first + vector);
                let sum = _mm512_fmadd_ps(value, _mm512_set1_ps(rows[row].scale), sum);
                store(sum, &mut sums[row].0, first + vector);
            }
        }
    }
}

/// `d * scaled - d_min * (minima times the sums of the row's sub-blocks)`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn with_minimum(
    scaled: __m512,
    mins: __m512i,
    row: &RowGroup,
    (d, d_min): (__m512, __m512),
) -> __m512 {
    let zero = _mm512_setzero_si512();
    let high = _mm512_dpbusd_epi32(zero, mins, _mm512_set1_epi32(row.sums_high));
    let high = _mm512_slli_epi32::<8>(high);
    let minimum = _mm512_dpbusd_epi32(high, mins, _mm512_set1_epi32(row.sums_low));
    _mm512_fnmadd_ps(d_min, _mm512_cvtepi32_ps(minimum), _mm512_mul_ps(d, scaled))
}

/// Asks for weights that come later, a few vectors at each step of each tile, so
/// that they are there when it is their turn: pages are too short for the
/// processor to see by itself what will be read.
#[derive(Clone, Copy)]
struct Ahead {
    next: *const i8,
    per_step: usize,
}

impl Ahead {
    const NONE: Self = Self {
        next: std::ptr::null(),
        per_step: 0,
    };

    /// The share of tile `(tile_idx, n_tiles)`, which takes `steps` steps, in what
    /// comes `distance` times the size of `weights` after them.
    #[inline]
    fn new<T>(
        weights: &T,
        distance: usize,
        (tile_idx, n_tiles): (usize, usize),
        steps: usize,
    ) -> Self {
        let vectors = size_of::<T>() / VECTOR_BYTES;
        let per_step = vectors.div_ceil(n_tiles * steps);
        let first = tile_idx * steps * per_step;
        if first >= vectors {
            return Self::NONE;
        }
        let next = std::ptr::from_ref(weights)
            .wrapping_add(distance)
            .cast::<i8>();
        Self {
            next: next.wrapping_add(first * VECTOR_BYTES),
            per_step,
        }
    }

    /// One step: into the second cache, which has more requests under way.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn fetch(&mut self) {
        for _ in 0..self.per_step {
            _mm_prefetch::<_MM_HINT_T1>(self.next);
            self.next = self.next.wrapping_add(VECTOR_BYTES);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn bytes(from: &[u8; VECTOR_BYTES]) -> __m512i {
    // SAFETY: 64 bytes, which any bits are a value of.
    unsafe { transmute::<[u8; VECTOR_BYTES], __m512i>(*from) }
}

/// Vector `vector` of a panel's bytes, each as a number.
#[inline]
#[target_feature(enable = "avx512f")]
fn small(from: &[u8; PANEL_WIDTH], vector: usize) -> __m512 {
    let from = from.as_chunks::<LANES>().0[vector];
    // SAFETY: 16 bytes, which any bits are a value of.
    let bytes = unsafe { transmute::<[u8; LANES], __m128i>(from) };
    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))
}

/// Vector `vector` of a panel's numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn floats(from: &[f32; PANEL_WIDTH], vector: usize) -> __m512 {
    let from = from.as_chunks::<LANES>().0[vector];
    // SAFETY: 16 numbers of 4 bytes, which any bits are a value of.
    unsafe { transmute::<[f32; LANES], __m512>(from) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(values: __m512, to: &mut [f32; PANEL_WIDTH], vector: usize) {
    // SAFETY: 16 numbers of 4 bytes, which any bits are a value of.
    to.as_chunks_mut::<LANES>().0[vector] = unsafe { transmute::<__m512, [f32; LANES]>(values) };
}
