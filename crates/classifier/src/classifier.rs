//! The way of a case through the stages to a verdict.
//!
//! Cache, screen, indicators and precedents answer first ([`Classifier::prepare`]);
//! what they leave open waits for the judge ([`Classifier::judge`]) or, when
//! there is no time for it, gets what is known ([`Classifier::fallback`]). A
//! verdict depends on the case, rules, memory, judge and calibration only: not on
//! time, order or other cases.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use inwarden_memory::{Memory, PrecedentHit, PrecedentQuery};
use inwarden_types::{
    Case, EventData, Image, Label, RawScore, Score, SettledBy, Stage, StageTimes,
    UndeterminedReason, Verdict,
};
use sha2::{Digest as _, Sha256};

use crate::{
    Calibration, ClassifierError, Judge, RuleSet, Signals,
    assessment::Assessment,
    cache::{CacheKey, Keys, RecentCache},
    fusion::label_of,
    judge::Question,
    precedents::{self, SaidBefore},
    program::{is_known_program, read_image, read_program, surroundings_of},
    reading::{Features, Reader, shown_by},
    render::{render_behaviour, render_behaviour_or_cut},
    screen::{ScreenHit, is_cut},
    terms::TermModel,
    views::{as_run, views_of},
};

/// How a classifier works.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassifierConfig {
    /// Verdicts that are remembered; 0 remembers none. About 2 KB each.
    pub cache_entries: usize,
    /// Precedents that vote, `1..=64`.
    pub top_k_retrieval: usize,
    /// Weights and thresholds.
    pub calibration: Calibration,
    /// The model of the words of program starts; without one the others decide.
    pub terms: Option<Arc<TermModel>>,
}

impl ClassifierConfig {
    /// The shipped calibration and words, 12 precedents, 16,384 remembered verdicts.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`]; a test makes sure that there is none.
    pub fn shipped() -> Result<Self, ClassifierError> {
        Ok(Self {
            cache_entries: 16_384,
            top_k_retrieval: 12,
            calibration: Calibration::shipped()?,
            terms: TermModel::shipped(Question::Exec)?.map(Arc::new),
        })
    }
}

/// The stages a classifier has; without one, the others decide.
#[derive(Default)]
pub struct Parts {
    /// The language model.
    pub judge: Option<Arc<dyn Judge>>,
    /// The remembered cases.
    pub memory: Option<Arc<Memory>>,
    /// The rules.
    pub rules: Option<Arc<RuleSet>>,
}

/// What happened so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Cases answered from the cache.
    pub cache_hits: u64,
    /// Cases that went through the stages.
    pub cache_misses: u64,
    /// Cases whose precedents could not be retrieved.
    pub precedents_failed: u64,
    /// Cases the judge had no answer for.
    pub judge_failed: u64,
}

/// A case after the fast stages.
#[derive(Debug)]
pub enum Prepared {
    /// It needs no judge.
    Settled(Verdict),
    /// The judge is to decide, or [`Classifier::fallback`].
    NeedsJudge(Pending),
}

/// A case that waits for the judge.
#[derive(Debug)]
pub struct Pending {
    /// How urgent it is: the log-odds of malicious without the judge.
    pub priority: RawScore,
    /// What the judge reads: behaviours alone, as those that its head was trained
    /// on. What surrounds them would move the mean of its states.
    readings: Vec<Reading>,
    key: CacheKey,
    assessment: Box<Assessment>,
}

/// One way in which a case is read: the whole of it, or a view.
#[derive(Debug)]
struct Reading {
    text: String,
    /// Without the judge.
    signals: Signals,
}

/// Judges cases. Shared by threads; every method takes `&self`.
pub struct Classifier {
    config: ClassifierConfig,
    parts: Parts,
    keys: Keys,
    cache: Mutex<RecentCache<Verdict>>,
    reader: Reader,
    said: SaidBefore,
    counters: CounterCells,
}

#[derive(Default)]
struct CounterCells {
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    precedents_failed: AtomicU64,
    judge_failed: AtomicU64,
}

