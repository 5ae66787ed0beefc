//! Measures attention over a cached prefix: `cargo run --release -p
//! inwarden-kernels --example attention [variant [threads]]`.
//!
//! Prints, for the head shapes of three model sizes, the best of some runs in
//! thousand millions of multiply-adds a second (two for each visible slot, head
//! and dimension; the softmax comes on top) and the time of one call.

#![expect(clippy::print_stdout, reason = "what it measures goes to the terminal")]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use inwarden_kernels::{
    KV_BLOCK, KvBlock, KvShape, KvType, Pool, Sequence, Variant, Visible, attend,
};

/// Slots cached before the rows' own.
const PREFIX: usize = 1000;

/// How long each line takes.
const PATIENCE: Duration = Duration::from_millis(300);

struct Model {
    name: &'static str,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

const MODELS: [Model; 3] = [
    Model {
        name: "0.5B",
        n_heads: 14,
        n_kv_heads: 2,
        head_dim: 64,
    },
    Model {
        name: "1.5B",
        n_heads: 12,
        n_kv_heads: 2,
        head_dim: 128,
    },
    Model {
        name: "7B",
        n_heads: 28,
        n_kv_heads: 4,
        head_dim: 128,
    },
];

fn main() {
    let mut args = std::env::args().skip(1);
    let variants = match args.next() {
        Some(name) => vec![Variant::named(&name).expect("a variant of this processor")],
        None => Variant::available(),
    };
    let threads = args.next().map_or(1, |n| n.parse().expect("a number"));
    let threads = NonZeroUsize::new(threads).expect("at least one thread");
    let pool = Pool::new(threads, "attention").expect("threads start");
    println!("{} threads", pool.threads());
    println!("variant           model  kv    rows  GMAC/s  us a call");
    for variant in variants {
        for model in &MODELS {
            for kv_type in [KvType::Bf16, KvType::Int8, KvType::F32] {
                for n_rows in [1, 64, 128] {
                    measure(&pool, variant, model, kv_type, n_rows);
                }
            }
        }
    }
}

fn measure(pool: &Pool, variant: Variant, model: &Model, kv_type: KvType, n_rows: usize) {
    let shape = KvShape {
        n_kv_heads: model.n_kv_heads,
        head_dim: model.head_dim,
        kv_type,
    };
    let n_slots = PREFIX + n_rows;
    let number = |i: usize| ((i * 7919) % 1009) as f32 / 504.5 - 1.0;
    let mut blocks = vec![KvBlock::new(&shape); n_slots.div_ceil(KV_BLOCK)];
    for slot in 0..n_slots {
        let numbers = |seed: usize| -> Vec<f32> {
            let first = slot * 31 + seed;
            (first..first + shape.kv_width()).map(number).collect()
        };
        blocks[slot / KV_BLOCK].store(slot % KV_BLOCK, &numbers(0), &numbers(77));
    }
    let blocks: Vec<&KvBlock> = blocks.iter().collect();
    let visible: Vec<Visible<'_>> = (0..n_rows)
        .map(|row| Visible {
            until: PREFIX + row + 1,
            beyond: &[],
        })
        .collect();
    let sequences = [Sequence {
        rows: 0..n_rows,
        blocks: &blocks,
        visible: &visible,
    }];
    let row_len = model.n_heads * model.head_dim;
    let queries: Vec<f32> = (0..n_rows * row_len).map(number).collect();
    let mut out = vec![0.0; queries.len()];

    let mut best = Duration::MAX;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let call = Instant::now();
        attend(pool, variant, &shape, &queries, &sequences, &mut out);
        best = best.min(call.elapsed());
        black_box(&out);
    }
    let slots: usize = visible.iter().map(|visible| visible.until).sum();
    let products = (2 * slots * row_len) as f64;
    println!(
        "{:<17} {:<5}  {:<4} {:>5}  {:>6.1}  {:>8.1}",
        variant.name(),
        model.name,
        format!("{kv_type:?}"),
        n_rows,
        products / best.as_secs_f64() / 1e9,
        best.as_secs_f64() * 1e6,
    );
}
