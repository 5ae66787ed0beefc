//! The inner loops: some rows times some blocks of one panel.
//!
//! A file an instruction set. All of them do the same arithmetic: exact integer
//! sums over a group, then for each output `sum = fma(scaled, scale of the row's
//! group, sum)`, group after group.

#![expect(unsafe_code, reason = "the calls into code for an instruction set")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod unpacked;
#[cfg(target_arch = "x86_64")]
mod ymm;

use super::{
    PANEL_WIDTH,
    blocks::{Int4Block, Int8Block},
    rows::RowsView,
};
use crate::variant::{Kind, Variant};

/// The outputs of one row and one panel.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Sums(pub(super) [f32; PANEL_WIDTH]);

impl Sums {
    pub(super) const ZERO: Self = Self([0.0; PANEL_WIDTH]);
}

/// Adds to `sums`, one for each row, the products with `blocks`, whose first
/// group is the first of `rows`.
pub(super) fn int8(variant: Variant, blocks: &[Int8Block], rows: RowsView<'_>, sums: &mut [Sums]) {
    assert_eq!(rows.n_rows(), sums.len(), "a sum for each row");
    match variant.kind() {
        Kind::Scalar => scalar::int8(blocks, rows, sums),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => {
            // SAFETY: `Variant::available` makes this kind only after it has
            // found avx2 on this processor.
            unsafe { avx2::int8(blocks, rows, sums) }
        }
        #[cfg(target_arch = "x86_64")]
        Kind::AvxVnni => {
            // SAFETY: `Variant::available` makes this kind only after it has
            // found avx2, fma and avxvnni on this processor.
            unsafe { avx_vnni::int8(blocks, rows, sums) }
        }
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512Vnni | Kind::Avx512VnniBf16 => {
            // SAFETY: `Variant::available` makes these kinds only after it has
            // found avx512f, avx512bw and avx512vnni on this processor.
            unsafe { avx512::int8(blocks, rows, sums) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        _ => scalar::int8(blocks, rows, sums),
    }
}

/// As [`int8`], for weights of 4 bits; a block is two groups.
pub(super) fn int4(variant: Variant, blocks: &[Int4Block], rows: RowsView<'_>, sums: &mut [Sums]) {
    assert_eq!(rows.n_rows(), sums.len(), "a sum for each row");
    match variant.kind() {
        Kind::Scalar => scalar::int4(blocks, rows, sums),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => {
            // SAFETY: `Variant::available` makes this kind only after it has
            // found avx2 and fma on this processor.
            unsafe { avx2::int4(blocks, rows, sums) }
        }
        #[cfg(target_arch = "x86_64")]
        Kind::AvxVnni => {
            // SAFETY: `Variant::available` makes this kind only after it has
            // found avx2, fma and avxvnni on this processor.
            unsafe { avx_vnni::int4(blocks, rows, sums) }
        }
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512Vnni | Kind::Avx512VnniBf16 => {
            // SAFETY: `Variant::available` makes these kinds only after it has
            // found avx512f, avx512bw and avx512vnni on this processor.
            unsafe { avx512::int4(blocks, rows, sums) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        _ => scalar::int4(blocks, rows, sums),
    }
}