impl Classifier {
    /// A classifier of these parts.
    ///
    /// # Errors
    /// [`ClassifierError::Setting`] if a setting is out of range.
    pub fn new(config: ClassifierConfig, parts: Parts) -> Result<Self, ClassifierError> {
        if !(1..=64).contains(&config.top_k_retrieval) {
            #[expect(clippy::cast_precision_loss, reason = "for a message only")]
            let got = config.top_k_retrieval as f64;
            return Err(ClassifierError::Setting {
                key: "top_k_retrieval",
                got,
                allowed: "1..=64",
            });
        }
        let mut hasher = Sha256::new();
        hasher.update(config.calibration.content_hash()?);
        hasher.update(config.top_k_retrieval.to_le_bytes());
        let terms = config.terms.as_ref().map(|terms| terms.content_hash());
        hash_text(&mut hasher, terms.unwrap_or(""));
        let judge = parts.judge.as_ref().map(|judge| judge.identity());
        if let Some(identity) = &judge
            && *identity != config.calibration.judge
        {
            tracing::warn!(
                judge = identity,
                calibrated = config.calibration.judge,
                "scores are calibrated for another judge"
            );
        }
        hash_text(&mut hasher, judge.as_deref().unwrap_or(""));
        let embedder = parts.memory.as_ref().map(|m| m.embedder_identity());
        if let Some(identity) = &embedder
            && *identity != config.calibration.embedder
        {
            tracing::warn!(
                embedder = identity,
                calibrated = config.calibration.embedder,
                "scores are calibrated for another embedder"
            );
        }
        if let Some(rules) = &parts.rules {
            hasher.update(rules.content_hash());
        }
        Ok(Self {
            cache: Mutex::new(RecentCache::new(config.cache_entries)),
            reader: Reader::new(config.cache_entries.min(4_096)),
            keys: Keys::new(hasher.finalize().into(), config.cache_entries),
            config,
            parts,
            said: SaidBefore::default(),
            counters: CounterCells::default(),
        })
    }

    /// The fast stages: cache, rules, indicators, precedents.
    ///
    /// Without a judge every case is settled here.
    #[must_use]
    pub fn prepare(&self, case: &Case) -> Prepared {
        let start = Instant::now();
        let key = self.key_of(case);
        if let Some(mut verdict) = self.lock_cache().find(&key) {
            self.counters.cache_hits.fetch_add(1, Ordering::Relaxed);
            verdict.stages = StageTimes::default();
            verdict.stages.add(Stage::Screen, start.elapsed());
            return Prepared::Settled(verdict);
        }
        self.counters.cache_misses.fetch_add(1, Ordering::Relaxed);
        let query = PrecedentQuery::nearest(self.config.top_k_retrieval);
        let mut assessment = self.assess(case, &query, start);
        if let Some(verdict) = assessment.settle(self.config.calibration.settled_log_odds) {
            return Prepared::Settled(self.remember(key, &assessment, verdict));
        }
        let start = Instant::now();
        let readings = self.readings(case, &assessment.signals);
        assessment.signals = self.most_suspicious(readings.iter().map(|one| &one.signals));
        assessment.stages.add(Stage::Screen, start.elapsed());
        if self.parts.judge.is_none() {
            let verdict = self.fuse(&assessment, SettledBy::Fallback);
            return Prepared::Settled(self.remember(key, &assessment, verdict));
        }
        Prepared::NeedsJudge(Pending {
            priority: RawScore(self.config.calibration.weigh(&assessment.signals).0),
            readings,
            key,
            assessment: Box::new(assessment),
        })
    }

    /// The verdict on a text or tool call of which somebody said what it is: of one
    /// with the same words, as [`Classifier::prepare`] finds precedents of programs.
    /// None for anything else. What an agent did before it does not count.
    #[must_use]
    pub fn remembered(&self, case: &Case) -> Option<Verdict> {
        let start = Instant::now();
        let kind = match &case.last().data {
            EventData::ToolCall(_) | EventData::Text(_) => case.last().kind().name(),
            _ => return None,
        };
        let memory = self.parts.memory.as_deref()?;
        // Most stores hold none, and then no text is embedded.
        let query = self.said.query(memory, kind, self.config.top_k_retrieval)?;
        let assessment = self.assess(case, &query, start);
        let verdict = assessment.settle(self.config.calibration.settled_log_odds)?;
        matches!(verdict.settled_by, SettledBy::Precedent(_)).then_some(verdict)
    }

