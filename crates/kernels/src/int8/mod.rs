//! `y = x W^T` with int8 weights and activations.
//!
//! Both sides are quantised symmetrically in groups of [`GROUP`] inputs: a
//! group holds integers in `-127..=127` and one f32 scale. A product is the sum
//! over groups of (exact integer dot product) x (scale of x) x (scale of w).
//!
//! Source: Dettmers et al. 2022, arXiv:2208.07339 (vector-wise quantisation),
//! with groups along the inputs as in Frantar et al. 2022, arXiv:2210.17323.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod pack;
mod scalar;
#[cfg(test)]
mod tests;

pub use pack::{Int8Matrix, Int8Rows};

use crate::variant::{Kind, Variant};

/// Inputs that share a scale.
pub const GROUP: usize = 128;

/// Outputs that are computed together; the unit in which work is split.
pub const PANEL_WIDTH: usize = 64;

/// Inputs that one 32-bit lane multiplies at a time.
const QUAD: usize = 4;

/// Bytes of the weights of one group of one panel.
const GROUP_BYTES: usize = GROUP * PANEL_WIDTH;

/// The weights of one panel, and the rows they are multiplied with.
#[derive(Clone, Copy)]
struct Panel<'a> {
    /// `(n_groups, GROUP / QUAD, PANEL_WIDTH, QUAD)`, i8.
    weights: &'a [i8],
    /// `(n_groups, PANEL_WIDTH)`, f32.
    scales: &'a [f32],
    /// `(n_groups, PANEL_WIDTH)`: the sum of each column's group times 128.
    sums: &'a [i32],
    /// `(n_rows, n_groups, GROUP)`, u8: the integer plus 128.
    rows: &'a [u8],
    /// `(n_rows, n_groups)`, f32.
    row_scales: &'a [f32],
    n_groups: usize,
}

impl Panel<'_> {
    fn n_rows(&self) -> usize {
        self.row_scales.len() / self.n_groups
    }
}

/// Computes `out`, `(n_rows, PANEL_WIDTH)`, f32, row-major, all overwritten.
fn run(variant: Variant, panel: &Panel<'_>, out: &mut [f32]) {
    assert_eq!(panel.weights.len(), panel.n_groups * GROUP_BYTES);
    assert_eq!(panel.scales.len(), panel.n_groups * PANEL_WIDTH);
    assert_eq!(panel.sums.len(), panel.n_groups * PANEL_WIDTH);
    assert_eq!(panel.rows.len(), panel.row_scales.len() * GROUP);
    assert_eq!(out.len(), panel.n_rows() * PANEL_WIDTH);
    out.fill(0.0);
    match variant.kind() {
        Kind::Scalar => scalar::run(panel, out),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 | Kind::AvxVnni => avx2::run(panel, out),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512Vnni | Kind::Avx512VnniBf16 => avx512::run(panel, out),
        #[cfg(not(target_arch = "x86_64"))]
        _ => scalar::run(panel, out),
    }
}
