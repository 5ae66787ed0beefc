//! The element-wise steps of MiniLM, on plain slices.
//!
//! Written so that the compiler vectorises them for any x86-64. Those of Qwen2
//! are in `inwarden-kernels`.

use std::f32::consts::LOG2_E;

/// Centres `row`, scales it to variance 1, then applies `weight` and `bias`.
///
/// Source: Ba et al. 2016, arXiv:1607.06450.
pub(crate) fn layer_norm(row: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let mean = sum(row, |value| value) / row.len() as f32;
    let variance = sum(row, |value| (value - mean) * (value - mean)) / row.len() as f32;
    let scale = 1.0 / (variance + eps).sqrt();
    for ((value, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
        *value = (*value - mean) * scale * weight + bias;
    }
}

/// Replaces `scores` by their softmax.
pub(crate) fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for score in scores.iter_mut() {
        *score = exp(*score - largest);
    }
    let scale = 1.0 / sum(scores, |value| value);
    for score in scores {
        *score *= scale;
    }
}

/// Adds `f(value)` in 16 lanes: a fixed order that does not depend on threads.
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0_f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|&value| f(value)).sum();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += f(value);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// `e^x` to about two units in the last place; below -87 it is about 1e-38.
///
/// Source: Cephes `expf` (Moshier), without its branches so that it vectorises.
#[inline]
fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let n = (x * LOG2_E + ROUND) - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut polynomial = 1.987_569_1e-4;
    for coefficient in [
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        polynomial = polynomial * r + coefficient;
    }
    let mantissa = polynomial * r * r + r + 1.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "n is an integer in -126..=127"
    )]
    let exponent = ((n as i32 + 127) as u32) << 23;
    mantissa * f32::from_bits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_standard_library() {
        for step in -8_600..8_800_i16 {
            let x = f32::from(step) / 100.0;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(((ours - exact) / exact).abs() < 3e-7, "{x}: {ours} {exact}");
        }
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn softmax_sums_to_one_and_ignores_a_shift() {
        let mut near = [1.0, 2.0, 3.0, -4.0];
        let mut far = near.map(|score| score + 1_000.0);
        softmax(&mut near);
        softmax(&mut far);
        assert!((near.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(near, far);
    }

    #[test]
    fn layer_norm_gives_mean_bias_and_unit_variance() {
        let mut row: Vec<f32> = (0..37_u8).map(f32::from).collect();
        layer_norm(&mut row, &[1.0; 37], &[0.5; 37], 1e-12);
        let mean = row.iter().sum::<f32>() / 37.0;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 37.0;
        assert!((mean - 0.5).abs() < 1e-5 && (variance - 1.0).abs() < 1e-5);
    }
}
