//! Many callers, one model: collects requests into passes.
//!
//! [`Scheduler::start`] gives a model an owner thread. Callers hand in requests
//! through a [`Handle`], blocking or as a future, and what waits at the same
//! time is computed in one pass. A request's answer is bitwise what it would be
//! alone; company costs it time only. `queue.rs` says who is next, `owner.rs`
//! has the thread, `slot.rs` is where an answer is waited for.
//!
//! What can go wrong is typed and counted: a full queue, a passed deadline, a
//! stopped scheduler, a pass that panicked, and a process that forked after the
//! start, in whose child there is no owner thread.

mod config;
mod counters;
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

use self::owner::{Backend, Core, Owner, Pending};
use crate::{
    error::InferenceError,
    qwen2::{HiddenRequest, LabelRequest, LabelScores, Prefix, PreparedLabels, Qwen2},
    tokenizer::TokenId,
};

pub use self::{config::SchedulerConfig, counters::SchedulerCounters, queue::CallerId};

/// A [`LabelRequest`] that owns what it asks for: it outlives the asking.
#[derive(Clone, Debug)]
pub struct ScoreRequest {
    /// What stands before the text; cheap to clone.
    pub prefix: Prefix,
    /// The text, and what follows it up to the label; at least one token.
    pub suffix: Vec<TokenId>,
    /// What may come next. Requests that share them share work.
    pub labels: Arc<PreparedLabels>,
    /// Hidden states to return as well.
    pub hidden: Option<Arc<HiddenRequest>>,
}

impl ScoreRequest {
    fn borrowed(&self) -> LabelRequest<'_> {
        LabelRequest {
            prefix: &self.prefix,
            suffix: &self.suffix,
            labels: &self.labels,
            hidden: self.hidden.as_deref(),
        }
    }
}

/// Computes label scores for many callers on one thread of its own.
///
/// Dropping it, or [`Scheduler::stop`], ends the thread after the pass that
/// runs; handles then answer [`InferenceError::SchedulerStopped`].
///
/// ```no_run
/// use std::{sync::Arc, time::{Duration, Instant}};
/// use inwarden_inference::{
///     CallerId, LoadOptions, Normalization, Qwen2, Scheduler, SchedulerConfig, ScoreRequest,
/// };
///
/// # fn main() -> Result<(), inwarden_inference::InferenceError> {
/// let model = Arc::new(Qwen2::load(&["model.gguf".into()], &LoadOptions::default())?);
/// let scheduler = Scheduler::start(Arc::clone(&model), SchedulerConfig::default())?;
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
    owner: Owner<Arc<Qwen2>>,
    model: Arc<Qwen2>,
}

impl Scheduler {
    /// Starts the owner thread of `model`. Calls on the model itself stay
    /// possible; they and the passes take turns.
    ///
    /// # Errors
    /// [`InferenceError::InvalidOption`], [`InferenceError::Threads`].
    pub fn start(model: Arc<Qwen2>, config: SchedulerConfig) -> Result<Self, InferenceError> {
        let owner = Owner::start(Arc::clone(&model), config)?;
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
    pub fn model(&self) -> &Arc<Qwen2> {
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
    core: Arc<Core<Arc<Qwen2>>>,
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
        let pending = self.core.submit(self.caller, request, deadline)?;
        pending.wait(deadline)
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
pub struct PendingScores(Pending<Arc<Qwen2>>);

impl PendingScores {
    /// Blocks the calling thread until there is an outcome.
    ///
    /// # Errors
    /// [`InferenceError::DeadlinePassed`] if it was not begun in time,
    /// [`InferenceError::QueueFull`] if it had to give way to another caller,
    /// [`InferenceError::SchedulerStopped`], [`InferenceError::PassPanicked`],
    /// [`InferenceError::ForkedProcess`], and as [`Qwen2::score_labels_batch`].
    pub fn wait(self) -> Result<LabelScores, InferenceError> {
        self.0.wait(None)
    }
}

impl Future for PendingScores {
    type Output = Result<LabelScores, InferenceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl std::fmt::Debug for PendingScores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingScores").finish_non_exhaustive()
    }
}

impl Backend for Arc<Qwen2> {
    type Request = ScoreRequest;
    type Answer = LabelScores;

    fn rows(&self, request: &ScoreRequest) -> usize {
        request.borrowed().n_rows()
    }

    fn run(&self, batch: &[ScoreRequest]) -> Vec<Result<LabelScores, InferenceError>> {
        let requests: Vec<_> = batch.iter().map(ScoreRequest::borrowed).collect();
        let checks: Vec<_> = requests.iter().map(|one| self.check_request(one)).collect();
        let legal = requests.iter().zip(&checks);
        let legal: Vec<_> = legal
            .filter(|(_, check)| check.is_ok())
            .map(|(request, _)| *request)
            .collect();
        let mut scores = self.score_legal(&legal).into_iter();
        // As many as there are requests that passed their check.
        let mut next = || scores.next().unwrap_or(Err(InferenceError::PassPanicked));
        checks
            .into_iter()
            .map(|check| check.and_then(|()| next()))
            .collect()
    }
}

impl Qwen2 {
    /// Together, or where that fails each by itself, so that it fails alone.
    fn score_legal(
        &self,
        requests: &[LabelRequest<'_>],
    ) -> Vec<Result<LabelScores, InferenceError>> {
        let alone = |request| {
            let mut scores = self.score_labels_batch(std::slice::from_ref(request))?;
            scores.pop().ok_or(InferenceError::PassPanicked)
        };
        match self.score_labels_batch(requests) {
            Ok(scores) => scores.into_iter().map(Ok).collect(),
            Err(_) if requests.len() > 1 => requests.iter().map(alone).collect(),
            Err(error) => vec![Err(error)],
        }
    }
}

#[cfg(test)]
mod tests;
