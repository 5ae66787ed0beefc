//! Many callers, one model: collects requests into passes.
//!
//! [`Scheduler::start`] gives a model an owner thread. Callers hand in requests
//! through a [`Handle`], blocking or as a future, and what waits at the same
//! time is computed in one pass. A request's answer is bitwise what it would be
//! alone; company costs it time only. `queue.rs` says who is next, `owner.rs`
//! has the thread, `slot.rs` is where an answer is waited for; `decode.rs` writes
//! text a step at a time, so that verdicts come between two steps. The model may
//! run on the processor or on a device.
//!
//! What can go wrong is typed and counted: a full queue, a passed deadline, a
//! stopped scheduler, a pass that panicked, and a process that forked after the
//! start, in whose child there is no owner thread.

mod config;
mod counters;
mod decode;
mod owner;
mod queue;
mod slot;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use self::{
    decode::Step,
    owner::{Backend, Core, Owner, Pending},
};
use crate::{
    error::InferenceError,
    language_model::{LanguageModel, ModelLabels, ModelPrefix},
    qwen2::{HiddenRequest, LabelScores},
    tokenizer::TokenId,
};

pub use self::{config::SchedulerConfig, counters::SchedulerCounters, queue::CallerId};

/// A text to score labels for; owns what it asks for, as it outlives the asking.
#[derive(Clone, Debug)]
pub struct ScoreRequest {
    /// What stands before the text; cheap to clone.
    pub prefix: ModelPrefix,
    /// The text, and what follows it up to the label; at least one token.
    pub suffix: Vec<TokenId>,
    /// What may come next. Requests that share them share work.
    pub labels: ModelLabels,
    /// Hidden states to return as well.
    pub hidden: Option<Arc<HiddenRequest>>,
}

/// What the owner's thread is asked.
pub(crate) enum Request {
    Score(ScoreRequest),
    Step(Step),
}

/// What it answers.
pub(crate) enum Answer {
    Scores(LabelScores),
    /// The step was made.
    Step,
}

/// Computes label scores, and decodes, for many callers on one thread of its own.
///
/// Dropping it, or [`Scheduler::stop`], ends the thread after the pass that
/// runs; handles then answer [`InferenceError::SchedulerStopped`].
///
/// ```no_run
/// use std::time::{Duration, Instant};
/// use inwarden_inference::{
///     CallerId, LanguageModel, LoadOptions, ModelDevice, Normalization, Scheduler,
///     SchedulerConfig, ScoreRequest,
/// };
///
/// # fn main() -> Result<(), inwarden_inference::InferenceError> {
/// let files = ["model.gguf".into()];
/// let device = ModelDevice::Processor;
/// let model = LanguageModel::load(&files, device, &LoadOptions::default())?;
/// let scheduler = Scheduler::start(model.clone(), SchedulerConfig::default())?;
/// let tokenizer = model.tokenizer();
/// let labels = [tokenizer.encode_text("yes")?, tokenizer.encode_text("no")?];
/// let request = ScoreRequest {
///     prefix: model.prefix(&tokenizer.encode_prompt("<|im_start|>user\n")?)?,
///     suffix: tokenizer.encode_text("Is ice cold? ")?,
///     labels: model.prepare_labels(&labels, Normalization::WholeVocabulary)?,
///     hidden: None,
/// };
/// let handle = scheduler.handle(CallerId::unique());
/// let deadline = Instant::now() + Duration::from_secs(2);
/// let scores = handle.score(request, Some(deadline))?;
/// assert_eq!(scores.log_probabilities.len(), 2);
/// # Ok(())
/// # }
/// ```
pub struct Scheduler {
    owner: Owner<LanguageModel>,
    model: LanguageModel,
}

impl Scheduler {
    /// Starts the owner thread of `model`. Calls on the model itself stay
    /// possible; they and the passes take turns.
    ///
    /// # Errors
    /// [`InferenceError::InvalidOption`], [`InferenceError::Threads`].
    pub fn start(
        model: impl Into<LanguageModel>,
        config: SchedulerConfig,
    ) -> Result<Self, InferenceError> {
        let model = model.into();
        let owner = Owner::start(model.clone(), config)?;
        Ok(Self { owner, model })
    }

    /// A door for `caller`. Callers share the model's time evenly, however much
    /// each of them asks.
    #[must_use]
    pub fn handle(&self, caller: CallerId) -> Handle {
        Handle {
            core: Arc::clone(self.owner.core()),
            caller,
        }
    }

    /// The model that computes.
    #[must_use]
    pub fn model(&self) -> &LanguageModel {
        &self.model
    }

