//! Texts and tool calls that an agent meets: is somebody steering it?
//!
//! The judge with its head reads the text, of a long one overlapping windows, and
//! parts without what carries them (`extracts.rs`); the most suspicious reading
//! counts, so that padding and wrapping buy nothing. Beside it count
//! what reads like instructions (`spans.rs`) and, of a tool call, where the values
//! in its arguments come from (`provenance.rs`). One weight for each, none
//! negative, as in the fusion of program starts. Without a judge the others decide,
//! with weights of their own.

mod calibration;
mod call_text;
mod columns;
mod extracts;
mod join;
mod provenance;
mod spans;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use inwarden_types::{
    Evidence, Provenance, Score, SettledBy, SourceKind, Stage, StageTimes, UndeterminedReason,
    Verdict,
};
use sha2::{Digest as _, Sha256};

pub use calibration::{FittedTexts, TextCalibration, TextFitRow, TextWeights, fit_texts};

use self::calibration::terms_column;
pub use self::call_text::render_call;
pub(crate) use self::columns::{Columns, call_columns, text_columns};
use self::columns::{call_columns_or_cut, renderings, summary};
use self::extracts::extracts;
pub use self::join::{may_run_command, more_severe};
use crate::{
    ClassifierError, Counters, Judge, JudgeError,
    cache::{CacheKey, RecentCache},
    fusion::label_of,
    judge::{CallText, Question, render_text},
    terms::TermModel,
};

/// Verdicts that are remembered, about 2 KB each.
const CACHE_ENTRIES: usize = 2_048;
/// Parts of a text that are judged by themselves, the most suspicious by their words.
const MAX_EXTRACTS: usize = 4;

/// Judges texts or tool calls, with one judge or without.
///
/// Shared by threads; every method takes `&self`. A verdict depends on the text or
/// call, judge and calibration only.
pub struct TextClassifier {
    question: Question,
    judge: Option<Arc<dyn Judge>>,
    calibration: TextCalibration,
    terms: Option<Arc<TermModel>>,
    /// Hash of what does not change while this classifier lives.
    fixed_hash: [u8; 32],
    cache: Mutex<RecentCache<Verdict>>,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    judge_failed: AtomicU64,
}

/// What is weighed.
struct Asked {
    /// For the judge.
    texts: Vec<String>,
    columns: Columns,
    /// Whether a part was not read.
    incomplete: bool,
}

/// What the judge says: the highest log-odds of its head and of its labels.
#[derive(Clone, Copy, Default)]
struct Strongest {
    head: Option<f64>,
    labels: Option<f64>,
}

impl TextClassifier {
    /// A classifier for `question`, with a judge that was set up with
    /// [`crate::Prompt::of`] it, or from what is known without one.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`] if the calibration is of another question.
    pub fn new(
        question: Question,
        judge: Option<Arc<dyn Judge>>,
        calibration: TextCalibration,
    ) -> Result<Self, ClassifierError> {
        if calibration.question != question.name() {
            return Err(ClassifierError::Calibration(format!(
                "it is of {}, not of {}",
                calibration.question,
                question.name()
            )));
        }
        let identity = judge.as_ref().map(|judge| judge.identity());
        if let Some(identity) = &identity
            && calibration.judge != *identity
        {
            tracing::warn!(
                judge = identity,
                calibrated = calibration.judge,
                "scores are calibrated for another judge"
            );
        }
        let mut hasher = Sha256::new();
        hasher.update(calibration.content_hash()?);
        hasher.update(identity.unwrap_or_default());
        Ok(Self {
            question,
            judge,
            calibration,
            terms: None,
            fixed_hash: hasher.finalize().into(),
            cache: Mutex::new(RecentCache::new(CACHE_ENTRIES)),
            cache_hits: AtomicU64::new(0),
            cache_misses: AtomicU64::new(0),
            judge_failed: AtomicU64::new(0),
        })
    }

