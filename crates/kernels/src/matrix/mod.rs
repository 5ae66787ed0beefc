//! `y = x W^T` with weights of 8 or 4 bits and activations of 8 bits.
//!
//! Activations are quantised symmetrically in groups of [`GROUP`] inputs: a
//! group holds integers in `-127..=127` and one f32 scale. Weights are either
//! quantised in the same way ([`Int8Matrix`]) or kept exactly as the Q4_K format
//! has them ([`Int4Matrix`]). An output is the sum, group after group, of (exact
//! integer sums) x (scales): its arithmetic depends on its row and its weights
//! alone, so it is bitwise the same for any number of rows, any number of threads
//! and any variant.
//!
//! Source: Dettmers et al. 2022, arXiv:2208.07339 (vector-wise quantisation),
//! with groups along the inputs as in Frantar et al. 2022, arXiv:2210.17323;
//! Q4_K from `ggml-quants.c` of ggml (`dequantize_row_q4_K`).

mod blocks;
mod columns;
mod gated;
mod int4;
mod int8;
mod kernel;
mod multiply;
mod quantize;
mod rows;
#[cfg(test)]
mod tests;

pub use gated::{Gated, multiply_gated};
pub use int4::{Int4Matrix, Int4PanelMut, Q4_K_BLOCK_BYTES, SUPER_BLOCK};
pub use int8::{Int8Matrix, Int8PanelMut};
pub use multiply::{Product, Write, multiply};
pub use rows::{QuantizedRows, RmsNorm};

/// Inputs of a row that share an activation scale.
pub const GROUP: usize = 128;

/// Outputs that are computed together; the unit in which work is split.
pub const PANEL_WIDTH: usize = 64;

/// Inputs that one 32-bit lane multiplies at a time.
const QUAD: usize = 4;

/// Bytes of a vector; the blocks of weights are laid out in such vectors.
const VECTOR_BYTES: usize = 64;

/// Vectors across a panel: 16 outputs each, a quad of inputs an output.
const VECTORS: usize = PANEL_WIDTH * QUAD / VECTOR_BYTES;

/// The weights of one linear layer, in the form in which they stay in memory.
#[derive(Clone, Debug)]
pub enum QuantizedMatrix {
    /// 8 bits a weight, from any numbers.
    Int8(Int8Matrix),
    /// 4 bits a weight, exactly those of Q4_K.
    Int4(Int4Matrix),
}

impl QuantizedMatrix {
    /// How many inputs.
    #[must_use]
    pub fn n_in(&self) -> usize {
        match self {
            Self::Int8(weights) => weights.n_in(),
            Self::Int4(weights) => weights.n_in(),
        }
    }

    /// How many outputs.
    #[must_use]
    pub fn n_out(&self) -> usize {
        match self {
            Self::Int8(weights) => weights.n_out(),
            Self::Int4(weights) => weights.n_out(),
        }
    }

    /// The bytes its weights and scales take, padding counted.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Int8(weights) => weights.size_bytes(),
            Self::Int4(weights) => weights.size_bytes(),
        }
    }

    /// The outputs with these indices, in this order, as a matrix of their own
    /// that gives bitwise the same numbers for them.
    ///
    /// # Panics
    /// If there is no such output.
    #[must_use]
    pub fn select_outputs(&self, outputs: &[usize]) -> Self {
        match self {
            Self::Int8(weights) => Self::Int8(weights.select_outputs(outputs)),
            Self::Int4(weights) => Self::Int4(weights.select_outputs(outputs)),
        }
    }
}

impl From<Int8Matrix> for QuantizedMatrix {
    fn from(weights: Int8Matrix) -> Self {
        Self::Int8(weights)
    }
}

impl From<Int4Matrix> for QuantizedMatrix {
    fn from(weights: Int4Matrix) -> Self {
        Self::Int4(weights)
    }
}
