//! AVX-512 with VNNI: Ice Lake, Zen 4 and later.

#![expect(
    unsafe_code,
    reason = "vector loads and stores, and the call into code for an instruction set"
)]

use std::arch::x86_64::{
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512, _mm512_storeu_ps,
    _mm512_sub_epi32,
};

use super::{GROUP, GROUP_BYTES, PANEL_WIDTH, Panel, QUAD};

/// Lanes of a vector.
const LANES: usize = 16;

/// Vectors across a panel.
const VECTORS: usize = PANEL_WIDTH / LANES;

/// Rows of a tile: 6 x 4 sums, 4 weights and 1 broadcast fill 29 of 32 registers.
const TILE_ROWS: usize = 6;

pub(super) fn run(panel: &Panel<'_>, out: &mut [f32]) {
    // SAFETY: `run` in the parent module comes here only with a `Variant` that
    // `Variant::available` made after it had found avx512f, avx512bw and
    // avx512vnni on this processor; its asserts hold the lengths `tile` relies on.
    unsafe { run_tiles(panel, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn run_tiles(panel: &Panel<'_>, out: &mut [f32]) {
    let mut row_idx = 0;
    for out in out.chunks_mut(TILE_ROWS * PANEL_WIDTH) {
        match out.len() / PANEL_WIDTH {
            1 => tile::<1>(panel, row_idx, out),
            2 => tile::<2>(panel, row_idx, out),
            3 => tile::<3>(panel, row_idx, out),
            4 => tile::<4>(panel, row_idx, out),
            5 => tile::<5>(panel, row_idx, out),
            _ => tile::<TILE_ROWS>(panel, row_idx, out),
        }
        row_idx += TILE_ROWS;
    }
}

/// `ROWS` rows from `row_idx` on. `out`: `(ROWS, PANEL_WIDTH)`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile<const ROWS: usize>(panel: &Panel<'_>, row_idx: usize, out: &mut [f32]) {
    let row_bytes = panel.n_groups * GROUP;
    for group_idx in 0..panel.n_groups {
        let weights = &panel.weights[group_idx * GROUP_BYTES..][..GROUP_BYTES];
        let rows: [&[u8]; ROWS] = std::array::from_fn(|row| {
            &panel.rows[(row_idx + row) * row_bytes + group_idx * GROUP..][..GROUP]
        });
        let mut sums = [[_mm512_setzero_si512(); VECTORS]; ROWS];
        for quad_idx in 0..GROUP / QUAD {
            let weights = &weights[quad_idx * PANEL_WIDTH * QUAD..][..PANEL_WIDTH * QUAD];
            let weights: [_; VECTORS] = std::array::from_fn(|vector| {
                let lanes = &weights[vector * LANES * QUAD..][..LANES * QUAD];
                // SAFETY: `lanes` is 64 bytes long by its slicing.
                unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
            });
            for (sums, row) in sums.iter_mut().zip(rows) {
                let quad = &row[quad_idx * QUAD..][..QUAD];
                let quad = i32::from_le_bytes([quad[0], quad[1], quad[2], quad[3]]);
                let quad = _mm512_set1_epi32(quad);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, quad, weights);
                }
            }
        }
        for vector in 0..VECTORS {
            let start = group_idx * PANEL_WIDTH + vector * LANES;
            let (scales, offsets) = (
                &panel.scales[start..][..LANES],
                &panel.sums[start..][..LANES],
            );
            // SAFETY: `scales` is 16 numbers of 4 bytes long by its slicing.
            let scales = unsafe { _mm512_loadu_ps(scales.as_ptr()) };
            // SAFETY: `offsets` is 16 numbers of 4 bytes long by its slicing.
            let offsets = unsafe { _mm512_loadu_si512(offsets.as_ptr().cast()) };
            for (row, sums) in sums.iter().enumerate() {
                let row_scale = panel.row_scales[(row_idx + row) * panel.n_groups + group_idx];
                let dots = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[vector], offsets));
                let scale = _mm512_mul_ps(scales, _mm512_set1_ps(row_scale));
                let out = &mut out[row * PANEL_WIDTH + vector * LANES..][..LANES];
                // SAFETY: `out` is 16 numbers of 4 bytes long by its slicing.
                let before = unsafe { _mm512_loadu_ps(out.as_ptr()) };
                let after = _mm512_fmadd_ps(dots, scale, before);
                // SAFETY: as above, and `out` is borrowed mutably.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), after) };
            }
        }
    }
}
