//! L2 logistic regression on many columns: standardised, exact, deterministic.
//!
//! Limited-memory BFGS (Nocedal and Wright 2006, algorithm 7.5) with a
//! backtracking line search on the mean log loss plus `l2 / 2` times the squared
//! norm of the weights of the *standardised* columns; the intercept is free. No
//! randomness, rows in the order given, sums in f64.

use std::collections::VecDeque;

/// Pairs of steps that approximate the curvature.
const MEMORY: usize = 12;
pub(crate) const MAX_STEPS: usize = 120;
/// The gradient's largest component at which it is done.
const TOLERANCE: f64 = 1e-5;

/// Rows of one width with their labels; rows are weighed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples<'a> {
    /// Each `n_columns` wide.
    pub(crate) rows: Vec<&'a [f32]>,
    pub(crate) malicious: Vec<bool>,
    /// Not negative; the same for all is the plain mean.
    pub(crate) weights: Vec<f64>,
}

/// A linear model over raw columns.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Linear {
    pub(crate) intercept: f64,
    pub(crate) weights: Vec<f64>,
}

impl Linear {
    /// The log-odds of `row`, which is as wide as the weights.
    pub(crate) fn log_odds(&self, row: &[f32]) -> f64 {
        debug_assert_eq!(row.len(), self.weights.len());
        let products = self.weights.iter().zip(row);
        self.intercept + products.map(|(w, x)| w * f64::from(*x)).sum::<f64>()
    }
}

/// Mean and inverse deviation of each column; a constant column counts nothing.
#[derive(Clone, Debug)]
pub(crate) struct Scaling {
    mean: Vec<f64>,
    inverse: Vec<f64>,
}

impl Scaling {
    pub(crate) fn of(rows: &[&[f32]]) -> Self {
        let width = rows.first().map_or(0, |row| row.len());
        let count = rows.len().max(1) as f64;
        let mut mean = vec![0.0; width];
        for row in rows {
            for (sum, value) in mean.iter_mut().zip(*row) {
                *sum += f64::from(*value) / count;
            }
        }
        let mut inverse = vec![0.0; width];
        for row in rows {
            for ((sum, mean), value) in inverse.iter_mut().zip(&mean).zip(*row) {
                *sum += (f64::from(*value) - mean).powi(2) / count;
            }
        }
        for variance in &mut inverse {
            *variance = match *variance > 1e-12 {
                true => 1.0 / variance.sqrt(),
                false => 0.0,
            };
        }
        Self { mean, inverse }
    }

    /// `rows` with mean 0 and deviation 1, one after the other.
    fn apply(&self, rows: &[&[f32]]) -> Vec<f32> {
        let mut scaled = Vec::with_capacity(rows.len() * self.mean.len());
        for row in rows {
            let columns = row.iter().zip(self.mean.iter().zip(&self.inverse));
            scaled.extend(columns.map(|(x, (mean, inverse))| {
                #[expect(clippy::cast_possible_truncation, reason = "of the size of 1")]
                let scaled = ((f64::from(*x) - mean) * inverse) as f32;
                scaled
            }));
        }
        scaled
    }

    /// The same model over the columns as they were.
    fn undo(&self, fitted: &[f64]) -> Linear {
        let weights: Vec<f64> = fitted[1..]
            .iter()
            .zip(&self.inverse)
            .map(|(weight, inverse)| weight * inverse)
            .collect();
        let shift: f64 = weights.iter().zip(&self.mean).map(|(w, m)| w * m).sum();
        Linear {
            intercept: fitted[0] - shift,
            weights,
        }
    }
}

/// Rows with mean 0 and deviation 1 in each column, to be fitted more than once.
pub(crate) struct Standardised {
    scaling: Scaling,
    /// `(n_rows, width)`.
    columns: Vec<f32>,
}

impl Standardised {
    pub(crate) fn of(rows: &[&[f32]]) -> Self {
        let scaling = Scaling::of(rows);
        Self {
            columns: scaling.apply(rows),
            scaling,
        }
    }

    /// Where a first fit begins: the intercept and a weight for each column, all 0.
    pub(crate) fn origin(&self) -> Vec<f64> {
        vec![0.0; self.scaling.mean.len() + 1]
    }

    /// Fits labels and weights of `samples`, whose rows these are, from `at` on.
    pub(crate) fn fit(
        &self,
        samples: &Samples<'_>,
        at: Vec<f64>,
        l2: f64,
        max_steps: usize,
    ) -> Vec<f64> {
        let loss = Loss {
            columns: &self.columns,
            width: self.scaling.mean.len(),
            samples,
            total: samples.weights.iter().sum::<f64>().max(f64::MIN_POSITIVE),
        };
        minimise_in(max_steps, at, &mut |at, slope| loss.at(at, l2, slope))
    }

    /// What was fitted, over the columns as they were.
    pub(crate) fn undo(&self, fitted: &[f64]) -> Linear {
        self.scaling.undo(fitted)
    }
}

