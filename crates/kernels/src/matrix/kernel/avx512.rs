//! AVX-512 with VNNI: Cascade Lake, Ice Lake, Zen 4 and later.

#![expect(unsafe_code, reason = "bytes become vectors, and vectors bytes")]

use std::{
    arch::x86_64::{
        __m128i, __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_and_si512, _mm512_cvtepi32_ps,
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
        blocks::{Int4Block, Int4Half, Int8Block, QuadVectors, SUB_QUADS, SUBS},
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
    for (group_idx, block) in blocks.iter().enumerate() {
        fetch_after(block);
        let mut row_idx = 0;
        for sums in sums.chunks_mut(TILE_ROWS) {
            let at = (rows, row_idx, group_idx);
            match sums.len() {
                1 => int8_tile::<1>(block, at, sums),
                2 => int8_tile::<2>(block, at, sums),
                3 => int8_tile::<3>(block, at, sums),
                4 => int8_tile::<4>(block, at, sums),
                5 => int8_tile::<5>(block, at, sums),
                _ => int8_tile::<TILE_ROWS>(block, at, sums),
            }
            row_idx += TILE_ROWS;
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn int4(blocks: &[Int4Block], rows: RowsView<'_>, sums: &mut [Sums]) {
    // Unrolled, the loop over the quads of a sub-block would keep more in registers
    // than there are; so its length is kept from the compiler.
    let quads = black_box(SUB_QUADS);
    for (block_idx, block) in blocks.iter().enumerate() {
        let factors = (&block.d.map(half), &block.d_min.map(half));
        for (half_idx, weights) in block.halves.iter().enumerate() {
            fetch_after(weights);
            let mut row_idx = 0;
            for sums in sums.chunks_mut(INT4_ROWS) {
                let at = (rows, row_idx, 2 * block_idx + half_idx);
                let weights = (weights, quads);
                match sums.len() {
                    1 => int4_tile::<1, VECTORS>(weights, factors, at, sums),
                    2 => int4_tile::<2, INT4_VECTORS>(weights, factors, at, sums),
                    3 => int4_tile::<3, INT4_VECTORS>(weights, factors, at, sums),
                    _ => int4_tile::<INT4_ROWS, INT4_VECTORS>(weights, factors, at, sums),
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
    (d, d_min): (&[f32; PANEL_WIDTH], &[f32; PANEL_WIDTH]),
    (rows, row_idx, group_idx): Place<'_>,
    sums: &mut [Sums],
) {
    let rows: [&RowGroup; ROWS] = std::array::from_fn(|row| rows.group(row_idx + row, group_idx));
    let sums = sums
        .first_chunk_mut::<ROWS>()
        .expect("the tile has a sum for each row");
    for first in (0..VECTORS).step_by(WIDTH) {
        let mut scaled = [[_mm512_setzero_ps(); WIDTH]; ROWS];
        for pair in 0..SUBS / 2 {
            let start = 2 * pair * SUB_QUADS;
            let low_quads = rows.map(|row| &row.quads[start..][..quads]);
            let high_quads = rows.map(|row| &row.quads[start + SUB_QUADS..][..quads]);
            let nibbles = &weights.nibbles[pair][..quads];
            let [low, high] = int4_pair::<ROWS, WIDTH>(nibbles, first, low_quads, high_quads);
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

/// The sums of products of two sub-blocks, `WIDTH` vectors from `first` on; all
/// slices are of one length.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn int4_pair<const ROWS: usize, const WIDTH: usize>(
    nibbles: &[QuadVectors],
    first: usize,
    low_quads: [&[i32]; ROWS],
    high_quads: [&[i32]; ROWS],
) -> [[[__m512i; WIDTH]; ROWS]; 2] {
    let mask = _mm512_set1_epi8(15);
    let mut low_dots = [[_mm512_setzero_si512(); WIDTH]; ROWS];
    let mut high_dots = [[_mm512_setzero_si512(); WIDTH]; ROWS];
    for (quad_idx, nibbles) in nibbles.iter().enumerate() {
        for vector in 0..WIDTH {
            let packed = bytes(&nibbles[first + vector]);
            let low = _mm512_and_si512(packed, mask);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), mask);
            for row in 0..ROWS {
                let quad = _mm512_set1_epi32(low_quads[row][quad_idx]);
                let dot = &mut low_dots[row][vector];
                *dot = _mm512_dpbusd_epi32(*dot, low, quad);
                let quad = _mm512_set1_epi32(high_quads[row][quad_idx]);
                let dot = &mut high_dots[row][vector];
                *dot = _mm512_dpbusd_epi32(*dot, high, quad);
            }
        }
    }
    [low_dots, high_dots]
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

/// Asks for the memory behind `weights`, as much as `weights` are: the weights
/// that come next.
#[inline]
#[target_feature(enable = "avx512f")]
fn fetch_after<T>(weights: &T) {
    let next = std::ptr::from_ref(weights).wrapping_add(1).cast::<i8>();
    for offset in (0..size_of::<T>()).step_by(VECTOR_BYTES) {
        _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(offset));
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
