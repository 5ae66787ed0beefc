//! Texts and tool calls that an agent meets: is somebody steering it?
//!
//! The judge with its head reads the text, of a long one overlapping windows, and
//! the most suspicious window counts, so that padding buys nothing. Beside it count
//! what reads like instructions (`spans.rs`) and, of a tool call, where the values
//! in its arguments come from (`provenance.rs`). One weight for each, none
//! negative, as in the fusion of program starts.

mod calibration;
mod provenance;
mod spans;

use std::{sync::Arc, time::Instant};

use inwarden_types::{
    Evidence, Label, Provenance, Score, SettledBy, SourceKind, Stage, StageTimes,
    UndeterminedReason, Verdict,
};

pub use calibration::{FittedTexts, TextCalibration, TextFitRow, fit_texts};

use self::{
    provenance::{CallProvenance, highest},
    spans::{INSTRUCTION, spans_of},
};
use crate::{
    ClassifierError, Judge, JudgeError,
    judge::{CallText, Question, render_call, render_text},
};

/// Bytes of a window over a long text, and of what two neighbours share.
const WINDOW_BYTES: usize = 800;
const OVERLAP_BYTES: usize = 200;
const MAX_WINDOWS: usize = 24;

/// What is known of a text or call besides the judge's answer, `(name, value)` in
/// a fixed order for each question; values are about `0..=2` and higher is more
/// suspicious.
pub(crate) type Columns = Vec<(&'static str, f64)>;

/// The columns of a text.
#[must_use]
pub(crate) fn text_columns(text: &str) -> Columns {
    let spans = spans_of(text);
    let instructions = spans.iter().filter(|span| span.score >= INSTRUCTION);
    let hidden = text.chars().filter(|c| is_hidden(*c)).count();
    let coded = text.split_whitespace().filter(|word| is_coded(word));
    let at_most = |count: usize, most: u8| (count.min(usize::from(most)) as f64) / f64::from(most);
    vec![
        (
            "highest_span",
            (highest(spans.iter().map(|span| span.score)) / 4.0).min(2.0),
        ),
        ("instruction_spans", at_most(instructions.count(), 4)),
        ("hidden_characters", at_most(hidden, 8)),
        ("coded_words", at_most(coded.count(), 2)),
    ]
}

/// The columns of a tool call.
#[must_use]
pub(crate) fn call_columns(call: &CallText) -> Columns {
    let found = CallProvenance::of(call);
    let of_score = |score: f64| (score / 4.0).min(2.0);
    vec![
        ("not_from_task", found.not_from_task),
        ("only_instructed", found.only_instructed),
        ("from_nowhere", found.from_nowhere),
        ("instructing_score", of_score(found.instructing_score)),
        ("highest_span", of_score(found.highest_score)),
        ("tool_instructed", found.tool_instructed),
    ]
}

/// Characters that a reader does not see; joiners of scripts and emoji are not
/// among them.
fn is_hidden(c: char) -> bool {
    matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
        | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

fn is_coded(word: &str) -> bool {
    let of_base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/=_-".contains(&b);
    let has = |is: fn(&u8) -> bool| word.bytes().filter(is).count();
    word.len() >= 24
        && word.bytes().all(of_base64)
        && has(u8::is_ascii_uppercase) >= 3
        && has(u8::is_ascii_lowercase) >= 3
        && has(u8::is_ascii_digit) >= 1
}

/// The texts that the judge is asked about: the whole, and windows of a long text.
fn renderings(text: &str, user_task: Option<&str>, tool: Option<&str>) -> Vec<String> {
    let mut all = vec![render_text(text, user_task, tool)];
    if text.len() <= WINDOW_BYTES {
        return all;
    }
    let floor = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let step = WINDOW_BYTES - OVERLAP_BYTES;
    let n_windows = text.len().div_ceil(step);
    // Of a very long text, windows evenly spread.
    let stride = n_windows.div_ceil(MAX_WINDOWS);
    for window in (0..n_windows).step_by(stride) {
        let start = floor(window * step);
        let end = floor((window * step + WINDOW_BYTES).min(text.len()));
        all.push(render_text(&text[start..end], user_task, tool));
    }
    all
}

/// Judges texts or tool calls with one judge.
pub struct TextClassifier {
    question: Question,
    judge: Arc<dyn Judge>,
    calibration: TextCalibration,
}

impl TextClassifier {
    /// A classifier for `question`, with a judge that was set up with
    /// [`crate::Prompt::of`] it.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`] if the calibration is of another question.
    pub fn new(
        question: Question,
        judge: Arc<dyn Judge>,
        calibration: TextCalibration,
    ) -> Result<Self, ClassifierError> {
        if calibration.question != question.name() {
            return Err(ClassifierError::Calibration(format!(
                "it is of {}, not of {}",
                calibration.question,
                question.name()
            )));
        }
        if calibration.judge != judge.identity() {
            tracing::warn!(
                judge = judge.identity(),
                calibrated = calibration.judge,
                "scores are calibrated for another judge"
            );
        }
        Ok(Self {
            question,
            judge,
            calibration,
        })
    }

    /// What is asked.
    #[must_use]
    pub fn question(&self) -> Question {
        self.question
    }

    /// Judges a text that `tool` gave, or the user, while the agent works on
    /// `user_task`.
    #[must_use]
    pub fn judge_text(&self, text: &str, user_task: Option<&str>, tool: Option<&str>) -> Verdict {
        let start = Instant::now();
        let columns = text_columns(text);
        let screened = start.elapsed();
        let mut stages = StageTimes::default();
        stages.add(Stage::Screen, screened);
        let texts = renderings(text, user_task, tool);
        self.weigh(&texts, &columns, stages)
    }

    /// Judges a tool call in the light of the task and of what tools gave before.
    #[must_use]
    pub fn judge_call(&self, call: &CallText) -> Verdict {
        let start = Instant::now();
        let columns = call_columns(call);
        let screened = start.elapsed();
        let mut stages = StageTimes::default();
        stages.add(Stage::Screen, screened);
        self.weigh(&[render_call(call)], &columns, stages)
    }

    fn weigh(&self, texts: &[String], columns: &Columns, mut stages: StageTimes) -> Verdict {
        let start = Instant::now();
        let answer = self.strongest(texts);
        stages.add(Stage::Judge, start.elapsed());
        let (head, labels, failure) = match answer {
            Ok((head, labels)) => (head, Some(labels), None),
            Err(error) => {
                tracing::warn!(%error, "the judge has no answer");
                let failed = UndeterminedReason::StageFailed {
                    stage: Stage::Judge,
                    error: error.to_string(),
                };
                (None, None, Some(failed))
            }
        };
        let (log_odds, shares) = self.calibration.weigh(head, labels, columns);
        let score = Score::from_log_odds(log_odds);
        let probability = score.probability();
        let (label, undetermined) = if probability >= self.calibration.malicious_threshold {
            (Label::Malicious, None)
        } else if let Some(failure) = failure {
            (Label::Undetermined, Some(failure))
        } else if probability <= self.calibration.benign_threshold {
            (Label::Benign, None)
        } else {
            (Label::Undetermined, Some(UndeterminedReason::AbstainBand))
        };
        Verdict {
            label,
            score,
            technique: None,
            settled_by: SettledBy::Model,
            undetermined,
            evidence: self.evidence(&shares),
            stages,
        }
    }

    /// The highest log-odds of the head and of the labels among `texts`.
    fn strongest(&self, texts: &[String]) -> Result<(Option<f64>, f64), JudgeError> {
        let (mut head, mut labels) = (None, f64::NEG_INFINITY);
        for text in texts {
            let answer = self.judge.judge(text)?;
            labels = labels.max(answer.log_odds);
            head = match (head, answer.head) {
                (Some(a), Some(b)) => Some(f64::max(a, b)),
                (a, b) => a.or(b),
            };
        }
        Ok((head, labels))
    }

    fn evidence(&self, shares: &[(&'static str, f64)]) -> Vec<Evidence> {
        let mut evidence: Vec<Evidence> = shares
            .iter()
            .filter(|(_, share)| *share != 0.0)
            .map(|(name, log_odds)| {
                let (kind, source_id) = match *name {
                    "head" | "judge" => (SourceKind::Model, self.judge.identity()),
                    _ => (SourceKind::Rule, format!("text:{name}")),
                };
                Evidence {
                    provenance: Provenance {
                        kind,
                        source_id,
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        observed: None,
                        span: None,
                        score: None,
                    },
                    log_odds: *log_odds,
                    summary: summary(name).to_owned(),
                }
            })
            .collect();
        evidence.sort_by(|a, b| b.log_odds.abs().total_cmp(&a.log_odds.abs()));
        evidence
    }
}

fn summary(column: &str) -> &'static str {
    match column {
        "head" => "the trained head's reading of the text",
        "judge" => "the language model's answer",
        "highest_span" => "a sentence that reads like an order to an assistant",
        "instruction_spans" => "sentences that read like orders to an assistant",
        "hidden_characters" => "characters that a reader does not see",
        "coded_words" => "words that look encoded",
        "not_from_task" => "values that the user did not name",
        "only_instructed" => "values that only an order in an output names",
        "from_nowhere" => "values that stand nowhere",
        "instructing_score" => "an order in an output names a value of the call",
        "tool_instructed" => "an order in an output names the tool",
        _ => "another signal",
    }
}

impl std::fmt::Debug for TextClassifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextClassifier")
            .field("question", &self.question)
            .field("judge", &self.judge.identity())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
