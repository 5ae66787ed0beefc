//! The one thread that owns a model's passes, and what callers share with it.
//!
//! Lock order: the queue's lock before a slot's. Foreign code (the backend, a
//! future's waker) runs where neither is held, and isolated: its panic ends
//! neither this thread nor another caller's request.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    CallerId, SchedulerConfig,
    counters::{Counter, Counters},
    queue::{FairQueue, Next, Pushed, Waiting},
    slot::{self, Settled, Slot},
};
use crate::error::InferenceError;

/// What computes passes; a model, or in tests a script.
pub(crate) trait Backend: Send + Sync + 'static {
    type Request: Send + 'static;
    type Answer: Send + 'static;

    /// Tokens that a pass computes for `request`.
    fn rows(&self, request: &Self::Request) -> usize;

    /// One pass: an outcome for each request, in their order.
    fn run(&self, batch: &[Self::Request]) -> Vec<Result<Self::Answer, InferenceError>>;
}

/// Starts the thread, and ends it when dropped.
pub(super) struct Owner<B: Backend> {
    core: Arc<Core<B>>,
    /// `None` once joined.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<B: Backend> Owner<B> {
    pub(super) fn start(backend: B, config: SchedulerConfig) -> Result<Self, InferenceError> {
        Self::start_in(std::process::id(), backend, config)
    }

