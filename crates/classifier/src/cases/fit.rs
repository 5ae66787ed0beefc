//! Fitting the weights on labelled sequences.
//!
//! A row is what one event shows: every event of ordinary work that shows something,
//! and of an attack the decisive event and those after it that show something. An
//! event at which an alert is enough counts as an attack three times of four, so that
//! its score stays below what kills.

use std::sync::Arc;

use inwarden_types::{Case, Event, EventData, Label, SettledBy, TextGiver, Verdict};

use super::{CaseLimits, CaseReader, CaseWeights, Cases, Sequence, kinds::Kind, log_odds};
use crate::{
    CallText, Classifier, ClassifierConfig, ClassifierError, Parts, Question, RuleSet, TermModel,
    TextCalibration, TextClassifier, fusion::FitColumns, head::folds_of, may_run_command,
    more_severe,
};

const L2: f64 = 0.000_1;
/// Times that a row of ordinary work counts, and one of an attack: there are fewer.
const COPIES: usize = 4;
const ATTACK_COPIES: usize = 12;
/// Of a row that asks for an alert, how many count as an attack.
const ALERT_COPIES: usize = 9;

/// Weights, and what they make of sequences that they were not fitted on.
#[derive(Clone, Debug)]
pub struct FittedCases {
    /// The weights, fitted on all.
    pub weights: CaseWeights,
    /// Of each sequence in order, by weights fitted without its family.
    pub verdicts: Vec<SequenceVerdict>,
}

/// What the verdicts of a sequence came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SequenceVerdict {
    /// The highest score of a malicious verdict that the case settled.
    pub by_case: Option<f64>,
    /// The first event with a malicious verdict.
    pub first: Option<usize>,
    /// The highest score of malicious at or before the decisive event.
    pub in_time: Option<f64>,
}

/// Judges events by themselves; `None` for those that nobody judges so.
pub type OwnVerdict<'a> = &'a dyn Fn(&Event) -> Option<Verdict>;

/// The shipped classifiers without a model: rules, words and features alone. What
/// they say is the same everywhere.
#[derive(Debug)]
pub struct PlainJudges {
    programs: Classifier,
    texts: Vec<TextClassifier>,
}

impl PlainJudges {
    /// All of them.
    ///
    /// # Errors
    /// Whatever is wrong with the shipped data; a test makes sure that nothing is.
    pub fn shipped() -> Result<Self, ClassifierError> {
        let rules = Some(Arc::new(RuleSet::shipped()?));
        let parts = Parts {
            rules,
            ..Parts::default()
        };
        let mut texts = Vec::new();
        for question in [Question::UserText, Question::ToolOutput, Question::ToolCall] {
            let Some(calibration) = TextCalibration::shipped(question)? else {
                continue;
            };
            let mut classifier = TextClassifier::new(question, None, calibration)?;
            if let Some(terms) = TermModel::shipped(question)? {
                classifier = classifier.with_terms(Arc::new(terms));
            }
            texts.push(classifier);
        }
        Ok(Self {
            programs: Classifier::new(ClassifierConfig::shipped()?, parts)?,
            texts,
        })
    }

    /// The own verdict on `event`, if it is of a kind that has one.
    #[must_use]
    pub fn judge(&self, event: &Event) -> Option<Verdict> {
        match &event.data {
            EventData::Exec => Some(self.programs.classify(&Case::of(event.clone()))),
            EventData::Text(text) => {
                let question = match text.given_by {
                    TextGiver::User => Question::UserText,
                    TextGiver::Tool => Question::ToolOutput,
                };
                let (task, tool) = (text.user_task.as_deref(), text.tool.as_deref());
                Some(self.of(question)?.judge_text(&text.text, task, tool))
            }
            EventData::ToolCall(call) => {
                let steered = self.of(Question::ToolCall)?.judge_call(&CallText::of(call));
                Some(match may_run_command(call) {
                    true => more_severe(self.programs.classify(&Case::of(event.clone())), steered),
                    false => steered,
                })
            }
            _ => None,
        }
    }

    fn of(&self, question: Question) -> Option<&TextClassifier> {
        self.texts.iter().find(|judge| judge.question() == question)
    }
}

struct Row {
    columns: Vec<f64>,
    sequence: usize,
    is_attack: bool,
    is_alert: bool,
}

