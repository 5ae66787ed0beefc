//! Products of pairs of bf16 with AVX-512 BF16: Zen 4, Sapphire Rapids and later.
//!
//! `vdpbf16ps` adds two products to a sum; this is the order of all sums here,
//! whatever the tile.

#![expect(
    unsafe_code,
    reason = "vector loads and stores, and the call into code for an instruction set"
)]

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_epi32, _mm512_add_ps, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cvtne2ps_pbh, _mm512_cvtss_f32, _mm512_dpbf16_ps, _mm512_fmadd_ps,
    _mm512_load_si512, _mm512_loadu_ps, _mm512_mask_mov_ps, _mm512_max_ps, _mm512_mul_ps,
    _mm512_reduce_max_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32,
    _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps,
};
use std::ops::Range;

use super::super::rows::{CHUNK, Product, Scores, parts};
use super::super::softmax::{self, Scales, State};
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

/// Takes up a block's scores of some heads, powers of two, and gives their weights
/// as pairs of bf16.
///
/// A head's factor is what its sums of the blocks before are to be multiplied with.
/// Weights of which `slots` has no bit are 0, whatever the score; `scales` are applied
/// as in `softmax.rs`. Called only for `Kind::Avx512VnniBf16`.
pub(crate) fn take_scores(
    slots: u64,
    scales: Option<&Scales>,
    scores: &[Scores],
    states: &mut [State],
    factors: &mut [f32],
    pairs: &mut [[u32; PAIRS]],
) {
    // SAFETY: `Variant::available` makes this kind only after it has found avx512f
    // and avx512bf16 on this processor.
    unsafe { weigh(slots, scales, scores, states, factors, pairs) }
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
        store_pairs(load_block(numbers), pairs);
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn weigh(
    slots: u64,
    scales: Option<&Scales>,
    scores: &[Scores],
    states: &mut [State],
    factors: &mut [f32],
    pairs: &mut [[u32; PAIRS]],
) {
    let hidden = _mm512_set1_ps(f32::NEG_INFINITY);
    let heads = scores.iter().zip(states).zip(factors).zip(pairs);
    for (((scores, state), factor), pairs) in heads {
        let mut weights = load_block(scores);
        if let Some(scales) = scales {
            weights = multiply_block(weights, &scales.keys);
        }
        for (line, weights) in weights.iter_mut().enumerate() {
            #[expect(clippy::cast_possible_truncation, reason = "the bits of this line")]
            let slots = (slots >> (line * LINE_WORDS)) as u16;
            *weights = _mm512_mask_mov_ps(hidden, slots, *weights);
        }
        let [a, b, c, d] = weights;
        let max = _mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d));
        let max = _mm512_reduce_max_ps(max).max(state.max);
        let maxima = _mm512_set1_ps(max);
        let factors = exp2(_mm512_sub_ps(_mm512_set1_ps(state.max), maxima));
        for weights in &mut weights {
            *weights = exp2(_mm512_sub_ps(*weights, maxima));
        }
        let [a, b, c, d] = weights;
        let sum = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
        let sums = _mm512_fmadd_ps(load_numbers(&state.sums), factors, sum);
        store_numbers(sums, &mut state.sums);
        state.max = max;
        *factor = _mm512_cvtss_f32(factors);
        if let Some(scales) = scales {
            weights = multiply_block(weights, &scales.values);
        }
        store_pairs(weights, pairs);
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn multiply_block(numbers: [__m512; TILE_LINES], factors: &Scores) -> [__m512; TILE_LINES] {
    let factors = load_block(factors);
    std::array::from_fn(|line| _mm512_mul_ps(numbers[line], factors[line]))
}

/// `2^x` for `x` of at most 0, as in `softmax.rs`.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn exp2(x: __m512) -> __m512 {
    let round = _mm512_set1_ps(softmax::ROUND);
    // The second if it is NaN.
    let x = _mm512_max_ps(_mm512_set1_ps(softmax::LEAST), x);
    let shifted = _mm512_add_ps(x, round);
    let fraction = _mm512_sub_ps(x, _mm512_sub_ps(shifted, round));
    let mut polynomial = _mm512_set1_ps(softmax::FIFTH);
    for coefficient in softmax::COEFFICIENTS {
        polynomial = _mm512_fmadd_ps(polynomial, fraction, _mm512_set1_ps(coefficient));
    }
    let mantissa = _mm512_fmadd_ps(polynomial, fraction, _mm512_set1_ps(1.0));
    let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
    let one = _mm512_castps_si512(_mm512_set1_ps(1.0));
    let power = _mm512_castsi512_ps(_mm512_add_epi32(exponent, one));
    _mm512_mul_ps(mantissa, power)
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
            let c: &[_; LINES] = product.c_lines(head + i, first_line);
            for (sum, c) in sums.iter_mut().zip(c) {
                *sum = _mm512_mul_ps(load_numbers(c), factor);
            }
        }
    }
    let b = &product.b[..product.n_rows * product.row_lines];
    for (chunk, rows) in b.chunks(PAIRS * product.row_lines).enumerate() {
        let a: [&[u32; PAIRS]; HEADS] =
            std::array::from_fn(|i| &product.a[(head + i) * product.n_chunks + chunk]);
        for (pair, row) in (0..PAIRS).zip(rows.chunks_exact(product.row_lines)) {
            let row: &[Line] = &row[first_line..][..LINES];
            let b: [__m512bh; LINES] = std::array::from_fn(|line| load_line(&row[line]));
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = bf16(_mm512_set1_epi32(a[pair].cast_signed()));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm512_dpbf16_ps(*sum, a, b);
                }
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        let c: &mut [_; LINES] = product.c_lines(head + i, first_line);
        for (sum, c) in sums.iter().zip(c) {
            store_numbers(*sum, c);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn load_line(line: &Line) -> __m512bh {
    // SAFETY: a line is 64 bytes at an address that is a multiple of 64.
    bf16(unsafe { _mm512_load_si512(line.0.as_ptr().cast()) })
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn load_numbers(numbers: &[f32; LINE_WORDS]) -> __m512 {
    // SAFETY: 16 numbers of 4 bytes.
    unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn load_block(numbers: &[f32; CHUNK]) -> [__m512; TILE_LINES] {
    let (lines, _) = numbers.as_chunks();
    [
        load_numbers(&lines[0]),
        load_numbers(&lines[1]),
        load_numbers(&lines[2]),
        load_numbers(&lines[3]),
    ]
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn store_numbers(vector: __m512, numbers: &mut [f32; LINE_WORDS]) {
    // SAFETY: 16 numbers of 4 bytes, borrowed mutably.
    unsafe { _mm512_storeu_ps(numbers.as_mut_ptr(), vector) };
}

/// Rounds 64 numbers to bf16, to nearest even.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn store_pairs(numbers: [__m512; TILE_LINES], pairs: &mut [u32; PAIRS]) {
    let [a, b, c, d] = numbers;
    let (pairs, _) = pairs.as_chunks_mut::<LINE_WORDS>();
    for (rounded, pairs) in [_mm512_cvtne2ps_pbh(b, a), _mm512_cvtne2ps_pbh(d, c)]
        .into_iter()
        .zip(pairs)
    {
        // SAFETY: both are 64 bytes of plain numbers.
        let rounded = unsafe { std::mem::transmute::<__m512bh, __m512i>(rounded) };
        // SAFETY: 16 words of 4 bytes, borrowed mutably.
        unsafe { _mm512_storeu_si512(pairs.as_mut_ptr().cast(), rounded) };
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn bf16(words: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of plain numbers.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(words) }
}
