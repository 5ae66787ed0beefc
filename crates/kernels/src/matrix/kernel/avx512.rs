//! AVX-512 with VNNI: Cascade Lake, Ice Lake, Zen 4 and later.

#![expect(unsafe_code, reason = "bytes become vectors, and vectors bytes")]

use std::{
    arch::x86_64::{
        __m128i, __m512, __m512i, _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32,
        _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_mul_ps, _mm512_set1_epi8,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
        _mm512_slli_epi32, _mm512_srli_epi16,
    },
    mem::transmute,
};

use super::{
    super::{
        PANEL_WIDTH, VECTOR_BYTES, VECTORS,
        blocks::{Int4Block, Int8Block, SUB_QUADS, SUBS},
        quantize::half,
        rows::{RowGroup, RowsView},
    },
    Sums,
    unpacked::Unpacked,
};

/// Lanes of a vector.
const LANES: usize = 16;

/// Rows of a tile: 6 x 4 sums, 4 weights and 1 broadcast fill 29 of 32 registers.
const TILE_ROWS: usize = 6;

/// Vectors of a tile of 4-bit weights: 6 x 2 sums of integers, as many of scaled
/// ones, 2 weights and 1 broadcast fill 27 of 32 registers.
const TILE_VECTORS: usize = 2;

