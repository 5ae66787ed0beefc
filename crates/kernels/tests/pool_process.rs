//! What the pool does to the process around it: no allocation in a region nor in
//! attention, no processor time between regions, and work in the child of a fork.
//!
//! One test function, because allocations and processor time are counted for
//! the whole process.

#![expect(
    unsafe_code,
    reason = "a counting allocator, and fork, which the standard library does not offer"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use inwarden_kernels::{
    KvBlock, KvShape, KvType, Pool, RotaryTable, Sequence, Variant, Visible, attend, rms_norm,
    rope, swiglu,
};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises hold for the system's allocator too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises hold for the system's allocator too.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn pool() -> Pool {
    Pool::new(NonZeroUsize::new(3).expect("not zero"), "test").expect("threads start")
}

#[test]
fn the_process_around_a_pool() {
    a_region_allocates_nothing();
    a_layer_allocates_nothing();
    an_idle_pool_uses_no_processor_time();
    #[cfg(target_os = "linux")]
    fork::a_region_in_the_child_of_a_fork_ends();
}

fn a_region_allocates_nothing() {
    let pool = pool();
    let mut data = vec![0_u64; 1000];
    let work = |data: &mut [u64]| {
        pool.for_each_chunk(data, 7, |chunk_idx, chunk| {
            chunk.fill(chunk_idx as u64);
        });
    };
    // A thread allocates when it starts; here each takes one task.
    let together = std::sync::Barrier::new(3);
    pool.run(3, &|_| {
        together.wait();
    });
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    (0..1000).for_each(|_| work(&mut data));
    // With sleeps, so that parking and waking count too.
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(1));
        work(&mut data);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
}

/// What lies between a layer's products, for each variant.
fn a_layer_allocates_nothing() {
    let pool = pool();
    let shape = KvShape {
        n_kv_heads: 2,
        head_dim: 64,
        kv_type: KvType::Bf16,
    };
    let mut block = KvBlock::new(&shape);
    (0..50).for_each(|slot| block.store(slot, &[0.5; 128], &[0.25; 128]));
    let visible: Vec<_> = (0..50)
        .map(|until| Visible { until, beyond: &[] })
        .collect();
    let sequences = [Sequence {
        rows: 0..50,
        blocks: &[&block],
        visible: &visible,
    }];
    let table = RotaryTable::new(64, 10_000.0, 100);
    let positions: Vec<usize> = (0..50).collect();
    let mut queries = vec![1.0; 50 * 14 * 64];
    let mut out = queries.clone();
    for variant in Variant::available() {
        let mut layer = || {
            rope(&pool, variant, &mut queries, 64, &positions, &table);
            attend(&pool, variant, &shape, &queries, &sequences, &mut out);
            rms_norm(&pool, variant, &out, &[1.0; 896], 1e-6, &mut queries);
            swiglu(&pool, variant, &queries, &queries, &mut out);
        };
        // A thread's first tasks set its scratch up, and it may come late to any.
        (0..50).for_each(|_| layer());
        let least = (0..5)
            .map(|_| {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                (0..10).for_each(|_| layer());
                ALLOCATIONS.load(Ordering::Relaxed) - before
            })
            .min();
        assert_eq!(least, Some(0), "{}", variant.name());
    }
}

/// Processor time of all threads, in clock ticks of 10 ms.
fn processor_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // Fields 14 and 15 of proc(5), counted from the state, which is field 3.
    fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum()
}

fn an_idle_pool_uses_no_processor_time() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let pool = pool();
    pool.run(100, &|_| std::thread::yield_now());
    std::thread::sleep(Duration::from_millis(5));
    let before = processor_ticks();
    std::thread::sleep(Duration::from_millis(300));
    let used = processor_ticks() - before;
    // Two spinning workers would have used 30 to 60.
    assert!(used <= 1, "{used} ticks while idle");
}

#[cfg(target_os = "linux")]
mod fork {
    use super::*;

    unsafe extern "C" {
        fn fork() -> i32;
        fn alarm(seconds: u32) -> u32;
        fn waitpid(process: i32, status: *mut i32, options: i32) -> i32;
        fn _exit(status: i32) -> !;
    }

    pub(super) fn a_region_in_the_child_of_a_fork_ends() {
        let pool = pool();
        pool.run(10, &|_| ());
        assert!(pool.belongs_to_this_process());
        // SAFETY: the child calls nothing that another thread could have left locked
        // (it allocates nothing), and ends with `_exit`.
        let child = unsafe { fork() };
        if child == 0 {
            // SAFETY: a plain system call; it ends the child should it hang.
            unsafe { alarm(20) };
            let status = i32::from(!works_alone(pool));
            // SAFETY: a plain system call.
            unsafe { _exit(status) }
        }
        assert!(child > 0);
        let mut status = -1;
        // SAFETY: `status` is a valid i32 for the time of the call.
        let waited = unsafe { waitpid(child, &raw mut status, 0) };
        assert_eq!((waited, status), (child, 0));
        assert!(pool.belongs_to_this_process());
        pool.run(10, &|_| ());
    }

    fn works_alone(pool: Pool) -> bool {
        let calls = AtomicUsize::new(0);
        pool.run(10, &|_| {
            calls.fetch_add(1, Ordering::Relaxed);
        });
        let strange = !pool.belongs_to_this_process();
        drop(pool);
        strange && calls.into_inner() == 10
    }
}