    /// As [`Self::start`], `process` being the process that it is started in.
    pub(super) fn start_in(
        process: u32,
        backend: B,
        config: SchedulerConfig,
    ) -> Result<Self, InferenceError> {
        config.check()?;
        let core = Arc::new(Core {
            backend,
            state: Mutex::new(State {
                queue: FairQueue::new(config),
                phase: Phase::Open,
            }),
            changed: Condvar::new(),
            counters: Counters::default(),
            process,
        });
        let shared = Arc::clone(&core);
        let thread = std::thread::Builder::new()
            .name("inference-sched".to_owned())
            .spawn(move || run(&shared))
            .map_err(|error| InferenceError::Threads {
                threads: 1,
                detail: error.to_string(),
            })?;
        Ok(Self {
            core,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) fn core(&self) -> &Arc<Core<B>> {
        &self.core
    }

    /// Takes no further requests, computes those that wait for at most `drain`,
    /// fails the rest and joins the thread. The pass that runs is not broken off.
    pub(super) fn stop(&self, drain: Duration) {
        if self.core.check_process().is_err() {
            return;
        }
        let now = Instant::now();
        let until = now.checked_add(drain).unwrap_or(now);
        let mut state = self.core.lock();
        state.phase = match state.phase {
            Phase::Open => Phase::Draining { until },
            Phase::Draining { until: before } => Phase::Draining {
                until: until.min(before),
            },
            Phase::Ended => Phase::Ended,
        };
        drop(state);
        self.core.changed.notify_all();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        // A waker may drop the last scheduler on that thread itself.
        let is_self = |thread: &JoinHandle<()>| thread.thread().id() == std::thread::current().id();
        if let Some(thread) = thread.take()
            && !is_self(&thread)
        {
            // The thread catches every panic; there is no result to look at.
            let _ended = thread.join();
        }
    }
}

impl<B: Backend> Drop for Owner<B> {
    fn drop(&mut self) {
        if self.core.check_process().is_ok() {
            return self.stop(Duration::ZERO);
        }
        // In a forked child there is no such thread: joining it would not return.
        let thread = self.thread.get_mut();
        std::mem::forget(thread.unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// What callers and the owner's thread share.
pub(super) struct Core<B: Backend> {
    backend: B,
    state: Mutex<State<B>>,
    /// A request came, or the phase changed.
    changed: Condvar,
    pub(super) counters: Counters,
    /// The process that has the thread.
    process: u32,
}

pub(super) struct State<B: Backend> {
    queue: FairQueue<Job<B>>,
    phase: Phase,
}

enum Phase {
    Open,
    /// What waits is computed until then, and failed afterwards.
    Draining {
        until: Instant,
    },
    Ended,
}

struct Job<B: Backend> {
    request: B::Request,
    slot: Arc<Slot<B::Answer>>,
}

impl<B: Backend> Core<B> {
    /// What computes passes.
    pub(super) fn backend(&self) -> &B {
        &self.backend
    }

    /// Puts a request into its caller's line.
    pub(super) fn submit(
        self: &Arc<Self>,
        caller: CallerId,
        request: B::Request,
        deadline: Option<Instant>,
    ) -> Result<Pending<B>, InferenceError> {
        self.check_process()?;
        self.counters.submitted.add_one();
        let slot = Arc::new(Slot::new());
        let waiting = Waiting {
            caller,
            rows: self.backend.rows(&request),
            arrived: Instant::now(),
            deadline,
            item: Job {
                request,
                slot: Arc::clone(&slot),
            },
        };
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Open) {
            self.counters.failed.add_one();
            return Err(InferenceError::SchedulerStopped);
        }
        let limit = state.queue.limit();
        match state.queue.push(waiting) {
            Pushed::Accepted => drop(state),
            Pushed::Refused(refused, own) => {
                drop(state);
                drop(refused);
                self.counters.rejected.add_one();
                return Err(InferenceError::QueueFull {
                    limit,
                    waiting: own,
                });
            }
            Pushed::Displaced(displaced) => {
                let waiting = state.queue.line_len(displaced.caller);
                drop(state);
                let full = InferenceError::QueueFull { limit, waiting };
                self.settle(&displaced.item.slot, Err(full), &self.counters.rejected);
            }
        }
        self.changed.notify_one();
        Ok(Pending {
            core: Arc::clone(self),
            slot,
            caller,
        })
    }

    /// That this is the process whose thread computes; a forked child has none.
    /// To be asked before any lock: another thread may have held it when the
    /// process forked.
    pub(super) fn check_process(&self) -> Result<(), InferenceError> {
        let process = std::process::id();
        if process == self.process {
            return Ok(());
        }
        Err(InferenceError::ForkedProcess {
            started: self.process,
            process,
        })
    }

    /// What the next pass computes; waits for it. Empty once stopped.
    fn next_batch(&self, free_since: Instant) -> Vec<Waiting<Job<B>>> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let expired = state.queue.take_expired(now);
            if !expired.is_empty() {
                drop(state);
                self.expire(&expired);
                state = self.lock();
                continue;
            }
            let next = match state.phase {
                Phase::Open => state.queue.next(now, free_since),
                Phase::Draining { until } if now < until => Next::Run,
                Phase::Draining { .. } | Phase::Ended => return Vec::new(),
            };
            state = match next {
                Next::Run => return state.queue.take_batch(),
                Next::WaitUntil(at) => {
                    self.changed
                        .wait_timeout(state, at.saturating_duration_since(now))
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                Next::Wait => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn run_batch(&self, batch: Vec<Waiting<Job<B>>>) {
        let rows: Vec<usize> = batch.iter().map(|waiting| waiting.rows).collect();
        let (requests, slots): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|waiting| (waiting.item.request, waiting.item.slot))
            .unzip();
        if let Some(outcomes) = self.run_pass(&requests, rows.iter().sum()) {
            for (slot, outcome) in slots.iter().zip(outcomes) {
                self.answer(slot, outcome);
            }
            return;
        }
        // One of them alone is to blame; the others are to get the answers that
        // they would have had without it.
        for (idx, slot) in slots.iter().enumerate() {
            let mut alone = None;
            if slots.len() > 1 {
                alone = self.run_pass(std::slice::from_ref(&requests[idx]), rows[idx]);
            }
            let outcome = alone.and_then(|mut outcomes| outcomes.pop());
            self.answer(slot, outcome.unwrap_or(Err(InferenceError::PassPanicked)));
        }
    }

    /// `None` if it panicked.
    fn run_pass(
        &self,
        requests: &[B::Request],
        rows: usize,
    ) -> Option<Vec<Result<B::Answer, InferenceError>>> {
        self.counters.batches.add_one();
        self.counters.rows.add(rows);
        let pass = AssertUnwindSafe(|| {
            let outcomes = self.backend.run(requests);
            assert_eq!(outcomes.len(), requests.len(), "one outcome a request");
            outcomes
        });
        let outcomes = catch_unwind(pass).ok();
        if outcomes.is_none() {
            self.counters.panics.add_one();
        }
        outcomes
    }

    fn answer(&self, slot: &Slot<B::Answer>, outcome: Result<B::Answer, InferenceError>) {
        let counter = match &outcome {
            Ok(_) => &self.counters.completed,
            Err(_) => &self.counters.failed,
        };
        self.settle(slot, outcome, counter);
    }

    fn expire(&self, expired: &[Waiting<Job<B>>]) {
        for waiting in expired {
            let passed = Err(InferenceError::DeadlinePassed);
            self.settle(&waiting.item.slot, passed, &self.counters.expired);
        }
    }

    /// Settles and counts, unless that has happened; no lock may be held.
    fn settle(
        &self,
        slot: &Slot<B::Answer>,
        outcome: Result<B::Answer, InferenceError>,
        counter: &Counter,
    ) {
        let Some(Settled(waker)) = slot.settle(outcome, counter) else {
            return;
        };
        if let Some(waker) = waker {
            // Foreign code; if it fails, its task fails, and no other.
            let _woken = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    /// Fails what waits and takes nothing more.
    fn end(&self) {
        let mut state = self.lock();
        state.phase = Phase::Ended;
        let left = state.queue.take_all();
        drop(state);
        for waiting in left {
            self.answer(&waiting.item.slot, Err(InferenceError::SchedulerStopped));
        }
    }

    /// Whole after any panic: no foreign code runs under this lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run<B: Backend>(core: &Core<B>) {
    /// However the thread ends, nobody is left waiting for it.
    struct EndWithThread<'a, B: Backend>(&'a Core<B>);
    impl<B: Backend> Drop for EndWithThread<'_, B> {
        fn drop(&mut self) {
            self.0.end();
        }
    }
    let _end = EndWithThread(core);
    let mut free_since = Instant::now();
    loop {
        let batch = core.next_batch(free_since);
        if batch.is_empty() {
            return;
        }
        core.run_batch(batch);
        free_since = Instant::now();
    }
}

/// A request on its way; dropping it cancels it.
pub(super) struct Pending<B: Backend> {
    core: Arc<Core<B>>,
    slot: Arc<Slot<B::Answer>>,
    caller: CallerId,
}

impl<B: Backend> Pending<B> {
    /// Waits for the outcome, at most until `until`; what is not there by then
    /// is cancelled and counts as expired.
    pub(super) fn wait(self, until: Option<Instant>) -> Result<B::Answer, InferenceError> {
        self.core.check_process()?;
        if let Some(outcome) = self.slot.wait(until) {
            return outcome;
        }
        // It may have been answered at this very moment.
        match self.withdraw(&self.core.counters.expired) {
            slot::State::Settled(outcome) => outcome,
            slot::State::Open(_) | slot::State::Closed => Err(InferenceError::DeadlinePassed),
        }
    }

    /// Wants no answer any more, and no work for one.
    fn withdraw(&self, counter: &Counter) -> slot::State<B::Answer> {
        let before = self.slot.close();
        if matches!(before, slot::State::Open(_)) {
            counter.add_one();
            let is_it = |job: &Job<B>| Arc::ptr_eq(&job.slot, &self.slot);
            let removed = self.core.lock().queue.remove(self.caller, is_it);
            drop(removed);
        }
        before
    }
}

impl<B: Backend> Future for Pending<B> {
    type Output = Result<B::Answer, InferenceError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Err(forked) = self.core.check_process() {
            return Poll::Ready(Err(forked));
        }
        self.slot
            .take_or_wake(context.waker())
            .map_or(Poll::Pending, Poll::Ready)
    }
}

impl<B: Backend> Drop for Pending<B> {
    fn drop(&mut self) {
        if self.core.check_process().is_ok() {
            drop(self.withdraw(&self.core.counters.cancelled));
        }
    }
}
