//! How fast the products are: GMAC/s for each shape and variant.
//!
//! ```text
//! cargo run --release -p inwarden-kernels --example gemm -- [THREADS [VARIANT]]
//! ```
//!
//! A product with a single row is bound by memory: it is compared with plain
//! reading. Of several runs the fastest counts: others on the machine only slow
//! it down.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::{hint::black_box, num::NonZeroUsize, time::Instant};

use inwarden_kernels::{
    Int4Matrix, Int8Matrix, Pool, Product, Q4_K_BLOCK_BYTES, QuantizedMatrix, QuantizedRows,
    SUPER_BLOCK, Variant, Write, multiply,
};

/// `(n_out, n_in)` of the layers of a 0.5B, a 1.5B and a 7B model.
const INT8_SHAPES: [(usize, usize); 4] = [(896, 896), (128, 896), (4864, 896), (896, 4864)];
const INT4_SHAPES: [(usize, usize); 3] = [(8960, 1536), (1536, 8960), (3584, 18944)];

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let threads = args.next().and_then(|arg| arg.parse().ok());
    let threads = threads.unwrap_or(NonZeroUsize::MIN);
    let name = args.next();
    let pool = Pool::new(threads, "gemm")?;
    let memory = vec![1_u64; 64 << 20];
    println!(
        "{threads} threads, reading {:.1} GB/s",
        read(&pool, &memory)
    );
    for variant in Variant::available() {
        if name.as_ref().is_some_and(|name| name != variant.name()) {
            continue;
        }
        for (n_out, n_in) in INT8_SHAPES {
            let weights = Int8Matrix::from_f32(&numbers(n_out * n_in), n_in, variant);
            measure(&pool, variant, &weights.into(), &memory);
        }
        for (n_out, n_in) in INT4_SHAPES {
            let bytes = q4_k(n_out * n_in / SUPER_BLOCK);
            let weights = Int4Matrix::from_q4_k(&bytes, n_in);
            measure(&pool, variant, &weights.into(), &memory);
        }
    }
    Ok(())
}

fn measure(pool: &Pool, variant: Variant, weights: &QuantizedMatrix, memory: &[u64]) {
    let (n_out, n_in) = (weights.n_out(), weights.n_in());
    let bits = match weights {
        QuantizedMatrix::Int8(_) => 8,
        QuantizedMatrix::Int4(_) => 4,
    };
    print!("{:17} {bits} bits {n_out:5} x {n_in:5}:", variant.name());
    if variant != Variant::SCALAR {
        let share = share_of_bandwidth(pool, variant, weights, memory);
        print!("  m=1 reads at {:.0} %", share * 100.0);
    }
    for n_rows in [4, 16, 64, 128] {
        let (mut best, started) = (f64::INFINITY, Instant::now());
        let mut rows = QuantizedRows::new();
        rows.quantize(pool, variant, &numbers(n_rows * n_in), n_in);
        while best.is_infinite() || started.elapsed().as_secs_f64() < 0.2 {
            best = best.min(seconds(pool, variant, &[weights], &rows));
        }
        let rate = (n_out * n_in * n_rows) as f64 / best / 1e9;
        print!("  m={n_rows} {rate:.0}");
    }
    println!(" GMAC/s");
}

/// How fast a product with one row reads its weights, compared with plain reading:
/// the median of pairs measured in turn. The weights are too many for the caches.
fn share_of_bandwidth(
    pool: &Pool,
    variant: Variant,
    weights: &QuantizedMatrix,
    memory: &[u64],
) -> f64 {
    let copies = vec![weights.clone(); (200 << 20) / weights.size_bytes() + 1];
    let copies: Vec<_> = copies.iter().collect();
    let bytes = (copies.len() * weights.size_bytes()) as f64;
    let mut rows = QuantizedRows::new();
    rows.quantize(pool, variant, &numbers(weights.n_in()), weights.n_in());
    let mut shares: Vec<f64> = (0..11)
        .map(|_| {
            let rate = bytes / seconds(pool, variant, &copies, &rows) / 1e9;
            rate / read(pool, &memory[..memory.len() / 2])
        })
        .collect();
    shares.sort_by(f64::total_cmp);
    shares[shares.len() / 2]
}

/// For all the products one after the other.
fn seconds(
    pool: &Pool,
    variant: Variant,
    matrices: &[&QuantizedMatrix],
    rows: &QuantizedRows,
) -> f64 {
    let mut out = vec![0.0; rows.n_rows() * matrices[0].n_out()];
    let started = Instant::now();
    for weights in matrices {
        let product = Product {
            weights,
            rows,
            bias: None,
            out: &mut out,
            write: Write::Overwrite,
        };
        multiply(pool, variant, &mut [product]);
    }
    started.elapsed().as_secs_f64()
}

/// Reads all of `memory`; in GB/s.
fn read(pool: &Pool, memory: &[u64]) -> f64 {
    let n_chunks = 64;
    let started = Instant::now();
    pool.run(n_chunks, &|idx| {
        let chunk = &memory[idx * memory.len() / n_chunks..][..memory.len() / n_chunks];
        let mut sums = [0_u64; 32];
        for chunk in chunk.as_chunks::<32>().0 {
            for (sum, number) in sums.iter_mut().zip(chunk) {
                *sum ^= number;
            }
        }
        black_box(sums);
    });
    size_of_val(memory) as f64 / started.elapsed().as_secs_f64() / 1e9
}

/// In -1..1, scrambled.
fn numbers(len: usize) -> Vec<f32> {
    let number = |idx: usize| (idx.wrapping_mul(2_654_435_769) >> 7 & 0xffff) as f32;
    (0..len).map(|idx| number(idx) / 32_768.0 - 1.0).collect()
}

/// Blocks of Q4_K with scrambled nibbles and scales.
fn q4_k(n_blocks: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..n_blocks * Q4_K_BLOCK_BYTES)
        .map(|idx| (idx.wrapping_mul(2_654_435_769) >> 16).to_le_bytes()[0])
        .collect();
    for block in bytes.chunks_exact_mut(Q4_K_BLOCK_BYTES) {
        // Both factors are 2^-14 times something.
        (block[1], block[3]) = (4, 4);
    }
    bytes
}
