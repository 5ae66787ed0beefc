//! Calibrated and raw scores.

/// The calibrated probability that a case is malicious, `0.0..=1.0`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Score(f64);

/// A probability outside `0.0..=1.0`, or not a number.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a score lies in 0..=1, got {0}")]
pub struct ScoreOutOfRange(pub f64);

impl Score {
    /// Accepts a probability.
    ///
    /// # Errors
    /// [`ScoreOutOfRange`] if it is not in `0.0..=1.0`.
    pub fn new(probability: f64) -> Result<Self, ScoreOutOfRange> {
        if (0.0..=1.0).contains(&probability) {
            Ok(Self(probability))
        } else {
            Err(ScoreOutOfRange(probability))
        }
    }

    /// The probability with these natural-log odds; NaN counts as even odds.
    #[must_use]
    pub fn from_log_odds(log_odds: f64) -> Self {
        if log_odds.is_nan() {
            return Self(0.5);
        }
        Self(1.0 / (1.0 + (-log_odds).exp()))
    }

    /// The probability.
    #[must_use]
    pub fn probability(self) -> f64 {
        self.0
    }

    /// The probability in hundredths of a percent, `0..=10_000`, rounded.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the field is in 0..=1, so the product is in 0..=10_000"
    )]
    pub fn basis_points(self) -> u16 {
        (self.0 * 10_000.0).round() as u16
    }
}

/// A score in a stage's own scale, higher is more malicious; not a probability.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct RawScore(pub f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_outside_the_unit_interval_are_refused() {
        assert!(Score::new(-0.01).is_err());
        assert!(Score::new(1.01).is_err());
        assert!(Score::new(f64::NAN).is_err());
        assert_eq!(Score::new(1.0).unwrap().basis_points(), 10_000);
    }

    #[test]
    fn extreme_log_odds_stay_in_range() {
        for odds in [
            f64::NEG_INFINITY,
            -800.0,
            0.0,
            800.0,
            f64::INFINITY,
            f64::NAN,
        ] {
            let score = Score::from_log_odds(odds);
            assert!(Score::new(score.probability()).is_ok(), "{odds}");
        }
    }
}