    /// What the fast stages find out about the whole.
    fn assess(&self, case: &Case, query: &PrecedentQuery, start: Instant) -> Assessment {
        let mut rule_hits = self.rule_hits(case);
        let read = read_program(&self.reader, case);
        let is_buried = read.as_ref().is_some_and(|read| read.reading.is_buried());
        if self.parts.rules.is_some() && is_buried {
            rule_hits.insert(0, ScreenHit::buried_text());
        }
        let features = read
            .as_ref()
            .map_or_else(Features::default, |read| read.features);
        let mut stages = StageTimes::default();
        stages.add(Stage::Screen, start.elapsed());

        let retrieval_start = Instant::now();
        let (behaviour, behaviour_cut) = render_behaviour_or_cut(case);
        let (precedent_hits, failure) = self.precedent_hits(&behaviour, query);
        if self.parts.memory.is_some() {
            stages.add(Stage::Precedents, retrieval_start.elapsed());
        }
        Assessment {
            signals: Signals {
                judge: None,
                head: None,
                terms: self.terms(&behaviour),
                vote: precedents::vote(&precedent_hits),
                rule_level: evidence_level(&rule_hits),
                indicators: shown_by(&features),
                features: features.values().to_vec(),
            },
            settling_precedent: precedents::settling(&behaviour, &precedent_hits)
                .map(|hit| hit.precedent.id.clone()),
            rule_hits,
            precedent_hits,
            failure,
            incomplete: read.is_some_and(|read| read.reading.incomplete)
                || behaviour_cut
                || is_cut(case.last()),
            known_program: match &case.last().data {
                // Its process is the agent, not what it asks to run.
                EventData::ToolCall(_) | EventData::Text(_) => true,
                _ => is_known_program(&case.last().process.image.exe),
            },
            stages,
            judge: None,
        }
    }

    /// The ways in which a case is read, the whole first; `whole` is what the fast
    /// stages say of it.
    fn readings(&self, case: &Case, whole: &Signals) -> Vec<Reading> {
        let event = case.last();
        let around = surroundings_of(case);
        let text_of = |image: &Image| {
            let mut event = event.clone();
            event.process.image = image.clone();
            render_behaviour(&Case::of(event))
        };
        let signals_of = |image: &Image, text: &str| {
            let features = read_image(&self.reader, image, &around).features;
            Signals {
                terms: self.terms(text),
                // Neighbours of the whole vouch for nothing of its parts.
                vote: whole.vote.max(0.0),
                features: features.values().to_vec(),
                ..whole.clone()
            }
        };
        let is_start = matches!(event.data, EventData::Exec);
        let stripped = is_start.then(|| as_run(&event.process.image)).flatten();
        let text = stripped.map_or_else(|| render_behaviour(case), |image| text_of(&image));
        let mut readings = vec![Reading {
            signals: Signals {
                terms: self.terms(&text),
                ..whole.clone()
            },
            text,
        }];
        let Some(read) = read_program(&self.reader, case) else {
            return readings;
        };
        let fast = |image: &Image| {
            let signals = signals_of(image, &text_of(image));
            self.config
                .calibration
                .weigh(&Signals {
                    vote: 0.0,
                    ..signals
                })
                .0
        };
        for view in views_of(event, &read.reading, &fast) {
            let text = text_of(&view.image);
            if readings.iter().all(|known| known.text != text) {
                let signals = signals_of(&view.image, &text);
                // No answer would make it malicious: none is asked for.
                if self.config.calibration.may_be_malicious(&signals) {
                    readings.push(Reading { text, signals });
                }
            }
        }
        readings
    }

