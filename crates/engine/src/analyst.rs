//! Everything that judges and decides, loaded once and shared by all callers.

use std::{path::PathBuf, sync::Arc};

use inwarden_classifier::{Classifier, ClassifierConfig, Judge, Parts, Prompt, QwenJudge, RuleSet};
use inwarden_inference::{LoadOptions, Qwen2, Scheduler, SchedulerConfig};
use inwarden_models::ModelCache;
use inwarden_policy::{CallQuery, Policy, PolicySource, ResponseQuery, Target};
use inwarden_types::{Case, Decision, Event, EventData, Mode, Scope, Verdict};

use crate::{EngineError, store};

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

/// What an [`Analyst`] is made of.
#[derive(Clone, Debug)]
pub struct AnalystConfig {
    /// Where model files are.
    pub models: Arc<ModelCache>,
    /// Id of the language model; `None` leaves the stage out.
    pub model: Option<String>,
    /// Where precedents are kept.
    pub memory: MemoryPlace,
    /// Whether detection rules are used.
    pub rules: RuleChoice,
    /// Cedar policies; empty means the shipped set.
    pub policies: Vec<PolicySource>,
    /// How the language model is loaded.
    pub load: LoadOptions,
    /// How cases that are judged at the same time share the model.
    pub scheduler: SchedulerConfig,
}

impl AnalystConfig {
    /// All stages, the default model, the shipped precedents (kept beside the
    /// model files), rules and policies.
    #[must_use]
    pub fn new(models: impl Into<Arc<ModelCache>>) -> Self {
        let models = models.into();
        Self {
            memory: MemoryPlace::Shipped(models.dir().join("precedents")),
            models,
            model: Some(DEFAULT_MODEL.to_owned()),
            rules: RuleChoice::Shipped,
            policies: Vec::new(),
            load: LoadOptions::default(),
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
    /// Of the model, if there is one.
    scheduler: Option<Arc<Scheduler>>,
    policy: Policy,
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
    /// Takes seconds: the model is read and its prompt prefix computed.
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
        let memory = store::open(&config.memory, &config.models)?.map(Arc::new);
        let scheduler = load_model(config)?;
        let judge = scheduler.as_ref().map(load_judge).transpose()?;
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
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
            ("policy", policy.content_hash().to_owned()),
        ];
        let parts = Parts {
            judge,
            memory,
            rules,
        };
        Ok(Self {
            classifier: Classifier::new(ClassifierConfig::shipped()?, parts)?,
            scheduler: scheduler.map(|(scheduler, _)| scheduler),
            policy,
            identity,
        })
    }

    /// Judges `case` to the end, however long it takes.
    ///
    /// The same case gets the same verdict in any order; only the stage times
    /// differ.
    #[must_use]
    pub fn classify(&self, case: &Case) -> Verdict {
        self.classifier.classify(case)
    }

    /// What policy rules about `verdict` on `event`.
    #[must_use]
    pub fn decide(&self, event: &Event, verdict: &Verdict, mode: Mode, scope: &Scope) -> Decision {
        self.decide_target(event, verdict, mode, scope, Target::Decided)
    }

    pub(crate) fn decide_target(
        &self,
        event: &Event,
        verdict: &Verdict,
        mode: Mode,
        scope: &Scope,
        target: Target,
    ) -> Decision {
        if let EventData::ToolCall(call) = &event.data {
            return self.policy.decide_call(&CallQuery {
                call,
                verdict: Some(verdict),
                mode,
            });
        }
        self.policy.decide_response(&ResponseQuery {
            event,
            verdict,
            in_scope: scope.contains(event),
            mode,
            target,
            protected: false,
            counters: inwarden_policy::Counters::default(),
        })
    }

    pub(crate) fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    pub(crate) fn scheduler(&self) -> Option<&Arc<Scheduler>> {
        self.scheduler.as_ref()
    }

    /// What was loaded, for the audit log: names and content hashes.
    #[must_use]
    pub fn identity(&self) -> &[(&'static str, String)] {
        &self.identity
    }
}

/// The model with its scheduler, and its id.
fn load_model(config: &AnalystConfig) -> Result<Option<(Arc<Scheduler>, &str)>, EngineError> {
    let Some(id) = &config.model else {
        return Ok(None);
    };
    let files = config.models.locate(id)?;
    let model = Arc::new(Qwen2::load(&files.files, &config.load)?);
    let scheduler = Scheduler::start(model, config.scheduler.clone())?;
    Ok(Some((Arc::new(scheduler), id)))
}

fn load_judge((scheduler, id): &(Arc<Scheduler>, &str)) -> Result<Arc<dyn Judge>, EngineError> {
    let judge = QwenJudge::new(Arc::clone(scheduler), id, &Prompt::shipped())?;
    Ok(Arc::new(judge))
}
