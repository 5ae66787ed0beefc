//! The running softmax of one row and head.

use super::rows::Scores;
use crate::kv::LINE_WORDS;

/// What is known of a row's scores so far.
#[derive(Clone, Copy)]
pub(super) struct State {
    /// The largest, as a power of two.
    max: f32,
    /// The sum of the weights, relative to the largest, in lanes.
    sums: [f32; LINE_WORDS],
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
        let sum = fold(self.sums, |a, b| a + b);
        // Not a test for zero: where all scores are -inf the sum is NaN.
        if self.max == f32::NEG_INFINITY && sum == 0.0 {
            0.0
        } else {
            1.0 / sum
        }
    }
}

/// Takes up a block's scores of some heads, powers of two, and makes them weights.
///
/// A head's `factor` is what its sums so far are to be multiplied with. Scores of
/// which `slots` has no bit may be anything; their weights are 0.
#[inline(always)]
pub(super) fn take_scores(
    slots: u64,
    scores: &mut [Scores],
    states: &mut [State],
    factors: &mut [f32],
) {
    for ((scores, state), factor) in scores.iter_mut().zip(states).zip(factors) {
        if slots != u64::MAX {
            hide(slots, scores);
        }
        let (lines, _) = scores.as_chunks_mut::<LINE_WORDS>();
        let mut largest = lines[0];
        for line in &lines[1..] {
            for (largest, score) in largest.iter_mut().zip(line) {
                *largest = larger(*largest, *score);
            }
        }
        let max = larger(fold(largest, larger), state.max);
        *factor = exp2(state.max - max);
        for sum in &mut state.sums {
            *sum *= *factor;
        }
        for line in lines {
            for (score, sum) in line.iter_mut().zip(&mut state.sums) {
                *score = exp2(*score - max);
                *sum += *score;
            }
        }
        state.max = max;
    }
}

/// Makes the scores of which `slots` has no bit minus infinity.
#[inline(always)]
fn hide(slots: u64, scores: &mut Scores) {
    let (lines, _) = scores.as_chunks_mut::<LINE_WORDS>();
    for (line_idx, line) in lines.iter_mut().enumerate() {
        #[expect(clippy::cast_possible_truncation, reason = "the bits of this line")]
        let slots = (slots >> (line_idx * LINE_WORDS)) as u32;
        for (i, score) in line.iter_mut().enumerate() {
            // A choice of two numbers, so that it vectorises.
            let is_hidden = slots >> i & 1 == 0;
            *score = if is_hidden { f32::NEG_INFINITY } else { *score };
        }
    }
}

/// The larger of two; the second if either is NaN, like the processor's maximum.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Folds the lanes by halves.
#[inline(always)]
fn fold(lanes: [f32; LINE_WORDS], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = lanes;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

/// `2^x` for `x` of at most 0, to about 1.1e-7; exactly 1 for 0, 0 below -126.5.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    // The relative error's minimax polynomial on -0.5..=0.5 with 1 at 0.
    #[expect(clippy::approx_constant, reason = "a fitted number close to ln 2")]
    const COEFFICIENTS: [f32; 4] = [0.009_671_514, 0.055_507_336, 0.240_222_42, 0.693_147];
    let x = larger(-127.0, x);
    let shifted = x + ROUND;
    let fraction = x - (shifted - ROUND);
    let mut polynomial = 0.001_326_472_8_f32;
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
