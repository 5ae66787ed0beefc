//! Weights of 8 bits.

use super::{
    GROUP, PANEL_WIDTH, QUAD, VECTORS,
    blocks::{Int8Block, QUADS},
    columns, quantize,
};
use crate::{Variant, variant::compiled_for};

/// `W` of shape `(n_out, n_in)`, quantised and packed in panels of
/// [`PANEL_WIDTH`] outputs.
///
/// Inputs are padded with zeros to a multiple of [`GROUP`], outputs to one of
/// [`PANEL_WIDTH`]. Takes about `n_out * n_in * 1.03` bytes.
#[derive(Clone, Debug)]
pub struct Int8Matrix {
    /// `(n_panels, n_groups)`.
    blocks: Box<[Int8Block]>,
    n_in: usize,
    n_out: usize,
    variant: Variant,
}

impl Int8Matrix {
    /// A matrix of zeros to be filled panel by panel.
    ///
    /// `variant`: which instructions the filling uses.
    ///
    /// # Panics
    /// If `n_in` is 0.
    #[must_use]
    pub fn zeros(n_out: usize, n_in: usize, variant: Variant) -> Self {
        assert!(n_in > 0, "a matrix has at least one input");
        let n_blocks = columns::n_panels(n_out) * n_in.div_ceil(GROUP);
        Self {
            blocks: Int8Block::zeroed(n_blocks),
            n_in,
            n_out,
            variant,
        }
    }

    /// Quantises `weights`, `(n_out, n_in)`, f32, row-major.
    ///
    /// # Panics
    /// If `n_in` is 0.
    #[must_use]
    pub fn from_f32(weights: &[f32], n_in: usize, variant: Variant) -> Self {
        let mut matrix = Self::zeros(weights.len() / n_in.max(1), n_in, variant);
        let panels = weights.chunks(PANEL_WIDTH * n_in);
        for (mut panel, rows) in matrix.panels_mut().into_iter().zip(panels) {
            panel.fill(rows);
        }
        matrix
    }

    /// The panels, to be filled, on any thread each.
    pub fn panels_mut(&mut self) -> Vec<Int8PanelMut<'_>> {
        let (n_in, variant) = (self.n_in, self.variant);
        self.blocks
            .chunks_exact_mut(n_in.div_ceil(GROUP))
            .map(|blocks| Int8PanelMut {
                blocks,
                n_in,
                variant,
            })
            .collect()
    }

    /// How many inputs.
    #[must_use]
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// How many outputs.
    #[must_use]
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// The bytes its weights and scales take, padding counted.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of_val(&*self.blocks)
    }

    /// The outputs with these indices, in this order, as a matrix of their own
    /// that gives bitwise the same numbers for them.
    ///
    /// # Panics
    /// If there is no such output.
    #[must_use]
    pub fn select_outputs(&self, outputs: &[usize]) -> Self {
        let mut selected = Self::zeros(outputs.len(), self.n_in, self.variant);
        let n_groups = self.n_in.div_ceil(GROUP);
        let panels = selected.blocks.chunks_exact_mut(n_groups);
        for (panel, outputs) in panels.zip(outputs.chunks(PANEL_WIDTH)) {
            for (to_column, &output) in outputs.iter().enumerate() {
                assert!(output < self.n_out, "output {output} of {}", self.n_out);
                let from_column = output % PANEL_WIDTH;
                for (to, from) in panel.iter_mut().zip(self.panel(output / PANEL_WIDTH)) {
                    to.scales[to_column] = from.scales[from_column];
                    for (to, from) in to.weights.iter_mut().zip(&from.weights) {
                        let quad = from.as_flattened().as_chunks::<QUAD>().0[from_column];
                        to.as_flattened_mut().as_chunks_mut::<QUAD>().0[to_column] = quad;
                    }
                }
            }
        }
        selected
    }

    /// The groups of panel `panel_idx`.
    pub(super) fn panel(&self, panel_idx: usize) -> &[Int8Block] {
        let n_groups = self.n_in.div_ceil(GROUP);
        &self.blocks[panel_idx * n_groups..][..n_groups]
    }
}

/// One panel of an [`Int8Matrix`] under construction.
#[derive(Debug)]
pub struct Int8PanelMut<'a> {
    blocks: &'a mut [Int8Block],
    n_in: usize,
    variant: Variant,
}

impl Int8PanelMut<'_> {
    /// Quantises up to [`PANEL_WIDTH`] rows of `W`, `(n, n_in)`, f32, row-major.
    ///
    /// # Panics
    /// If there are more rows, or they are not whole.
    pub fn fill(&mut self, rows: &[f32]) {
        assert!(rows.len().is_multiple_of(self.n_in) && rows.len() <= self.n_in * PANEL_WIDTH);
        let blocks = &mut *self.blocks;
        for (column, row) in rows.chunks_exact(self.n_in).enumerate() {
            compiled_for!(
                self.variant,
                fill_column(blocks: &mut [Int8Block], column: usize, row: &[f32])
            );
        }
    }
}
#[inline(always)]
fn fill_column(blocks: &mut [Int8Block], column: usize, row: &[f32]) {
    let mut quantised = [0_i8; GROUP];
    for (block, group) in blocks.iter_mut().zip(row.chunks(GROUP)) {
        block.scales[column] = quantize::weights(group, &mut quantised);
        let quads = quantised.as_chunks::<QUAD>().0;
        for (to, quad) in block.weights.iter_mut().zip(quads) {
            // Flipping the sign adds 128.
            let quad = quad.map(|weight| weight.cast_unsigned() ^ 0x80);
            to.as_flattened_mut().as_chunks_mut::<QUAD>().0[column] = quad;
        }
    }
}

/// A check at compile time that the vectors of a quad are a panel wide.
const _: () = assert!(VECTORS * super::VECTOR_BYTES == PANEL_WIDTH * QUAD && QUADS == 32);
