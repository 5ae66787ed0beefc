//! The running softmax of one row and head.

use super::rows::Scores;
use crate::kv::{KV_BLOCK, LINE_WORDS};

/// Adding 1.5 * 2^23 rounds to the nearest integer.
pub(super) const ROUND: f32 = 12_582_912.0;

/// From here down, powers of two are 0.
pub(super) const LEAST: f32 = -127.0;

/// `2^x` on -0.5..=0.5 from the fourth power up to the first; the fifth's is
/// [`FIFTH`], and the constant is 1. The relative error's minimax polynomial.
#[expect(clippy::approx_constant, reason = "a fitted number close to ln 2")]
pub(super) const COEFFICIENTS: [f32; 4] = [0.009_671_514, 0.055_507_336, 0.240_222_42, 0.693_147];

/// See [`COEFFICIENTS`].
pub(super) const FIFTH: f32 = 0.001_326_472_8;

/// What is known of a row's scores so far.
#[derive(Clone, Copy)]
pub(super) struct State {
    /// The largest, as a power of two.
    pub(super) max: f32,
    /// The sum of the weights, relative to the largest, in lanes.
    pub(super) sums: [f32; LINE_WORDS],
}

impl State {
    /// No scores yet.
    pub(super) const START: Self = Self {
        max: f32::NEG_INFINITY,
        sums: [0.0; LINE_WORDS],
    };

    /// Makes the result NaN.
    pub(super) fn spoil(&mut self) {
        self.sums[0] = f32::NAN;
    }

    /// One over the sum of the weights; 0 if there are no scores.
    pub(super) fn inverse_sum(&self) -> f32 {
        let sum = fold_lanes(&self.sums, |a, b| a + b);
        // Not a test for zero: where all scores are -inf the sum is NaN.
        if self.max == f32::NEG_INFINITY && sum == 0.0 {
            0.0
        } else {
            1.0 / sum
        }
    }
}

/// Limits for [`take_scores`]: minus infinity for what `slots` has no bit of.
pub(super) fn limits(slots: u64) -> Scores {
    let mut limits = [f32::INFINITY; KV_BLOCK];
    for (slot, limit) in limits.iter_mut().enumerate() {
        if slots >> slot & 1 == 0 {
            *limit = f32::NEG_INFINITY;
        }
    }
    limits
}

/// What the scores of a block are to be multiplied with, and then the weights.
pub(super) struct Scales {
    pub(super) keys: Scores,
    pub(super) values: Scores,
}

/// Takes up a block's scores of a head, powers of two, and makes them weights; gives
/// the factor that the sums of the blocks before are to be multiplied with.
///
/// Where `limits` is minus infinity the weight is 0, whatever the score. The weights
/// are multiplied with the scale of the values after they have been summed up.
#[inline(always)]
pub(super) fn take_scores(
    limits: Option<&Scores>,
    scales: Option<&Scales>,
    scores: &mut Scores,
    state: &mut State,
) -> f32 {
    // Local, so that the compiler sees that nothing else is written.
    let mut weights = *scores;
    if let Some(scales) = scales {
        multiply(&mut weights, &scales.keys);
    }
    if let Some(limits) = limits {
        for (weight, limit) in weights.iter_mut().zip(limits) {
            *weight = if *limit < 0.0 { *limit } else { *weight };
        }
    }
    let max = larger(fold(&weights, larger), state.max);
    let factor = exp2(state.max - max);
    for weight in &mut weights {
        *weight = exp2(*weight - max);
    }
    let sums = fold_lines(&weights, |a, b| a + b);
    if let Some(scales) = scales {
        multiply(&mut weights, &scales.values);
    }
    *scores = weights;
    for (sum, new) in state.sums.iter_mut().zip(sums) {
        *sum = sum.mul_add(factor, new);
    }
    state.max = max;
    factor
}

#[inline(always)]
fn multiply(numbers: &mut Scores, factors: &Scores) {
    for (number, factor) in numbers.iter_mut().zip(factors) {
        *number *= factor;
    }
}

/// The larger of two; the second if either is NaN, like the processor's maximum.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Folds the lines of a block into one.
#[inline(always)]
fn fold_lines(numbers: &Scores, f: impl Fn(f32, f32) -> f32) -> [f32; LINE_WORDS] {
    let (lines, _) = numbers.as_chunks::<LINE_WORDS>();
    let mut folded = [0.0; LINE_WORDS];
    for (i, folded) in folded.iter_mut().enumerate() {
        *folded = f(f(lines[0][i], lines[1][i]), f(lines[2][i], lines[3][i]));
    }
    folded
}

/// Folds a block's numbers into one.
#[inline(always)]
fn fold(numbers: &Scores, f: impl Fn(f32, f32) -> f32) -> f32 {
    fold_lanes(&fold_lines(numbers, &f), f)
}

/// Folds the lanes by halves.
#[inline(always)]
fn fold_lanes(lanes: &[f32; LINE_WORDS], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (mut eight, mut four) = ([0.0; 8], [0.0; 4]);
    for (i, folded) in eight.iter_mut().enumerate() {
        *folded = f(lanes[i], lanes[i + 8]);
    }
    for (i, folded) in four.iter_mut().enumerate() {
        *folded = f(eight[i], eight[i + 4]);
    }
    f(f(four[0], four[2]), f(four[1], four[3]))
}

/// `2^x` for `x` of at most 0, to about 1.1e-7; exactly 1 for 0, 0 below -126.5.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    let x = larger(LEAST, x);
    let shifted = x + ROUND;
    let fraction = x - (shifted - ROUND);
    let mut polynomial = FIFTH;
    for coefficient in COEFFICIENTS {
        polynomial = polynomial.mul_add(fraction, coefficient);
    }
    let mantissa = polynomial.mul_add(fraction, 1.0);
    // The low bits of `shifted` are the integer, of -127..=0; -127 makes a zero.
    mantissa * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp2_agrees_with_the_standard_library() {
        for step in 0..12_600_i16 {
            let x = -f32::from(step) / 100.0;
            let (ours, exact) = (f64::from(exp2(x)), f64::from(x).exp2());
            assert!(((ours - exact) / exact).abs() < 2e-7, "{x}: {ours} {exact}");
        }
        assert_eq!(exp2(0.0).to_bits(), 1.0_f32.to_bits());
        for x in [-126.6, -127.0, -1e30, f32::NEG_INFINITY] {
            assert_eq!(exp2(x).to_bits(), 0);
        }
        assert!(exp2(f32::NAN).is_nan());
    }
}