struct Loss<'a> {
    /// `(n_rows, width)`, standardised.
    columns: &'a [f32],
    width: usize,
    samples: &'a Samples<'a>,
    total: f64,
}

impl Loss<'_> {
    /// The loss at `at` (intercept first) and its slope.
    fn at(&self, at: &[f64], l2: f64, slope: &mut Vec<f64>) -> f64 {
        slope.clear();
        slope.push(0.0);
        slope.extend(at[1..].iter().map(|weight| l2 * weight));
        let mut value = 0.5 * l2 * at[1..].iter().map(|w| w * w).sum::<f64>();
        // Weights in f32: products are then done several at once.
        #[expect(clippy::cast_possible_truncation, reason = "of the size of 1")]
        let weights: Vec<f32> = at[1..].iter().map(|weight| *weight as f32).collect();
        let labels = self.samples.malicious.iter().zip(&self.samples.weights);
        for (row, (&malicious, weight)) in self.columns.chunks_exact(self.width.max(1)).zip(labels)
        {
            if *weight == 0.0 {
                continue;
            }
            let log_odds = at[0] + dot(row, &weights);
            let margin = if malicious { log_odds } else { -log_odds };
            let weight = weight / self.total;
            value += weight * softplus(-margin);
            let miss = weight / (1.0 + margin.exp());
            let push = if malicious { -miss } else { miss };
            slope[0] += push;
            for (slope, x) in slope[1..].iter_mut().zip(row) {
                *slope += push * f64::from(*x);
            }
        }
        value
    }
}

/// Sums of eight interleaved parts, so that they can be added side by side.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut parts = [0.0_f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let rest: f64 = rest.map(|(x, y)| f64::from(x * y)).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((part, x), y) in parts.iter_mut().zip(a).zip(b) {
            *part += x * y;
        }
    }
    rest + parts.iter().map(|part| f64::from(*part)).sum::<f64>()
}

pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Where `loss` is least, from `at` on; `loss` gives its value and writes its slope.
pub(crate) fn minimise(
    at: Vec<f64>,
    loss: &mut dyn FnMut(&[f64], &mut Vec<f64>) -> f64,
) -> Vec<f64> {
    minimise_in(MAX_STEPS, at, loss)
}

fn minimise_in(
    max_steps: usize,
    mut at: Vec<f64>,
    loss: &mut dyn FnMut(&[f64], &mut Vec<f64>) -> f64,
) -> Vec<f64> {
    let mut slope = Vec::new();
    let mut value = loss(&at, &mut slope);
    let mut pairs: VecDeque<(Vec<f64>, Vec<f64>)> = VecDeque::with_capacity(MEMORY);
    for _ in 0..max_steps {
        if slope.iter().all(|part| part.abs() < TOLERANCE) {
            break;
        }
        let mut direction = downhill(&slope, &pairs);
        let mut descent = product(&direction, &slope);
        if descent >= 0.0 {
            pairs.clear();
            direction = slope.iter().map(|part| -part).collect();
            descent = product(&direction, &slope);
        }
        let mut step = 1.0;
        let mut next_slope = Vec::new();
        let next = loop {
            let next: Vec<f64> = at
                .iter()
                .zip(&direction)
                .map(|(a, d)| a + step * d)
                .collect();
            let next_value = loss(&next, &mut next_slope);
            if next_value <= value + 1e-4 * step * descent {
                value = next_value;
                break Some(next);
            }
            step *= 0.5;
            if step < 1e-8 {
                break None;
            }
        };
        // Rounding hides any further descent.
        let Some(next) = next else { break };
        let moved: Vec<f64> = next.iter().zip(&at).map(|(n, a)| n - a).collect();
        let bent: Vec<f64> = next_slope.iter().zip(&slope).map(|(n, s)| n - s).collect();
        if product(&moved, &bent) > 1e-12 {
            if pairs.len() == MEMORY {
                pairs.pop_front();
            }
            pairs.push_back((moved, bent));
        }
        (at, slope) = (next, next_slope);
    }
    at
}

