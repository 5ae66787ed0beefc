//! Products of pairs of bf16 with AVX-512 BF16: Zen 4, Sapphire Rapids and later.
//!
//! `vdpbf16ps` adds two products to a sum; this is the order of all sums here,
//! whatever the tile.

#![expect(
    unsafe_code,
    reason = "vector loads and stores, and the call into code for an instruction set"
)]

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_load_si512, _mm512_loadu_ps,
    _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    _mm512_storeu_si512,
};
use std::ops::Range;

use super::super::rows::{CHUNK, Product, parts};
use crate::kv::{LINE_WORDS, Line};

/// Lines whose sums are kept in registers together.
const TILE_LINES: usize = 4;

/// Heads that are multiplied together: 6 x 4 sums, 4 lines and one number of `a`
/// fill 29 of 32 registers.
const TILE_HEADS: usize = 6;

/// Pairs of numbers that lie together.
const PAIRS: usize = CHUNK / 2;

/// Rounds to bf16, to nearest even.
///
/// Called only for `Kind::Avx512VnniBf16`.
pub(crate) fn round_to_pairs(numbers: &[[f32; CHUNK]], pairs: &mut [[u32; PAIRS]]) {
    // SAFETY: `Variant::available` makes this kind only after it has found avx512f
    // and avx512bf16 on this processor.
    unsafe { round(numbers, pairs) }
}

/// Multiplies pairs of bf16 with pairs of bf16.
///
/// Called only for `Kind::Avx512VnniBf16`.
pub(crate) fn multiply(product: Product<'_, u32, PAIRS>) {
    // SAFETY: `Variant::available` makes this kind only after it has found avx512f
    // and avx512bf16 on this processor.
    unsafe { multiply_tiles(product) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn round(numbers: &[[f32; CHUNK]], pairs: &mut [[u32; PAIRS]]) {
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
fn multiply_tiles(mut product: Product<'_, u32, PAIRS>) {
    for heads in parts(product.n_heads(), TILE_HEADS) {
        let mut line = 0;
        while line < product.n_lines {
            let n_lines = TILE_LINES.min(product.n_lines - line);
            match n_lines {
                1 => some_heads::<1>(heads.clone(), line, &mut product),
                2 => some_heads::<2>(heads.clone(), line, &mut product),
                3 => some_heads::<3>(heads.clone(), line, &mut product),
                _ => some_heads::<TILE_LINES>(heads.clone(), line, &mut product),
            }
            line += n_lines;
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn some_heads<const LINES: usize>(
    heads: Range<usize>,
    line: usize,
    product: &mut Product<'_, u32, PAIRS>,
) {
    match heads.len() {
        1 => tile::<1, LINES>(heads.start, line, product),
        2 => tile::<2, LINES>(heads.start, line, product),
        3 => tile::<3, LINES>(heads.start, line, product),
        4 => tile::<4, LINES>(heads.start, line, product),
        5 => tile::<5, LINES>(heads.start, line, product),
        _ => tile::<TILE_HEADS, LINES>(heads.start, line, product),
    }
}

/// `LINES` lines from `first_line` on, of `HEADS` heads from `head` on.
#[target_feature(enable = "avx512f,avx512bf16")]
fn tile<const HEADS: usize, const LINES: usize>(
    head: usize,
    first_line: usize,
    product: &mut Product<'_, u32, PAIRS>,
) {
    let mut sums = [[_mm512_setzero_ps(); LINES]; HEADS];
    if let Some(factors) = product.factors {
        for (i, sums) in sums.iter_mut().enumerate() {
            let factor = _mm512_set1_ps(factors[head + i]);
            for (line, sum) in sums.iter_mut().enumerate() {
                let c = product.c_line(head + i, first_line + line);
                // SAFETY: `c` is 16 numbers of 4 bytes.
                *sum = _mm512_mul_ps(unsafe { _mm512_loadu_ps(c.as_ptr()) }, factor);
            }
        }
    }
    let b = &product.b[..product.n_rows * product.row_lines];
    for (chunk, rows) in b.chunks(PAIRS * product.row_lines).enumerate() {
        let a: [&[u32; PAIRS]; HEADS] =
            std::array::from_fn(|i| &product.a[(head + i) * product.n_chunks + chunk]);
        for (pair, row) in (0..PAIRS).zip(rows.chunks_exact(product.row_lines)) {
            let row: &[Line] = &row[first_line..][..LINES];
            let b: [__m512bh; LINES] = std::array::from_fn(|line| load(&row[line]));
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = bf16(_mm512_set1_epi32(a[pair].cast_signed()));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm512_dpbf16_ps(*sum, a, b);
                }
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (line, sum) in sums.iter().enumerate() {
            let c = product.c_line(head + i, first_line + line);
            // SAFETY: `c` is 16 numbers of 4 bytes, borrowed mutably.
            unsafe { _mm512_storeu_ps(c.as_mut_ptr(), *sum) };
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
fn bf16(words: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of plain numbers.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(words) }
}
