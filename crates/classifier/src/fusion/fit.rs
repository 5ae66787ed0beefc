//! Fitting the weights: logistic regression with non-negative weights.
//!
//! Accelerated projected gradient descent on the mean log loss with an L2 term
//! (Nesterov 1983; projection as in Parikh and Boyd 2014, section 4.3).
//! Deterministic: no randomness, rows in the order given. Base scores are
//! cross-fitted: the feature model's score of a row comes from a fit without the
//! row's group, and so must those of head and words, which the caller brings.

use super::{FeatureModel, Signals, Weights};
use crate::head::folds_of;

const STEPS: usize = 1500;
/// Penalty on the weights of the feature model.
const FEATURE_L2: f64 = 0.001;
/// Penalty on the weights of the signals.
const SIGNAL_L2: f64 = 0.001;

/// A labelled row to fit.
#[derive(Clone, Debug, PartialEq)]
pub struct FitRow {
    /// What the stages said; head and words from fits without this row's group.
    pub signals: Signals,
    /// The truth.
    pub malicious: bool,
    /// Rows of one group are never both fitted and scored.
    pub group: String,
}

/// One set of weights, and what it gives the rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The weights; thresholds are 0 and 1 and to be set by the caller.
    pub weights: Weights,
    /// The log-odds of each row under weights fitted without its group, in the
    /// order of the rows.
    pub scores: Vec<f64>,
}

/// Fits the feature model and the three sets of weights (with head, with the
/// judge's labels, without either) on rows that have all signals, with groups dealt
/// to `n_folds` parts. Signals that a row lacks count as 0.
#[must_use]
pub fn fit_calibration(rows: &[FitRow], n_folds: usize) -> (FeatureModel, [Fitted; 3]) {
    let groups: Vec<&str> = rows.iter().map(|row| row.group.as_str()).collect();
    let folds = folds_of(&groups, n_folds);
    let malicious: Vec<bool> = rows.iter().map(|row| row.malicious).collect();
    let read: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| FeatureModel::columns(&row.signals))
        .collect();
    let features = FitColumns {
        rows: &read,
        malicious: &malicious,
        l2: FEATURE_L2,
    };
    let model = FeatureModel::from_order(&features.fit(|_| true));
    let feature_scores = features.cross_fitted(&folds);
    let fitted = [[true, true], [false, true], [false, false]].map(|[head, judge]| {
        let columns: Vec<Vec<f64>> = rows
            .iter()
            .zip(&feature_scores)
            .map(|(row, features)| {
                let mut columns = row.signals.columns(*features);
                columns[0] *= f64::from(u8::from(head));
                columns[1] *= f64::from(u8::from(judge));
                columns.to_vec()
            })
            .collect();
        let columns = FitColumns {
            rows: &columns,
            malicious: &malicious,
            l2: SIGNAL_L2,
        };
        Fitted {
            weights: to_weights(&columns.fit(|_| true)),
            scores: columns.cross_fitted(&folds),
        }
    });
    (model, fitted)
}

/// Columns of rows with their labels, to fit non-negative weights on.
pub(crate) struct FitColumns<'a> {
    pub(crate) rows: &'a [Vec<f64>],
    pub(crate) malicious: &'a [bool],
    pub(crate) l2: f64,
}

impl FitColumns<'_> {
    /// The log-odds of each row under weights fitted without its fold.
    pub(crate) fn cross_fitted(&self, folds: &[usize]) -> Vec<f64> {
        let mut scores = vec![0.0; folds.len()];
        for fold in 0..folds.iter().max().map_or(0, |last| last + 1) {
            let fitted = self.fit(|idx| folds[idx] != fold);
            for (idx, score) in scores.iter_mut().enumerate() {
                if folds[idx] == fold {
                    *score = log_odds(&fitted, &self.rows[idx]);
                }
            }
        }
        scores
    }

    /// Fits the rows that `is_in` says: the intercept, then the weights in the
    /// order of the columns.
    pub(crate) fn fit(&self, is_in: impl Fn(usize) -> bool) -> Vec<f64> {
        let rows: Vec<(&[f64], bool)> = (0..self.rows.len())
            .filter(|idx| is_in(*idx))
            .map(|idx| (self.rows[idx].as_slice(), self.malicious[idx]))
            .collect();
        descend(&rows, self.l2)
    }
}

