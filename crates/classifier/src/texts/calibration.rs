//! The weights for texts and tool calls, as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Columns, call_columns, text_columns};
use crate::{
    ClassifierError, LearnRow, Question,
    fusion::{FitColumns, bounded},
    head::{LearnSource, folds_of},
};

const FORMAT: u32 = 2;
/// Head, labels and words count at most this much each, in nats.
const MAX_JUDGE: f64 = 8.0;
const L2: f64 = 0.001;

/// Weights and thresholds for one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextCalibration {
    /// The file format, 2.
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
    /// Where the judge answers with a trained head beside its labels.
    pub with_head: TextWeights,
    /// Where it answers with its labels alone.
    pub with_judge: TextWeights,
    /// Where there is no judge, or no answer.
    pub without_judge: TextWeights,
}

/// Weights, and the two thresholds on the score they give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextWeights {
    /// Log-odds when nothing is known.
    pub intercept: f64,
    /// Scores of at least this are attacks.
    pub malicious_threshold: f64,
    /// Scores of at most this are benign; in between a text is undetermined.
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
    /// The words' log-odds, from a fit without the row's group.
    pub terms: f64,
}

/// Fitted weights, and what they give the rows: log-odds of each from a fit without
/// its group.
#[derive(Clone, Debug)]
pub struct FittedTexts {
    /// Thresholds are 0 and 1 and to be set by the caller, the judge's identity and
    /// the corpus are empty.
    pub calibration: TextCalibration,
    /// With [`TextCalibration::with_head`].
    pub scores: Vec<f64>,
    /// With [`TextCalibration::with_judge`].
    pub with_judge: Vec<f64>,
    /// With [`TextCalibration::without_judge`].
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
        .map(|row| all_columns(Some(row.head), Some(row.labels), &columns_of(row)))
        .collect();
    // Head and labels are the first two columns.
    let fit = |skip: usize| -> (TextWeights, Vec<f64>) {
        let values: Vec<Vec<f64>> = named
            .iter()
            .map(|row| row[skip..].iter().map(|(_, value)| *value).collect())
            .collect();
        let columns = FitColumns {
            rows: &values,
            malicious: &malicious,
            l2: L2,
        };
        let fitted = columns.fit(|_| true);
        let names = named.first().into_iter().flatten().skip(skip);
        let weights = TextWeights {
            intercept: fitted.first().copied().unwrap_or(0.0),
            malicious_threshold: 1.0,
            benign_threshold: 0.0,
            weights: names
                .zip(fitted.iter().skip(1))
                .map(|((name, _), weight)| ((*name).to_owned(), *weight))
                .collect(),
        };
        (weights, columns.cross_fitted(&folds))
    };
    let (with_head, scores) = fit(0);
    let (with_labels, scores_with_labels) = fit(1);
    let (without_judge, scores_without_judge) = fit(2);
    let n_malicious = malicious.iter().filter(|malicious| **malicious).count();
    FittedTexts {
        calibration: TextCalibration {
            format: FORMAT,
            question: question.name().to_owned(),
            judge: String::new(),
            corpus: String::new(),
            rows: rows.len(),
            prior: n_malicious as f64 / rows.len().max(1) as f64,
            with_head,
            with_judge: with_labels,
            without_judge,
        },
        scores,
        with_judge: scores_with_labels,
        without_judge: scores_without_judge,
    }
}

fn columns_of(row: &TextFitRow<'_>) -> Columns {
    let mut columns = match &row.row.source {
        LearnSource::Exec(_) => Columns::new(),
        LearnSource::Text(text) => text_columns(text),
        LearnSource::Call(call) => call_columns(call),
    };
    columns.push(terms_column(row.terms));
    columns
}

/// The column of the words' log-odds.
pub(super) fn terms_column(log_odds: f64) -> (&'static str, f64) {
    ("terms", bounded(log_odds, MAX_JUDGE) / 2.0)
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
        for (name, set) in calibration.sets() {
            if let Some(what) = set.problem() {
                return wrong(&format!("{name}: {what}"));
            }
        }
        Ok(calibration)
    }

    /// Writes it as [`TextCalibration::parse`] reads it.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`] if a number cannot be written.
    pub fn to_text(&self) -> Result<String, ClassifierError> {
        toml::to_string(self).map_err(|e| ClassifierError::Calibration(e.to_string()))
    }

    /// SHA-256 of [`TextCalibration::to_text`].
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`] as there.
    pub fn content_hash(&self) -> Result<[u8; 32], ClassifierError> {
        Ok(Sha256::digest(self.to_text()?).into())
    }

    fn sets(&self) -> [(&'static str, &TextWeights); 3] {
        [
            ("with_head", &self.with_head),
            ("with_judge", &self.with_judge),
            ("without_judge", &self.without_judge),
        ]
    }

    /// The weights for what a judge answered.
    pub(super) fn weights_for(&self, head: Option<f64>, labels: Option<f64>) -> &TextWeights {
        match (head, labels) {
            (_, None) => &self.without_judge,
            (None, Some(_)) => &self.with_judge,
            (Some(_), Some(_)) => &self.with_head,
        }
    }

    /// The log-odds of an attack, and each signal's share in it.
    pub(super) fn weigh(
        &self,
        head: Option<f64>,
        labels: Option<f64>,
        columns: &Columns,
    ) -> (f64, Columns) {
        let set = self.weights_for(head, labels);
        let mut shares = all_columns(head, labels, columns);
        for (name, value) in &mut shares {
            *value *= set.weights.get(*name).copied().unwrap_or(0.0);
        }
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        (set.intercept + sum, shares)
    }
}

impl TextWeights {
    fn problem(&self) -> Option<&'static str> {
        let is_bad = |weight: &f64| !weight.is_finite() || *weight < 0.0;
        if !self.intercept.is_finite() || self.weights.values().any(is_bad) {
            return Some("a weight is negative or not finite");
        }
        let ordered = 0.0 <= self.benign_threshold
            && self.benign_threshold < self.malicious_threshold
            && self.malicious_threshold <= 1.0;
        (!ordered).then_some("the thresholds are not 0 <= benign < malicious <= 1")
    }
}

/// Question, file.
const SHIPPED: &[(Question, &str)] = &[
    (
        Question::UserText,
        include_str!("../../data/weights-user_text.toml"),
    ),
    (
        Question::ToolOutput,
        include_str!("../../data/weights-tool_output.toml"),
    ),
    (
        Question::ToolCall,
        include_str!("../../data/weights-tool_call.toml"),
    ),
];
