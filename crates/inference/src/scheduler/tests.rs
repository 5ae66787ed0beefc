//! The owner's thread over a scripted model, whose passes begin and end when a
//! test says so.

use std::{
    collections::HashSet,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::{Duration, Instant},
};

use super::{
    CallerId, SchedulerConfig, SchedulerCounters,
    owner::{Backend, Owner, Pending},
};
use crate::error::InferenceError;

/// A test that fails ends after this instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the scripted model does with a request; the number is its name.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Answer(u32),
    Fail(u32),
    Panic(u32),
    /// Gives one outcome too many.
    Miscount(u32),
}

impl Ask {
    fn name(self) -> u32 {
        let (Self::Answer(name) | Self::Fail(name) | Self::Panic(name) | Self::Miscount(name)) =
            self;
        name
    }
}

struct Script {
    started: Sender<Vec<u32>>,
    go: Mutex<Receiver<()>>,
}

impl Backend for Script {
    type Request = Ask;
    type Answer = u32;

    fn rows(&self, _: &Ask) -> usize {
        10
    }

    fn run(&self, batch: &[Ask]) -> Vec<Result<u32, InferenceError>> {
        let names = batch.iter().map(|ask| ask.name()).collect();
        self.started.send(names).expect("the test listens");
        let go = self.go.lock().expect("only this thread takes it");
        go.recv_timeout(PATIENCE).expect("the test lets it go on");
        drop(go);
        let mut outcomes = Vec::new();
        for ask in batch {
            match ask {
                Ask::Answer(name) => outcomes.push(Ok(name * 100)),
                Ask::Fail(_) => outcomes.push(Err(InferenceError::Empty { what: "tokens" })),
                Ask::Panic(_) => panic!("as the script says"),
                Ask::Miscount(_) => outcomes.extend([Ok(0), Ok(0)]),
            }
        }
        outcomes
    }
}

/// A scheduler over a script, and the test's hold on both.
struct Play {
    owner: Arc<Owner<Script>>,
    started: Receiver<Vec<u32>>,
    go: Sender<()>,
}

impl Play {
    fn start(change: impl FnOnce(&mut SchedulerConfig)) -> Self {
        let mut config = SchedulerConfig {
            window: Duration::ZERO,
            ..SchedulerConfig::default()
        };
        change(&mut config);
        let (started_in, started) = channel();
        let (go, go_out) = channel();
        let script = Script {
            started: started_in,
            go: Mutex::new(go_out),
        };
        let owner = Owner::start(script, config).expect("a legal configuration");
        Self {
            owner: Arc::new(owner),
            started,
            go,
        }
    }

    fn submit(&self, caller: CallerId, ask: Ask) -> Result<Pending<Script>, InferenceError> {
        self.owner.core().submit(caller, ask, None)
    }

    /// Of a caller of its own.
    fn ask(&self, ask: Ask) -> Pending<Script> {
        self.submit(CallerId::unique(), ask).expect("there is room")
    }

    fn ask_until(&self, ask: Ask, deadline: Instant) -> Pending<Script> {
        let core = self.owner.core();
        core.submit(CallerId::unique(), ask, Some(deadline))
            .expect("there is room")
    }

    /// Waits for a pass to begin; the names of its requests.
    #[track_caller]
    fn begun(&self) -> Vec<u32> {
        self.started.recv_timeout(PATIENCE).expect("a pass begins")
    }

    fn go_on(&self) {
        self.go.send(()).expect("the script listens");
    }

    /// Keeps the model busy with request 0, so that others wait together.
    fn busy(&self) -> Pending<Script> {
        let pending = self.ask(Ask::Answer(0));
        assert_eq!(self.begun(), [0]);
        pending
    }

    fn counters(&self) -> SchedulerCounters {
        self.owner.core().counters.snapshot()
    }

    /// After the scheduler's end: each request has ended in one way.
    fn check_account(&self) -> SchedulerCounters {
        self.owner.stop(Duration::ZERO);
        let counters = self.counters();
        let SchedulerCounters {
            completed,
            failed,
            expired,
            cancelled,
            rejected,
            ..
        } = counters;
        let ended = completed + failed + expired + cancelled + rejected;
        assert_eq!(counters.submitted, ended, "{counters:?}");
        counters
    }
}

fn answer(pending: Pending<Script>) -> u32 {
    pending.wait(None).expect("an answer")
}

/// Polls on this thread until the future is ready.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    let begun = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(begun.elapsed() < PATIENCE, "the future is never ready");
        std::thread::park_timeout(PATIENCE);
    }
}

