//! Normalisation, gating and log-sum-exp in f32.
//!
//! All variants give bitwise the same. What a row gives depends on that row alone.

use crate::functions::{self, LANES};
use crate::variant::compiled_for;
use crate::{Pool, Variant};

/// Numbers a task should have, so that starting it costs little beside it.
const TASK_LEN: usize = 8192;

/// Numbers that [`log_sum_exp`] adds in f32 before it goes on in f64.
const EXACT_LEN: usize = 256;

/// RMS normalisation: each row over the root of its mean square, times `weight`.
///
/// `rows` and `out`: `(n_rows, n)`, f32, row-major. `weight`: `(n,)`. `eps` is added
/// to the mean square.
///
/// # Panics
/// If the lengths do not fit together.
///
/// Source: Zhang and Sennrich 2019, arXiv:1910.07467.
pub fn rms_norm(
    pool: &Pool,
    variant: Variant,
    rows: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    assert_eq!(rows.len(), out.len());
    if rows.is_empty() {
        return;
    }
    let n = weight.len();
    assert!(rows.len().is_multiple_of(n), "a part of a row");
    let task_len = TASK_LEN.div_ceil(n) * n;
    pool.for_each_chunk(out, task_len, |task_idx, out| {
        let rows = &rows[task_idx * task_len..][..out.len()];
        compiled_for!(
            variant,
            norm_rows(rows: &[f32], weight: &[f32], eps: f32, out: &mut [f32])
        );
    });
}

/// `out = silu(gate) * up`, number by number, with `silu(x) = x / (1 + e^-x)`.
///
/// All of one length, f32.
///
/// # Panics
/// If the lengths differ.
///
/// Source: Shazeer 2020, arXiv:2002.05202.
pub fn swiglu(pool: &Pool, variant: Variant, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert_eq!(gate.len(), out.len());
    assert_eq!(up.len(), out.len());
    pool.for_each_chunk(out, TASK_LEN, |task_idx, out| {
        let gate = &gate[task_idx * TASK_LEN..][..out.len()];
        let up = &up[task_idx * TASK_LEN..][..out.len()];
        compiled_for!(
            variant,
            gate_numbers(gate: &[f32], up: &[f32], out: &mut [f32])
        );
    });
}

/// The natural logarithm of the sum of `e^x`: what turns logits into
/// log-probabilities. To about 1e-6; minus infinity for no numbers.
#[must_use]
pub fn log_sum_exp(variant: Variant, logits: &[f32]) -> f64 {
    let max = compiled_for!(variant, largest(logits: &[f32]) -> f32);
    if max.is_infinite() || max.is_nan() {
        return f64::from(max);
    }
    let sum = compiled_for!(variant, sum_exp(logits: &[f32], max: f32) -> f64);
    f64::from(max) + sum.ln()
}

#[inline(always)]
fn norm_rows(rows: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let n = weight.len();
    for (row, out) in rows.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        let scale = functions::inverse_rms(row, eps);
        for ((out, x), weight) in out.iter_mut().zip(row).zip(weight) {
            *out = x * scale * weight;
        }
    }
}

#[inline(always)]
fn gate_numbers(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, &gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = functions::silu(gate) * up;
    }
}

/// The largest, or NaN if there is one.
#[inline(always)]
fn largest(numbers: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b || a.is_nan() { a } else { b };
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x);
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(f32::NEG_INFINITY, |a, &b| larger(a, b))
}