fn descend(rows: &[(&[f64], bool)], l2: f64) -> Vec<f64> {
    let Some((first, _)) = rows.first() else {
        return Vec::new();
    };
    let mut weights = vec![0.0; first.len() + 1];
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 rows")]
    let n_rows = rows.len() as f64;
    // The gradient's Lipschitz constant: a quarter of the mean squared norm.
    let squares = rows.iter().map(|(row, _)| 1.0 + dot(row, row)).sum::<f64>();
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
        for (row, malicious) in rows {
            let probability = 1.0 / (1.0 + (-log_odds(&ahead, row)).exp());
            let error = probability - f64::from(u8::from(*malicious));
            gradient[0] += error / n_rows;
            for (slope, value) in gradient[1..].iter_mut().zip(*row) {
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

fn log_odds(fitted: &[f64], row: &[f64]) -> f64 {
    match fitted.split_first() {
        Some((intercept, weights)) => intercept + dot(weights, row),
        None => 0.0,
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn to_weights(fitted: &[f64]) -> Weights {
    let at = |idx: usize| fitted.get(idx).copied().unwrap_or(0.0);
    Weights {
        intercept: at(0),
        head: at(1),
        judge: at(2),
        terms: at(3),
        vote: at(4),
        rule: at(5),
        features: at(6),
        malicious_threshold: 1.0,
        benign_threshold: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Features;

    fn row(judge: f64, malicious: bool, group: &str) -> FitRow {
        let mut features = vec![0.0; Features::COUNT];
        features[3] = f32::from(u8::from(malicious));
        FitRow {
            signals: Signals {
                judge: Some(judge),
                head: Some(judge * 2.0),
                terms: None,
                vote: judge / 4.0,
                rule_level: if malicious { 0 } else { 2 },
                indicators: Vec::new(),
                features,
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
                let judge = if malicious { strength } else { -strength };
                row(judge, malicious, &format!("g{n}"))
            })
            .collect();
        let (features, fitted) = fit_calibration(&rows, 5);
        assert!(features.weight(Features::NAMES[3]) > 1.0, "{features:?}");
        assert_eq!(features.weight(Features::NAMES[2]), 0.0);
        let [with_head, with_judge, without] = &fitted;
        for set in &fitted {
            assert_eq!(set.weights.rule, 0.0);
            assert!(set.weights.features > 0.1, "{set:?}");
            for (row, score) in rows.iter().zip(&set.scores) {
                assert_eq!(*score > 0.0, row.malicious);
            }
        }
        assert!(with_head.weights.head > 0.1);
        assert!(with_judge.weights.judge > 0.1 && with_judge.weights.head == 0.0);
        assert!(without.weights.vote > 0.1 && without.weights.judge == 0.0);
    }

    #[test]
    fn the_intercept_alone_meets_the_prior() {
        let rows: Vec<FitRow> = (0..100)
            .map(|n| FitRow {
                signals: Signals {
                    judge: None,
                    head: None,
                    terms: None,
                    vote: 0.0,
                    rule_level: 0,
                    indicators: Vec::new(),
                    features: Vec::new(),
                },
                malicious: n < 20,
                group: "g".to_owned(),
            })
            .collect();
        let (_, [_, _, without]) = fit_calibration(&rows, 2);
        let columns = without.weights.intercept;
        let probability = 1.0 / (1.0 + (-columns).exp());
        // The feature model has learnt the same; what is left are penalties.
        assert!((probability - 0.2).abs() < 0.05, "{probability}");
    }

    #[test]
    fn a_feature_that_only_names_its_group_helps_nobody_else() {
        let rows: Vec<FitRow> = (0..80)
            .map(|n: usize| {
                let group = n % 8;
                let mut row = row(0.0, group.is_multiple_of(2), &format!("g{group}"));
                row.signals.rule_level = 0;
                row.signals.features.fill(0.0);
                row.signals.features[group] = 1.0;
                row
            })
            .collect();
        let (_, [_, _, without]) = fit_calibration(&rows, 8);
        let hits = rows.iter().zip(&without.scores);
        let hits = hits.filter(|(row, score)| (**score > 0.0) == row.malicious);
        assert!(hits.count() <= 50);
    }
}