#[test]
fn what_waits_while_a_pass_runs_shares_the_next() {
    let play = Play::start(|_| ());
    let first = play.busy();
    let others: Vec<_> = (1..=3).map(|name| play.ask(Ask::Answer(name))).collect();
    play.go_on();
    assert_eq!(answer(first), 0);
    assert_eq!(play.begun(), [1, 2, 3]);
    play.go_on();
    let answers: Vec<_> = others.into_iter().map(answer).collect();
    assert_eq!(answers, [100, 200, 300]);
    let counters = play.check_account();
    assert_eq!((counters.batches, counters.rows), (2, 40));
    assert_eq!(counters.completed, 4);
}

#[test]
fn a_flooding_caller_does_not_delay_another_by_more_than_a_pass() {
    let play = Play::start(|config| config.max_batch_requests = 2);
    let first = play.busy();
    let flood = CallerId::unique();
    let flooding: Vec<_> = (10..30)
        .map(|name| play.submit(flood, Ask::Answer(name)).expect("room"))
        .collect();
    let other = play.ask(Ask::Answer(1));
    play.go_on();
    assert_eq!(play.begun(), [10, 1]);
    play.go_on();
    assert_eq!(answer(other), 100);
    assert_eq!(play.begun(), [11, 12]);
    drop((first, flooding));
    play.go_on();
    play.check_account();
}

#[test]
fn what_is_past_its_deadline_is_not_computed() {
    let play = Play::start(|_| ());
    let _first = play.busy();
    let late = play.ask_until(Ask::Answer(1), Instant::now());
    let in_time = play.ask_until(Ask::Answer(2), Instant::now() + PATIENCE);
    play.go_on();
    assert_eq!(play.begun(), [2]);
    play.go_on();
    let refused = late.wait(None);
    assert!(matches!(refused, Err(InferenceError::DeadlinePassed)));
    assert_eq!(answer(in_time), 200);
    assert_eq!(play.check_account().expired, 1);
}

#[test]
fn a_blocked_caller_returns_at_its_deadline_while_a_pass_runs() {
    let play = Play::start(|_| ());
    let first = play.busy();
    let deadline = Instant::now() + Duration::from_millis(5);
    let waiting = play.ask_until(Ask::Answer(1), deadline);
    let refused = waiting.wait(Some(deadline));
    assert!(matches!(refused, Err(InferenceError::DeadlinePassed)));
    let refused = first.wait(Some(deadline));
    assert!(matches!(refused, Err(InferenceError::DeadlinePassed)));
    let last = play.ask(Ask::Answer(2));
    play.go_on();
    assert_eq!(play.begun(), [2], "request 1 is gone");
    play.go_on();
    assert_eq!(answer(last), 200);
    let counters = play.check_account();
    assert_eq!((counters.expired, counters.completed), (2, 1));
}

#[test]
fn what_began_in_time_is_answered_late() {
    let play = Play::start(|_| ());
    let deadline = Instant::now() + Duration::from_millis(500);
    let pending = play.ask_until(Ask::Answer(1), deadline);
    assert_eq!(play.begun(), [1]);
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
    play.go_on();
    assert_eq!(answer(pending), 100);
}

#[test]
fn what_is_dropped_is_not_computed_and_makes_room() {
    let play = Play::start(|config| config.max_waiting = 2);
    let first = play.busy();
    let caller = CallerId::unique();
    let dropped = play.submit(caller, Ask::Answer(1)).expect("room");
    let kept = play.submit(caller, Ask::Answer(2)).expect("room");
    drop(dropped);
    let late = play.submit(caller, Ask::Answer(3)).expect("room again");
    drop(first);
    play.go_on();
    assert_eq!(play.begun(), [2, 3]);
    play.go_on();
    assert_eq!([answer(kept), answer(late)], [200, 300]);
    let counters = play.check_account();
    assert_eq!((counters.cancelled, counters.completed), (2, 2));
}

#[test]
fn a_full_queue_refuses_the_caller_who_fills_it() {
    let play = Play::start(|config| config.max_waiting = 3);
    let first = play.busy();
    let flood = CallerId::unique();
    let mut flooding: Vec<_> = (1..=3)
        .map(|name| play.submit(flood, Ask::Answer(name)).expect("room"))
        .collect();
    let refused = play.submit(flood, Ask::Answer(4)).err();
    assert!(
        matches!(
            refused,
            Some(InferenceError::QueueFull {
                limit: 3,
                waiting: 3
            })
        ),
        "{refused:?}"
    );
    let other = play.ask(Ask::Answer(5));
    let displaced = flooding.pop().expect("three of them").wait(None);
    assert!(
        matches!(
            displaced,
            Err(InferenceError::QueueFull {
                limit: 3,
                waiting: 2
            })
        ),
        "{displaced:?}"
    );
    play.go_on();
    assert_eq!(play.begun(), [1, 5, 2]);
    play.go_on();
    assert_eq!(answer(other), 500);
    for pending in flooding.into_iter().chain([first]) {
        answer(pending);
    }
    assert_eq!(play.check_account().rejected, 2);
}

