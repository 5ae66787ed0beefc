//! AVX2 with FMA: Haswell, Zen and later.

#![expect(
    unsafe_code,
    reason = "vector loads and stores, and the call into code for an instruction set"
)]

use std::arch::x86_64::{
    __m256i, _mm256_abs_epi8, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_sign_epi8,
    _mm256_storeu_ps,
};

use super::{GROUP, GROUP_BYTES, PANEL_WIDTH, Panel, QUAD};

/// Lanes of a vector.
const LANES: usize = 8;

/// Vectors of a tile: 2 x 4 sums and what they need fill 15 of 16 registers.
const VECTORS: usize = 4;

/// Rows of a tile.
const TILE_ROWS: usize = 2;

pub(super) fn run(panel: &Panel<'_>, out: &mut [f32]) {
    // SAFETY: `run` in the parent module comes here only with a `Variant` that
    // `Variant::available` made after it had found avx2 and fma on this
    // processor; its asserts hold the lengths `tile` relies on.
    unsafe { run_tiles(panel, out) }
}

#[target_feature(enable = "avx2,fma")]
fn run_tiles(panel: &Panel<'_>, out: &mut [f32]) {
    let mut row_idx = 0;
    for out in out.chunks_mut(TILE_ROWS * PANEL_WIDTH) {
        for half in 0..PANEL_WIDTH / (LANES * VECTORS) {
            match out.len() / PANEL_WIDTH {
                1 => tile::<1>(panel, row_idx, half, out),
                _ => tile::<TILE_ROWS>(panel, row_idx, half, out),
            }
        }
        row_idx += TILE_ROWS;
    }
}

/// `ROWS` rows from `row_idx` on, half of the panel. `out`: `(ROWS, PANEL_WIDTH)`.
#[target_feature(enable = "avx2,fma")]
fn tile<const ROWS: usize>(panel: &Panel<'_>, row_idx: usize, half: usize, out: &mut [f32]) {
    let row_bytes = panel.n_groups * GROUP;
    let ones = _mm256_set1_epi16(1);
    for group_idx in 0..panel.n_groups {
        let weights = &panel.weights[group_idx * GROUP_BYTES..][..GROUP_BYTES];
        let rows: [&[u8]; ROWS] = std::array::from_fn(|row| {
            &panel.rows[(row_idx + row) * row_bytes + group_idx * GROUP..][..GROUP]
        });
        let mut sums = [[_mm256_setzero_si256(); VECTORS]; ROWS];
        for quad_idx in 0..GROUP / QUAD {
            let start = (quad_idx * PANEL_WIDTH + half * LANES * VECTORS) * QUAD;
            let weights: [__m256i; VECTORS] = std::array::from_fn(|vector| {
                let lanes = &weights[start + vector * LANES * QUAD..][..LANES * QUAD];
                // SAFETY: `lanes` is 32 bytes long by its slicing.
                unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
            });
            for (sums, row) in sums.iter_mut().zip(rows) {
                let quad = &row[quad_idx * QUAD..][..QUAD];
                let quad = i32::from_le_bytes([quad[0], quad[1], quad[2], quad[3]]);
                // Back from the integer plus 128 to the integer.
                let quad = _mm256_set1_epi32(quad ^ i32::from_le_bytes([0x80; 4]));
                let magnitude = _mm256_abs_epi8(quad);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    // Two products of at most 127 * 127 fit 16 bits.
                    let signed = _mm256_sign_epi8(weights, quad);
                    let pairs = _mm256_maddubs_epi16(magnitude, signed);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        for vector in 0..VECTORS {
            let column = (half * VECTORS + vector) * LANES;
            let scales = &panel.scales[group_idx * PANEL_WIDTH + column..][..LANES];
            // SAFETY: `scales` is 8 numbers of 4 bytes long by its slicing.
            let scales = unsafe { _mm256_loadu_ps(scales.as_ptr()) };
            for (row, sums) in sums.iter().enumerate() {
                let row_scale = panel.row_scales[(row_idx + row) * panel.n_groups + group_idx];
                let dots = _mm256_cvtepi32_ps(sums[vector]);
                let scale = _mm256_mul_ps(scales, _mm256_set1_ps(row_scale));
                let out = &mut out[row * PANEL_WIDTH + column..][..LANES];
                // SAFETY: `out` is 8 numbers of 4 bytes long by its slicing.
                let before = unsafe { _mm256_loadu_ps(out.as_ptr()) };
                let after = _mm256_fmadd_ps(dots, scale, before);
                // SAFETY: as above, and `out` is borrowed mutably.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr(), after) };
            }
        }
    }
}