    /// What happened so far. Takes no lock.
    #[must_use]
    pub fn counters(&self) -> SchedulerCounters {
        self.owner.core().counters.snapshot()
    }

    /// Takes no further requests, computes those that wait for at most `drain`,
    /// answers the rest with [`InferenceError::SchedulerStopped`] and ends the
    /// thread. Returns when that has happened: `drain` and one pass later at
    /// most. Does nothing in a forked child.
    pub fn stop(&self, drain: Duration) {
        self.owner.stop(drain);
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler")
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

/// One caller's way to a [`Scheduler`]; cheap to clone, the clone is the same
/// caller.
#[derive(Clone)]
pub struct Handle {
    core: Arc<Core<LanguageModel>>,
    caller: CallerId,
}

impl Handle {
    /// Scores and waits for it, at most until `deadline`.
    ///
    /// # Errors
    /// [`InferenceError::DeadlinePassed`]: if it had not begun, it is not
    /// computed. Otherwise as [`Handle::submit`] and [`PendingScores::wait`].
    pub fn score(
        &self,
        request: ScoreRequest,
        deadline: Option<Instant>,
    ) -> Result<LabelScores, InferenceError> {
        let request = Request::Score(request);
        let pending = self.core.submit(self.caller, request, deadline)?;
        pending.wait(deadline)?.scores()
    }

    /// Hands a request in without waiting. What has not begun at `deadline` is
    /// not computed; what has begun is, and is answered late.
    ///
    /// # Errors
    /// At once, [`InferenceError::QueueFull`],
    /// [`InferenceError::SchedulerStopped`] and
    /// [`InferenceError::ForkedProcess`].
    pub fn submit(
        &self,
        request: ScoreRequest,
        deadline: Option<Instant>,
    ) -> Result<PendingScores, InferenceError> {
        let request = Request::Score(request);
        let pending = self.core.submit(self.caller, request, deadline)?;
        Ok(PendingScores(pending))
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

/// Scores on their way: a future for any runtime, or to be waited for. Dropping
/// it cancels the request; one that has not begun is then not computed.
///
/// Nothing wakes a future at its deadline itself: it ends with
/// [`InferenceError::DeadlinePassed`] when the pass that runs meanwhile ends.
#[must_use = "dropping it cancels the request"]
pub struct PendingScores(Pending<LanguageModel>);

impl PendingScores {
    /// Blocks the calling thread until there is an outcome.
    ///
    /// # Errors
    /// [`InferenceError::DeadlinePassed`] if it was not begun in time,
    /// [`InferenceError::QueueFull`] if it had to give way to another caller,
    /// [`InferenceError::SchedulerStopped`], [`InferenceError::PassPanicked`],
    /// [`InferenceError::ForkedProcess`], and as [`LanguageModel::score`].
    pub fn wait(self) -> Result<LabelScores, InferenceError> {
        self.0.wait(None)?.scores()
    }
}

impl Future for PendingScores {
    type Output = Result<LabelScores, InferenceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.0).poll(context);
        answer.map(|answer| answer.and_then(Answer::scores))
    }
}

impl std::fmt::Debug for PendingScores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingScores").finish_non_exhaustive()
    }
}

impl Answer {
    fn scores(self) -> Result<LabelScores, InferenceError> {
        match self {
            Self::Scores(scores) => Ok(scores),
            // No request for scores is answered so.
            Self::Step => Err(InferenceError::PassPanicked),
        }
    }
}

impl Backend for LanguageModel {
    type Request = Request;
    type Answer = Answer;

    fn rows(&self, request: &Request) -> usize {
        match request {
            Request::Score(request) => request.suffix.len() + request.labels.n_rows(),
            Request::Step(step) => step.n_rows(),
        }
    }

    /// All texts in one pass, then each step in its own.
    fn run(&self, batch: &[Request]) -> Vec<Result<Answer, InferenceError>> {
        let requests = batch.iter().filter_map(|request| match request {
            Request::Score(request) => Some(request),
            Request::Step(_) => None,
        });
        let requests: Vec<&ScoreRequest> = requests.collect();
        let mut scores = self.score(&requests).into_iter();
        let answers = batch.iter().map(|request| match request {
            Request::Score(_) => {
                let scores = scores.next().unwrap_or(Err(InferenceError::PassPanicked));
                scores.map(Answer::Scores)
            }
            Request::Step(step) => step.run(self).map(|()| Answer::Step),
        });
        answers.collect()
    }
}

#[cfg(test)]
mod tests;
