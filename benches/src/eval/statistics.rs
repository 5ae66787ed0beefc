//! What a list of scores shows: ranking, recall at few false positives, and how
//! far another sample of the same size would move it.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

/// Samples that an interval is taken over.
const RESAMPLES: usize = 1_000;

/// One judged row of known truth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// Calibrated probability of an attack, or any number that orders likewise.
    pub(crate) score: f64,
    pub(crate) is_attack: bool,
    /// Whether the product calls it malicious, at its own threshold.
    pub(crate) is_flagged: bool,
}

/// What a list of points shows; `None` where one class is missing.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub(crate) struct Figures {
    /// The chance that an attack scores above a benign row; ties count half.
    pub(crate) auc: Option<f64>,
    pub(crate) at_1: Option<Operating>,
    pub(crate) at_3: Option<Operating>,
    /// Of attacks, at the product's own threshold.
    pub(crate) recall: Option<f64>,
    /// Of benign rows, at the product's own threshold.
    pub(crate) false_positive_rate: Option<f64>,
}

/// Recall at the lowest threshold with at most so many benign rows at or above it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Operating {
    pub(crate) recall: f64,
    /// The lowest score of the sample that serves; `None` if none does.
    pub(crate) threshold: Option<f64>,
}

impl Figures {
    pub(crate) fn of(points: &[Point]) -> Self {
        Self::weighted(&ordered(points), |_| 1)
    }

    /// `points`: highest score first; `weight`: how often each one counts.
    fn weighted(points: &[Point], weight: impl Fn(usize) -> u64) -> Self {
        let total = |is_attack| {
            let of_class = points.iter().enumerate();
            let of_class = of_class.filter(|(_, point)| point.is_attack == is_attack);
            of_class.map(|(idx, _)| weight(idx)).sum::<u64>()
        };
        let (attacks, benign) = (total(true), total(false));
        let allowed = |percent: u64| benign * percent / 100;
        let mut at = [Operating {
            recall: 0.0,
            threshold: None,
        }; 2];
        let (mut attacks_above, mut benign_above, mut wins) = (0, 0, 0.0);
        let (mut flagged_attacks, mut flagged_benign) = (0, 0);
        let mut idx = 0;
        while let Some(first) = points.get(idx) {
            let (mut attacks_here, mut benign_here) = (0, 0);
            while let Some(point) = points.get(idx).filter(|point| point.score == first.score) {
                let n = weight(idx);
                let flagged = if point.is_flagged { n } else { 0 };
                if point.is_attack {
                    attacks_here += n;
                    flagged_attacks += flagged;
                } else {
                    benign_here += n;
                    flagged_benign += flagged;
                }
                idx += 1;
            }
            wins += benign_here as f64 * (attacks_above as f64 + 0.5 * attacks_here as f64);
            attacks_above += attacks_here;
            benign_above += benign_here;
            for (operating, percent) in at.iter_mut().zip([1, 3]) {
                if attacks_here + benign_here > 0 && benign_above <= allowed(percent) {
                    operating.recall = attacks_above as f64 / attacks.max(1) as f64;
                    operating.threshold = Some(first.score);
                }
            }
        }
        let both = attacks > 0 && benign > 0;
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        Self {
            auc: both.then(|| wins / (attacks as f64 * benign as f64)),
            at_1: both.then_some(at[0]),
            at_3: both.then_some(at[1]),
            recall: share(flagged_attacks, attacks),
            false_positive_rate: share(flagged_benign, benign),
        }
    }

