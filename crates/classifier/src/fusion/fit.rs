//! Fitting the weights: logistic regression with non-negative weights.
//!
//! Accelerated projected gradient descent on the mean log loss with an L2 term
//! (Nesterov 1983; projection as in Parikh and Boyd 2014, section 4.3).
//! Deterministic: no randomness, rows in the order given.

use std::collections::{BTreeMap, BTreeSet};

use super::{Signals, Weights};
use crate::reading::INDICATORS;

const STEPS: usize = 4000;

/// A labelled row to fit.
#[derive(Clone, Debug, PartialEq)]
pub struct FitRow {
    /// What the stages said.
    pub signals: Signals,
    /// The truth.
    pub malicious: bool,
    /// Rows of one group are never both fitted and scored by [`grouped_scores`].
    pub group: String,
}

/// The weights without the judge that explain `rows` best under an L2 penalty of
/// `l2` on every weight but the intercept; the judge's answers are not looked at.
/// Thresholds are 0 and 1 and to be set by the caller.
#[must_use]
pub fn fit_weights(rows: &[FitRow], l2: f64) -> Weights {
    let picked: Vec<&FitRow> = rows.iter().collect();
    to_weights(&descend(&samples(&picked), l2))
}

/// The log-odds of each row under weights fitted without its group, in `folds`
/// parts; groups are dealt to the parts in order of name.
#[must_use]
pub fn grouped_scores(rows: &[FitRow], l2: f64, folds: usize) -> Vec<f64> {
    let groups: BTreeSet<&str> = rows.iter().map(|row| row.group.as_str()).collect();
    let folds = folds.clamp(2, groups.len().max(2));
    let fold_of: BTreeMap<&str, usize> = groups
        .into_iter()
        .enumerate()
        .map(|(idx, group)| (group, idx % folds))
        .collect();
    let mut scores = vec![0.0; rows.len()];
    for fold in 0..folds {
        let (inside, outside): (Vec<_>, Vec<_>) = rows
            .iter()
            .enumerate()
            .partition(|(_, row)| fold_of[row.group.as_str()] == fold);
        let fitted: Vec<&FitRow> = outside.into_iter().map(|(_, row)| row).collect();
        let weights = to_weights(&descend(&samples(&fitted), l2));
        for (idx, row) in inside {
            scores[idx] = weights.weigh(&row.signals).0;
        }
    }
    scores
}

/// Adds the judge to weights that were fitted without it: three numbers (how much
/// the others count, how much the judge, the intercept), so that few rows with
/// answers suffice. `others` are the log-odds of each row from
/// [`grouped_scores`]. Returns the weights and the log-odds they give the rows:
/// in these, the three numbers were fitted on the rows they score.
#[must_use]
pub fn add_judge(base: &Weights, rows: &[FitRow], others: &[f64], l2: f64) -> (Weights, Vec<f64>) {
    let samples: Vec<Sample> = rows
        .iter()
        .zip(others)
        .map(|(row, others)| Sample {
            features: vec![others / 2.0, row.signals.features()[0]],
            malicious: row.malicious,
        })
        .collect();
    let fitted = descend(&samples, l2);
    let at = |idx: usize| fitted.get(idx).copied().unwrap_or(0.0);
    let scale = at(1) / 2.0;
    let weights = Weights {
        intercept: at(0) + scale * base.intercept,
        judge: at(2),
        vote: scale * base.vote,
        rule: scale * base.rule,
        indicators: base
            .indicators
            .iter()
            .map(|(name, weight)| (name.clone(), scale * weight))
            .collect(),
        ..base.clone()
    };
    let scores = samples
        .iter()
        .map(|sample| at(0) + dot(&sample.features, fitted.get(1..).unwrap_or_default()))
        .collect();
    (weights, scores)
}

struct Sample {
    features: Vec<f64>,
    malicious: bool,
}

fn samples(rows: &[&FitRow]) -> Vec<Sample> {
    rows.iter()
        .map(|row| {
            let mut features = row.signals.features();
            features[0] = 0.0;
            Sample {
                features,
                malicious: row.malicious,
            }
        })
        .collect()
}

