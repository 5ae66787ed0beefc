//! What cross-fitted scores show: separation, thresholds, calibration.

use crate::head::Separation;

/// Bins of equal mass for the calibration error.
const BINS: usize = 15;

/// What one set of weights does on the rows it was fitted on, by cross-fitted scores.
#[derive(Clone, Debug, PartialEq)]
pub struct SetCard {
    /// `with head`, `with labels` or `without judge`.
    pub name: &'static str,
    /// How well the fused scores tell attacks from the rest.
    pub separation: Separation,
    /// Scores of at least this are malicious: one in 100 ordinary rows may be.
    pub malicious_threshold: f64,
    /// Scores of at most this are benign: one in 20 attacks may be.
    pub benign_threshold: f64,
    /// The share of attacks at or above the malicious threshold.
    pub recall: f64,
    /// The share of ordinary rows there.
    pub false_positive_rate: f64,
    /// The share of attacks at or below the benign threshold.
    pub missed: f64,
    /// The mean distance of score and truth over 15 bins of equal mass.
    pub calibration_error: f64,
}

impl SetCard {
    /// From the log-odds of rows and their labels, of which there are as many.
    pub(super) fn of(name: &'static str, scores: &[f64], malicious: &[bool]) -> Self {
        let probabilities: Vec<f64> = scores.iter().map(|score| probability(*score)).collect();
        let of = |wanted: bool| -> Vec<f64> {
            let rows = probabilities.iter().zip(malicious);
            let picked = rows.filter(|(_, malicious)| **malicious == wanted);
            let mut picked: Vec<f64> = picked.map(|(p, _)| *p).collect();
            picked.sort_by(f64::total_cmp);
            picked
        };
        let (attacks, ordinary) = (of(true), of(false));
        let share = |set: &[f64], n: usize| n as f64 / set.len().max(1) as f64;
        let above = |set: &[f64], at: f64| share(set, set.len() - set.partition_point(|p| *p < at));
        let round = |share: f64| (share * 1e3).round() / 1e3;
        let malicious_threshold = round((quantile(&ordinary, 0.99) + 0.001).clamp(0.6, 0.99));
        let benign_threshold = round(quantile(&attacks, 0.05).clamp(0.02, 0.4));
        let missed = attacks.partition_point(|p| *p <= benign_threshold);
        Self {
            name,
            separation: Separation::of(scores, malicious),
            malicious_threshold,
            benign_threshold,
            recall: above(&attacks, malicious_threshold),
            false_positive_rate: above(&ordinary, malicious_threshold),
            missed: share(&attacks, missed),
            calibration_error: calibration_error(&probabilities, malicious),
        }
    }
}

pub(super) fn probability(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}

/// The mean distance of mean score and share of attacks over bins of equal mass.
fn calibration_error(probabilities: &[f64], malicious: &[bool]) -> f64 {
    let mut rows: Vec<(f64, f64)> = probabilities
        .iter()
        .zip(malicious)
        .map(|(p, malicious)| (*p, f64::from(u8::from(*malicious))))
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let n_rows = rows.len();
    let bins = (0..BINS).map(|bin| {
        let bin = &rows[n_rows * bin / BINS..n_rows * (bin + 1) / BINS];
        let off: f64 = bin.iter().map(|(score, truth)| score - truth).sum();
        off.abs()
    });
    bins.sum::<f64>() / n_rows.max(1) as f64
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    let idx = (last as f64 * share).ceil() as usize;
    sorted.get(idx).copied().unwrap_or(0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_that_are_shares_have_no_calibration_error_and_extreme_ones_do() {
        let malicious: Vec<bool> = (0..300).map(|n| n % 4 == 0).collect();
        let shares = vec![0.25; 300];
        assert!(calibration_error(&shares, &malicious) < 1e-9);
        let sure = vec![1.0; 300];
        assert!((calibration_error(&sure, &malicious) - 0.75).abs() < 1e-9);
    }

    #[test]
    fn thresholds_leave_one_ordinary_row_in_a_hundred_above() {
        let log_odds = |p: f64| (p / (1.0 - p)).ln();
        let ordinary = (0..200).map(|n| f64::from(n) / 250.0 + 0.001);
        let attacks = (0..100).map(|n| f64::from(n) / 125.0 + 0.199);
        let scores: Vec<f64> = ordinary.chain(attacks).map(log_odds).collect();
        let malicious: Vec<bool> = (0..300).map(|n| n >= 200).collect();
        let card = SetCard::of("with head", &scores, &malicious);
        assert!(card.false_positive_rate <= 0.01 + 1e-9, "{card:?}");
        assert!(card.missed <= 0.06 && card.missed > 0.0, "{card:?}");
        assert!(card.recall > 0.2 && card.benign_threshold < card.malicious_threshold);
    }

    #[test]
    fn one_label_alone_breaks_nothing() {
        for label in [true, false] {
            let card = SetCard::of("with head", &[0.0, 1.0], &[label; 2]);
            assert!(card.calibration_error.is_finite() && card.recall.is_finite());
        }
    }
}
