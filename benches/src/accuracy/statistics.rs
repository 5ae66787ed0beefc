//! How far two sets of label scores lie apart.

use serde_json::{Value, json};

use super::scores::Scored;

/// One engine's scores against those of a reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Differences {
    /// Kullback-Leibler divergence from the reference over the labels, in nats.
    mean_kl: f64,
    max_kl: f64,
    /// Root mean square of the differences of the log-odds.
    rms_log_odds: f64,
}

impl Differences {
    pub(crate) fn of(reference: &[Scored], scored: &[Scored]) -> Self {
        let pairs = || reference.iter().zip(scored);
        let n = reference.len() as f64;
        let divergences: Vec<f64> = pairs().map(|(p, q)| divergence(p, q)).collect();
        let squares = pairs().map(|(p, q)| (p.log_odds() - q.log_odds()).powi(2));
        Self {
            mean_kl: divergences.iter().sum::<f64>() / n,
            max_kl: divergences.iter().copied().fold(0.0, f64::max),
            rms_log_odds: (squares.sum::<f64>() / n).sqrt(),
        }
    }

    pub(crate) fn json(self) -> Value {
        json!({
            "mean_kl_nats": self.mean_kl,
            "max_kl_nats": self.max_kl,
            "rms_log_odds": self.rms_log_odds,
        })
    }
}

fn divergence(reference: &Scored, scored: &Scored) -> f64 {
    let (p, q) = (reference.among_labels(), scored.among_labels());
    let terms = p.iter().zip(&q).filter(|(p, _)| **p > 0.0);
    terms.map(|(p, q)| p * (p / q).ln()).sum()
}

/// The chance that a malicious row scores above a benign one; ties count half.
pub(crate) fn area_under_curve(scores: &[f64], is_malicious: &[bool]) -> f64 {
    let of = |wanted: bool| {
        let rows = scores.iter().zip(is_malicious);
        rows.filter(move |row| *row.1 == wanted).map(|row| *row.0)
    };
    let mut wins = 0.0;
    for malicious in of(true) {
        for benign in of(false) {
            wins += match malicious.total_cmp(&benign) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
        }
    }
    wins / (of(true).count() * of(false).count()) as f64
}

/// Rows on the other side of the threshold that lets `false_positives` of the
/// reference's benign rows through.
pub(crate) fn flips(
    reference: &[f64],
    scores: &[f64],
    is_malicious: &[bool],
    false_positives: f64,
) -> usize {
    let mut benign: Vec<f64> = reference
        .iter()
        .zip(is_malicious)
        .filter(|row| !row.1)
        .map(|row| *row.0)
        .collect();
    benign.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count lies between 0 and that count"
    )]
    let above = (benign.len() as f64 * false_positives) as usize;
    let Some(threshold) = benign.iter().rev().nth(above) else {
        return 0;
    };
    let sides = reference.iter().zip(scores);
    sides
        .filter(|(reference, score)| (*reference > threshold) != (*score > threshold))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(log_probabilities: [f64; 4]) -> Scored {
        Scored {
            log_probabilities: log_probabilities.to_vec(),
        }
    }

    #[test]
    fn equal_scores_do_not_differ_and_scale_does_not_count() {
        let reference = [scored([-1.0, -2.0, -3.0, -4.0])];
        let shifted = [scored([-6.0, -7.0, -8.0, -9.0])];
        let differences = Differences::of(&reference, &shifted);
        assert!(differences.mean_kl.abs() < 1e-12);
        assert!(differences.rms_log_odds.abs() < 1e-12);
        let other = Differences::of(&reference, &[scored([-1.5, -2.0, -3.0, -4.0])]);
        assert!((other.rms_log_odds - 0.5).abs() < 1e-12);
        assert!(other.mean_kl > 0.0);
    }

    #[test]
    fn area_is_the_share_of_pairs_in_order() {
        let area = area_under_curve(&[0.1, 0.9, 0.5, 0.5], &[false, true, false, true]);
        assert_eq!(area, 0.875);
    }

    #[test]
    fn flips_are_counted_at_the_threshold_of_the_reference() {
        let reference: Vec<f64> = (0..100).map(f64::from).chain([98.5, 50.0]).collect();
        let is_malicious: Vec<bool> = (0..102).map(|idx| idx >= 100).collect();
        // The threshold is 96: three benign rows and one malicious one lie above.
        assert_eq!(flips(&reference, &reference, &is_malicious, 0.03), 0);
        let mut scores = reference.clone();
        scores[97] = 90.0;
        scores[101] = 97.0;
        scores[10] = 20.0;
        assert_eq!(flips(&reference, &scores, &is_malicious, 0.03), 2);
    }
}
