//! From signals to one calibrated probability.
//!
//! A logistic model with few weights, none negative: more evidence of an attack
//! never lowers the score. There is one set of weights for when the judge
//! answered and one for when it did not. The weights are data
//! (`data/weights.toml`), produced from `data/calibration.jsonl` by
//! `examples/fit_calibration.rs`.

mod fit;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use fit::{FitRow, add_judge, fit_weights, grouped_scores};

use crate::{ClassifierError, reading::INDICATORS};

/// The judge's log-odds count at most this much, in nats.
const MAX_JUDGE: f64 = 8.0;
/// The vote of precedents counts at most this much, in nats.
const MAX_VOTE: f64 = 4.0;
const FORMAT: u32 = 1;

/// What the stages found out about a case, before they are weighed.
#[derive(Clone, Debug, PartialEq)]
pub struct Signals {
    /// The judge's log-odds in nats, if it answered.
    pub judge: Option<f64>,
    /// The vote of precedents, log-odds in nats.
    pub vote: f64,
    /// The level of the strongest rule that does not settle alone, 0 (none) to 4
    /// (critical).
    pub rule_level: u8,
    /// Which indicators were seen, in the order of [`indicator_names`].
    pub indicators: Vec<bool>,
}

impl Signals {
    /// The signals as non-negative-weight features of about equal size: judge,
    /// vote, rule, then the indicators.
    #[must_use]
    pub fn features(&self) -> Vec<f64> {
        let bounded = |value: f64, max: f64| {
            if value.is_nan() {
                0.0
            } else {
                value.clamp(-max, max)
            }
        };
        let mut features = vec![
            bounded(self.judge.unwrap_or(0.0), MAX_JUDGE) / 2.0,
            bounded(self.vote, MAX_VOTE) / 2.0,
            f64::from(self.rule_level.min(4)) / 2.0,
        ];
        features.extend(
            self.indicators
                .iter()
                .map(|seen| f64::from(u8::from(*seen))),
        );
        features
    }
}

/// The names of the indicators, in the order of [`Signals::indicators`].
#[must_use]
pub fn indicator_names() -> Vec<&'static str> {
    INDICATORS.iter().map(|indicator| indicator.name).collect()
}

/// Weights and the two thresholds on the score they give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Log-odds when nothing is known.
    pub intercept: f64,
    /// Weight of the judge's log-odds; not negative, like all weights.
    pub judge: f64,
    /// Weight of the vote.
    pub vote: f64,
    /// Weight of the strongest rule's level.
    pub rule: f64,
    /// Scores of at least this are malicious.
    pub malicious_threshold: f64,
    /// Scores of at most this are benign; in between the case is undetermined.
    pub benign_threshold: f64,
    /// Weight of each indicator, by name.
    pub indicators: BTreeMap<String, f64>,
}

impl Weights {
    /// The log-odds of malicious, and the share of each feature in it.
    pub(crate) fn weigh(&self, signals: &Signals) -> (f64, Vec<f64>) {
        let shares: Vec<f64> = signals
            .features()
            .iter()
            .zip(self.in_order())
            .map(|(feature, weight)| feature * weight)
            .collect();
        (self.intercept + shares.iter().sum::<f64>(), shares)
    }

    fn in_order(&self) -> impl Iterator<Item = f64> {
        [self.judge, self.vote, self.rule].into_iter().chain(
            INDICATORS
                .iter()
                .map(|indicator| self.indicators.get(indicator.name).copied().unwrap_or(0.0)),
        )
    }

    fn check(&self, set: &str) -> Result<(), ClassifierError> {
        let wrong = |what: String| Err(ClassifierError::Calibration(format!("{set}: {what}")));
        if let Some(unknown) = self
            .indicators
            .keys()
            .find(|name| !INDICATORS.iter().any(|known| known.name == name.as_str()))
        {
            return wrong(format!("there is no indicator {unknown}"));
        }
        if !self.intercept.is_finite() || self.in_order().any(|w| !w.is_finite() || w < 0.0) {
            return wrong("a weight is negative or not finite".to_owned());
        }
        let ordered = 0.0 <= self.benign_threshold
            && self.benign_threshold < self.malicious_threshold
            && self.malicious_threshold <= 1.0;
        if !ordered {
            return wrong("the thresholds are not 0 <= benign < malicious <= 1".to_owned());
        }
        Ok(())
    }
}

