//! CPU number-crunching with runtime dispatch.
//!
//! Now: products of weights of 8 and 4 bits with activations that are quantised
//! on the fly, with a scale per [`GROUP`] inputs; attention over cached keys and
//! values ([`attend`]); and what lies between them. Each instruction set has a
//! variant of its own, chosen at run time by [`Variant::detect`]; all variants
//! give bitwise the same numbers as the scalar one, whatever the number of rows
//! in a call, because the integer sums are exact and every output adds its
//! groups in the same order. Attention over bf16 keys and values is the exception:
//! with AVX-512 BF16 it rounds queries and weights too. All this holds for finite
//! inputs and outputs: where a number is not finite, each variant gives one that
//! is not either, but the sign and the payload of a NaN may differ.
//!
//! Work runs on the threads of a [`Pool`], which the caller owns.
//!
//! What is not here: model names and files.
//!
//! Unsafe code is in these places:
//!
//! * vector loads and stores: `matrix/kernel/avx512.rs`, `matrix/kernel/ymm.rs`
//!   (in `avx2.rs` and `avx_vnni.rs`), `attention/bf16/avx512.rs`,
//!   `matrix/blocks.rs`;
//! * calls into code compiled for an instruction set, which [`Variant`] vouches
//!   for: `matrix/kernel/mod.rs`, and the macro of `variant.rs` wherever it is
//!   used;
//! * memory and work that threads share: `pool/`, `matrix/multiply.rs`.

#![cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "the vector variants are for x86-64")
)]

mod attention;
mod elementwise;
mod functions;
mod kv;
mod matrix;
mod pool;
mod rotary;
mod unpack;
mod variant;

pub use attention::{Sequence, Visible, attend};
pub use elementwise::{log_sum_exp, rms_norm, swiglu};
pub use kv::{KV_BLOCK, KvBlock, KvShape, KvType};
pub use matrix::{
    GROUP, Gated, Int4Matrix, Int4PanelMut, Int8Matrix, Int8PanelMut, PANEL_WIDTH, Product,
    Q4_K_BLOCK_BYTES, QuantizedMatrix, QuantizedRows, RmsNorm, SUPER_BLOCK, Write, multiply,
    multiply_gated,
};
pub use pool::Pool;
pub use rotary::{RotaryTable, rope};
pub use unpack::BlockType;
pub use variant::Variant;