/// Fits weights on `sequences`, with families dealt to `n_folds` parts.
#[must_use]
pub fn fit_cases(
    sequences: &[Sequence],
    corpus: &str,
    own: OwnVerdict<'_>,
    n_folds: usize,
) -> FittedCases {
    // Own verdicts, and so what was suspicious before, do not depend on the weights.
    let zero = Arc::new(zero(sequences.len(), corpus));
    let rows: Vec<Row> = sequences
        .iter()
        .enumerate()
        .flat_map(|(idx, sequence)| rows_of(idx, sequence, &zero, own))
        .collect();
    let families: Vec<&str> = sequences.iter().map(|s| s.family.as_str()).collect();
    let folds = folds_of(&families, n_folds);
    let fit = |leave_out: Option<usize>| {
        let taken = rows
            .iter()
            .filter(|row| Some(folds[row.sequence]) != leave_out);
        let (mut columns, mut malicious) = (Vec::new(), Vec::new());
        for row in taken {
            // What shows nothing is judged by no weight; it only says how rare attacks are.
            let is_bare = row.columns[1..].iter().all(|value| *value == 0.0);
            let copies = match row.is_attack {
                true => ATTACK_COPIES,
                false if is_bare => 1,
                false => COPIES,
            };
            for copy in 0..copies {
                columns.push(row.columns.clone());
                malicious.push(row.is_attack && (!row.is_alert || copy < ALERT_COPIES));
            }
        }
        let fitted = FitColumns {
            rows: &columns,
            malicious: &malicious,
            l2: L2,
        };
        let fitted = fitted.fit(|_| true);
        CaseWeights::of_columns(&fitted, sequences.len(), corpus.to_owned())
    };
    let mut verdicts = vec![None; sequences.len()];
    for fold in 0..folds.iter().max().map_or(0, |last| last + 1) {
        let weights = Arc::new(fit(Some(fold)));
        for (idx, sequence) in sequences.iter().enumerate() {
            if folds[idx] == fold {
                verdicts[idx] = Some(play(sequence, &weights, own));
            }
        }
    }
    FittedCases {
        weights: fit(None),
        verdicts: verdicts.into_iter().flatten().collect(),
    }
}

/// Plays a sequence and says what its verdicts come to.
#[must_use]
pub fn play(
    sequence: &Sequence,
    weights: &Arc<CaseWeights>,
    own: OwnVerdict<'_>,
) -> SequenceVerdict {
    let mut cases = Cases::new(
        Arc::clone(weights),
        CaseReader::default(),
        CaseLimits::default(),
    );
    let mut played = SequenceVerdict {
        by_case: None,
        first: None,
        in_time: None,
    };
    for (idx, event) in sequence.events.iter().enumerate() {
        let seen = cases.observe(event);
        let verdict = cases.conclude(&seen, own(event));
        if verdict.label != Label::Malicious {
            continue;
        }
        let score = verdict.score.probability();
        played.first = played.first.or(Some(idx));
        if verdict.settled_by == SettledBy::Case {
            played.by_case = Some(played.by_case.unwrap_or(0.0).max(score));
        }
        if sequence.decisive.is_some_and(|decisive| idx <= decisive) {
            played.in_time = Some(played.in_time.unwrap_or(0.0).max(score));
        }
    }
    played
}

fn rows_of(
    idx: usize,
    sequence: &Sequence,
    weights: &Arc<CaseWeights>,
    own: OwnVerdict<'_>,
) -> Vec<Row> {
    let mut cases = Cases::new(
        Arc::clone(weights),
        CaseReader::default(),
        CaseLimits::default(),
    );
    let mut rows = Vec::new();
    for (at, event) in sequence.events.iter().enumerate() {
        let seen = cases.observe(event);
        let own = own(event);
        let own_log_odds = own.as_ref().map_or(0.0, |own| log_odds(own.score));
        let _verdict = cases.conclude(&seen, own);
        let is_attack = match sequence.decisive {
            None => false,
            Some(decisive) if at < decisive => continue,
            Some(_) => true,
        };
        let is_decisive = sequence.decisive == Some(at);
        if seen.shown.is_empty() && (is_attack && !is_decisive) {
            continue;
        }
        let mut columns = vec![own_log_odds];
        columns.extend_from_slice(seen.shown.values());
        rows.push(Row {
            columns,
            sequence: idx,
            is_attack,
            is_alert: sequence.is_alert,
        });
    }
    rows
}

fn zero(sequences: usize, corpus: &str) -> CaseWeights {
    let columns = vec![0.0; Kind::COUNT + 2];
    CaseWeights::of_columns(&columns, sequences, corpus.to_owned())
}