    /// The same with the model of the words of its question.
    #[must_use]
    pub fn with_terms(mut self, terms: Arc<TermModel>) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.fixed_hash);
        hasher.update(terms.content_hash());
        self.fixed_hash = hasher.finalize().into();
        self.terms = Some(terms);
        self
    }

    /// What is asked.
    #[must_use]
    pub fn question(&self) -> Question {
        self.question
    }

    /// What happened so far; there are no precedents here.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            cache_hits: self.cache_hits.load(Ordering::Relaxed),
            cache_misses: self.cache_misses.load(Ordering::Relaxed),
            precedents_failed: 0,
            judge_failed: self.judge_failed.load(Ordering::Relaxed),
        }
    }

    /// Judges a text that `tool` gave, or the user, while the agent works on
    /// `user_task`.
    #[must_use]
    pub fn judge_text(&self, text: &str, user_task: Option<&str>, tool: Option<&str>) -> Verdict {
        let key = self.key(&[text, user_task.unwrap_or(""), tool.unwrap_or("")]);
        self.remembered(key, || {
            let (mut texts, incomplete) = renderings(text, user_task, tool);
            texts.extend(self.extracts(text, user_task, tool));
            Asked {
                texts,
                columns: text_columns(text),
                incomplete,
            }
        })
    }

    /// The parts of `text` that are judged besides it, as they are asked about.
    fn extracts(&self, text: &str, user_task: Option<&str>, tool: Option<&str>) -> Vec<String> {
        let parts = extracts(text).into_iter();
        let mut parts: Vec<(f64, String)> = parts
            .map(|part| {
                let asked = render_text(&part, user_task, tool);
                let terms = self
                    .terms
                    .as_ref()
                    .map_or(0.0, |terms| terms.log_odds(&asked));
                (terms, asked)
            })
            .collect();
        parts.sort_by(|a, b| b.0.total_cmp(&a.0));
        parts.truncate(MAX_EXTRACTS);
        parts.into_iter().map(|(_, asked)| asked).collect()
    }

    /// Judges a tool call in the light of the task and of what tools gave before.
    #[must_use]
    pub fn judge_call(&self, call: &CallText) -> Verdict {
        self.remembered(self.call_key(call), || {
            let (columns, incomplete) = call_columns_or_cut(call);
            Asked {
                texts: vec![render_call(call)],
                columns,
                incomplete,
            }
        })
    }

    /// Everything that decides about a call, to the letter.
    fn call_key(&self, call: &CallText) -> CacheKey {
        let mut parts = vec![&*call.user_task, &*call.tool, &*call.args_json];
        for past in &call.history {
            parts.extend([&*past.tool, &*past.args_json, &*past.output]);
        }
        self.key(&parts)
    }

    fn key(&self, parts: &[&str]) -> CacheKey {
        let mut hasher = Sha256::new();
        hasher.update(self.fixed_hash);
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    /// The remembered verdict, or the one of what `ask` reads.
    fn remembered(&self, key: CacheKey, ask: impl FnOnce() -> Asked) -> Verdict {
        let start = Instant::now();
        let mut stages = StageTimes::default();
        // The cache is whole after any panic: each change is one insertion.
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().find(&key);
        if let Some(mut verdict) = known {
            self.cache_hits.fetch_add(1, Ordering::Relaxed);
            stages.add(Stage::Screen, start.elapsed());
            verdict.stages = stages;
            return verdict;
        }
        self.cache_misses.fetch_add(1, Ordering::Relaxed);
        let mut asked = ask();
        if let Some(terms) = &self.terms {
            let all = asked.texts.iter().map(|text| terms.log_odds(text));
            let highest = all.fold(f64::NEG_INFINITY, f64::max);
            asked.columns.push(terms_column(highest));
        }
        stages.add(Stage::Screen, start.elapsed());
        let start = Instant::now();
        let answer = self.strongest(&asked.texts);
        if self.judge.is_some() {
            stages.add(Stage::Judge, start.elapsed());
        }
        let (strongest, failure) = match answer {
            Ok(strongest) => (strongest, None),
            Err(error) => {
                self.judge_failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "the judge has no answer");
                let failed = UndeterminedReason::StageFailed {
                    stage: Stage::Judge,
                    error: error.to_string(),
                };
                (Strongest::default(), Some(failed))
            }
        };
        let has_failed = failure.is_some();
        let mut verdict = self.weigh(&asked, strongest, failure);
        if !has_failed {
            lock().insert(key, verdict.clone());
        }
        verdict.stages = stages;
        verdict
    }

    /// The verdict, without stage times.
    fn weigh(
        &self,
        asked: &Asked,
        strongest: Strongest,
        failure: Option<UndeterminedReason>,
    ) -> Verdict {
        let Strongest { head, labels } = strongest;
        let weights = self.calibration.weights_for(head, labels);
        let (log_odds, shares) = self.calibration.weigh(head, labels, &asked.columns);
        let score = Score::from_log_odds(log_odds);
        let thresholds = (weights.benign_threshold, weights.malicious_threshold);
        let (label, undetermined) =
            label_of(score.probability(), thresholds, failure, asked.incomplete);
        Verdict {
            label,
            score,
            technique: None,
            settled_by: match labels {
                Some(_) => SettledBy::Model,
                None => SettledBy::Fallback,
            },
            undetermined,
            evidence: self.evidence(&shares),
            stages: StageTimes::default(),
        }
    }

    /// The highest log-odds of the head and of the labels among `texts`.
    fn strongest(&self, texts: &[String]) -> Result<Strongest, JudgeError> {
        let Some(judge) = &self.judge else {
            return Ok(Strongest::default());
        };
        let mut strongest = Strongest::default();
        let higher = |a: Option<f64>, b| Some(a.map_or(b, |a| f64::max(a, b)));
        for answer in judge.judge_all(texts) {
            let answer = answer?;
            strongest.labels = higher(strongest.labels, answer.log_odds);
            if let Some(head) = answer.head {
                strongest.head = higher(strongest.head, head);
            }
        }
        Ok(strongest)
    }

    fn evidence(&self, shares: &[(&'static str, f64)]) -> Vec<Evidence> {
        let judge = self.judge.as_ref().map(|judge| judge.identity());
        let mut evidence: Vec<Evidence> = shares
            .iter()
            .filter(|(_, share)| *share != 0.0)
            .map(|(name, log_odds)| {
                let (kind, source_id) = match (*name, &judge) {
                    ("head" | "judge", Some(judge)) => (SourceKind::Model, judge.clone()),
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

impl std::fmt::Debug for TextClassifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextClassifier")
            .field("question", &self.question)
            .field("judge", &self.judge.as_ref().map(|judge| judge.identity()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
