//! Functions of one number or one row that several kernels share.
//!
//! Written once as safe Rust to be inlined into code that is compiled for an
//! instruction set (`compiled_for!`): the lanes and the order of every sum are
//! spelled out, so that all variants give bitwise the same.

use std::f32::consts::LOG2_E;

/// Lanes in which sums over a row are kept.
pub(crate) const LANES: usize = 16;

/// `e^x` to about two units in the last place; below -87 it is about 1e-38.
///
/// Source: Cephes `expf` (Moshier), without its branches so that it vectorises.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let mut polynomial = 1.987_569_1e-4_f32;
    for coefficient in [
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        polynomial = polynomial.mul_add(r, coefficient);
    }
    let mantissa = polynomial.mul_add(r * r, r) + 1.0;
    // The low bits of `shifted` are n, an integer in -126..=127.
    mantissa * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()))
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// One over the root of the mean square of `row` plus `eps`.
#[inline(always)]
pub(crate) fn inverse_rms(row: &[f32], eps: f32) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = value.mul_add(*value, *lane);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane = value.mul_add(*value, *lane);
    }
    let sum: f32 = lanes.iter().sum();
    1.0 / (sum / row.len() as f32 + eps).sqrt()
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
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn silu_is_the_gate_of_its_definition() {
        for x in [-30.0, -1.5, 0.0, 0.25, 7.0, 90.0_f32] {
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(silu(x)) - exact).abs() < 1e-6 * (1.0 + exact.abs()));
        }
        assert!(silu(f32::NAN).is_nan());
    }
}
