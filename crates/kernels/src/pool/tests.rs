use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use super::*;

fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).expect("not zero"), "test").expect("threads start")
}

#[test]
fn every_task_runs_exactly_once() {
    for threads in [1, 2, 3, 8] {
        let pool = pool(threads);
        assert_eq!(pool.threads(), threads);
        for n_tasks in [0, 1, 2, 3, 7, 64, 1000] {
            for _ in 0..20 {
                let calls: Vec<_> = (0..n_tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(n_tasks, &|task_idx| {
                    calls[task_idx].fetch_add(1, Ordering::Relaxed);
                });
                assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == 1));
            }
        }
    }
}

#[test]
fn many_short_regions_in_a_row_lose_nothing() {
    let pool = pool(4);
    let sum = AtomicU64::new(0);
    for round in 0..20_000 {
        pool.run(3, &|task_idx| {
            sum.fetch_add(round * task_idx as u64, Ordering::Relaxed);
        });
    }
    assert_eq!(sum.into_inner(), 3 * (0..20_000).sum::<u64>());
}

#[test]
fn all_threads_take_part() {
    let pool = pool(3);
    let threads = Mutex::new(HashSet::new());
    let together = std::sync::Barrier::new(3);
    // Each task waits for the two others, so no thread can take two.
    pool.run(3, &|_| {
        lock(&threads).insert(std::thread::current().id());
        together.wait();
    });
    assert_eq!(threads.into_inner().unwrap().len(), 3);
}

#[test]
fn workers_that_sleep_are_woken() {
    let pool = pool(2);
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(3));
        let together = std::sync::Barrier::new(2);
        pool.run(2, &|_| {
            together.wait();
        });
    }
}

#[test]
fn callers_on_many_threads_take_turns() {
    let pool = pool(3);
    let owner = AtomicUsize::new(0);
    let totals: Vec<_> = (0..6).map(|_| AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        for (caller, total) in totals.iter().enumerate() {
            let (pool, owner) = (&pool, &owner);
            scope.spawn(move || {
                for _ in 0..300 {
                    pool.run(10, &|task_idx| {
                        owner.store(caller, Ordering::SeqCst);
                        total.fetch_add(task_idx, Ordering::Relaxed);
                        let now = owner.load(Ordering::SeqCst);
                        assert_eq!(now, caller, "two regions at once");
                    });
                }
            });
        }
    });
    for total in totals {
        assert_eq!(total.into_inner(), 300 * 45);
    }
}

#[test]
fn a_panic_reaches_the_caller_after_all_have_stopped() {
    let pool = pool(3);
    for round in 0..50 {
        let running = AtomicUsize::new(0);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(100, &|task_idx| {
                running.fetch_add(1, Ordering::SeqCst);
                if task_idx == round {
                    running.fetch_sub(1, Ordering::SeqCst);
                    std::panic::resume_unwind(Box::new("task failed"));
                }
                std::thread::sleep(Duration::from_micros(10));
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }));
        let payload = outcome.expect_err("the task panicked");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"task failed"));
        assert_eq!(running.into_inner(), 0);
        // The pool goes on, and the old panic does not come again.
        let calls = AtomicUsize::new(0);
        pool.run(10, &|_| {
            calls.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(calls.into_inner(), 10);
    }
}

#[test]
fn a_region_within_a_task_runs_on_its_thread() {
    let pool = pool(2);
    let calls = AtomicUsize::new(0);
    pool.run(4, &|_| {
        let thread = std::thread::current().id();
        pool.run(5, &|_| {
            assert_eq!(std::thread::current().id(), thread);
            calls.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(calls.into_inner(), 20);
}

#[test]
fn chunks_cover_the_slice() {
    let pool = pool(3);
    for len in [0, 1, 5, 6, 7, 100] {
        for chunk_len in [1, 2, 6, 100, 1000] {
            let mut data = vec![usize::MAX; len];
            pool.for_each_chunk(&mut data, chunk_len, |chunk_idx, chunk| {
                assert!(chunk.len() == chunk_len || chunk_idx == len / chunk_len);
                for (i, value) in chunk.iter_mut().enumerate() {
                    *value = chunk_idx * chunk_len + i;
                }
            });
            assert_eq!(data, (0..len).collect::<Vec<_>>());
        }
    }
}

#[test]
fn dropping_joins_the_workers() {
    struct AtEnd(Arc<AtomicBool>);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(20));
            self.0.store(true, Ordering::SeqCst);
        }
    }
    thread_local! {
        static AT_END: Cell<Option<AtEnd>> = const { Cell::new(None) };
    }
    let ended = Arc::new(AtomicBool::new(false));
    let caller = std::thread::current().id();
    let pool = pool(2);
    let together = std::sync::Barrier::new(2);
    pool.run(2, &|_| {
        if std::thread::current().id() != caller {
            AT_END.set(Some(AtEnd(Arc::clone(&ended))));
        }
        together.wait();
    });
    drop(pool);
    assert!(ended.load(Ordering::SeqCst));
}

#[test]
fn workers_carry_the_pools_name() {
    let pool = pool(2);
    let together = std::sync::Barrier::new(2);
    let names = Mutex::new(Vec::new());
    pool.run(2, &|_| {
        together.wait();
        lock(&names).extend(std::thread::current().name().map(str::to_owned));
    });
    assert!(lock(&names).contains(&"test-1".to_owned()));
}