/// Up to so many rows, nibbles are unpacked in registers.
const FEW_ROWS: usize = 4;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn int8(blocks: &[Int8Block], rows: RowsView<'_>, sums: &mut [Sums]) {
    for (group_idx, block) in blocks.iter().enumerate() {
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
    if sums.len() <= FEW_ROWS {
        return match sums.len() {
            1 => int4_few_rows::<1, VECTORS>(blocks, rows, sums),
            2 => int4_few_rows::<2, TILE_VECTORS>(blocks, rows, sums),
            3 => int4_few_rows::<3, TILE_VECTORS>(blocks, rows, sums),
            _ => int4_few_rows::<FEW_ROWS, TILE_VECTORS>(blocks, rows, sums),
        };
    }
    let mut unpacked = Unpacked::ZERO;
    for (block_idx, block) in blocks.iter().enumerate() {
        for half_idx in 0..2 {
            unpacked.set(block, half_idx);
            let mut row_idx = 0;
            for sums in sums.chunks_mut(TILE_ROWS) {
                let at = (rows, row_idx, 2 * block_idx + half_idx);
                match sums.len() {
                    1 => int4_tile::<1>(&unpacked, at, sums),
                    2 => int4_tile::<2>(&unpacked, at, sums),
                    3 => int4_tile::<3>(&unpacked, at, sums),
                    4 => int4_tile::<4>(&unpacked, at, sums),
                    5 => int4_tile::<5>(&unpacked, at, sums),
                    _ => int4_tile::<TILE_ROWS>(&unpacked, at, sums),
                }
                row_idx += TILE_ROWS;
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

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[expect(
    clippy::needless_range_loop,
    reason = "with constant indices the sums stay in registers"
)]
fn int4_tile<const ROWS: usize>(
    weights: &Unpacked,
    (rows, row_idx, group_idx): Place<'_>,
    sums: &mut [Sums],
) {
    let rows: [&RowGroup; ROWS] = std::array::from_fn(|row| rows.group(row_idx + row, group_idx));
    let sums = sums
        .first_chunk_mut::<ROWS>()
        .expect("the tile has a sum for each row");
    for first in (0..VECTORS).step_by(TILE_VECTORS) {
        let mut scaled = [[_mm512_setzero_ps(); TILE_VECTORS]; ROWS];
        for sub in 0..SUBS {
            let mut dots = [[_mm512_setzero_si512(); TILE_VECTORS]; ROWS];
            for quad_idx in 0..SUB_QUADS {
                let vectors = &weights.weights[sub][quad_idx];
                let vectors = [bytes(&vectors[first]), bytes(&vectors[first + 1])];
                for row in 0..ROWS {
                    let quad = _mm512_set1_epi32(rows[row].quads[sub * SUB_QUADS + quad_idx]);
                    for (dot, vector) in dots[row].iter_mut().zip(vectors) {
                        *dot = _mm512_dpbusd_epi32(*dot, vector, quad);
                    }
                }
            }
            for vector in 0..TILE_VECTORS {
                let scales = floats(&weights.scales[sub], first + vector);
                for row in 0..ROWS {
                    let dot = _mm512_cvtepi32_ps(dots[row][vector]);
                    scaled[row][vector] = _mm512_fmadd_ps(dot, scales, scaled[row][vector]);
                }
            }
        }
        for vector in 0..TILE_VECTORS {
            let mins = bytes(&weights.mins[first + vector]);
            let d = floats(&weights.d, first + vector);
            let d_min = floats(&weights.d_min, first + vector);
            for row in 0..ROWS {
                let value = with_minimum(scaled[row][vector], mins, rows[row], (d, d_min));
                add(value, rows[row], &mut sums[row], first + vector);
            }
        }
    }
}

/// As [`int4_tile`] for all blocks, `WIDTH` vectors at a time, without unpacking
/// to memory.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[expect(
    clippy::needless_range_loop,
    reason = "with constant indices the sums stay in registers"
)]
fn int4_few_rows<const ROWS: usize, const WIDTH: usize>(
    blocks: &[Int4Block],
    rows: RowsView<'_>,
    sums: &mut [Sums],
) {
    let sums = sums
        .first_chunk_mut::<ROWS>()
        .expect("the tile has a sum for each row");
    let low_nibbles = _mm512_set1_epi8(15);
    for (block_idx, block) in blocks.iter().enumerate() {
        let d = block.d.map(half);
        let d_min = block.d_min.map(half);
        for (half_idx, weights) in block.halves.iter().enumerate() {
            let rows: [&RowGroup; ROWS] =
                std::array::from_fn(|row| rows.group(row, 2 * block_idx + half_idx));
            for first in (0..VECTORS).step_by(WIDTH) {
                let mut scaled = [[_mm512_setzero_ps(); WIDTH]; ROWS];
                for pair in 0..SUBS / 2 {
                    let mut low_dots = [[_mm512_setzero_si512(); WIDTH]; ROWS];
                    let mut high_dots = [[_mm512_setzero_si512(); WIDTH]; ROWS];
                    for quad_idx in 0..SUB_QUADS {
                        for vector in 0..WIDTH {
                            let packed = bytes(&weights.nibbles[pair][quad_idx][first + vector]);
                            let low = _mm512_and_si512(packed, low_nibbles);
                            let high = _mm512_srli_epi16::<4>(packed);
                            let high = _mm512_and_si512(high, low_nibbles);
                            for row in 0..ROWS {
                                let quads = &rows[row].quads[2 * pair * SUB_QUADS..];
                                let (low_quad, high_quad) =
                                    (quads[quad_idx], quads[SUB_QUADS + quad_idx]);
                                low_dots[row][vector] = _mm512_dpbusd_epi32(
                                    low_dots[row][vector],
                                    low,
                                    _mm512_set1_epi32(low_quad),
                                );
                                high_dots[row][vector] = _mm512_dpbusd_epi32(
                                    high_dots[row][vector],
                                    high,
                                    _mm512_set1_epi32(high_quad),
                                );
                            }
                        }
                    }
                    for vector in 0..WIDTH {
                        let low_scales = small(&weights.scales[2 * pair], first + vector);
                        let high_scales = small(&weights.scales[2 * pair + 1], first + vector);
                        for row in 0..ROWS {
                            let scaled = &mut scaled[row][vector];
                            let dot = _mm512_cvtepi32_ps(low_dots[row][vector]);
                            *scaled = _mm512_fmadd_ps(dot, low_scales, *scaled);
                            let dot = _mm512_cvtepi32_ps(high_dots[row][vector]);
                            *scaled = _mm512_fmadd_ps(dot, high_scales, *scaled);
                        }
                    }
                }
                for vector in 0..WIDTH {
                    let mins = bytes(&weights.mins[first + vector]);
                    let factors = (floats(&d, first + vector), floats(&d_min, first + vector));
                    for row in 0..ROWS {
                        let value = with_minimum(scaled[row][vector], mins, rows[row], factors);
                        add(value, rows[row], &mut sums[row], first + vector);
                    }
                }
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

/// `sums = fma(value, scale of the row, sums)`.
#[inline]
#[target_feature(enable = "avx512f")]
fn add(value: __m512, row: &RowGroup, sums: &mut Sums, vector: usize) {
    let sum = floats(&sums.0, vector);
    let sum = _mm512_fmadd_ps(value, _mm512_set1_ps(row.scale), sum);
    store(sum, &mut sums.0, vector);
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
