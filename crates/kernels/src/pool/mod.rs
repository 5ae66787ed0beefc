//! A pool of threads that work together on one region at a time.
//!
//! A region is a number of tasks; every thread takes the next one until none is
//! left. Workers look for the next region for about 30 microseconds after the
//! last one and then sleep, so that regions in a row start at once and an idle
//! process uses no processor time. Starting a region allocates nothing.
//!
//! A worker that wakes up late does not hold the region up: the caller takes
//! tasks too, closes the region when none is left, and waits only for the workers
//! that are in it. Hence a pool works, if slowly, on a processor shared with
//! others, and also where its workers do not exist: in the child of a fork.
//!
//! Unsafe here: the lifetime of a region's function, which `Pool::run` bounds by
//! waiting, and the split of a slice into chunks, which the task numbers keep apart.

#![expect(
    unsafe_code,
    reason = "the lifetime of a region's function, and chunks of one slice on several threads"
)]

mod gate;
#[cfg(test)]
mod tests;
mod tiles;

use std::any::Any;
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use gate::Gate;
pub(crate) use tiles::Tile;

thread_local! {
    /// Whether this thread is inside a task of some pool.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

/// Threads that run the tasks of one parallel region at a time.
///
/// Dropping it ends and joins its threads.
///
/// # Examples
/// ```
/// use std::num::NonZeroUsize;
/// use inwarden_kernels::Pool;
///
/// let pool = Pool::new(NonZeroUsize::new(2).expect("two is not zero"), "example")?;
/// let mut squares = vec![0; 1000];
/// pool.for_each_chunk(&mut squares, 100, |chunk_idx, chunk| {
///     for (i, square) in chunk.iter_mut().enumerate() {
///         *square = (chunk_idx * 100 + i).pow(2);
///     }
/// });
/// assert_eq!(squares[999], 999 * 999);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller whose region runs.
    turn: Mutex<()>,
    process_id: u32,
}

impl Pool {
    /// Starts `threads` minus one workers called `name-1`, `name-2` and so on; the
    /// caller of a region is the first thread.
    ///
    /// # Errors
    /// What the operating system says when it starts no further thread; those
    /// already started have ended.
    pub fn new(threads: NonZeroUsize, name: &str) -> std::io::Result<Self> {
        let mut pool = Self {
            shared: Arc::new(Shared::default()),
            workers: Vec::with_capacity(threads.get() - 1),
            turn: Mutex::new(()),
            process_id: std::process::id(),
        };
        for worker_idx in 1..threads.get() {
            let shared = Arc::clone(&pool.shared);
            let builder = std::thread::Builder::new().name(format!("{name}-{worker_idx}"));
            pool.workers.push(builder.spawn(move || shared.work())?);
        }
        Ok(pool)
    }

    /// The threads that take part in a region, the caller counted.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Whether this process started the pool's threads.
    ///
    /// False in the child of a fork: there the workers do not exist, and
    /// [`Pool::run`] does everything on the calling thread.
    #[must_use]
    pub fn belongs_to_this_process(&self) -> bool {
        std::process::id() == self.process_id
    }

