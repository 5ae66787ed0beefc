//! What the reading of a command counts: a small linear model over it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Signals;
use crate::{ClassifierError, reading::Features};

/// A linear model over the features of a reading; its log-odds are one signal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureModel {
    /// Log-odds where nothing was seen.
    pub intercept: f64,
    /// Weight of each feature by name, not negative.
    pub weights: BTreeMap<String, f64>,
}

impl FeatureModel {
    /// From the intercept and the weights of the features in their order.
    pub(super) fn from_order(fitted: &[f64]) -> Self {
        let at = |idx: usize| fitted.get(idx).copied().unwrap_or(0.0);
        let names = Features::NAMES.iter().enumerate();
        Self {
            intercept: at(0),
            weights: names
                .map(|(idx, name)| ((*name).to_owned(), at(1 + idx)))
                .collect(),
        }
    }

    /// The columns that are fitted, as many as there are features.
    pub(super) fn columns(signals: &Signals) -> Vec<f64> {
        let seen = signals
            .features
            .iter()
            .copied()
            .chain(std::iter::repeat(0.0));
        seen.take(Features::COUNT).map(f64::from).collect()
    }

    /// The log-odds of malicious, in nats.
    pub(super) fn log_odds(&self, signals: &Signals) -> f64 {
        let columns = Self::columns(signals).into_iter().zip(Features::NAMES);
        let shares = columns.map(|(column, name)| column * self.weight(name));
        self.intercept + shares.sum::<f64>()
    }

    /// The weight of a feature.
    pub(crate) fn weight(&self, feature: &str) -> f64 {
        self.weights.get(feature).copied().unwrap_or(0.0)
    }

    pub(super) fn check(&self) -> Result<(), ClassifierError> {
        let wrong = |what: String| Err(ClassifierError::Calibration(format!("features: {what}")));
        let is_known = |name: &str| Features::NAMES.contains(&name);
        if let Some(unknown) = self.weights.keys().find(|name| !is_known(name)) {
            return wrong(format!("there is no feature {unknown}"));
        }
        let is_bad = |weight: &f64| !weight.is_finite() || *weight < 0.0;
        if !self.intercept.is_finite() || self.weights.values().any(is_bad) {
            return wrong("a weight is negative or not finite".to_owned());
        }
        Ok(())
    }
}
