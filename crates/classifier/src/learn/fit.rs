//! Fitting head, words and weights on rows whose hidden states are there.

use std::sync::Arc;

use inwarden_memory::Memory;

use super::{
    card::{ReportCard, families_of},
    scores::{SetCard, probability},
};
use crate::{
    Calibration, Classifier, ClassifierConfig, ClassifierError, FitRow, Parts, RuleSet,
    TextCalibration, TextFitRow, TextWeights, Weights, fit_calibration, fit_texts,
    fusion::FORMAT,
    head::{
        Head, LearnRow, LearnSource, Position, Separation, StateChoice, StateStore, TrainedHead,
        folds_of, rows_hash, train_head,
    },
    judge::{Prompt, Question},
    terms::{TermModel, TermOrigin, cross_fitted},
};

/// Precedents nearer than this do not vote for a row: new cases have no twin in
/// the store, so the weight of a vote must not be learnt from twins.
const TWIN_COSINE: f64 = 0.9;

/// What is to be learnt.
#[derive(Clone, Debug)]
pub struct LearnTask<'a> {
    /// What is to be answered.
    pub question: Question,
    /// All of `question`, each text once; see [`crate::distinct_rows`].
    pub rows: &'a [LearnRow],
    /// The parts that groups are dealt to, at least 2.
    pub n_folds: usize,
    /// Precedents that vote on program starts; texts have none.
    pub memory: Option<Arc<Memory>>,
}

/// What was learnt.
#[derive(Clone, Debug)]
pub struct LearnedParts {
    /// Reads the model's hidden states.
    pub head: Head,
    /// Reads the words.
    pub terms: TermModel,
    /// Weighs these and the others.
    pub weights: LearnedWeights,
    /// How well all that works.
    pub card: ReportCard,
}

/// The weights of one question.
#[derive(Clone, Debug, PartialEq)]
pub enum LearnedWeights {
    /// Of program starts.
    Exec(Box<Calibration>),
    /// Of texts or tool calls.
    Texts(Box<TextCalibration>),
}

impl LearnedWeights {
    /// The weights as they stand in a file.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`] if a number cannot be written.
    pub fn to_text(&self) -> Result<String, ClassifierError> {
        match self {
            Self::Exec(calibration) => calibration.to_text(),
            Self::Texts(calibration) => calibration.to_text(),
        }
    }
}

/// Learns `task` from the states in `store`, which was opened with
/// [`Prompt::of`] the question and has the states of all rows and of the prompt's
/// content-free texts.
///
/// # Errors
/// [`ClassifierError::LearnRows`] if states are missing, a label does not occur or
/// all rows are of one group; [`ClassifierError::StateFile`] if the states cannot be
/// read.
pub fn learn(
    task: &LearnTask<'_>,
    store: &mut StateStore,
) -> Result<LearnedParts, ClassifierError> {
    let (question, rows) = (task.question, task.rows);
    if rows.iter().all(|row| row.group == rows[0].group) {
        return Err(ClassifierError::LearnRows("they are of one group"));
    }
    let trained = train_head(
        question,
        rows,
        store,
        &head_choices(question, store),
        task.n_folds,
    )?;
    let mut fitting = Fitting {
        task,
        malicious: rows.iter().map(|row| row.malicious).collect(),
        labels: labels_of(rows, store, &Prompt::of(question))?,
        words: Vec::new(),
        trained,
    };
    let terms = fitting.fit_words();
    let (weights, sets, scores, mut signals) = match question {
        Question::Exec => fitting.exec()?,
        _ => fitting.texts(),
    };
    signals.push(("head", fitting.separation(&fitting.trained.scores)));
    signals.push(("labels", fitting.separation(&fitting.labels)));
    signals.push(("words", fitting.separation(&fitting.words)));
    let threshold = sets[0].malicious_threshold;
    let flagged = scores.iter().map(|score| probability(*score) >= threshold);
    let flagged: Vec<bool> = flagged.collect();
    let TrainedHead { head, tried, .. } = fitting.trained;
    let card = ReportCard {
        question,
        model: head.origin().model.clone(),
        corpus: head.origin().corpus.clone(),
        n_folds: task.n_folds,
        tried,
        signals,
        sets,
        families: families_of(rows, &flagged),
    };
    Ok(LearnedParts {
        head,
        terms,
        weights,
        card,
    })
}