    /// The signals of the highest score; there is always a whole.
    fn most_suspicious<'a>(&self, all: impl Iterator<Item = &'a Signals>) -> Signals {
        let log_odds = |signals: &Signals| self.config.calibration.weigh(signals).0;
        let highest = all.max_by(|a, b| log_odds(a).total_cmp(&log_odds(b)));
        highest.expect("the whole is a reading").clone()
    }

    /// Asks the judge and weighs everything. If the judge has no answer, the case
    /// is decided as in [`Classifier::fallback`].
    #[must_use]
    pub fn judge(&self, pending: Pending) -> Verdict {
        let Some(judge) = &self.parts.judge else {
            return self.fallback(pending, UndeterminedReason::Overloaded);
        };
        let Pending {
            readings,
            key,
            mut assessment,
            ..
        } = pending;
        let start = Instant::now();
        // The same behaviour may have been judged while this case waited.
        if let Some(mut verdict) = self.lock_cache().find(&key) {
            self.counters.cache_hits.fetch_add(1, Ordering::Relaxed);
            verdict.stages = assessment.stages;
            verdict.stages.add(Stage::Judge, start.elapsed());
            return verdict;
        }
        let (texts, signals): (Vec<_>, Vec<_>) = readings
            .into_iter()
            .map(|one| (one.text, one.signals))
            .unzip();
        let answers: Result<Vec<_>, _> = judge.judge_all(&texts).into_iter().collect();
        assessment.stages.add(Stage::Judge, start.elapsed());
        match answers {
            Ok(answers) => {
                let judged: Vec<Signals> = signals
                    .into_iter()
                    .zip(answers)
                    .map(|(signals, answer)| Signals {
                        judge: Some(answer.log_odds),
                        head: answer.head,
                        ..signals
                    })
                    .collect();
                assessment.signals = self.most_suspicious(judged.iter());
                assessment.judge = Some(judge.identity());
                let verdict = self.fuse(&assessment, SettledBy::Model);
                self.remember(key, &assessment, verdict)
            }
            Err(error) => {
                self.counters.judge_failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "the judge has no answer");
                let reason = UndeterminedReason::StageFailed {
                    stage: Stage::Judge,
                    error: error.to_string(),
                };
                self.without_judge(&assessment, reason)
            }
        }
    }

    /// The verdict without the judge, because of `reason`: malicious if the fast
    /// stages suffice for that, otherwise undetermined. Never benign, so that
    /// whoever fills the judge's queue gains nothing by it.
    #[must_use]
    pub fn fallback(&self, pending: Pending, reason: UndeterminedReason) -> Verdict {
        self.without_judge(&pending.assessment, reason)
    }

    /// All stages, one after the other.
    #[must_use]
    pub fn classify(&self, case: &Case) -> Verdict {
        match self.prepare(case) {
            Prepared::Settled(verdict) => verdict,
            Prepared::NeedsJudge(pending) => self.judge(pending),
        }
    }

    /// What all stages say, unweighed and uncached, for calibration: precedents
    /// that `leave_out` names do not vote.
    #[must_use]
    pub fn signals(&self, case: &Case, leave_out: &dyn Fn(&PrecedentHit) -> bool) -> Signals {
        let behaviour = render_behaviour(case);
        let query = PrecedentQuery::nearest(self.config.top_k_retrieval);
        let (mut hits, _) = self.precedent_hits(&behaviour, &query);
        hits.retain(|hit| !leave_out(hit));
        let judge = self.parts.judge.as_ref();
        let answer = judge.and_then(|judge| judge.judge(&behaviour).ok());
        let read = read_program(&self.reader, case);
        let features = read.map_or_else(Features::default, |read| read.features);
        Signals {
            judge: answer.map(|answer| answer.log_odds),
            head: answer.and_then(|answer| answer.head),
            terms: self.terms(&behaviour),
            vote: precedents::vote(&hits),
            rule_level: evidence_level(&self.rule_hits(case)),
            indicators: shown_by(&features),
            features: features.values().to_vec(),
        }
    }

    /// Whether scores are calibrated for the judge and the memory's embedder in
    /// use; what is absent does not count.
    #[must_use]
    pub fn is_calibrated(&self) -> bool {
        let calibration = &self.config.calibration;
        let judge = self.parts.judge.as_ref();
        let memory = self.parts.memory.as_ref();
        judge.is_none_or(|judge| judge.identity() == calibration.judge)
            && memory.is_none_or(|memory| memory.embedder_identity() == calibration.embedder)
    }

    /// Names the behaviour of `case` as the cache of verdicts does: cases of one name
    /// get one verdict.
    #[must_use]
    pub fn behaviour_of(&self, case: &Case) -> [u8; 32] {
        self.key_of(case)
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            cache_hits: self.counters.cache_hits.load(Ordering::Relaxed),
            cache_misses: self.counters.cache_misses.load(Ordering::Relaxed),
            precedents_failed: self.counters.precedents_failed.load(Ordering::Relaxed),
            judge_failed: self.counters.judge_failed.load(Ordering::Relaxed),
        }
    }

    fn without_judge(&self, assessment: &Assessment, reason: UndeterminedReason) -> Verdict {
        let mut verdict = self.fuse(assessment, SettledBy::Fallback);
        if verdict.label != Label::Malicious {
            verdict.label = Label::Undetermined;
            verdict.undetermined = Some(reason);
            verdict.technique = assessment.technique();
        }
        verdict
    }

    fn fuse(&self, assessment: &Assessment, settled_by: SettledBy) -> Verdict {
        let calibration = &self.config.calibration;
        let weights = calibration.weights_for(&assessment.signals);
        let (log_odds, shares) = calibration.weigh(&assessment.signals);
        let score = Score::from_log_odds(log_odds);
        let failure = assessment.failure.clone();
        let thresholds = (weights.benign_threshold, weights.malicious_threshold);
        let (label, undetermined) = label_of(
            score.probability(),
            thresholds,
            failure,
            assessment.incomplete,
        );
        Verdict {
            label,
            score,
            technique: match label {
                Label::Benign => None,
                _ => assessment.technique(),
            },
            settled_by,
            undetermined,
            evidence: assessment.evidence(&shares),
            stages: assessment.stages.clone(),
        }
    }

    /// Caches a verdict unless a stage failed on the way.
    fn remember(&self, key: CacheKey, assessment: &Assessment, verdict: Verdict) -> Verdict {
        if assessment.failure.is_none() {
            self.lock_cache().insert(key, verdict.clone());
        }
        verdict
    }

    fn terms(&self, behaviour: &str) -> Option<f64> {
        let terms = self.config.terms.as_ref();
        terms.map(|terms| terms.log_odds(behaviour))
    }

    fn rule_hits(&self, case: &Case) -> Vec<ScreenHit> {
        let rules = self.parts.rules.as_ref();
        rules.map_or_else(Vec::new, |rules| rules.screen(case))
    }

    fn precedent_hits(
        &self,
        behaviour: &str,
        query: &PrecedentQuery,
    ) -> (Vec<PrecedentHit>, Option<UndeterminedReason>) {
        let Some(memory) = &self.parts.memory else {
            return (Vec::new(), None);
        };
        match memory.precedents(behaviour, query) {
            Ok(hits) => (hits, None),
            Err(error) => {
                self.counters
                    .precedents_failed
                    .fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "precedents could not be retrieved");
                let reason = UndeterminedReason::StageFailed {
                    stage: Stage::Precedents,
                    error: error.to_string(),
                };
                (Vec::new(), Some(reason))
            }
        }
    }

    /// Hashes everything that any stage reads.
    fn key_of(&self, case: &Case) -> CacheKey {
        let memory = self.parts.memory.as_ref();
        let generation = memory.map(|memory| memory.generation());
        self.keys.of(case, generation)
    }

    fn lock_cache(&self) -> std::sync::MutexGuard<'_, RecentCache<Verdict>> {
        // The cache is whole after any panic: each change is one insertion.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Classifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Classifier")
            .field("judge", &self.parts.judge.as_ref().map(|j| j.identity()))
            .field("memory", &self.parts.memory.is_some())
            .field("rules", &self.parts.rules)
            .finish_non_exhaustive()
    }
}

/// The level of the strongest rule that is evidence: those that settle do not
/// reach the fusion, so they are not weighed.
fn evidence_level(hits: &[ScreenHit]) -> u8 {
    hits.iter()
        .filter(|hit| !hit.settles())
        .map(|hit| hit.level)
        .max()
        .unwrap_or(0)
}

fn hash_text(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text);
}
