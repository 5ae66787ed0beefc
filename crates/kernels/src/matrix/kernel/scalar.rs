//! The reference: plain Rust.

use super::{
    super::{
        PANEL_WIDTH, QUAD,
        blocks::{Int4Block, Int4Half, Int8Block, SUB_QUADS, SUBS},
        quantize::half,
        rows::{RowGroup, RowsView},
    },
    Sums,
};

pub(super) fn int8(blocks: &[Int8Block], rows: RowsView<'_>, sums: &mut [Sums]) {
    for (row_idx, sums) in sums.iter_mut().enumerate() {
        for (group_idx, block) in blocks.iter().enumerate() {
            let row = rows.group(row_idx, group_idx);
            for (column, sum) in sums.0.iter_mut().enumerate() {
                let mut dot = 0_i32;
                for (quad_idx, weights) in block.weights.iter().enumerate() {
                    let weights = weights.as_flattened().as_chunks::<QUAD>().0[column];
                    for (weight, value) in weights.iter().zip(row.quad(quad_idx)) {
                        dot += (i32::from(*weight) - 128) * i32::from(value);
                    }
                }
                // At most 127 * 127 * 128, so exact in f32.
                *sum = (dot as f32).mul_add(block.scales[column] * row.scale, *sum);
            }
        }
    }
}

pub(super) fn int4(blocks: &[Int4Block], rows: RowsView<'_>, sums: &mut [Sums]) {
    for (row_idx, sums) in sums.iter_mut().enumerate() {
        for (block_idx, block) in blocks.iter().enumerate() {
            for (half_idx, weights) in block.halves.iter().enumerate() {
                let row = rows.group(row_idx, 2 * block_idx + half_idx);
                for column in 0..PANEL_WIDTH {
                    let (scaled, minimum) = integers(weights, column, row);
                    let (d, d_min) = (half(block.d[column]), half(block.d_min[column]));
                    // Both integers are less than 2^24, so exact in f32.
                    let value = (-d_min).mul_add(minimum as f32, d * scaled as f32);
                    sums.0[column] = value.mul_add(row.scale, sums.0[column]);
                }
            }
        }
    }
}

/// The sum of the scaled dot products of the sub-blocks, and that of their minima
/// times the sums of the row.
fn integers(weights: &Int4Half, column: usize, row: &RowGroup) -> (i32, i32) {
    let (mut scaled, mut minimum) = (0, 0);
    let mins = weights.mins.as_flattened().as_chunks::<SUBS>().0[column];
    for (sub, (scales, min)) in weights.scales.iter().zip(mins).enumerate() {
        let (mut dot, mut sum) = (0, 0);
        for (quad_idx, nibbles) in weights.nibbles[sub / 2].iter().enumerate() {
            let nibbles = nibbles.as_flattened().as_chunks::<QUAD>().0[column];
            for (nibble, value) in nibbles.iter().zip(row.quad(sub * SUB_QUADS + quad_idx)) {
                let weight = nibble >> (sub % 2 * 4) & 15;
                dot += i32::from(weight) * i32::from(value);
                sum += i32::from(value);
            }
        }
        scaled += i32::from(scales[column]) * dot;
        minimum += i32::from(min) * sum;
    }
    (scaled, minimum)
}
