//! Products in f32, written once and compiled for each instruction set.
//!
//! Each number of the result adds its products one after the other, in order.

use super::rows::{CHUNK, Product, parts};
use crate::kv::{LINE_WORDS, Line};

/// Heads that are multiplied together: as many as leave the sums of 16 columns in
/// AVX2's registers.
const TILE_HEADS: usize = 5;

/// Multiplies with pairs of bf16: a row of `b` takes two numbers of `a`.
#[inline(always)]
pub(super) fn multiply_pairs(product: Product<'_, f32, CHUNK>) {
    multiply::<Pairs>(product);
}

/// Multiplies with f32: a row of `b` takes one number of `a`.
#[inline(always)]
pub(super) fn multiply_numbers(product: Product<'_, f32, CHUNK>) {
    multiply::<Numbers>(product);
}

/// What a word is.
trait Words {
    /// Rows of `b` that a chunk of `a` is multiplied with.
    const ROWS_PER_CHUNK: usize;

    /// Adds the products of a row's words to the sums of some heads.
    fn add<const HEADS: usize>(
        sums: &mut [[f32; LINE_WORDS]; HEADS],
        a: &[&[f32; CHUNK]; HEADS],
        row: usize,
        words: &Line,
    );
}

/// Two bf16.
struct Pairs;

impl Words for Pairs {
    const ROWS_PER_CHUNK: usize = CHUNK / 2;

    #[inline(always)]
    fn add<const HEADS: usize>(
        sums: &mut [[f32; LINE_WORDS]; HEADS],
        a: &[&[f32; CHUNK]; HEADS],
        row: usize,
        words: &Line,
    ) {
        let (mut low, mut high) = ([0.0; LINE_WORDS], [0.0; LINE_WORDS]);
        for (i, word) in words.0.iter().enumerate() {
            low[i] = f32::from_bits(word << 16);
            high[i] = f32::from_bits(word & 0xffff_0000);
        }
        for (sums, a) in sums.iter_mut().zip(a) {
            let (first, second) = (a[2 * row], a[2 * row + 1]);
            for ((sum, low), high) in sums.iter_mut().zip(low).zip(high) {
                *sum = second.mul_add(high, first.mul_add(low, *sum));
            }
        }
    }
}

/// One f32.
struct Numbers;

impl Words for Numbers {
    const ROWS_PER_CHUNK: usize = CHUNK;

    #[inline(always)]
    fn add<const HEADS: usize>(
        sums: &mut [[f32; LINE_WORDS]; HEADS],
        a: &[&[f32; CHUNK]; HEADS],
        row: usize,
        words: &Line,
    ) {
        for (sums, a) in sums.iter_mut().zip(a) {
            let a = a[row];
            for (sum, word) in sums.iter_mut().zip(words.0) {
                *sum = a.mul_add(f32::from_bits(word), *sum);
            }
        }
    }
}

#[inline(always)]
fn multiply<W: Words>(mut product: Product<'_, f32, CHUNK>) {
    for heads in parts(product.n_heads(), TILE_HEADS) {
        for line in 0..product.n_lines {
            match heads.len() {
                1 => tile::<1, W>(heads.start, line, &mut product),
                2 => tile::<2, W>(heads.start, line, &mut product),
                3 => tile::<3, W>(heads.start, line, &mut product),
                4 => tile::<4, W>(heads.start, line, &mut product),
                _ => tile::<TILE_HEADS, W>(heads.start, line, &mut product),
            }
        }
    }
}

/// One line of `HEADS` heads from `head` on.
#[inline(always)]
fn tile<const HEADS: usize, W: Words>(
    head: usize,
    line: usize,
    product: &mut Product<'_, f32, CHUNK>,
) {
    let mut sums = [[0.0_f32; LINE_WORDS]; HEADS];
    if let Some(factors) = product.factors {
        for (i, sums) in sums.iter_mut().enumerate() {
            let [c] = product.c_lines(head + i, line);
            for (sum, c) in sums.iter_mut().zip(c) {
                *sum = *c * factors[head + i];
            }
        }
    }
    let b = &product.b[..product.n_rows * product.row_lines];
    let chunks = b.chunks(W::ROWS_PER_CHUNK * product.row_lines);
    for (chunk, rows) in chunks.enumerate() {
        let a: [&[f32; CHUNK]; HEADS] =
            std::array::from_fn(|i| &product.a[(head + i) * product.n_chunks + chunk]);
        let rows = rows.chunks_exact(product.row_lines);
        for (row, words) in (0..W::ROWS_PER_CHUNK).zip(rows) {
            W::add(&mut sums, &a, row, &words[line]);
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        *product.c_lines(head + i, line) = [*sums];
    }
}
