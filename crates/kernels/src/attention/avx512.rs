//! Products of pairs of bf16 with AVX-512 BF16: Zen 4, Sapphire Rapids and later.
//!
//! `vdpbf16ps` adds two products to a sum; this is the order of all sums here,
//! whatever the tile.

#![expect(
    unsafe_code,
    reason = "vector loads and stores, and the call into code for an instruction set"
)]

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_load_si512,
    _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps, _mm512_storeu_si512,
};

use super::rows::{CHUNK, Product, TILE_HEADS};
use crate::kv::{LINE_WORDS, Line};

/// Lines whose sums are kept in registers together.
const TILE_LINES: usize = 4;

/// Pairs of numbers that lie together.
type Pairs = [u32; CHUNK / 2];

/// Rounds to bf16, to nearest even.
///
/// Called only for `Kind::Avx512VnniBf16`.
pub(super) fn round_to_pairs(numbers: &[[f32; CHUNK]], pairs: &mut [Pairs]) {
    // SAFETY: `Variant::available` makes this kind only after it has found avx512f
    // and avx512bf16 on this processor.
    unsafe { round(numbers, pairs) }
}

/// `a`: `(chunk, n_heads, CHUNK / 2)` pairs.
///
/// Called only for `Kind::Avx512VnniBf16`.
pub(super) fn multiply(n_heads: usize, a: &[Pairs], product: Product<'_>) {
    // SAFETY: `Variant::available` makes this kind only after it has found avx512f
    // and avx512bf16 on this processor.
    unsafe { multiply_tiles(n_heads, a, product) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn round(numbers: &[[f32; CHUNK]], pairs: &mut [Pairs]) {
    for (numbers, pairs) in numbers.iter().zip(pairs) {
        let (halves, _) = numbers.as_chunks::<{ 2 * LINE_WORDS }>();
        let (pairs, _) = pairs.as_chunks_mut::<LINE_WORDS>();
        for (numbers, pairs) in halves.iter().zip(pairs) {
            let (low, high) = numbers.split_at(LINE_WORDS);
            // SAFETY: half of 32 numbers of 4 bytes.
            let low = unsafe { _mm512_loadu_ps(low.as_ptr()) };
            // SAFETY: half of 32 numbers of 4 bytes.
            let high = unsafe { _mm512_loadu_ps(high.as_ptr()) };
            let rounded = _mm512_cvtne2ps_pbh(high, low);
            // SAFETY: both are 64 bytes of plain numbers.
            let rounded = unsafe { std::mem::transmute::<__m512bh, __m512i>(rounded) };
            // SAFETY: 16 words of 4 bytes, borrowed mutably.
            unsafe { _mm512_storeu_si512(pairs.as_mut_ptr().cast(), rounded) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_tiles(n_heads: usize, a: &[Pairs], mut product: Product<'_>) {
    let mut line = 0;
    while line < product.n_lines {
        let n_lines = match product.n_lines - line {
            n @ 0..TILE_LINES => n,
            _ => TILE_LINES,
        };
        match n_lines {
            1 => heads::<1>(n_heads, a, line, &mut product),
            2 => heads::<2>(n_heads, a, line, &mut product),
            3 => heads::<3>(n_heads, a, line, &mut product),
            _ => heads::<TILE_LINES>(n_heads, a, line, &mut product),
        }
        line += n_lines;
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn heads<const LINES: usize>(n: usize, a: &[Pairs], line: usize, product: &mut Product<'_>) {
    match n {
        1 => tile::<1, LINES>(a, line, product),
        2 => tile::<2, LINES>(a, line, product),
        3 => tile::<3, LINES>(a, line, product),
        4 => tile::<4, LINES>(a, line, product),
        5 => tile::<5, LINES>(a, line, product),
        6 => tile::<6, LINES>(a, line, product),
        _ => tile::<TILE_HEADS, LINES>(a, line, product),
    }
}

/// `LINES` lines from `first_line` on: at most 28 sums, 4 lines and no more are in
/// registers, since the numbers of `a` are broadcast as they are multiplied.
#[target_feature(enable = "avx512f,avx512bf16")]
fn tile<const HEADS: usize, const LINES: usize>(
    a: &[Pairs],
    first_line: usize,
    product: &mut Product<'_>,
) {
    let (chunks, _) = a.as_chunks::<HEADS>();
    let mut sums = [[_mm512_setzero_ps(); LINES]; HEADS];
    if let Some(factors) = product.factors {
        for (head, sums) in sums.iter_mut().enumerate() {
            let factor = _mm512_set1_ps(factors[head]);
            for (line, sum) in sums.iter_mut().enumerate() {
                let start = head * product.c_len + (first_line + line) * LINE_WORDS;
                let c = &product.c[start..][..LINE_WORDS];
                // SAFETY: `c` is 16 numbers of 4 bytes long by its slicing.
                *sum = _mm512_mul_ps(unsafe { _mm512_loadu_ps(c.as_ptr()) }, factor);
            }
        }
    }
    let mut rows = product.b.chunks_exact(product.row_lines);
    let mut n_rows = product.n_rows;
    for chunk in chunks {
        let n_chunk_rows = n_rows.min(CHUNK / 2);
        for (pair, row) in (0..n_chunk_rows).zip(rows.by_ref()) {
            let row = &row[first_line..][..LINES];
            let b: [__m512bh; LINES] = std::array::from_fn(|line| load(&row[line]));
            for (sums, a) in sums.iter_mut().zip(chunk) {
                let a = bf16(_mm512_set1_epi32(a[pair].cast_signed()));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm512_dpbf16_ps(*sum, a, b);
                }
            }
        }
        n_rows -= n_chunk_rows;
    }
    for (head, sums) in sums.iter().enumerate() {
        for (line, sum) in sums.iter().enumerate() {
            let start = head * product.c_len + (first_line + line) * LINE_WORDS;
            store(&mut product.c[start..][..LINE_WORDS], *sum);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn load(line: &Line) -> __m512bh {
    // SAFETY: a line is 64 bytes at an address that is a multiple of 64.
    bf16(unsafe { _mm512_load_si512(line.0.as_ptr().cast()) })
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn store(c: &mut [f32], sum: __m512) {
    assert!(c.len() >= LINE_WORDS);
    // SAFETY: `c` is borrowed mutably and at least 16 numbers of 4 bytes long.
    unsafe { _mm512_storeu_ps(c.as_mut_ptr(), sum) };
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn bf16(words: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of plain numbers.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(words) }
}
