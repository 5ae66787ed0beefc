//! From f32 to integers: the groups of activations and of weights.

use super::{
    GROUP, PANEL_WIDTH, QUAD,
    blocks::{QUADS, SUB_BLOCK, SUBS},
    rows::{RmsNorm, RowGroup},
};
use crate::{
    Variant,
    functions::{LANES, inverse_rms, silu},
    variant::compiled_for,
};

/// The largest magnitude of a quantised number; -128 is not used, so that a sum
/// of two products of bytes fits 16 bits.
const LARGEST: f32 = 127.0;

/// Quantises up to [`GROUP`] numbers.
pub(super) fn plain(variant: Variant, values: &[f32], group: &mut RowGroup) {
    compiled_for!(variant, plain_group(values: &[f32], group: &mut RowGroup));
}

/// Quantises a row that is first scaled to root mean square 1, then by `weight`.
pub(super) fn rms_norm(variant: Variant, row: &[f32], norm: &RmsNorm<'_>, groups: &mut [RowGroup]) {
    compiled_for!(
        variant,
        rms_norm_groups(row: &[f32], norm: &RmsNorm<'_>, groups: &mut [RowGroup])
    );
}

/// A piece of a group: the outputs of one panel.
type Piece = [f32; PANEL_WIDTH];

/// Quantises `silu(gate) * up`, a group in pieces.
pub(super) fn swiglu(variant: Variant, gate: &[&Piece], up: &[&Piece], group: &mut RowGroup) {
    compiled_for!(
        variant,
        swiglu_group(gate: &[&Piece], up: &[&Piece], group: &mut RowGroup)
    );
}

/// Quantises up to [`GROUP`] weights, the rest of `quantised` becomes 0; returns
/// the scale.
#[inline(always)]
pub(super) fn weights(values: &[f32], quantised: &mut [i8; GROUP]) -> f32 {
    let mut padded = [0.0; GROUP];
    let whole = whole(values, &mut padded);
    quantise(whole, quantised)
}
#[inline(always)]
fn plain_group(values: &[f32], group: &mut RowGroup) {
    let mut padded = [0.0; GROUP];
    fill(whole(values, &mut padded), group);
}
#[inline(always)]
fn rms_norm_groups(row: &[f32], norm: &RmsNorm<'_>, groups: &mut [RowGroup]) {
    let scale = inverse_rms(row, norm.eps);
    let mut values = [0.0; GROUP];
    if let Some(order) = norm.order {
        for (order, group) in order.chunks(GROUP).zip(groups) {
            for (to, &idx) in values.iter_mut().zip(order) {
                *to = row[idx as usize] * scale * norm.weight[idx as usize];
            }
            values[order.len()..].fill(0.0);
            fill(&values, group);
        }
        return;
    }
    let chunks = row.chunks(GROUP).zip(norm.weight.chunks(GROUP));
    for ((row, weight), group) in chunks.zip(groups) {
        for ((to, value), weight) in values.iter_mut().zip(row).zip(weight) {
            *to = value * scale * weight;
        }
        values[row.len()..].fill(0.0);
        fill(&values, group);
    }
}
#[inline(always)]
fn swiglu_group(gate: &[&Piece], up: &[&Piece], group: &mut RowGroup) {
    let mut values = [0.0; GROUP];
    let (pieces, _) = values.as_chunks_mut::<PANEL_WIDTH>();
    for ((to, gate), up) in pieces.iter_mut().zip(gate).zip(up) {
        for ((to, gate), up) in to.iter_mut().zip(*gate).zip(*up) {
            *to = silu(*gate) * up;
        }
    }
    fill(&values, group);
}

/// `values` themselves if they are a whole group, else a padded copy.
#[inline(always)]
fn whole<'a>(values: &'a [f32], padded: &'a mut [f32; GROUP]) -> &'a [f32; GROUP] {
    if let Ok(whole) = values.try_into() {
        return whole;
    }
    padded[..values.len()].copy_from_slice(values);
    padded
}
#[inline(always)]
fn fill(values: &[f32; GROUP], group: &mut RowGroup) {
    let mut quantised = [0_i8; GROUP];
    group.scale = quantise(values, &mut quantised);
    for (to, quad) in group.quads.iter_mut().zip(quantised.as_chunks::<QUAD>().0) {
        *to = i32::from_le_bytes(quad.map(i8::cast_unsigned));
    }
    let mut high = [0_u8; SUBS];
    let mut low = [0_u8; SUBS];
    let mut total = 0;
    for (idx, sub) in quantised.as_chunks::<SUB_BLOCK>().0.iter().enumerate() {
        let mut lanes = [0_i32; LANES];
        for chunk in sub.as_chunks::<LANES>().0 {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += i32::from(*value);
            }
        }
        let sum: i32 = lanes.iter().sum();
        total += sum;
        // At most 127 * 32, so the bytes above these two are the sign.
        let [low_byte, ..] = sum.to_le_bytes();
        let [high_byte, ..] = ((sum - i32::from(low_byte.cast_signed())) >> 8).to_le_bytes();
        (low[idx], high[idx]) = (low_byte, high_byte);
    }
    group.offset = -128 * total;
    group.sums_high = i32::from_le_bytes(high);
    group.sums_low = i32::from_le_bytes(low);
}

