//! Products in f32, written once and compiled for each instruction set.
//!
//! Each number of the result adds its products one after the other, in order.

use super::rows::{CHUNK, Product, TILE_HEADS as MOST_HEADS};
use crate::kv::{LINE_WORDS, Line};

/// Heads that are multiplied together: as many as leave the sums of 16 columns in
/// AVX2's registers.
pub(super) const TILE_HEADS: usize = 4;

/// Multiplies with pairs of bf16: a row of `b` takes two numbers of `a`.
///
/// `a`: `(chunk, n_heads, CHUNK)`, f32.
#[inline(always)]
pub(super) fn multiply_pairs(n_heads: usize, a: &[[f32; CHUNK]], product: Product<'_>) {
    match n_heads {
        1 => tile::<1, Pairs>(a, product),
        2 => tile::<2, Pairs>(a, product),
        3 => tile::<3, Pairs>(a, product),
        _ => tile::<TILE_HEADS, Pairs>(a, product),
    }
}

/// Multiplies with f32: a row of `b` takes one number of `a`.
///
/// `a`: `(chunk, n_heads, CHUNK)`, f32.
#[inline(always)]
pub(super) fn multiply_numbers(n_heads: usize, a: &[[f32; CHUNK]], product: Product<'_>) {
    match n_heads {
        1 => tile::<1, Numbers>(a, product),
        2 => tile::<2, Numbers>(a, product),
        3 => tile::<3, Numbers>(a, product),
        _ => tile::<TILE_HEADS, Numbers>(a, product),
    }
}

/// What a word is.
trait Words {
    /// Rows of `b` that a chunk of `a` is multiplied with.
    const ROWS_PER_CHUNK: usize;

    /// Adds a row's products to a head's sums.
    fn add(sums: &mut [f32; LINE_WORDS], a: &[f32; CHUNK], row: usize, words: &Line);
}

/// Two bf16.
struct Pairs;

impl Words for Pairs {
    const ROWS_PER_CHUNK: usize = CHUNK / 2;

    #[inline(always)]
    fn add(sums: &mut [f32; LINE_WORDS], a: &[f32; CHUNK], row: usize, words: &Line) {
        for (sum, word) in sums.iter_mut().zip(words.0) {
            let (low, high) = (word << 16, word & 0xffff_0000);
            *sum = a[2 * row].mul_add(f32::from_bits(low), *sum);
            *sum = a[2 * row + 1].mul_add(f32::from_bits(high), *sum);
        }
    }
}

/// One f32.
struct Numbers;

impl Words for Numbers {
    const ROWS_PER_CHUNK: usize = CHUNK;

    #[inline(always)]
    fn add(sums: &mut [f32; LINE_WORDS], a: &[f32; CHUNK], row: usize, words: &Line) {
        for (sum, word) in sums.iter_mut().zip(words.0) {
            *sum = a[row].mul_add(f32::from_bits(word), *sum);
        }
    }
}

#[inline(always)]
fn tile<const HEADS: usize, W: Words>(a: &[[f32; CHUNK]], product: Product<'_>) {
    const { assert!(HEADS <= MOST_HEADS) };
    let (chunks, _) = a.as_chunks::<HEADS>();
    for line in 0..product.n_lines {
        let mut sums = [[0.0_f32; LINE_WORDS]; HEADS];
        if let Some(factors) = product.factors {
            for (head, sums) in sums.iter_mut().enumerate() {
                let c = &product.c[head * product.c_len + line * LINE_WORDS..][..LINE_WORDS];
                for (sum, c) in sums.iter_mut().zip(c) {
                    *sum = c * factors[head];
                }
            }
        }
        let rows = product.b.chunks_exact(product.row_lines);
        let mut rows = rows.take(product.n_rows).map(|row| &row[line]);
        for chunk in chunks {
            for (i, words) in rows.by_ref().take(W::ROWS_PER_CHUNK).enumerate() {
                for (sums, a) in sums.iter_mut().zip(chunk) {
                    W::add(sums, a, i, words);
                }
            }
        }
        for (head, sums) in sums.iter().enumerate() {
            let c = &mut product.c[head * product.c_len + line * LINE_WORDS..][..LINE_WORDS];
            c.copy_from_slice(sums);
        }
    }
}
