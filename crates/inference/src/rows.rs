//! Activations: a row-major f32 matrix on the CPU.

use crate::error::InferenceError;

/// `(n_rows, width)`, f32, CPU, row-major without gaps.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    values: Vec<f32>,
    /// Never 0; `values.len()` is a multiple of it.
    width: usize,
}

impl Rows {
    /// `values.len()` must be a multiple of `width`, which is not 0.
    pub(crate) fn new(values: Vec<f32>, width: usize) -> Self {
        debug_assert!(width > 0 && values.len().is_multiple_of(width));
        Self { values, width }
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.values.len() / self.width
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn row(&self, row_idx: usize) -> &[f32] {
        &self.values[row_idx * self.width..][..self.width]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut(self.width)
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// An error unless every number is finite; `what` names them.
    pub(crate) fn finite(self, what: &'static str) -> Result<Self, InferenceError> {
        if self.values.iter().all(|value| value.is_finite()) {
            Ok(self)
        } else {
            Err(InferenceError::NotFinite { what })
        }
    }

    /// Adds `other` element by element; the shapes are equal.
    pub(crate) fn add(&mut self, other: &Self) {
        debug_assert_eq!(self.values.len(), other.values.len());
        for (left, right) in self.values.iter_mut().zip(&other.values) {
            *left += right;
        }
    }

    /// Adds `bias` to each row.
    pub(crate) fn add_bias(&mut self, bias: &[f32]) {
        for row in self.values.chunks_exact_mut(self.width) {
            for (value, bias) in row.iter_mut().zip(bias) {
                *value += bias;
            }
        }
    }
}