    /// The keys that stay: `auc`, `recall_at_1`, `recall_at_3`, their thresholds
    /// and `at_shipped_threshold`.
    pub(crate) fn json(&self) -> Map<String, Value> {
        let recall = |at: Option<Operating>| at.map(|at| at.recall);
        let threshold = |at: Option<Operating>| at.and_then(|at| at.threshold);
        let value = json!({
            "auc": self.auc,
            "recall_at_1": recall(self.at_1),
            "recall_at_3": recall(self.at_3),
            "threshold_at_1": threshold(self.at_1),
            "threshold_at_3": threshold(self.at_3),
            "at_shipped_threshold": {
                "recall": self.recall,
                "false_positive_rate": self.false_positive_rate,
            },
        });
        match value {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

/// Where 95 % of samples of the same size lie: attacks and benign rows drawn
/// anew, each from their own. Keys as in [`Figures::json`], `[low, high]` each.
pub(crate) fn intervals(points: &[Point], seed: u64) -> Value {
    let points = ordered(points);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let of_class = |is_attack| {
        let all = 0..points.len();
        all.filter(|&idx| points[idx].is_attack == is_attack)
            .collect::<Vec<_>>()
    };
    let classes = [of_class(true), of_class(false)];
    let samples: Vec<Figures> = (0..RESAMPLES)
        .map(|_| {
            let mut counts = vec![0u64; points.len()];
            for class in classes.iter().filter(|class| !class.is_empty()) {
                for _ in 0..class.len() {
                    counts[class[random.random_range(0..class.len())]] += 1;
                }
            }
            Figures::weighted(&points, |idx| counts[idx])
        })
        .collect();
    let interval = |of: &dyn Fn(&Figures) -> Option<f64>| {
        let mut values: Vec<f64> = samples.iter().filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        Some([percentile(&values, 2.5)?, percentile(&values, 97.5)?])
    };
    json!({
        "auc": interval(&|figures| figures.auc),
        "recall_at_1": interval(&|figures| figures.at_1.map(|at| at.recall)),
        "recall_at_3": interval(&|figures| figures.at_3.map(|at| at.recall)),
        "at_shipped_threshold": {
            "recall": interval(&|figures| figures.recall),
            "false_positive_rate": interval(&|figures| figures.false_positive_rate),
        },
    })
}

/// The value that `percent` of the `sorted` values do not exceed (nearest rank).
pub(crate) fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count lies between 0 and that count"
    )]
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

fn ordered(points: &[Point]) -> Vec<Point> {
    let mut points = points.to_vec();
    points.sort_by(|a, b| b.score.total_cmp(&a.score));
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(attacks: &[f64], benign: &[f64]) -> Vec<Point> {
        let of = |scores: &[f64], is_attack| {
            let point = move |&score: &f64| Point {
                score,
                is_attack,
                is_flagged: score >= 0.8,
            };
            scores.iter().map(point).collect::<Vec<_>>()
        };
        [of(attacks, true), of(benign, false)].concat()
    }

    #[test]
    fn area_is_the_share_of_pairs_in_order_and_ties_count_half() {
        // Pairs: (0.9,0.1) 1, (0.9,0.5) 1, (0.5,0.1) 1, (0.5,0.5) one half.
        let figures = Figures::of(&points(&[0.9, 0.5], &[0.1, 0.5]));
        assert_eq!(figures.auc, Some(0.875));
        assert_eq!(Figures::of(&points(&[0.3], &[0.3, 0.3])).auc, Some(0.5));
        assert_eq!(Figures::of(&points(&[0.1], &[0.2])).auc, Some(0.0));
    }

    #[test]
    fn a_threshold_lets_at_most_its_share_of_benign_rows_reach_it() {
        // 100 benign rows at 0.00 to 0.99: one may reach the threshold at 1 %,
        // three at 3 %.
        let benign: Vec<f64> = (0..100).map(|n| f64::from(n) / 100.0).collect();
        let attacks = [0.995, 0.985, 0.98, 0.965, 0.5];
        let figures = Figures::of(&points(&attacks, &benign));
        // At 1 %: 0.99 may reach it, 0.98 may not; 0.985 is the lowest that serves.
        assert_eq!(figures.at_1.unwrap().recall, 2.0 / 5.0);
        assert_eq!(figures.at_1.unwrap().threshold, Some(0.985));
        // At 3 %: 0.99, 0.98 and 0.97 may; 0.965 is the lowest that serves.
        assert_eq!(figures.at_3.unwrap().recall, 4.0 / 5.0);
        assert_eq!(figures.at_3.unwrap().threshold, Some(0.965));
    }

    #[test]
    fn tied_benign_rows_pass_a_threshold_together() {
        let mut benign = vec![0.1; 96];
        benign.extend([0.9; 4]);
        let figures = Figures::of(&points(&[0.9, 0.9, 0.95], &benign));
        // Four benign rows stand at 0.9, of a hundred; three are allowed.
        assert_eq!(figures.at_3.unwrap().recall, 1.0 / 3.0);
        let none = Figures::of(&points(&[0.9], &benign));
        assert_eq!(none.at_3.unwrap().recall, 0.0);
        assert_eq!(none.at_3.unwrap().threshold, None);
    }

    #[test]
    fn shipped_threshold_counts_what_the_product_flags() {
        let figures = Figures::of(&points(&[0.9, 0.8, 0.7, 0.2], &[0.85, 0.1]));
        assert_eq!(figures.recall, Some(0.5));
        assert_eq!(figures.false_positive_rate, Some(0.5));
    }

    #[test]
    fn a_missing_class_is_no_number() {
        let benign_only = Figures::of(&points(&[], &[0.9, 0.1]));
        assert_eq!(benign_only.auc, None);
        assert_eq!(benign_only.recall, None);
        assert_eq!(benign_only.false_positive_rate, Some(0.5));
    }

    #[test]
    fn intervals_hold_the_value_and_repeat_with_their_seed() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut draw = |shift: f64| {
            (0..200)
                .map(|_| random.random_range(0.0..0.6) + shift)
                .collect::<Vec<f64>>()
        };
        let points = points(&draw(0.4), &draw(0.0));
        let auc = Figures::of(&points).auc.unwrap();
        let found = intervals(&points, 7);
        let bounds: [f64; 2] = serde_json::from_value(found["auc"].clone()).unwrap();
        assert!(bounds[0] < auc && auc < bounds[1], "{bounds:?} {auc}");
        assert!(bounds[1] - bounds[0] < 0.1, "{bounds:?}");
        assert_eq!(found, intervals(&points, 7));
        assert_ne!(found, intervals(&points, 8));
    }

    #[test]
    fn percentile_is_the_nearest_rank() {
        let values = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(percentile(&values, 50.0), Some(2.0));
        assert_eq!(percentile(&values, 95.0), Some(4.0));
        assert_eq!(percentile(&values, 0.0), Some(1.0));
        assert_eq!(percentile(&[], 50.0), None);
    }
}
