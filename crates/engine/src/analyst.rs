//! Everything that judges and decides, loaded once and shared by all callers.

use std::{path::PathBuf, sync::Arc};

use inwarden_classifier::{
    Calibration, CaseLimits, CaseReader, CaseWeights, Cases, Classifier, ClassifierConfig, HeadUse,
    Judge, LearnedSet, LearnedWeights, Parts, Question, QwenJudge, RuleSet, TextCalibration,
};
use inwarden_inference::{
    Fingerprint, InferenceError, LanguageModel, LoadOptions, ModelDevice, Scheduler,
    SchedulerConfig,
};
use inwarden_memory::ServerOptions as MemoryServer;
use inwarden_models::{ModelCache, Sha256};
use inwarden_policy::{CallQuery, Policy, PolicySource, ResponseQuery, Target, TextQuery};
use inwarden_types::{Action, Case, Decision, Event, EventData, Mode, Scope, Verdict};

use crate::{
    EngineError, Feedback, FeedbackError,
    judge_prefix::{PrefixCounts, start_judge},
    learn::{LearnedSets, LearnedUse},
    store,
    texts::{JudgeParts, TextJudges},
};

/// The language model used where none is named.
pub const DEFAULT_MODEL: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m";

/// Where precedents are kept.
#[derive(Clone, Debug)]
pub enum MemoryPlace {
    /// In this directory, which one process at a time may open.
    Directory(PathBuf),
    /// The shipped precedents alone, read-only, and any number of processes at
    /// a time. They are embedded once, into a store in this directory; each
    /// process then reads a copy of it.
    Shipped(PathBuf),
    /// In a store of this process alone, gone when it ends. Embeds the shipped
    /// precedents anew at each load.
    Ephemeral,
    /// Nowhere: the stage is left out.
    Off,
}

/// Whether detection rules are used.
#[derive(Clone, Debug)]
pub enum RuleChoice {
    /// The rules that come with this crate.
    Shipped,
    /// None: the stage is left out.
    Off,
}

/// Whether the judge answers with a trained head beside its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadChoice {
    /// With the learnt one ([`AnalystConfig::learned`]) or the one that comes with
    /// this crate for the model, if there is one.
    Shipped,
    /// With labels alone.
    Off,
}

/// What an [`Analyst`] is made of.
#[derive(Clone, Debug)]
pub struct AnalystConfig {
    /// Where model files are.
    pub models: Arc<ModelCache>,
    /// Id of the language model; `None` leaves the stage out.
    pub model: Option<String>,
    /// Where precedents are kept.
    pub memory: MemoryPlace,
    /// A Qdrant server that indexes the precedents of [`MemoryPlace::Directory`], for
    /// the process that owns the directory. None: the embedded index alone.
    pub memory_server: Option<MemoryServer>,
    /// Whether detection rules are used.
    pub rules: RuleChoice,
    /// Whether the judge answers with a head.
    pub head: HeadChoice,
    /// Directory of what was learnt for `model`, by [`crate::learn`]. For each
    /// question with a set there that fits, its head, words and weights are used in
    /// place of the shipped ones. One that was learnt with another model, prompt,
    /// arithmetic or features, is damaged, or that others may write, is not, and a
    /// warning and [`Analyst::learned`] say why.
    pub learned: Option<PathBuf>,
    /// Weights and thresholds in place of the shipped and learnt ones.
    pub calibration: Option<Calibration>,
    /// The same for texts and tool calls, each in place of the shipped ones of its
    /// question. Where there are neither, these are judged as programs are.
    pub text_calibrations: Vec<TextCalibration>,
    /// Cedar policies; empty means the shipped set.
    pub policies: Vec<PolicySource>,
    /// How the language model is loaded. Without a fingerprint, it is given the
    /// one of the files that were found.
    pub load: LoadOptions,
    /// Where the language model runs. On a card, of `load` only the context
    /// applies, the prefix is computed at each start, and the judge answers with
    /// labels alone: heads are trained on the processor's numbers.
    pub device: ModelDevice,
    /// Where the model's state after the fixed part of the prompt is kept, so
    /// that the next start does not compute it again: a file a model
    /// and question, about 12 kB a token with the default one. The directory is created for its owner
    /// alone; one that others may write is not used. What cannot be read or
    /// written there is counted, and computed. `None`: it is computed at each
    /// start.
    pub prefix_dir: Option<PathBuf>,
    /// How cases that are judged at the same time share the model.
    pub scheduler: SchedulerConfig,
}

