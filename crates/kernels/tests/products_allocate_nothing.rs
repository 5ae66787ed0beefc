//! Products and quantisation allocate nothing once their buffers exist.
//!
//! In a process of its own, because allocations are counted for all threads.

#![expect(unsafe_code, reason = "a counting allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering},
};

use inwarden_kernels::{
    Gated, Int4Matrix, Int8Matrix, Pool, Product, Q4_K_BLOCK_BYTES, QuantizedMatrix, QuantizedRows,
    RmsNorm, SUPER_BLOCK, Variant, Write, multiply, multiply_gated,
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

#[test]
fn nothing_is_allocated_once_the_buffers_exist() {
    let (n_in, n_out, most_rows) = (2 * SUPER_BLOCK, 200, 300);
    let pool = Pool::new(NonZeroUsize::new(2).expect("not zero"), "test").expect("threads start");
    let mut rows = QuantizedRows::new();
    rows.reserve(most_rows, n_in);
    let mut gated_rows = QuantizedRows::new();
    gated_rows.reserve(most_rows, n_out);
    let x = vec![0.5; most_rows * n_in];
    let weight = vec![1.0; n_in];
    let bias = vec![1.0; n_out];
    let mut out = vec![0.0; most_rows * n_out];
    let bytes = vec![1; n_out * n_in / SUPER_BLOCK * Q4_K_BLOCK_BYTES];
    for variant in Variant::available() {
        let matrices: [QuantizedMatrix; 2] = [
            Int8Matrix::from_f32(&vec![0.25; n_out * n_in], n_in, variant).into(),
            Int4Matrix::from_q4_k(&bytes, n_in).into(),
        ];
        let mut step = |n_rows| {
            let x = &x[..n_rows * n_in];
            rows.quantize(&pool, variant, x, n_in);
            let norm = RmsNorm {
                weight: &weight,
                eps: 1e-6,
                order: None,
            };
            rows.rms_norm(&pool, variant, x, &norm);
            for weights in &matrices {
                let gated = Gated {
                    gate: weights,
                    up: weights,
                    rows: &rows,
                };
                multiply_gated(&pool, variant, gated, &mut gated_rows);
                let product = Product {
                    weights,
                    rows: &rows,
                    bias: Some(&bias),
                    out: &mut out[..n_rows * n_out],
                    write: Write::Add,
                };
                multiply(&pool, variant, &mut [product]);
            }
        };
        // A thread allocates when it starts; here each takes one task.
        let together = std::sync::Barrier::new(pool.threads());
        pool.run(pool.threads(), &|_| {
            together.wait();
        });
        for _ in 0..50 {
            step(8);
        }
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for n_rows in [1, 7, 64, most_rows] {
            step(n_rows);
        }
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(allocations, 0, "{}", variant.name());
    }
}
