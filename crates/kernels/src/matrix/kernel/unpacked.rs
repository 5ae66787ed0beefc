//! A group of weights of 4 bits with a byte each, for products with many rows.

use super::super::{
    PANEL_WIDTH,
    blocks::{Int4Block, QuadVectors, SUB_QUADS, SUBS},
    quantize::half,
};

/// One half of an [`Int4Block`], as the inner loops want it.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct Unpacked {
    pub(super) weights: [[QuadVectors; SUB_QUADS]; SUBS],
    pub(super) scales: [[f32; PANEL_WIDTH]; SUBS],
    pub(super) mins: QuadVectors,
    pub(super) d: [f32; PANEL_WIDTH],
    pub(super) d_min: [f32; PANEL_WIDTH],
}

impl Unpacked {
    pub(super) const ZERO: Self = Self {
        weights: [[[[0; 64]; 4]; SUB_QUADS]; SUBS],
        scales: [[0.0; PANEL_WIDTH]; SUBS],
        mins: [[0; 64]; 4],
        d: [0.0; PANEL_WIDTH],
        d_min: [0.0; PANEL_WIDTH],
    };

    /// Inlined so that it is compiled for the instructions of the caller.
    #[inline(always)]
    pub(super) fn set(&mut self, block: &Int4Block, half_idx: usize) {
        let from = &block.halves[half_idx];
        for (subs, nibbles) in self
            .weights
            .as_chunks_mut::<2>()
            .0
            .iter_mut()
            .zip(&from.nibbles)
        {
            let [low, high] = subs;
            let low = low.as_flattened_mut().as_flattened_mut();
            let high = high.as_flattened_mut().as_flattened_mut();
            let nibbles = nibbles.as_flattened().as_flattened();
            for ((low, high), byte) in low.iter_mut().zip(high).zip(nibbles) {
                *low = byte & 15;
                *high = byte >> 4;
            }
        }
        for (to, from) in self.scales.iter_mut().zip(&from.scales) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = f32::from(*from);
            }
        }
        self.mins = from.mins;
        for (to, from) in self.d.iter_mut().zip(&block.d) {
            *to = half(*from);
        }
        for (to, from) in self.d_min.iter_mut().zip(&block.d_min) {
            *to = half(*from);
        }
    }
}