impl AnalystConfig {
    /// All stages, the default model, the shipped precedents, rules and
    /// policies. Precedents and the prompt's prefix are kept beside the model
    /// files.
    #[must_use]
    pub fn new(models: impl Into<Arc<ModelCache>>) -> Self {
        let models = models.into();
        Self {
            memory: MemoryPlace::Shipped(models.dir().join("precedents")),
            memory_server: None,
            prefix_dir: Some(models.dir().join("prefixes")),
            models,
            model: Some(DEFAULT_MODEL.to_owned()),
            rules: RuleChoice::Shipped,
            head: HeadChoice::Shipped,
            learned: None,
            calibration: None,
            text_calibrations: Vec::new(),
            policies: Vec::new(),
            load: LoadOptions::default(),
            device: ModelDevice::Processor,
            scheduler: SchedulerConfig::default(),
        }
    }
}

/// Judges cases and decides about them: classifier and policy together.
///
/// It owns no clock and, beside the model's, no thread; [`crate::Warden`] and
/// [`crate::Guard`] do. Sharing one between several of them shares the model's
/// memory and its time, evenly.
pub struct Analyst {
    classifier: Classifier,
    texts: TextJudges,
    /// Of the model, if there is one.
    scheduler: Option<Arc<Scheduler>>,
    prefix: Arc<PrefixCounts>,
    /// Of the judge, if there is one.
    head: Option<HeadUse>,
    learned: Vec<(Question, LearnedUse)>,
    /// Of the store, if it is one of the user's own.
    feedback: Option<Feedback>,
    policy: Policy,
    case_weights: Arc<CaseWeights>,
    case_reader: CaseReader,
    identity: Vec<(&'static str, String)>,
}

impl std::fmt::Debug for Analyst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Analyst")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Analyst {
    /// Loads everything `config` names.
    ///
    /// Takes seconds: the model is read, and the first time its prompt's prefix
    /// computed. What judges texts and tool calls is made later, when it is first
    /// asked or by [`Analyst::prepare_texts`].
    ///
    /// # Errors
    /// Whatever is absent or damaged, by the room that noticed.
    pub fn load(config: &AnalystConfig) -> Result<Self, EngineError> {
        let policy = if config.policies.is_empty() {
            Policy::builtin()?
        } else {
            Policy::load(&config.policies)?
        };
        let rules = match config.rules {
            RuleChoice::Shipped => Some(Arc::new(RuleSet::shipped()?)),
            RuleChoice::Off => None,
        };
        let server = config.memory_server.as_ref();
        let memory = store::open_with_server(&config.memory, server, &config.models)?;
        let memory = memory.map(Arc::new);
        let feedback = match (&config.memory, &memory) {
            (MemoryPlace::Directory(dir), Some(memory)) => {
                Some(Feedback::beside(Arc::clone(memory), dir))
            }
            _ => None,
        };
        let mut scheduler = None;
        let mut judge: Option<Arc<dyn Judge>> = None;
        let prefix = Arc::new(PrefixCounts::default());
        let mut head = None;
        let mut learned = LearnedSets::default();
        let mut learned_exec = None;
        if let Some(id) = &config.model {
            let (model, fingerprint) = load_model(config, id)?;
            if let Some(dir) = &config.learned {
                learned = LearnedSets::load(dir, id, fingerprint, model.model());
                learned_exec = learned.take(Question::Exec);
            }
            let dir = config.prefix_dir.as_deref();
            let started = start_judge(&model, id, Question::Exec, dir, &prefix)?;
            let (started, head_use) =
                with_head(started, Question::Exec, config.head, learned_exec.as_ref());
            if let HeadUse::Refused(error) = &head_use {
                tracing::warn!(%error, "the judge answers without its head");
            }
            head = Some(head_use);
            judge = Some(Arc::new(started));
            scheduler = Some(model);
        }
        let text_parts = config.model.as_ref().zip(scheduler.as_ref());
        let text_parts = text_parts.map(|(id, scheduler)| JudgeParts {
            scheduler: Arc::clone(scheduler),
            model_id: id.clone(),
            prefix_dir: config.prefix_dir.clone(),
            head: config.head,
            counts: Arc::clone(&prefix),
        });
        let texts = TextJudges::new(text_parts, &config.text_calibrations, &mut learned)?;
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
        let case_weights = Arc::new(CaseWeights::shipped()?);
        let identity = vec![
            (
                "judge",
                or_none(judge.as_ref().map(|judge| judge.identity())),
            ),
            (
                "memory",
                or_none(memory.as_ref().map(|memory| memory.content_hash())),
            ),
            (
                "rules",
                or_none(rules.as_ref().map(|rules| rules.len().to_string())),
            ),
            ("texts", texts.identity()?),
            ("learned", learned.identity()),
            ("cases", case_weights.short_hash().to_owned()),
            ("policy", policy.content_hash().to_owned()),
        ];
        let parts = Parts {
            judge,
            memory,
            rules,
        };
        let mut classifier = ClassifierConfig::shipped()?;
        if let Some(LearnedSet { terms, weights, .. }) = learned_exec {
            classifier.terms = Some(Arc::new(terms));
            if let LearnedWeights::Exec(calibration) = weights {
                classifier.calibration = *calibration;
            }
        }
        if let Some(calibration) = &config.calibration {
            classifier.calibration = calibration.clone();
        }
        Ok(Self {
            classifier: Classifier::new(classifier, parts)?,
            texts,
            scheduler,
            prefix,
            head,
            learned: learned.uses,
            feedback,
            policy,
            case_weights,
            case_reader: CaseReader::default(),
            identity,
        })
    }