/// The mean over the event of three and of all kept layers; of texts and tool calls
/// its windows; of tool calls, whose last line is the call, also the mean over that.
/// The answer's state has always done worse, and so have one layer alone and, of
/// program starts, windows (area 0.922 against 0.942).
fn head_choices(question: Question, store: &StateStore) -> Vec<StateChoice> {
    let layers = &store.choice().layers;
    let mut some = vec![
        (Position::EventMean, 0..3),
        (Position::EventMean, 0..layers.len()),
    ];
    if question != Question::Exec {
        some.extend([(Position::Windows, 1..3), (Position::Windows, 0..3)]);
    }
    if question == Question::ToolCall {
        some.extend([(Position::LastLine, 1..3), (Position::LastLine, 0..3)]);
    }
    let choices = some.into_iter().filter_map(|(position, range)| {
        Some(StateChoice {
            positions: vec![position],
            layers: layers.get(range)?.to_vec(),
        })
    });
    choices.collect()
}

/// The labels' log-odds of each row, less those of texts without content.
fn labels_of(
    rows: &[LearnRow],
    store: &mut StateStore,
    prompt: &Prompt,
) -> Result<Vec<f64>, ClassifierError> {
    let mut log_odds = |text: &str| -> Result<f64, ClassifierError> {
        let found = store.find(text)?;
        let found = found.ok_or(ClassifierError::LearnRows("states are missing"))?;
        Ok(found.label_log_odds)
    };
    let mut prior = 0.0;
    for text in &prompt.content_free {
        prior += log_odds(text)? / prompt.content_free.len() as f64;
    }
    rows.iter()
        .map(|row| Ok(log_odds(&row.text)? - prior))
        .collect()
}

/// Rows with what their base scores are, each from a fit without the row's group.
struct Fitting<'a> {
    task: &'a LearnTask<'a>,
    malicious: Vec<bool>,
    labels: Vec<f64>,
    words: Vec<f64>,
    trained: TrainedHead,
}

