//! The reference: plain Rust.

use super::{GROUP, GROUP_BYTES, PANEL_WIDTH, Panel, QUAD};

pub(super) fn run(panel: &Panel<'_>, out: &mut [f32]) {
    let row_bytes = panel.n_groups * GROUP;
    for (row_idx, out) in out.chunks_exact_mut(PANEL_WIDTH).enumerate() {
        for group_idx in 0..panel.n_groups {
            let row = &panel.rows[row_idx * row_bytes + group_idx * GROUP..][..GROUP];
            let row_scale = panel.row_scales[row_idx * panel.n_groups + group_idx];
            let weights = &panel.weights[group_idx * GROUP_BYTES..][..GROUP_BYTES];
            let scales = &panel.scales[group_idx * PANEL_WIDTH..][..PANEL_WIDTH];
            let sums = &panel.sums[group_idx * PANEL_WIDTH..][..PANEL_WIDTH];
            let mut dots = [0_i32; PANEL_WIDTH];
            let quads = weights.chunks_exact(PANEL_WIDTH * QUAD);
            for (weights, row) in quads.zip(row.chunks_exact(QUAD)) {
                for (dot, weights) in dots.iter_mut().zip(weights.chunks_exact(QUAD)) {
                    for (weight, value) in weights.iter().zip(row) {
                        *dot += i32::from(*weight) * i32::from(*value);
                    }
                }
            }
            for (((out, dot), scale), sum) in out.iter_mut().zip(dots).zip(scales).zip(sums) {
                // At most 127 * 127 * 128, so exact in f32.
                *out = ((dot - sum) as f32).mul_add(scale * row_scale, *out);
            }
        }
    }
}
