//! AVX-VNNI with vectors of 32 bytes: Alder Lake and later without AVX-512.
//!
//! Compiled everywhere, tested only where a processor has it.

#![expect(unsafe_code, reason = "bytes become vectors, and vectors bytes")]

use std::{
    arch::x86_64::{
        __m256, __m256i, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32,
        _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps,
        _mm256_setzero_ps, _mm256_setzero_si256, _mm256_slli_epi32,
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

/// Rows of a tile: 3 x 4 sums, 3 broadcasts and a vector of weights are 16
/// registers.
const TILE_ROWS: usize = 3;

kernels!("avx2,fma,avxvnni");

/// What the sums of a row start from: the weights have 128 too much.
#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn start(row: &RowGroup) -> __m256i {
    _mm256_set1_epi32(row.offset)
}

/// The weights as they are.
#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn prepare(weights: __m256i) -> __m256i {
    weights
}

#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn dot(sum: __m256i, weights: __m256i, quad: __m256i) -> __m256i {
    _mm256_dpbusd_avx_epi32(sum, weights, quad)
}

#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn nibble_dot(sum: __m256i, nibbles: __m256i, quad: __m256i) -> __m256i {
    _mm256_dpbusd_avx_epi32(sum, nibbles, quad)
}

/// The sums are whole already.
#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn nibble_sum(sum: __m256i) -> __m256i {
    sum
}

#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn mins_dot(mins: __m256i, quad: __m256i) -> __m256i {
    _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), mins, quad)
}