#[test]
fn a_bad_request_fails_alone() {
    let play = Play::start(|_| ());
    let _first = play.busy();
    let asks = [Ask::Answer(1), Ask::Fail(2), Ask::Answer(3)];
    let [one, two, three] = asks.map(|ask| play.ask(ask));
    play.go_on();
    assert_eq!(play.begun(), [1, 2, 3]);
    play.go_on();
    assert_eq!([answer(one), answer(three)], [100, 300]);
    let refused = two.wait(None);
    assert!(matches!(refused, Err(InferenceError::Empty { .. })));
    assert_eq!(play.check_account().failed, 1);
}

#[test]
fn a_panic_reaches_its_own_request_alone_and_the_thread_lives_on() {
    for bad in [Ask::Panic(2), Ask::Miscount(2)] {
        let play = Play::start(|_| ());
        let _first = play.busy();
        let [one, two, three] = [Ask::Answer(1), bad, Ask::Answer(3)].map(|ask| play.ask(ask));
        play.go_on();
        assert_eq!(play.begun(), [1, 2, 3]);
        for alone in 1..=3 {
            play.go_on();
            assert_eq!(play.begun(), [alone]);
        }
        play.go_on();
        assert_eq!([answer(one), answer(three)], [100, 300]);
        let refused = two.wait(None);
        assert!(matches!(refused, Err(InferenceError::PassPanicked)));
        let next = play.ask(Ask::Answer(4));
        assert_eq!(play.begun(), [4]);
        play.go_on();
        assert_eq!(answer(next), 400);
        let counters = play.check_account();
        assert_eq!((counters.panics, counters.batches), (2, 6));
    }
}

#[test]
fn a_stop_fails_what_waits_and_finishes_what_runs() {
    let play = Play::start(|_| ());
    let running = play.busy();
    let waiting = play.ask(Ask::Answer(1));
    let owner = Arc::clone(&play.owner);
    let stopping = std::thread::spawn(move || owner.stop(Duration::ZERO));
    // Refused as soon as the stop is known.
    while play.submit(CallerId::unique(), Ask::Answer(2)).is_ok() {
        std::thread::yield_now();
    }
    play.go_on();
    stopping.join().expect("the stop returns");
    assert_eq!(answer(running), 0);
    let refused = waiting.wait(None);
    assert!(matches!(refused, Err(InferenceError::SchedulerStopped)));
    let refused = play.submit(CallerId::unique(), Ask::Answer(3)).err();
    assert!(matches!(refused, Some(InferenceError::SchedulerStopped)));
    play.check_account();
}

#[test]
fn a_stop_that_drains_computes_what_waits() {
    let play = Play::start(|_| ());
    let running = play.busy();
    let waiting = play.ask(Ask::Answer(1));
    let owner = Arc::clone(&play.owner);
    let stopping = std::thread::spawn(move || owner.stop(PATIENCE));
    play.go_on();
    assert_eq!(play.begun(), [1]);
    play.go_on();
    stopping.join().expect("the stop returns");
    assert_eq!([answer(running), answer(waiting)], [0, 100]);
    play.check_account();
}

#[test]
fn a_drop_returns_and_pending_requests_get_an_error() {
    let play = Play::start(|_| ());
    let running = play.busy();
    let waiting = play.ask(Ask::Answer(1));
    play.go_on();
    let Play { owner, started, go } = play;
    // Either the drop comes first or a pass that finds its script gone.
    drop((started, go));
    drop(owner);
    assert_eq!(answer(running), 0);
    let refused = waiting.wait(None);
    assert!(matches!(
        refused,
        Err(InferenceError::SchedulerStopped | InferenceError::PassPanicked)
    ));
}

#[test]
fn futures_are_woken() {
    let play = Play::start(|_| ());
    let first = play.ask(Ask::Answer(1));
    let go = play.go.clone();
    let releasing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(10));
        go.send(()).expect("the script listens");
    });
    assert_eq!(block_on(first).expect("an answer"), 100);
    releasing.join().expect("no panic");
    let late = play.ask_until(Ask::Answer(2), Instant::now());
    let refused = block_on(late);
    assert!(matches!(refused, Err(InferenceError::DeadlinePassed)));
}

/// Does something on the thread that wakes it.
struct OnWake<F: Fn() + Send + Sync>(F);