/// The sum of `e^(x - max)`.
#[inline(always)]
fn sum_exp(numbers: &[f32], max: f32) -> f64 {
    let mut sum = 0.0;
    for part in numbers.chunks(EXACT_LEN) {
        let (chunks, rest) = part.as_chunks::<LANES>();
        let mut lanes = [0.0_f32; LANES];
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane += functions::exp(x - max);
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane += functions::exp(x - max);
        }
        sum += f64::from(lanes.iter().sum::<f32>());
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(NonZeroUsize::new(threads).unwrap(), "test").unwrap()
    }

    /// Numbers of about -1 to 1, of any number of bits.
    fn numbers(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    fn bits(numbers: &[f32]) -> Vec<u32> {
        numbers.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn rms_norm_is_its_formula_for_each_row_and_variant() {
        for n in [1, 15, 64, 896, 897] {
            for n_rows in [1, 3, 40] {
                let (rows, weight) = (numbers(n_rows * n, 1), numbers(n, 2));
                let mut reference = vec![0.0; rows.len()];
                rms_norm(
                    &pool(1),
                    Variant::SCALAR,
                    &rows,
                    &weight,
                    1e-6,
                    &mut reference,
                );
                for (row, out) in rows.chunks(n).zip(reference.chunks(n)) {
                    let squares: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
                    let rms = (squares / n as f64 + 1e-6).sqrt();
                    for ((x, weight), out) in row.iter().zip(&weight).zip(out) {
                        let exact = f64::from(*x) / rms * f64::from(*weight);
                        assert!((f64::from(*out) - exact).abs() < 1e-6 * (1.0 + exact.abs()));
                    }
                }
                for variant in Variant::available() {
                    let mut out = vec![0.0; rows.len()];
                    rms_norm(&pool(3), variant, &rows, &weight, 1e-6, &mut out);
                    assert_eq!(bits(&out), bits(&reference), "{}", variant.name());
                }
            }
        }
        rms_norm(&pool(1), Variant::SCALAR, &[], &[1.0], 1e-6, &mut []);
    }

    #[test]
    fn swiglu_is_its_formula_for_each_variant() {
        for len in [0, 1, 17, 4864 * 5 + 3] {
            let gate: Vec<f32> = numbers(len, 3).iter().map(|x| x * 20.0).collect();
            let up = numbers(len, 4);
            for variant in Variant::available() {
                let mut out = vec![0.0; len];
                swiglu(&pool(2), variant, &gate, &up, &mut out);
                let mut reference = vec![0.0; len];
                swiglu(&pool(1), Variant::SCALAR, &gate, &up, &mut reference);
                assert_eq!(bits(&out), bits(&reference), "{}", variant.name());
                for ((gate, up), out) in gate.iter().zip(&up).zip(&out) {
                    let gate = f64::from(*gate);
                    let exact = gate / (1.0 + (-gate).exp()) * f64::from(*up);
                    assert!((f64::from(*out) - exact).abs() < 1e-6 * (1.0 + exact.abs()));
                }
            }
        }
    }

    #[test]
    fn log_sum_exp_agrees_with_f64_for_each_variant() {
        for len in [1, 5, 16, 300, 151_936] {
            for scale in [1e-3, 10.0, 1e4] {
                let logits: Vec<f32> = numbers(len, 5).iter().map(|x| x * scale).collect();
                let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let terms = logits
                    .iter()
                    .map(|&x| (f64::from(x) - f64::from(max)).exp());
                let exact = f64::from(max) + terms.sum::<f64>().ln();
                let reference = log_sum_exp(Variant::SCALAR, &logits);
                assert!((reference - exact).abs() < 1e-6, "{reference} {exact}");
                for variant in Variant::available() {
                    let ours = log_sum_exp(variant, &logits);
                    assert_eq!(ours.to_bits(), reference.to_bits(), "{}", variant.name());
                }
            }
        }
    }

    #[test]
    fn log_sum_exp_of_numbers_that_are_not_finite() {
        for variant in Variant::available() {
            assert_eq!(log_sum_exp(variant, &[]), f64::NEG_INFINITY);
            assert_eq!(
                log_sum_exp(variant, &[f32::NEG_INFINITY; 20]),
                f64::NEG_INFINITY
            );
            assert_eq!(log_sum_exp(variant, &[1.0, f32::INFINITY]), f64::INFINITY);
            for place in [0, 7, 30] {
                let mut logits = [1.0; 33];
                logits[place] = f32::NAN;
                logits[20] = 7.0;
                assert!(log_sum_exp(variant, &logits).is_nan());
            }
            // Part of the vocabulary masked away.
            let masked = log_sum_exp(variant, &[0.0, f32::NEG_INFINITY, 0.0]);
            assert!((masked - 2.0_f64.ln()).abs() < 1e-6);
        }
    }
}
