//! Who is next: a bounded queue that is fair between callers.
//!
//! Each caller has a line of its own, first come first served. A pass takes one
//! request of each line in turn. A request that does not fit into what is left
//! of a pass is stepped over, and its line is the first of the next pass; as
//! the first request of a pass always fits, a request at the head of its line
//! waits for at most as many passes as there are lines before it.
//!
//! Nothing here reads a clock: times come in as arguments.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::SchedulerConfig;

/// Who asks: fairness is between callers, not between requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallerId(u64);

impl CallerId {
    /// A caller unlike all others of this process.
    #[must_use]
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The calling thread as a caller: always the same on one thread.
    #[must_use]
    pub fn of_this_thread() -> Self {
        thread_local!(static CALLER: CallerId = CallerId::unique());
        CALLER.with(|caller| *caller)
    }
}

/// A request in its line.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) caller: CallerId,
    /// Tokens that the pass computes for it.
    pub(super) rows: usize,
    pub(super) arrived: Instant,
    /// It is not begun after this.
    pub(super) deadline: Option<Instant>,
    pub(super) item: T,
}

impl<T> Waiting<T> {
    fn is_expired(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// What became of a new request.
#[derive(Debug)]
pub(super) enum Pushed<T> {
    /// It waits.
    Accepted,
    /// It waits; this one of the caller with most of them had to leave.
    Displaced(Waiting<T>),
    /// It has to leave itself; so many of its caller's wait.
    Refused(Waiting<T>, usize),
}

/// What to do now.
#[derive(Debug)]
pub(super) enum Next {
    /// Form a pass.
    Run,
    /// Look again then, or when another request comes.
    WaitUntil(Instant),
    /// Nobody waits.
    Wait,
}

struct Line<T> {
    caller: CallerId,
    /// Never empty.
    waiting: VecDeque<Waiting<T>>,
}

pub(super) struct FairQueue<T> {
    config: SchedulerConfig,
    /// In the order of their turns.
    lines: VecDeque<Line<T>>,
    /// Requests in all lines.
    n_waiting: usize,
    /// Rows of all of them.
    n_rows: usize,
}

impl<T> FairQueue<T> {
    pub(super) fn new(config: SchedulerConfig) -> Self {
        Self {
            config,
            lines: VecDeque::new(),
            n_waiting: 0,
            n_rows: 0,
        }
    }

    /// Requests that may wait.
    pub(super) fn limit(&self) -> usize {
        self.config.max_waiting
    }

    pub(super) fn push(&mut self, new: Waiting<T>) -> Pushed<T> {
        let own = self.line_len(new.caller);
        let mut displaced = None;
        if self.n_waiting >= self.config.max_waiting {
            let longest = (0..self.lines.len()).max_by_key(|&idx| self.lines[idx].waiting.len());
            displaced = longest
                .filter(|&idx| own + 1 < self.lines[idx].waiting.len())
                .and_then(|idx| self.lines[idx].waiting.pop_back());
            match &displaced {
                Some(displaced) => self.forget(displaced.rows),
                None => return Pushed::Refused(new, own),
            }
        }
        self.n_waiting += 1;
        self.n_rows += new.rows;
        match self.lines.iter_mut().find(|line| line.caller == new.caller) {
            Some(line) => line.waiting.push_back(new),
            None => self.lines.push_back(Line {
                caller: new.caller,
                waiting: VecDeque::from([new]),
            }),
        }
        displaced.map_or(Pushed::Accepted, Pushed::Displaced)
    }

    /// How many requests of `caller` wait.
    pub(super) fn line_len(&self, caller: CallerId) -> usize {
        let line = self.lines.iter().find(|line| line.caller == caller);
        line.map_or(0, |line| line.waiting.len())
    }

    /// Takes out the request of `caller` that `is_it` knows, if it still waits.
    pub(super) fn remove(
        &mut self,
        caller: CallerId,
        is_it: impl Fn(&T) -> bool,
    ) -> Option<Waiting<T>> {
        let line_idx = self.lines.iter().position(|line| line.caller == caller)?;
        let waiting = &mut self.lines[line_idx].waiting;
        let place = waiting.iter().position(|waiting| is_it(&waiting.item))?;
        let removed = waiting.remove(place)?;
        if waiting.is_empty() {
            self.lines.remove(line_idx);
        }
        self.forget(removed.rows);
        Some(removed)
    }

    /// Takes out everything whose deadline has passed.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Waiting<T>> {
        let mut expired = Vec::new();
        for line in &mut self.lines {
            if line.waiting.iter().any(|waiting| waiting.is_expired(now)) {
                for waiting in std::mem::take(&mut line.waiting) {
                    if waiting.is_expired(now) {
                        expired.push(waiting);
                    } else {
                        line.waiting.push_back(waiting);
                    }
                }
            }
        }
        if !expired.is_empty() {
            self.lines.retain(|line| !line.waiting.is_empty());
        }
        for waiting in &expired {
            self.forget(waiting.rows);
        }
        expired
    }

    /// Takes out everything.
    pub(super) fn take_all(&mut self) -> Vec<Waiting<T>> {
        self.n_waiting = 0;
        self.n_rows = 0;
        let lines = std::mem::take(&mut self.lines);
        lines.into_iter().flat_map(|line| line.waiting).collect()
    }

    /// What to do at `now`, the model being free since `free_since`.
    pub(super) fn next(&self, now: Instant, free_since: Instant) -> Next {
        let waiting = || self.lines.iter().flat_map(|line| &line.waiting);
        let Some(oldest) = waiting().map(|waiting| waiting.arrived).min() else {
            return Next::Wait;
        };
        let window = match self.n_waiting {
            1 => self.config.lone_window,
            _ => self.config.window,
        };
        let end = oldest.max(free_since) + window;
        let is_full = self.n_waiting >= self.config.max_batch_requests
            || self.n_rows >= self.config.max_batch_rows;
        let is_urgent = || {
            let mut deadlines = waiting().filter_map(|waiting| waiting.deadline);
            deadlines.any(|deadline| deadline <= end + Duration::from_millis(1))
        };
        if is_full || end <= now || is_urgent() {
            return Next::Run;
        }
        Next::WaitUntil(end)
    }

    /// Takes out the requests of one pass; empty only if the queue is.
    pub(super) fn take_batch(&mut self) -> Vec<Waiting<T>> {
        let mut batch: Vec<Waiting<T>> = Vec::new();
        let mut rows_left = self.config.max_batch_rows;
        let mut stepped_over = VecDeque::new();
        while batch.len() < self.config.max_batch_requests
            && let Some(mut line) = self.lines.pop_front()
        {
            let fits = |waiting: &Waiting<T>| batch.is_empty() || waiting.rows <= rows_left;
            if !line.waiting.front().is_some_and(fits) {
                stepped_over.push_back(line);
                continue;
            }
            if let Some(waiting) = line.waiting.pop_front() {
                rows_left = rows_left.saturating_sub(waiting.rows);
                self.forget(waiting.rows);
                batch.push(waiting);
            }
            if !line.waiting.is_empty() {
                self.lines.push_back(line);
            }
        }
        stepped_over.append(&mut self.lines);
        self.lines = stepped_over;
        batch
    }

    /// Counts one request out.
    fn forget(&mut self, rows: usize) {
        self.n_waiting -= 1;
        self.n_rows -= rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The moment that the tests count from; an instant cannot be made of a number.
    fn start() -> Instant {
        thread_local!(static START: Instant = Instant::now());
        START.with(|start| *start)
    }

    fn queue(change: impl FnOnce(&mut SchedulerConfig)) -> FairQueue<&'static str> {
        let mut config = SchedulerConfig::default();
        change(&mut config);
        FairQueue::new(config)
    }

    fn waiting(caller: u64, rows: usize, item: &'static str) -> Waiting<&'static str> {
        Waiting {
            caller: CallerId(caller),
            rows,
            arrived: start(),
            deadline: None,
            item,
        }
    }

    fn fill(queue: &mut FairQueue<&'static str>, requests: &[(u64, usize, &'static str)]) {
        for &(caller, rows, item) in requests {
            let pushed = queue.push(waiting(caller, rows, item));
            assert!(matches!(pushed, Pushed::Accepted), "{pushed:?}");
        }
    }

