//! The weights for texts and tool calls, as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Columns, call_columns, text_columns};
use crate::{
    ClassifierError, LearnRow, Question,
    fusion::{FitColumns, bounded},
    head::{LearnSource, folds_of},
};

const FORMAT: u32 = 1;
/// Head and labels count at most this much, in nats.
const MAX_JUDGE: f64 = 8.0;
const L2: f64 = 0.001;

/// Weights and thresholds for one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextCalibration {
    /// The file format, 1.
    pub format: u32,
    /// [`Question::name`].
    pub question: String,
    /// [`crate::Judge::identity`] of the judge whose answers were weighed.
    pub judge: String,
    /// Hash of the rows.
    pub corpus: String,
    /// How many these were.
    pub rows: usize,
    /// The share of attacks that scores assume.
    pub prior: f64,
    /// Log-odds when nothing is known.
    pub intercept: f64,
    /// Scores of at least this are attacks.
    pub malicious_threshold: f64,
    /// Scores of at most this are benign.
    pub benign_threshold: f64,
    /// Weight of each signal by name; not negative.
    pub weights: BTreeMap<String, f64>,
}

/// A row to fit: its truth, and the judge's answers, the head's from a fit without
/// the row's group.
#[derive(Clone, Debug)]
pub struct TextFitRow<'a> {
    /// The row.
    pub row: &'a LearnRow,
    /// The head's log-odds.
    pub head: f64,
    /// The labels' log-odds, less the prior.
    pub labels: f64,
}

/// Fitted weights, and what they give the rows.
#[derive(Clone, Debug)]
pub struct FittedTexts {
    /// Thresholds are 0 and 1 and to be set by the caller.
    pub calibration: TextCalibration,
    /// Log-odds of each row from a fit without its group.
    pub scores: Vec<f64>,
    /// The same from everything but head and labels.
    pub without_judge: Vec<f64>,
}

/// Fits the weights for `question`.
#[must_use]
pub fn fit_texts(question: Question, rows: &[TextFitRow<'_>], n_folds: usize) -> FittedTexts {
    let groups: Vec<&str> = rows.iter().map(|row| row.row.group.as_str()).collect();
    let folds = folds_of(&groups, n_folds);
    let malicious: Vec<bool> = rows.iter().map(|row| row.row.malicious).collect();
    let named: Vec<Columns> = rows
        .iter()
        .map(|row| all_columns(Some(row.head), Some(row.labels), &columns_of(row.row)))
        .collect();
    let values = |skip: usize| -> Vec<Vec<f64>> {
        let rows = named.iter();
        rows.map(|row| row[skip..].iter().map(|(_, value)| *value).collect())
            .collect()
    };
    let (all, others) = (values(0), values(2));
    let columns = |rows| FitColumns {
        rows,
        malicious: &malicious,
        l2: L2,
    };
    let fitted = columns(&all).fit(|_| true);
    let names = named.first().into_iter().flatten().map(|(name, _)| *name);
    let n_malicious = malicious.iter().filter(|malicious| **malicious).count();
    let calibration = TextCalibration {
        format: FORMAT,
        question: question.name().to_owned(),
        judge: String::new(),
        corpus: String::new(),
        rows: rows.len(),
        prior: n_malicious as f64 / rows.len().max(1) as f64,
        intercept: fitted.first().copied().unwrap_or(0.0),
        malicious_threshold: 1.0,
        benign_threshold: 0.0,
        weights: names
            .zip(fitted.iter().skip(1))
            .map(|(name, weight)| (name.to_owned(), *weight))
            .collect(),
    };
    FittedTexts {
        calibration,
        scores: columns(&all).cross_fitted(&folds),
        without_judge: columns(&others).cross_fitted(&folds),
    }
}

fn columns_of(row: &LearnRow) -> Columns {
    match &row.source {
        LearnSource::Exec(_) => Columns::new(),
        LearnSource::Text(text) => text_columns(text),
        LearnSource::Call(call) => call_columns(call),
    }
}

fn all_columns(head: Option<f64>, labels: Option<f64>, others: &Columns) -> Columns {
    let mut all = vec![
        ("head", bounded(head.unwrap_or(0.0), MAX_JUDGE) / 2.0),
        ("judge", bounded(labels.unwrap_or(0.0), MAX_JUDGE) / 2.0),
    ];
    all.extend_from_slice(others);
    all
}

impl TextCalibration {
    /// The calibration that comes with this crate for `question`, if one does.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`]; a test makes sure that there is none.
    pub fn shipped(question: Question) -> Result<Option<Self>, ClassifierError> {
        let found = SHIPPED.iter().find(|(asked, _)| *asked == question);
        found.map(|(_, text)| Self::parse(text)).transpose()
    }

    /// Reads a calibration.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`] if it is not TOML of this format, a weight
    /// is negative or the thresholds are out of order.
    pub fn parse(text: &str) -> Result<Self, ClassifierError> {
        let wrong = |what: &str| Err(ClassifierError::Calibration(what.to_owned()));
        let calibration: Self =
            toml::from_str(text).map_err(|e| ClassifierError::Calibration(e.to_string()))?;
        if calibration.format != FORMAT {
            let format = calibration.format;
            return wrong(&format!("format {format}, this program reads {FORMAT}"));
        }
        let is_bad = |weight: &f64| !weight.is_finite() || *weight < 0.0;
        if !calibration.intercept.is_finite() || calibration.weights.values().any(is_bad) {
            return wrong("a weight is negative or not finite");
        }
        let ordered = 0.0 <= calibration.benign_threshold
            && calibration.benign_threshold < calibration.malicious_threshold
            && calibration.malicious_threshold <= 1.0;
        match ordered {
            true => Ok(calibration),
            false => wrong("the thresholds are not 0 <= benign < malicious <= 1"),
        }
    }

    /// Writes it as [`TextCalibration::parse`] reads it.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`] if a number cannot be written.
    pub fn to_text(&self) -> Result<String, ClassifierError> {
        toml::to_string(self).map_err(|e| ClassifierError::Calibration(e.to_string()))
    }

    /// The log-odds of an attack, and each signal's share in it.
    pub(super) fn weigh(
        &self,
        head: Option<f64>,
        labels: Option<f64>,
        columns: &Columns,
    ) -> (f64, Columns) {
        let mut shares = all_columns(head, labels, columns);
        for (name, value) in &mut shares {
            *value *= self.weights.get(*name).copied().unwrap_or(0.0);
        }
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        (self.intercept + sum, shares)
    }
}

/// Question, file.
const SHIPPED: &[(Question, &str)] = &[];
