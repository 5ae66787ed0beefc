//! CPU number-crunching with runtime dispatch.
//!
//! Now: products of int8 weights, with a scale per [`GROUP`] inputs, and
//! activations that are quantised on the fly. Each instruction set has a
//! variant of its own, chosen at run time by [`Variant::detect`]; all variants
//! give bitwise the same numbers as the scalar one, whatever the number of rows
//! in a call, because the integer sums are exact and every output adds its
//! groups in the same order. This holds for finite inputs and outputs: where a
//! number is not finite, each variant gives one that is not either, but the sign
//! and the payload of a NaN may differ.
//!
//! What is not here: model names, files, and threads. The caller splits the
//! work by panels and runs them where it likes.
//!
//! Unsafe code is in `int8/avx2.rs` and `int8/avx512.rs` alone: the calls into
//! functions compiled for an instruction set, which [`Variant`] vouches for, and
//! the loads and stores of vectors.

#![cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "the vector variants are for x86-64")
)]

mod int8;
mod variant;

pub use int8::{GROUP, Int8Matrix, Int8Rows, PANEL_WIDTH};
pub use variant::Variant;