/// The weights for both situations and what they were made with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The file format, 1.
    pub format: u32,
    /// [`crate::Judge::identity`] of the judge whose answers were weighed.
    pub judge: String,
    /// The identity of the embedder whose similarities were weighed.
    pub embedder: String,
    /// The share of malicious cases in these rows. No computation uses it: the
    /// intercepts are as fitted, so scores hold for a mixture like that of the
    /// rows, and ordinary hosts have far fewer attacks.
    pub prior: f64,
    /// How many rows had an answer of the judge when `with_judge` was fitted.
    /// `without_judge` is fitted on all rows of `data/calibration.jsonl`.
    pub rows: usize,
    /// Log-odds of a case that a rule or precedent settles, in nats.
    pub settled_log_odds: f64,
    /// When the judge answered.
    pub with_judge: Weights,
    /// When it did not.
    pub without_judge: Weights,
}

impl Calibration {
    /// The calibration that comes with this crate.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`]; a test makes sure that there is none.
    pub fn shipped() -> Result<Self, ClassifierError> {
        Self::parse(include_str!("../../data/weights.toml"))
    }

    /// Reads a calibration.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`] if it is not TOML of this format, a
    /// weight is negative or the thresholds are out of order.
    pub fn parse(text: &str) -> Result<Self, ClassifierError> {
        let calibration: Self =
            toml::from_str(text).map_err(|e| ClassifierError::Calibration(e.to_string()))?;
        if calibration.format != FORMAT {
            return Err(ClassifierError::Calibration(format!(
                "format {}, this program reads {FORMAT}",
                calibration.format
            )));
        }
        if !calibration.settled_log_odds.is_finite() || calibration.settled_log_odds <= 0.0 {
            return Err(ClassifierError::Calibration(
                "settled_log_odds is not positive".to_owned(),
            ));
        }
        calibration.with_judge.check("with_judge")?;
        calibration.without_judge.check("without_judge")?;
        Ok(calibration)
    }

    /// Writes it as [`Calibration::parse`] reads it.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`] if a number cannot be written.
    pub fn to_text(&self) -> Result<String, ClassifierError> {
        toml::to_string(self).map_err(|e| ClassifierError::Calibration(e.to_string()))
    }

    pub(crate) fn content_hash(&self) -> Result<[u8; 32], ClassifierError> {
        Ok(Sha256::digest(self.to_text()?).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals() -> Signals {
        Signals {
            judge: Some(1.0),
            vote: -0.5,
            rule_level: 2,
            indicators: vec![false; INDICATORS.len()],
        }
    }

    #[test]
    fn more_evidence_never_lowers_the_score() {
        let calibration = Calibration::shipped().unwrap();
        for weights in [&calibration.with_judge, &calibration.without_judge] {
            let base = signals();
            let (before, _) = weights.weigh(&base);
            for (idx, indicator) in INDICATORS.iter().enumerate() {
                let mut more = base.clone();
                more.indicators[idx] = true;
                assert!(weights.weigh(&more).0 >= before, "{}", indicator.name);
            }
            for (judge, vote, rule_level) in [(2.0, -0.5, 2), (1.0, 0.5, 2), (1.0, -0.5, 4)] {
                let more = Signals {
                    judge: Some(judge),
                    vote,
                    rule_level,
                    ..base.clone()
                };
                assert!(weights.weigh(&more).0 >= before);
            }
        }
    }

    #[test]
    fn the_shipped_calibration_survives_writing_and_bad_ones_are_refused() {
        let shipped = Calibration::shipped().unwrap();
        let text = shipped.to_text().unwrap();
        assert_eq!(Calibration::parse(&text).unwrap(), shipped);
        for (from, to, expected) in [
            ("format = 1", "format = 9", "format 9"),
            ("format = 1", "format = 1\nextra = 2", "extra"),
            (
                "socket_shell = ",
                "no_such = 1.0\nsocket_shell = ",
                "no_such",
            ),
            ("socket_shell = ", "socket_shell = -", "negative"),
            (
                "malicious_threshold = ",
                "malicious_threshold = 0.0 # ",
                "thresholds",
            ),
        ] {
            let error = Calibration::parse(&text.replace(from, to)).unwrap_err();
            assert!(error.to_string().contains(expected), "{to}: {error}");
        }
    }

    #[test]
    fn wild_numbers_are_bounded() {
        let calibration = Calibration::shipped().unwrap();
        for judge in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            let wild = Signals {
                judge: Some(judge),
                vote: judge,
                ..signals()
            };
            let (log_odds, _) = calibration.with_judge.weigh(&wild);
            assert!(log_odds.is_finite(), "{judge}");
        }
    }
}