/// Intercept first, then the weights in the order of the features.
fn descend(samples: &[Sample], l2: f64) -> Vec<f64> {
    let Some(first) = samples.first() else {
        return Vec::new();
    };
    let mut weights = vec![0.0; first.features.len() + 1];
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 rows")]
    let n_rows = samples.len() as f64;
    // The gradient's Lipschitz constant: a quarter of the mean squared norm.
    let squares: f64 = samples
        .iter()
        .map(|sample| 1.0 + dot(&sample.features, &sample.features))
        .sum();
    let step = 1.0 / (0.25 * squares / n_rows + l2);
    let mut previous = weights.clone();
    let mut momentum = 1.0_f64;
    for _ in 0..STEPS {
        let next_momentum = f64::midpoint(1.0, (1.0 + 4.0 * momentum * momentum).sqrt());
        let push = (momentum - 1.0) / next_momentum;
        momentum = next_momentum;
        let ahead: Vec<f64> = weights
            .iter()
            .zip(&previous)
            .map(|(now, before)| now + push * (now - before))
            .collect();
        let mut gradient: Vec<f64> = ahead.iter().map(|w| l2 * w).collect();
        gradient[0] = 0.0;
        for sample in samples {
            let log_odds = ahead[0] + dot(&sample.features, &ahead[1..]);
            let error = 1.0 / (1.0 + (-log_odds).exp()) - f64::from(u8::from(sample.malicious));
            gradient[0] += error / n_rows;
            for (slope, value) in gradient[1..].iter_mut().zip(&sample.features) {
                *slope += error * value / n_rows;
            }
        }
        previous.clone_from(&weights);
        for (idx, (weight, (start, slope))) in weights
            .iter_mut()
            .zip(ahead.iter().zip(&gradient))
            .enumerate()
        {
            let moved = start - step * slope;
            *weight = if idx == 0 { moved } else { moved.max(0.0) };
        }
    }
    weights
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn to_weights(fitted: &[f64]) -> Weights {
    let at = |idx: usize| fitted.get(idx).copied().unwrap_or(0.0);
    Weights {
        intercept: at(0),
        judge: 0.0,
        vote: at(2),
        rule: at(3),
        malicious_threshold: 1.0,
        benign_threshold: 0.0,
        indicators: INDICATORS
            .iter()
            .enumerate()
            .map(|(idx, indicator)| (indicator.name.to_owned(), at(4 + idx)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(judge: f64, malicious: bool, group: &str) -> FitRow {
        FitRow {
            signals: Signals {
                judge: Some(judge),
                vote: judge / 4.0,
                rule_level: if malicious { 0 } else { 2 },
                indicators: vec![false; INDICATORS.len()],
            },
            malicious,
            group: group.to_owned(),
        }
    }

    #[test]
    fn a_helpful_signal_gets_weight_and_a_misleading_one_none() {
        let rows: Vec<FitRow> = (0..40)
            .map(|n| {
                let malicious = n % 2 == 0;
                let strength = 1.0 + f64::from(n % 5);
                row(
                    if malicious { strength } else { -strength },
                    malicious,
                    &format!("g{n}"),
                )
            })
            .collect();
        let weights = fit_weights(&rows, 0.01);
        assert!(weights.vote > 0.5, "{weights:?}");
        assert_eq!(weights.rule, 0.0);
        assert_eq!(weights.judge, 0.0);
        let scores = grouped_scores(&rows, 0.01, 5);
        let (judged, together) = add_judge(&weights, &rows, &scores, 0.01);
        assert!(
            judged.judge > 0.1 && judged.vote <= weights.vote,
            "{judged:?}"
        );
        assert!(
            together
                .iter()
                .zip(&rows)
                .all(|(s, row)| (*s > 0.0) == row.malicious)
        );
        for (row, score) in rows.iter().zip(scores) {
            assert_eq!(score > 0.0, row.malicious);
        }
    }

    #[test]
    fn the_intercept_alone_meets_the_prior() {
        let rows: Vec<FitRow> = (0..100).map(|n| row(0.0, n < 20, "g")).collect();
        let weights = fit_weights(&rows, 0.01);
        let probability = 1.0 / (1.0 + (-weights.intercept).exp());
        assert!((probability - 0.2).abs() < 1e-3, "{probability}");
    }
}
