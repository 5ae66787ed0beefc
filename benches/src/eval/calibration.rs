//! Whether a score of 0.8 is an attack in 8 of 10 cases.
//!
//! The expected calibration error over 15 bins of equal mass. A perfect model of
//! a few hundred rows does not reach zero either: its floor is simulated.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::statistics::{Point, percentile};

const BINS: usize = 15;
/// Simulated perfect models.
const SIMULATIONS: usize = 1_000;

/// One bin of the reliability plot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bin {
    pub(crate) rows: usize,
    pub(crate) mean_score: f64,
    pub(crate) attack_share: f64,
}

/// How well scores are calibrated.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reliability {
    /// Mean distance of score and attack share over the bins, by their rows.
    pub(crate) error: f64,
    pub(crate) bins: Vec<Bin>,
    /// The error of a model whose scores are true, on as many rows: its mean and
    /// its 95th percentile.
    pub(crate) floor_mean: f64,
    pub(crate) floor_p95: f64,
}

impl Reliability {
    /// `None` without points.
    pub(crate) fn of(points: &[Point], seed: u64) -> Option<Self> {
        let mut rows: Vec<(f64, f64)> = points
            .iter()
            .map(|point| (point.score, f64::from(u8::from(point.is_attack))))
            .collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let bins = bins_of(&rows);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut floor: Vec<f64> = (0..SIMULATIONS)
            .map(|_| {
                let draw = |&(score, _): &(f64, f64)| {
                    let is_attack = random.random_bool(score.clamp(0.0, 1.0));
                    (score, f64::from(u8::from(is_attack)))
                };
                error_of(&bins_of(&rows.iter().map(draw).collect::<Vec<_>>()))
            })
            .collect();
        floor.sort_by(f64::total_cmp);
        Some(Self {
            error: error_of(&bins),
            floor_mean: floor.iter().sum::<f64>() / floor.len() as f64,
            floor_p95: percentile(&floor, 95.0)?,
            bins: (!rows.is_empty()).then_some(bins)?,
        })
    }

    pub(crate) fn json(&self) -> Value {
        let bins = self.bins.iter().map(|bin| {
            json!({
                "rows": bin.rows,
                "mean_score": bin.mean_score,
                "attack_share": bin.attack_share,
            })
        });
        json!({
            "bins": bins.collect::<Vec<_>>(),
            "floor": { "mean": self.floor_mean, "p95": self.floor_p95 },
        })
    }
}

/// `rows`: score and whether it is an attack, lowest score first. Rows of equal
/// score share their truth evenly, so that their order does not count.
fn bins_of(rows: &[(f64, f64)]) -> Vec<Bin> {
    let mut shared = Vec::with_capacity(rows.len());
    for tied in rows.chunk_by(|a, b| a.0 == b.0) {
        let mean = tied.iter().map(|row| row.1).sum::<f64>() / tied.len() as f64;
        shared.extend(tied.iter().map(|row| (row.0, mean)));
    }
    let border = |idx: usize| idx * shared.len() / BINS;
    (0..BINS)
        .map(|idx| &shared[border(idx)..border(idx + 1)])
        .filter(|rows| !rows.is_empty())
        .map(|rows| Bin {
            rows: rows.len(),
            mean_score: rows.iter().map(|row| row.0).sum::<f64>() / rows.len() as f64,
            attack_share: rows.iter().map(|row| row.1).sum::<f64>() / rows.len() as f64,
        })
        .collect()
}

fn error_of(bins: &[Bin]) -> f64 {
    let rows: usize = bins.iter().map(|bin| bin.rows).sum();
    let distance = |bin: &Bin| (bin.mean_score - bin.attack_share).abs() * bin.rows as f64;
    bins.iter().map(distance).sum::<f64>() / rows.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(rows: &[(f64, bool)]) -> Vec<Point> {
        let point = |&(score, is_attack): &(f64, bool)| Point {
            score,
            is_attack,
            is_flagged: false,
        };
        rows.iter().map(point).collect()
    }

    #[test]
    fn error_is_the_mean_distance_over_bins_of_equal_mass() {
        // 30 rows, two a bin: 0.2 with one attack of two in ten bins (distance
        // 0.3), 0.9 with two of two in five (distance 0.1): (10*0.3 + 5*0.1)/15.
        let mut rows: Vec<(f64, bool)> = (0..20).map(|n| (0.2, n % 2 == 0)).collect();
        rows.extend([(0.9, true); 10]);
        let found = Reliability::of(&points(&rows), 1).unwrap();
        assert!((found.error - 3.5 / 15.0).abs() < 1e-12, "{}", found.error);
        assert_eq!(found.bins.len(), 15);
        rows.reverse();
        assert_eq!(Reliability::of(&points(&rows), 1), Some(found));
    }

    #[test]
    fn fewer_rows_than_bins_are_a_bin_each() {
        let found = Reliability::of(&points(&[(0.1, false), (0.6, true)]), 1).unwrap();
        assert_eq!(found.bins.len(), 2);
        assert!((found.error - 0.25).abs() < 1e-12);
        assert_eq!(Reliability::of(&[], 1), None);
    }

    #[test]
    fn a_perfect_model_lies_at_its_own_floor() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let rows: Vec<(f64, bool)> = (0..900)
            .map(|_| {
                let score = random.random_range(0.0..1.0);
                (score, random.random_bool(score))
            })
            .collect();
        let found = Reliability::of(&points(&rows), 1).unwrap();
        assert!(found.error < found.floor_p95 * 1.3, "{found:?}");
        assert!(found.floor_mean > 0.02 && found.floor_mean < 0.06);
        let certain = [(0.0, false), (1.0, true)];
        let certain = Reliability::of(&points(&certain), 1).unwrap();
        assert_eq!((certain.error, certain.floor_mean), (0.0, 0.0));
    }
}