    /// Makes what judges texts and tool calls, so that no question waits for it.
    ///
    /// The first time on a machine the prefixes of their prompts are computed, which
    /// takes seconds. A judge that cannot be made leaves what it is asked about
    /// undetermined.
    pub fn prepare_texts(&self) {
        self.texts.prepare();
    }

    /// Judges `case` to the end, however long it takes.
    ///
    /// A text is judged by what it says to an agent, a tool call by what the user
    /// asked for and by what tools gave before it. A call that runs a command is
    /// also judged as one, and the more severe verdict counts.
    ///
    /// The same case gets the same verdict in any order; only the stage times
    /// differ.
    ///
    /// Files, connections and lookups are judged by what they mean after the case's
    /// earlier events.
    #[must_use]
    pub fn classify(&self, case: &Case) -> Verdict {
        if let Some(own) = self.own_verdict(case) {
            return own;
        }
        let mut cases = self.new_cases();
        let (last, earlier) = (case.last(), case.events().len() - 1);
        for event in &case.events()[..earlier] {
            let _noted = cases.observe(event);
        }
        let seen = cases.observe(last);
        cases.conclude(&seen, None)
    }

    /// The verdict on the case's last event by itself, if it is of a kind that has one.
    pub(crate) fn own_verdict(&self, case: &Case) -> Option<Verdict> {
        let has_none = matches!(
            case.last().data,
            EventData::File(_) | EventData::Connect(_) | EventData::Dns(_)
        );
        (!has_none).then(|| self.texts.classify(case, &self.classifier))
    }

    /// What policy rules about `verdict` on `event`.
    #[must_use]
    pub fn decide(&self, event: &Event, verdict: &Verdict, mode: Mode, scope: &Scope) -> Decision {
        self.decide_response(&ResponseQuery {
            event,
            verdict,
            in_scope: scope.contains(event),
            mode,
            target: Target::Decided,
            protected: false,
            counters: inwarden_policy::Counters::default(),
        })
    }