    /// Calls `task` once with each number below `n_tasks`, on all threads, and
    /// returns when all calls have returned.
    ///
    /// Which thread takes which task is left open. Callers on several threads take
    /// turns. A call from inside a task runs its tasks one after the other on the
    /// thread it comes from. Nothing is allocated.
    ///
    /// # Panics
    /// With the panic of a task, once all threads have left the region; tasks
    /// that were not yet begun are then left out. The pool stays usable.
    pub fn run(&self, n_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let alone = n_tasks <= 1 || self.workers.is_empty() || IN_TASK.get();
        if alone || !self.belongs_to_this_process() {
            return (0..n_tasks).for_each(task);
        }
        let turn = lock(&self.turn);
        // SAFETY: only the lifetime changes. The reference is used by threads inside
        // the gate alone, and `run_region` returns, without unwinding, only after it
        // has closed the gate and seen the last of them leave.
        let task: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(task) };
        let panic = self.shared.run_region(Region { task, n_tasks });
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Calls `f` once with each chunk of `data` and its number, on all threads;
    /// all chunks are `chunk_len` long but for the last, which may be shorter.
    ///
    /// # Panics
    /// If `chunk_len` is 0, and like [`Pool::run`].
    pub fn for_each_chunk<T: Send>(
        &self,
        data: &mut [T],
        chunk_len: usize,
        f: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let n_chunks = data.len().div_ceil(chunk_len);
        let chunks = Chunks {
            data: data.as_mut_ptr(),
            len: data.len(),
            chunk_len,
        };
        self.run(n_chunks, &|chunk_idx| {
            // SAFETY: `run` hands out each number below `n_chunks` once, and the
            // borrow of `data` lasts until it has returned.
            let chunk = unsafe { chunks.chunk(chunk_idx) };
            f(chunk_idx, chunk);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.belongs_to_this_process() {
            // The threads are in another process; joining them would never end.
            return std::mem::forget(std::mem::take(&mut self.workers));
        }
        self.shared.gate.stop();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of tasks and has none of its own.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads())
            .finish_non_exhaustive()
    }
}

/// What the caller and the workers share.
#[derive(Default)]
struct Shared {
    gate: Gate,
    /// The region whose gate is open; `None` when it is closed.
    region: Mutex<Option<Region>>,
    next_task: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
struct Region {
    task: &'static (dyn Fn(usize) + Sync),
    n_tasks: usize,
}

impl Shared {
    /// A worker's life.
    fn work(&self) {
        let mut seen = 0;
        while self.gate.wait_for_region(&mut seen) {
            if self.gate.enter() {
                let region = *lock(&self.region);
                if let Some(region) = region {
                    self.take_tasks(region);
                }
                self.gate.leave();
            }
        }
    }

    /// The caller's part; gives the panic of a task. Never unwinds.
    fn run_region(&self, region: Region) -> Option<Box<dyn Any + Send>> {
        *lock(&self.region) = Some(region);
        self.next_task.store(0, Ordering::Relaxed);
        self.gate.open();
        self.take_tasks(region);
        self.gate.close();
        *lock(&self.region) = None;
        lock(&self.panic).take()
    }

    /// Runs tasks until none is left or one has panicked.
    fn take_tasks(&self, region: Region) {
        let in_task = IN_TASK.replace(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let task_idx = self.next_task.fetch_add(1, Ordering::Relaxed);
                if task_idx >= region.n_tasks {
                    break;
                }
                (region.task)(task_idx);
            }
        }));
        IN_TASK.set(in_task);
        if let Err(panic) = outcome {
            self.next_task.store(region.n_tasks, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }
}

/// A slice that threads split among themselves.
struct Chunks<T> {
    data: *mut T,
    len: usize,
    chunk_len: usize,
}

impl<T> Chunks<T> {
    /// # Safety
    /// `chunk_idx` is below the number of chunks, nobody else asks for the same
    /// one, and the slice stays mutably borrowed as long as the chunk lives.
    unsafe fn chunk<'a>(&self, chunk_idx: usize) -> &'a mut [T] {
        let start = chunk_idx * self.chunk_len;
        let len = self.chunk_len.min(self.len - start);
        // SAFETY: `start` is below `self.len`, the length of the slice, because
        // `chunk_idx` is below its number of chunks.
        let first = unsafe { self.data.add(start) };
        // SAFETY: `start + len` is at most `self.len`, and no other chunk overlaps
        // it; the caller vouches for the borrow.
        unsafe { std::slice::from_raw_parts_mut(first, len) }
    }
}

// SAFETY: the chunks that threads take from it do not overlap, and `T: Send` lets
// each be mutated on the thread that took it.
unsafe impl<T: Send> Sync for Chunks<T> {}

/// Locks; a panic elsewhere leaves the values here as valid as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
