use std::num::NonZeroUsize;

use super::*;
use crate::{Pool, Variant};

/// A small generator (`SplitMix64`), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In -1..1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    fn numbers(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.unit()).collect()
    }

    /// Blocks of Q4_K with any nibbles, scales and minima, and `d` and `d_min` of
    /// the magnitudes that models have.
    fn q4_k(&mut self, n_blocks: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(n_blocks * Q4_K_BLOCK_BYTES);
        for _ in 0..n_blocks {
            let block: [u8; Q4_K_BLOCK_BYTES] =
                std::array::from_fn(|_| self.next().to_le_bytes()[7]);
            bytes.extend(block);
            let start = bytes.len() - Q4_K_BLOCK_BYTES;
            // Exponents of 2^-14 to 2^-7, either sign.
            bytes[start + 1] &= 0x9f;
            bytes[start + 3] &= 0x9f;
        }
        bytes
    }
}

fn pool(threads: usize) -> Pool {
    let threads = NonZeroUsize::new(threads).expect("a pool has a thread");
    Pool::new(threads, "test").expect("threads can be started")
}

fn quantized(x: &[f32], n_in: usize, variant: Variant) -> QuantizedRows {
    let mut rows = QuantizedRows::new();
    rows.quantize(&pool(1), variant, x, n_in);
    rows
}

fn product(
    pool: &Pool,
    variant: Variant,
    weights: &QuantizedMatrix,
    rows: &QuantizedRows,
) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows.n_rows() * weights.n_out()];
    let product = Product {
        weights,
        rows,
        bias: None,
        out: &mut out,
        write: Write::Overwrite,
    };
    multiply(pool, variant, &mut [product]);
    out
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// All variants give bitwise what the scalar one gives; returns that.
fn check_variants(weights: &QuantizedMatrix, x: &[f32]) -> Vec<f32> {
    let n_in = weights.n_in();
    let expected = product(
        &pool(1),
        Variant::SCALAR,
        weights,
        &quantized(x, n_in, Variant::SCALAR),
    );
    for variant in Variant::available() {
        let got = product(&pool(2), variant, weights, &quantized(x, n_in, variant));
        assert!(
            bits(&got) == bits(&expected),
            "{} at {} x {n_in} x {}",
            variant.name(),
            x.len() / n_in,
            weights.n_out()
        );
    }
    expected
}

fn int8(weights: &[f32], n_in: usize) -> QuantizedMatrix {
    Int8Matrix::from_f32(weights, n_in, Variant::SCALAR).into()
}

#[test]
fn every_variant_of_this_processor_equals_the_reference_bitwise() {
    let names: Vec<_> = Variant::available().iter().map(|v| v.name()).collect();
    eprintln!("variants that ran: {}", names.join(", "));
    let mut random = Random(1);
    for (n_rows, n_in, n_out) in [
        (1, 1, 1),
        (1, 127, 63),
        (2, 128, 64),
        (3, 129, 65),
        (4, 512, 64),
        (5, 896, 130),
        (6, 256, 128),
        (7, 300, 17),
        (13, 4864, 64),
        (50, 4480, 65),
        (64, 896, 200),
        (300, 130, 70),
    ] {
        let weights = int8(&random.numbers(n_out * n_in), n_in);
        check_variants(&weights, &random.numbers(n_rows * n_in));
    }
    for (n_rows, n_in, n_out) in [
        (1, 256, 1),
        (2, 512, 64),
        (3, 256, 63),
        (4, 768, 65),
        (5, 1536, 100),
        (6, 256, 128),
        (13, 8960, 64),
        (64, 256, 200),
        (300, 512, 70),
    ] {
        let weights = random.q4_k(n_out * n_in / SUPER_BLOCK);
        let weights = Int4Matrix::from_q4_k(&weights, n_in).into();
        check_variants(&weights, &random.numbers(n_rows * n_in));
    }
}