    /// What policy rules about a call, a text, or an event that is responded to. A
    /// call or a text that passes may be alerted on.
    pub(crate) fn decide_response(&self, query: &ResponseQuery<'_>) -> Decision {
        let (verdict, mode) = (Some(query.verdict), query.mode);
        let mut passage = match &query.event.data {
            EventData::ToolCall(call) => self.policy.decide_call(&CallQuery {
                call,
                verdict,
                mode,
            }),
            EventData::Text(text) => self.policy.decide_text(&TextQuery {
                text,
                verdict,
                mode,
            }),
            _ => return self.policy.decide_response(query),
        };
        if passage.action == Action::Allow {
            let alert_only = ResponseQuery {
                in_scope: false,
                ..*query
            };
            let response = self.policy.decide_response(&alert_only);
            if response.action == Action::Alert {
                passage.action = Action::Alert;
                passage.enforced = Action::Alert;
                passage.policies.extend(response.policies);
                passage.policies.sort();
            }
        }
        passage
    }

    /// The cases of another watcher.
    pub(crate) fn new_cases(&self) -> Cases {
        let (weights, reader) = (Arc::clone(&self.case_weights), self.case_reader.clone());
        Cases::new(weights, reader, CaseLimits::default())
    }

    /// Where corrections of this analyst's verdicts go; they count from its next case
    /// on.
    ///
    /// # Errors
    /// [`FeedbackError::NoStore`] unless its memory is a directory
    /// ([`MemoryPlace::Directory`]).
    pub fn feedback(&self) -> Result<&Feedback, EngineError> {
        let feedback = self.feedback.as_ref();
        Ok(feedback.ok_or(FeedbackError::NoStore)?)
    }

    pub(crate) fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    pub(crate) fn scheduler(&self) -> Option<&Arc<Scheduler>> {
        self.scheduler.as_ref()
    }

    pub(crate) fn prefix_counts(&self) -> &Arc<PrefixCounts> {
        &self.prefix
    }

    /// Whether the judge answers with a trained head; `None` without a judge.
    #[must_use]
    pub fn head(&self) -> Option<&HeadUse> {
        self.head.as_ref()
    }

    /// What became of each learnt set in [`AnalystConfig::learned`]; questions without
    /// one are not in it.
    #[must_use]
    pub fn learned(&self) -> &[(Question, LearnedUse)] {
        &self.learned
    }

    /// What was loaded, for the audit log: names and content hashes.
    #[must_use]
    pub fn identity(&self) -> &[(&'static str, String)] {
        &self.identity
    }
}

/// The judge with the head of `learned`, or else the shipped one.
pub(crate) fn with_head(
    judge: QwenJudge,
    question: Question,
    choice: HeadChoice,
    learned: Option<&LearnedSet>,
) -> (QwenJudge, HeadUse) {
    match (choice, learned) {
        (HeadChoice::Off, _) => (judge, HeadUse::Absent),
        (HeadChoice::Shipped, Some(learned)) => judge.with_fitting_head(learned.head.clone()),
        (HeadChoice::Shipped, None) => judge.with_shipped_head(question),
    }
}

fn load_model(
    config: &AnalystConfig,
    id: &str,
) -> Result<(Arc<Scheduler>, Fingerprint), EngineError> {
    config.device.check().map_err(EngineError::Gpu)?;
    let files = config.models.locate(id)?;
    let mut options = config.load.clone();
    let fingerprint = fingerprint_of(&files.sha256);
    options.fingerprint = options.fingerprint.or(Some(fingerprint));
    let model = LanguageModel::load(&files.files, config.device, &options);
    let model = model.map_err(|error| match error {
        InferenceError::Gpu(error) => EngineError::Gpu(error),
        error => error.into(),
    })?;
    let scheduler = Scheduler::start(model, config.scheduler.clone())?;
    Ok((Arc::new(scheduler), fingerprint))
}

/// The file's hash; of several files, the hash of their hashes.
pub(crate) fn fingerprint_of(files: &[Sha256]) -> Fingerprint {
    if let [file] = files {
        return Fingerprint(*file.as_bytes());
    }
    let hashes: Vec<u8> = files.iter().flat_map(Sha256::as_bytes).copied().collect();
    Fingerprint(*Sha256::of(&hashes).as_bytes())
}