/// The weights, what they do, the scores with head, and how signals do alone.
type Weighed = (
    LearnedWeights,
    [SetCard; 3],
    Vec<f64>,
    Vec<(&'static str, Separation)>,
);

impl Fitting<'_> {
    fn separation(&self, scores: &[f64]) -> Separation {
        Separation::of(scores, &self.malicious)
    }

    fn card(&self, name: &'static str, scores: &[f64]) -> SetCard {
        SetCard::of(name, scores, &self.malicious)
    }

    /// Fits the words and keeps their cross-fitted scores.
    fn fit_words(&mut self) -> TermModel {
        let rows = self.task.rows;
        let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
        let groups: Vec<&str> = rows.iter().map(|row| row.group.as_str()).collect();
        let folds = folds_of(&groups, self.task.n_folds);
        self.words = cross_fitted(&texts, &self.malicious, &folds);
        let origin = TermOrigin {
            question: self.task.question.name().to_owned(),
            corpus: rows_hash(rows),
            rows: rows.len(),
        };
        TermModel::fit(origin, &texts, &self.malicious)
    }

    fn exec(&self) -> Result<Weighed, ClassifierError> {
        let config = ClassifierConfig::shipped()?;
        let settled_log_odds = config.calibration.settled_log_odds;
        let memory = self.task.memory.clone();
        let embedder = memory.as_ref().map(|memory| memory.embedder_identity());
        let parts = Parts {
            judge: None,
            memory,
            rules: Some(Arc::new(RuleSet::shipped()?)),
        };
        let classifier = Classifier::new(config, parts)?;
        let mut rows = Vec::with_capacity(self.task.rows.len());
        for (idx, row) in self.task.rows.iter().enumerate() {
            let LearnSource::Exec(case) = &row.source else {
                return Err(ClassifierError::LearnRows("one is no program start"));
            };
            let mut signals = classifier.signals(case, &|hit| hit.score > TWIN_COSINE);
            signals.judge = Some(self.labels[idx]);
            signals.head = Some(self.trained.scores[idx]);
            signals.terms = Some(self.words[idx]);
            rows.push(FitRow {
                signals,
                malicious: row.malicious,
                group: row.group.clone(),
            });
        }
        let column = |of: &dyn Fn(&FitRow) -> f64| {
            self.separation(&rows.iter().map(of).collect::<Vec<f64>>())
        };
        let alone = vec![
            ("vote", column(&|row| row.signals.vote)),
            ("rule", column(&|row| f64::from(row.signals.rule_level))),
        ];
        let (features, fitted) = fit_calibration(&rows, self.task.n_folds);
        let [with_head, with_judge, without_judge] = &fitted;
        let sets = [
            self.card("with head", &with_head.scores),
            self.card("with labels", &with_judge.scores),
            self.card("without judge", &without_judge.scores),
        ];
        let [with_head, with_judge, without_judge] = fitted;
        let set = |weights: Weights, card: &SetCard| Weights {
            malicious_threshold: card.malicious_threshold,
            benign_threshold: card.benign_threshold,
            ..weights
        };
        let n_malicious = self
            .malicious
            .iter()
            .filter(|malicious| **malicious)
            .count();
        let calibration = Calibration {
            format: FORMAT,
            judge: judge_identity(&self.trained.head),
            embedder: embedder.unwrap_or_else(|| "none".to_owned()),
            prior: n_malicious as f64 / rows.len() as f64,
            rows: rows.len(),
            corpus: self.trained.head.origin().corpus.clone(),
            settled_log_odds,
            with_head: set(with_head.weights, &sets[0]),
            with_judge: set(with_judge.weights, &sets[1]),
            without_judge: set(without_judge.weights, &sets[2]),
            features,
        };
        let weights = LearnedWeights::Exec(Box::new(calibration));
        Ok((weights, sets, with_head.scores, alone))
    }

    fn texts(&self) -> Weighed {
        let rows: Vec<TextFitRow<'_>> = self
            .task
            .rows
            .iter()
            .enumerate()
            .map(|(idx, row)| TextFitRow {
                row,
                head: self.trained.scores[idx],
                labels: self.labels[idx],
                terms: self.words[idx],
            })
            .collect();
        let fitted = fit_texts(self.task.question, &rows, self.task.n_folds);
        let sets = [
            self.card("with head", &fitted.scores),
            self.card("with labels", &fitted.with_judge),
            self.card("without judge", &fitted.without_judge),
        ];
        let set = |weights: TextWeights, card: &SetCard| TextWeights {
            malicious_threshold: card.malicious_threshold,
            benign_threshold: card.benign_threshold,
            ..weights
        };
        let calibration = fitted.calibration;
        let calibration = TextCalibration {
            judge: judge_identity(&self.trained.head),
            corpus: self.trained.head.origin().corpus.clone(),
            with_head: set(calibration.with_head, &sets[0]),
            with_judge: set(calibration.with_judge, &sets[1]),
            without_judge: set(calibration.without_judge, &sets[2]),
            ..calibration
        };
        let weights = LearnedWeights::Texts(Box::new(calibration));
        (weights, sets, fitted.scores, Vec::new())
    }
}

/// The identity of the judge that has this head.
fn judge_identity(head: &Head) -> String {
    let origin = head.origin();
    format!(
        "{} prompt:{} head:{}",
        origin.model,
        origin.prompt,
        head.content_hash()
    )
}