/// The two-loop recursion.
fn downhill(slope: &[f64], pairs: &VecDeque<(Vec<f64>, Vec<f64>)>) -> Vec<f64> {
    let mut direction: Vec<f64> = slope.iter().map(|part| -part).collect();
    let mut shares = Vec::with_capacity(pairs.len());
    for (moved, bent) in pairs.iter().rev() {
        let share = product(moved, &direction) / product(moved, bent);
        add(&mut direction, -share, bent);
        shares.push(share);
    }
    if let Some((moved, bent)) = pairs.back() {
        let scale = product(moved, bent) / product(bent, bent);
        direction.iter_mut().for_each(|part| *part *= scale);
    }
    for ((moved, bent), share) in pairs.iter().zip(shares.into_iter().rev()) {
        let back = product(bent, &direction) / product(moved, bent);
        add(&mut direction, share - back, moved);
    }
    direction
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn add(to: &mut [f64], scale: f64, what: &[f64]) {
    for (to, what) in to.iter_mut().zip(what) {
        *to += scale * what;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One model for each of `penalties`, each from where the one before it ended.
    fn fit_path(samples: &Samples<'_>, penalties: &[f64]) -> Vec<Linear> {
        let standardised = Standardised::of(&samples.rows);
        let mut at = standardised.origin();
        let fitted = penalties.iter().map(|&l2| {
            at = standardised.fit(samples, std::mem::take(&mut at), l2, MAX_STEPS);
            standardised.undo(&at)
        });
        fitted.collect()
    }

    /// Reproducible numbers in `-1..1`.
    fn noise(seed: u64) -> f32 {
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
        let mixed = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        f32::from(i16::try_from(mixed >> 49).unwrap()) / 16_384.0 - 1.0
    }

    fn data(n_rows: u64, width: u64) -> (Vec<Vec<f32>>, Vec<bool>) {
        let rows: Vec<Vec<f32>> = (0..n_rows)
            .map(|row| {
                let column = |column| 40.0 + 7.0 * noise(row * width + column + 1);
                (0..width).map(column).collect()
            })
            .collect();
        let label = |row: &Vec<f32>| row[0] + 0.5 * row[1] > 60.0;
        let malicious = rows.iter().map(label).collect();
        (rows, malicious)
    }

    fn samples<'a>(rows: &'a [Vec<f32>], malicious: &[bool]) -> Samples<'a> {
        Samples {
            rows: rows.iter().map(Vec::as_slice).collect(),
            malicious: malicious.to_vec(),
            weights: vec![1.0; rows.len()],
        }
    }

    #[test]
    fn the_slope_vanishes_where_it_ends() {
        let (rows, malicious) = data(200, 21);
        let samples = samples(&rows, &malicious);
        let fitted = fit_path(&samples, &[1.0, 0.01]);
        let scaling = Scaling::of(&samples.rows);
        for (model, l2) in fitted.iter().zip([1.0, 0.01]) {
            // d/dw of the loss, at the model as it is returned.
            let scaled = scaling.apply(&samples.rows);
            for column in 0..21 {
                let mut slope = l2 * model.weights[column] / scaling.inverse[column];
                for ((row, scaled), malicious) in rows.iter().zip(scaled.chunks(21)).zip(&malicious)
                {
                    let probability = 1.0 / (1.0 + (-model.log_odds(row)).exp());
                    let miss = probability - f64::from(u8::from(*malicious));
                    slope += miss * f64::from(scaled[column]) / 200.0;
                }
                assert!(slope.abs() < 1e-4, "{column}: {slope}");
            }
        }
        let norm = |model: &Linear| product(&model.weights, &model.weights);
        assert!(norm(&fitted[0]) < norm(&fitted[1]));
    }

    #[test]
    fn it_finds_the_columns_that_decide() {
        let (rows, malicious) = data(400, 30);
        let fitted = fit_path(&samples(&rows, &malicious), &[0.003]).remove(0);
        let hits = rows.iter().zip(&malicious);
        let hits = hits.filter(|(row, malicious)| (fitted.log_odds(row) > 0.0) == **malicious);
        assert!(hits.count() > 380);
        let others = fitted.weights[2..]
            .iter()
            .map(|w| w.abs())
            .fold(0.0, f64::max);
        assert!(fitted.weights[0] > 2.0 * others && fitted.weights[1] > others);
    }

    #[test]
    fn a_row_that_weighs_twice_is_a_row_twice() {
        let (mut rows, mut malicious) = data(60, 5);
        let mut weighed = samples(&rows, &malicious);
        weighed.weights[7] = 2.0;
        // The scale of the columns comes from rows, not from weights.
        let scaling = Scaling::of(&weighed.rows);
        let once = fit_path(&weighed, &[0.1]).remove(0);
        let weighed_loss = {
            let loss = Loss {
                columns: &scaling.apply(&weighed.rows),
                width: 5,
                samples: &weighed,
                total: 61.0,
            };
            loss.at(&[0.1, 0.2, -0.3, 0.4, 0.5, 0.6], 0.1, &mut Vec::new())
        };
        let columns = {
            let mut columns = scaling.apply(&weighed.rows);
            let copy = columns[35..40].to_vec();
            columns.extend(copy);
            columns
        };
        rows.push(rows[7].clone());
        malicious.push(malicious[7]);
        let twice = samples(&rows, &malicious);
        let loss = Loss {
            columns: &columns,
            width: 5,
            samples: &twice,
            total: 61.0,
        };
        let doubled = loss.at(&[0.1, 0.2, -0.3, 0.4, 0.5, 0.6], 0.1, &mut Vec::new());
        assert!((weighed_loss - doubled).abs() < 1e-9);
        assert!(once.weights.iter().all(|weight| weight.is_finite()));
    }

    #[test]
    fn a_constant_column_counts_nothing() {
        let (mut rows, malicious) = data(50, 4);
        rows.iter_mut().for_each(|row| row[3] = 5.0);
        let fitted = fit_path(&samples(&rows, &malicious), &[0.01]).remove(0);
        assert_eq!(fitted.weights[3], 0.0);
    }
}