/// Returns the scale. A group that holds a number that is not finite becomes not
/// finite as a whole, so that it does not pass unnoticed.
#[inline(always)]
fn quantise(values: &[f32; GROUP], quantised: &mut [i8; GROUP]) -> f32 {
    // Adding 1.5 * 2^23 rounds to the nearest integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let mut lanes = [0_u32; LANES];
    for chunk in values.as_chunks::<LANES>().0 {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            // Magnitudes compare like their bits, and NaN is above infinity.
            *lane = (*lane).max(value.to_bits() & !SIGN);
        }
    }
    let largest = f32::from_bits(lanes.into_iter().fold(0, u32::max));
    quantised.fill(0);
    if !largest.is_finite() {
        quantised[0] = 1;
        return largest;
    }
    let scale = largest / LARGEST;
    if scale < f32::MIN_POSITIVE {
        return 0.0;
    }
    let inverse = 1.0 / scale;
    for (to, value) in quantised.iter_mut().zip(values) {
        let [low_byte, ..] = (value * inverse + ROUND).to_bits().to_le_bytes();
        *to = low_byte.cast_signed();
    }
    scale
}

/// The sign of an f32.
const SIGN: u32 = 1 << 31;

/// The number of a half-precision one; exact.
#[inline(always)]
pub(super) fn half(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let magnitude = bits & 0x7fff;
    // Shifted into place the exponent is 112 too small, also if it is 0.
    let value = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    // Infinity and NaN keep the largest exponent.
    let special = if magnitude >= 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(value.to_bits() | special | (bits & 0x8000) << 16)
}

/// A check at compile time that a group is whole quads.
const _: () = assert!(QUADS * QUAD == GROUP && SUBS * SUB_BLOCK == GROUP);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_exact() {
        assert_eq!(half(0x0001), 2.0_f32.powi(-24));
        assert_eq!(half(0x83ff), -1023.0 * 2.0_f32.powi(-24));
        assert_eq!(half(0x3c00), 1.0);
        assert_eq!(half(0xc248), -3.140_625);
        assert_eq!(half(0x7bff), 65504.0);
        assert_eq!(half(0x8000).to_bits(), (-0.0_f32).to_bits());
        assert_eq!(half(0xfc00), f32::NEG_INFINITY);
        assert!(half(0x7e01).is_nan());
    }

    #[test]
    fn the_sums_of_sub_blocks_are_those_of_the_integers() {
        let mut group_values = [0.0; GROUP];
        for (idx, value) in group_values.iter_mut().enumerate() {
            // Sub-blocks that sum to +4064, -4064, a little, and nothing.
            *value = match idx / SUB_BLOCK {
                0 => 1.0,
                1 => -1.0,
                2 => (idx % 7) as f32 / 7.0 - 0.4,
                _ => 0.0,
            };
        }
        let mut row = [RowGroup {
            quads: [0; QUADS],
            scale: 0.0,
            offset: 0,
            sums_high: 0,
            sums_low: 0,
        }];
        plain(Variant::SCALAR, &group_values, &mut row[0]);
        let row = &row[0];
        let high = row.sums_high.to_le_bytes().map(u8::cast_signed);
        let low = row.sums_low.to_le_bytes().map(u8::cast_signed);
        let mut total = 0;
        for sub in 0..SUBS {
            let quads = (0..SUB_BLOCK / QUAD).map(|quad| row.quad(sub * SUB_BLOCK / QUAD + quad));
            let sum: i32 = quads.flatten().map(i32::from).sum();
            assert_eq!(i32::from(high[sub]) * 256 + i32::from(low[sub]), sum);
            total += sum;
        }
        assert_eq!(row.offset, -128 * total);
        assert_eq!(row.scale, 1.0 / 127.0);
    }
}
