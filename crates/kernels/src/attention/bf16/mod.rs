//! Products of pairs of bf16, by the processor's instructions for them.
//!
//! Reached only with a variant that has them: `Kind::Avx512VnniBf16`.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(not(target_arch = "x86_64"))]
mod none;

#[cfg(target_arch = "x86_64")]
pub(super) use avx512::{multiply, round_to_pairs, take_scores};
#[cfg(not(target_arch = "x86_64"))]
pub(super) use none::{multiply, round_to_pairs, take_scores};
