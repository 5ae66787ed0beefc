//! AVX2 with FMA: Haswell, Zen and later.
//!
//! It multiplies unsigned by signed bytes, and adds two products in 16 bits that
//! saturate. Weights of 8 bits are therefore made signed again and multiplied as
//! `|x| * (w * sign x)`: two products of at most 127 * 127 fit. Nibbles are
//! unsigned as they are, and small enough that the sums of a whole sub-block fit:
//! 8 * 2 * 15 * 127 is 30,480.

#![expect(unsafe_code, reason = "bytes become vectors, and vectors bytes")]

use std::{
    arch::x86_64::{
        __m256, __m256i, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps,
        _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps,
        _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
        _mm256_setzero_si256, _mm256_sign_epi8, _mm256_slli_epi32, _mm256_xor_si256,
    },
    mem::transmute,
};

use super::{
    super::{
        PANEL_WIDTH,
        blocks::{Int4Block, Int8Block, QuadVectors, SUB_QUADS, SUBS},
        rows::{RowGroup, RowsView},
    },
    Sums,
    unpacked::Unpacked,
    ymm::{INT4_ROWS, INT4_VECTORS, LANES, TILE_VECTORS, VECTOR_BYTES, kernels},
};

/// Rows of a tile: 2 x 4 sums and what they need fill 15 of 16 registers.
const TILE_ROWS: usize = 2;

kernels!("avx2,fma");

/// What the sums of a row start from.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn start(_row: &RowGroup) -> __m256i {
    _mm256_setzero_si256()
}

/// Back from the integers plus 128 to the integers.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn prepare(weights: __m256i) -> __m256i {
    _mm256_xor_si256(weights, _mm256_set1_epi8(i8::MIN))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn dot(sum: __m256i, weights: __m256i, quad: __m256i) -> __m256i {
    let signed = _mm256_sign_epi8(weights, quad);
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(quad), signed);
    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// Adds in 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn nibble_dot(sum: __m256i, nibbles: __m256i, quad: __m256i) -> __m256i {
    _mm256_add_epi16(sum, _mm256_maddubs_epi16(nibbles, quad))
}

/// From pairs in 16 bits to 32 bits.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn nibble_sum(sum: __m256i) -> __m256i {
    _mm256_madd_epi16(sum, _mm256_set1_epi16(1))
}

/// Minima of 6 bits times bytes of sums: at most 2 * 63 * 128 in 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn mins_dot(mins: __m256i, quad: __m256i) -> __m256i {
    nibble_sum(_mm256_maddubs_epi16(mins, quad))
}