impl<F: Fn() + Send + Sync> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

#[test]
fn a_waker_that_panics_harms_nobody() {
    let play = Play::start(|_| ());
    let mut first = pin!(play.ask(Ask::Answer(1)));
    let waker = Waker::from(Arc::new(OnWake(|| panic!("a waker of theirs"))));
    let polled = first.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    play.go_on();
    let second = play.ask(Ask::Answer(2));
    play.go_on();
    assert_eq!(answer(second), 200);
    assert_eq!(block_on(first).expect("an answer"), 100);
}

#[test]
fn the_owners_thread_may_drop_the_scheduler() {
    let play = Play::start(|_| ());
    let mut first = pin!(play.ask(Ask::Answer(1)));
    let Play { owner, go, .. } = play;
    let last = Mutex::new(Some(owner));
    let (dropped, seen) = channel();
    let waker = Waker::from(Arc::new(OnWake(move || {
        drop(last.lock().expect("not poisoned").take());
        dropped.send(()).expect("the test listens");
    })));
    let polled = first.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    go.send(()).expect("the script listens");
    seen.recv_timeout(PATIENCE).expect("the drop returns");
}

#[test]
fn many_callers_get_their_own_answers_and_each_request_is_accounted_for() {
    struct Double(AtomicUsize);
    impl Backend for Double {
        type Request = u64;
        type Answer = u64;

        fn rows(&self, _: &u64) -> usize {
            1
        }

        fn run(&self, batch: &[u64]) -> Vec<Result<u64, InferenceError>> {
            self.0.fetch_max(batch.len(), Ordering::Relaxed);
            batch.iter().map(|number| Ok(number * 2)).collect()
        }
    }
    let config = SchedulerConfig {
        max_waiting: 8,
        max_batch_requests: 4,
        ..SchedulerConfig::default()
    };
    let owner = Owner::start(Double(AtomicUsize::new(0)), config).expect("legal");
    std::thread::scope(|scope| {
        for thread in 0..16_u64 {
            let core = owner.core();
            scope.spawn(move || {
                for round in 0..50 {
                    let number = thread * 1000 + round;
                    let deadline = Instant::now() + Duration::from_micros(200 * (round % 4) + 50);
                    let deadline = (round % 2 == 0).then_some(deadline);
                    let caller = CallerId::of_this_thread();
                    let Ok(pending) = core.submit(caller, number, deadline) else {
                        continue;
                    };
                    if round % 5 == 0 {
                        drop(pending);
                    } else if let Ok(answer) = pending.wait(deadline) {
                        assert_eq!(answer, number * 2);
                    }
                }
            });
        }
    });
    owner.stop(PATIENCE);
    let counters = owner.core().counters.snapshot();
    let ended = [
        counters.completed,
        counters.failed,
        counters.expired,
        counters.cancelled,
        counters.rejected,
    ];
    assert_eq!(counters.submitted, 16 * 50);
    assert_eq!(
        ended.iter().sum::<u64>(),
        counters.submitted,
        "{counters:?}"
    );
    assert!(counters.completed > 0, "{counters:?}");
}

#[test]
fn in_another_process_every_way_in_and_out_returns_at_once() {
    let (started, _seen) = channel();
    let (_go, go) = channel();
    let script = Script {
        started,
        go: Mutex::new(go),
    };
    let parent = std::process::id() + 1;
    let owner = Owner::start_in(parent, script, SchedulerConfig::default()).expect("legal");
    // As if another thread had held the queue when the process forked.
    let core = Arc::clone(owner.core());
    let (held, holding) = channel();
    std::thread::spawn(move || {
        let _lock = core.lock();
        held.send(()).expect("the test listens");
        std::thread::sleep(2 * PATIENCE);
    });
    holding.recv_timeout(PATIENCE).expect("the lock is held");
    let begun = Instant::now();
    let refused = owner
        .core()
        .submit(CallerId::unique(), Ask::Answer(1), None)
        .err();
    assert!(
        matches!(
            refused,
            Some(InferenceError::ForkedProcess { started, process })
                if started == parent && process == std::process::id()
        ),
        "{refused:?}"
    );
    assert_eq!(owner.core().counters.snapshot().submitted, 0);
    owner.stop(PATIENCE);
    drop(owner);
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn callers_are_told_apart() {
    let here = CallerId::of_this_thread();
    assert_eq!(here, CallerId::of_this_thread());
    let elsewhere = std::thread::spawn(CallerId::of_this_thread).join();
    let others = [elsewhere.expect("no panic"), CallerId::unique(), here];
    assert_eq!(HashSet::from(others).len(), 3);
}
