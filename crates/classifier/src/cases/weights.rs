//! The weights of sequences, as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::kinds::{Kind, Shown};
use crate::ClassifierError;

const FORMAT: u32 = 1;
const SHIPPED: &str = include_str!("../../data/weights-cases.toml");

/// Weights of the kinds of evidence, and the threshold on the score they give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseWeights {
    /// The file format, 1.
    pub format: u32,
    /// Hash of the sequences.
    pub corpus: String,
    /// How many these were.
    pub sequences: usize,
    /// Log-odds when nothing is shown.
    pub intercept: f64,
    /// Weight of the own verdict's log-odds; not negative, like all weights.
    pub own: f64,
    /// Scores of at least this are malicious.
    pub malicious_threshold: f64,
    /// Weight of each kind by name.
    pub kinds: BTreeMap<String, f64>,
    #[serde(skip)]
    columns: Vec<f64>,
    #[serde(skip)]
    hash: String,
}

impl CaseWeights {
    /// Of fitted columns: the intercept, the own verdict's, then those of all kinds.
    pub(super) fn of_columns(fitted: &[f64], sequences: usize, corpus: String) -> Self {
        let at = |idx: usize| fitted.get(idx).copied().unwrap_or(0.0);
        let kinds = Kind::ALL.iter().enumerate();
        let mut weights = Self {
            format: FORMAT,
            corpus,
            sequences,
            intercept: at(0),
            own: at(1),
            malicious_threshold: 0.5,
            kinds: kinds
                .map(|(idx, kind)| (kind.name().to_owned(), at(idx + 2)))
                .collect(),
            columns: Vec::new(),
            hash: String::new(),
        };
        weights.finish();
        weights
    }

    /// Reads a file of weights.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`] if it is none, of another format, names other
    /// kinds than this build has, or holds a weight that is negative or no number.
    pub fn parse(text: &str) -> Result<Self, ClassifierError> {
        let wrong = ClassifierError::Calibration;
        let mut weights: Self = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if weights.format != FORMAT {
            return Err(wrong(format!("format {} is not {FORMAT}", weights.format)));
        }
        let known: Vec<&str> = weights.kinds.keys().map(String::as_str).collect();
        let mut expected: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        expected.sort_unstable();
        if known != expected {
            return Err(wrong(
                "the kinds of evidence are not those of this build".to_owned(),
            ));
        }
        let is_wrong = |weight: &f64| !weight.is_finite() || *weight < 0.0;
        if is_wrong(&weights.own) || weights.kinds.values().any(is_wrong) {
            return Err(wrong("a weight is negative or no number".to_owned()));
        }
        let is_share = (0.0..=1.0).contains(&weights.malicious_threshold);
        if !weights.intercept.is_finite() || !is_share {
            return Err(wrong("intercept or threshold is out of range".to_owned()));
        }
        weights.finish();
        Ok(weights)
    }

    /// The shipped weights.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`]; a test makes sure that there is none.
    pub fn shipped() -> Result<Self, ClassifierError> {
        Self::parse(SHIPPED)
    }

    /// As a file that [`CaseWeights::parse`] reads.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`] if a number cannot be written.
    pub fn to_text(&self) -> Result<String, ClassifierError> {
        toml::to_string(self).map_err(|error| ClassifierError::Calibration(error.to_string()))
    }

    /// The first digits of the hash of all that decides.
    #[must_use]
    pub fn short_hash(&self) -> &str {
        &self.hash
    }

    pub(super) fn log_odds(&self, shown: &Shown, own_log_odds: f64) -> f64 {
        let values = shown.values().iter().zip(&self.columns);
        self.intercept + self.own * own_log_odds + values.map(|(x, w)| x * w).sum::<f64>()
    }

    pub(super) fn share(&self, kind: Kind, shown: &Shown) -> f64 {
        shown.of(kind) * self.columns[kind as usize]
    }

    fn finish(&mut self) {
        let weight = |kind: &Kind| self.kinds.get(kind.name()).copied().unwrap_or(0.0);
        self.columns = Kind::ALL.iter().map(weight).collect();
        let mut hasher = Sha256::new();
        for number in
            self.columns
                .iter()
                .chain([&self.intercept, &self.own, &self.malicious_threshold])
        {
            hasher.update(number.to_le_bytes());
        }
        let digest = hasher.finalize();
        self.hash = digest[..6]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_weights_are_read_and_written_alike() {
        let shipped = CaseWeights::shipped().unwrap();
        let again = CaseWeights::parse(&shipped.to_text().unwrap()).unwrap();
        assert_eq!(shipped, again);
        assert_eq!(shipped.short_hash().len(), 12);
    }

    #[test]
    fn what_is_no_weight_is_refused() {
        let text = CaseWeights::shipped().unwrap().to_text().unwrap();
        let refused = |text: &str| CaseWeights::parse(text).is_err();
        assert!(refused(&text.replace("format = 1", "format = 2")));
        assert!(refused(&text.replace("odd_port", "odd_door")));
        assert!(refused(&text.replace("own = ", "own = -")));
        assert!(refused(&text.replace("intercept = ", "intercept = nan #")));
        assert!(refused(&format!("{text}more = 1.0\n")));
    }
}