    fn batches(queue: &mut FairQueue<&'static str>) -> Vec<Vec<&'static str>> {
        let mut batches = Vec::new();
        while queue.n_waiting > 0 {
            let batch = queue.take_batch();
            batches.push(batch.into_iter().map(|waiting| waiting.item).collect());
        }
        assert_eq!((queue.n_waiting, queue.n_rows), (0, 0));
        batches
    }

    #[test]
    fn callers_take_turns_and_keep_their_own_order() {
        let mut queue = queue(|config| config.max_batch_requests = 3);
        let requests = [
            (1, 1, "a1"),
            (1, 1, "a2"),
            (1, 1, "a3"),
            (1, 1, "a4"),
            (2, 1, "b1"),
            (3, 1, "c1"),
            (3, 1, "c2"),
        ];
        fill(&mut queue, &requests);
        let expected = [vec!["a1", "b1", "c1"], vec!["a2", "c2", "a3"], vec!["a4"]];
        assert_eq!(batches(&mut queue), expected);
    }

    #[test]
    fn a_newcomer_waits_for_one_turn_of_each_flooding_caller() {
        let mut queue = queue(|config| config.max_batch_requests = 1);
        for _ in 0..50 {
            fill(&mut queue, &[(1, 1, "flood"), (2, 1, "flood too")]);
        }
        fill(&mut queue, &[(3, 1, "newcomer")]);
        let order = batches(&mut queue).concat();
        assert_eq!(order.iter().position(|item| *item == "newcomer"), Some(2));
    }

    #[test]
    fn rows_bound_a_pass_and_what_did_not_fit_is_next() {
        let mut queue = queue(|config| config.max_batch_rows = 10);
        let requests = [
            (1, 6, "a"),
            (2, 5, "b"),
            (3, 4, "c"),
            (4, 1, "d"),
            (5, 8, "e"),
        ];
        fill(&mut queue, &requests);
        let expected = [vec!["a", "c"], vec!["b", "d"], vec!["e"]];
        assert_eq!(batches(&mut queue), expected);
    }

    #[test]
    fn a_request_larger_than_a_pass_has_one_of_its_own_and_is_not_starved() {
        let mut queue = queue(|config| config.max_batch_rows = 10);
        fill(
            &mut queue,
            &[(1, 1, "small"), (2, 99, "large"), (1, 1, "small")],
        );
        assert_eq!(batches(&mut queue), [vec!["small", "small"], vec!["large"]]);
        for _ in 0..9 {
            fill(&mut queue, &[(1, 9, "flood")]);
        }
        fill(&mut queue, &[(2, 99, "large")]);
        let order = batches(&mut queue);
        assert_eq!(order[1], ["large"], "{order:?}");
    }

    #[test]
    fn a_full_queue_turns_out_the_newest_of_the_caller_with_most() {
        let mut queue = queue(|config| config.max_waiting = 4);
        fill(
            &mut queue,
            &[(1, 7, "a1"), (1, 7, "a2"), (1, 7, "a3"), (1, 7, "a4")],
        );
        let refused = queue.push(waiting(1, 7, "a5"));
        assert!(matches!(
            refused,
            Pushed::Refused(Waiting { item: "a5", .. }, 4)
        ));
        for (new, out) in [("b1", "a4"), ("b2", "a3")] {
            let displaced = queue.push(waiting(2, 1, new));
            assert!(
                matches!(&displaced, Pushed::Displaced(waiting) if waiting.item == out),
                "{displaced:?}"
            );
        }
        let refused = queue.push(waiting(2, 1, "b3"));
        assert!(matches!(
            refused,
            Pushed::Refused(Waiting { item: "b3", .. }, 2)
        ));
        assert_eq!((queue.n_waiting, queue.n_rows), (4, 16));
        assert_eq!(batches(&mut queue).concat(), ["a1", "b1", "a2", "b2"]);
    }

    #[test]
    fn what_expired_is_taken_out_and_the_rest_keeps_its_order() {
        let mut queue = queue(|_| ());
        for (caller, after, item) in [(1, 5, "a1"), (1, 20, "a2"), (1, 5, "a3"), (2, 5, "b1")] {
            let mut new = waiting(caller, 3, item);
            new.deadline = Some(start() + after * MS);
            queue.push(new);
        }
        assert!(queue.take_expired(start() + 4 * MS).is_empty());
        let expired = queue.take_expired(start() + 5 * MS);
        let items: Vec<_> = expired.iter().map(|waiting| waiting.item).collect();
        assert_eq!(items, ["a1", "a3", "b1"]);
        assert_eq!(queue.lines.len(), 1, "no line is empty");
        assert_eq!(batches(&mut queue), [["a2"]]);
    }

    #[test]
    fn a_removed_request_is_gone_and_another_callers_stays() {
        let mut queue = queue(|_| ());
        fill(&mut queue, &[(1, 2, "a"), (1, 3, "b"), (2, 4, "a")]);
        let mut remove = |caller, name| {
            let removed = queue.remove(CallerId(caller), |item| *item == name);
            removed.map(|waiting| waiting.rows)
        };
        assert_eq!(remove(1, "a"), Some(2));
        assert_eq!(remove(1, "never there"), None);
        assert_eq!(remove(9, "a"), None);
        assert_eq!(remove(2, "a"), Some(4));
        assert_eq!(batches(&mut queue), [["b"]]);
    }

    #[test]
    fn a_lone_request_runs_at_once_and_company_waits_for_more() {
        let mut queue = queue(|config| config.window = 2 * MS);
        assert!(matches!(queue.next(start(), start()), Next::Wait));
        fill(&mut queue, &[(1, 1, "a")]);
        assert!(matches!(queue.next(start(), start()), Next::Run));
        fill(&mut queue, &[(2, 1, "b")]);
        let next = queue.next(start(), start());
        assert!(
            matches!(next, Next::WaitUntil(at) if at == start() + 2 * MS),
            "{next:?}"
        );
        assert!(matches!(queue.next(start() + 2 * MS, start()), Next::Run));
    }

    #[test]
    fn the_window_opens_when_the_model_is_free_and_somebody_waits() {
        let mut queue = queue(|config| config.lone_window = MS);
        fill(&mut queue, &[(1, 1, "a")]);
        let free_since = start() + 7 * MS;
        let next = queue.next(free_since, free_since);
        assert!(matches!(next, Next::WaitUntil(at) if at == start() + 8 * MS));
        let next = queue.next(start(), start() - 9 * MS);
        assert!(matches!(next, Next::WaitUntil(at) if at == start() + MS));
    }

    #[test]
    fn a_full_pass_and_a_near_deadline_do_not_wait_for_company() {
        let windows = |config: &mut SchedulerConfig| {
            (config.window, config.lone_window) = (2 * MS, 2 * MS);
            (config.max_batch_requests, config.max_batch_rows) = (2, 10);
        };
        let mut requests = queue(windows);
        fill(&mut requests, &[(1, 1, "a")]);
        assert!(matches!(
            requests.next(start(), start()),
            Next::WaitUntil(_)
        ));
        fill(&mut requests, &[(2, 1, "b")]);
        assert!(matches!(requests.next(start(), start()), Next::Run));

        let mut rows = queue(windows);
        fill(&mut rows, &[(1, 10, "a")]);
        assert!(matches!(rows.next(start(), start()), Next::Run));

        let mut deadline = queue(windows);
        let mut near = waiting(1, 1, "a");
        near.deadline = Some(start() + 3 * MS);
        deadline.push(near);
        assert!(matches!(deadline.next(start(), start()), Next::Run));
    }
}
