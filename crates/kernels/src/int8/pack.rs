//! Quantises, and lays the integers out as the variants read them.

use std::ops::Range;

use super::{GROUP, GROUP_BYTES, PANEL_WIDTH, Panel, QUAD, Variant, run};

/// The largest magnitude of a quantised number; -128 is not used, so that a sum
/// of two products of bytes fits 16 bits.
const LARGEST: f32 = 127.0;

/// `W` of shape `(n_out, n_in)`, quantised and packed in panels of
/// [`PANEL_WIDTH`] outputs.
///
/// Inputs are padded with zeros to a multiple of [`GROUP`], outputs to one of
/// [`PANEL_WIDTH`]. Takes about `n_out * n_in * 1.06` bytes.
#[derive(Clone, Debug)]
pub struct Int8Matrix {
    weights: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
    n_in: usize,
    n_out: usize,
    variant: Variant,
}

impl Int8Matrix {
    /// An empty matrix of `n_out` outputs to be filled panel by panel.
    ///
    /// # Panics
    /// If `n_in` is 0.
    #[must_use]
    pub fn zeros(n_out: usize, n_in: usize, variant: Variant) -> Self {
        assert!(n_in > 0, "a matrix has at least one input");
        let n_panels = n_out.div_ceil(PANEL_WIDTH);
        let n_groups = n_in.div_ceil(GROUP);
        Self {
            weights: vec![0; n_panels * n_groups * GROUP_BYTES],
            scales: vec![0.0; n_panels * n_groups * PANEL_WIDTH],
            sums: vec![0; n_panels * n_groups * PANEL_WIDTH],
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
    pub fn panels_mut(&mut self) -> Vec<PanelMut<'_>> {
        let n_groups = self.n_groups();
        let weights = self.weights.chunks_exact_mut(n_groups * GROUP_BYTES);
        let scales = self.scales.chunks_exact_mut(n_groups * PANEL_WIDTH);
        let sums = self.sums.chunks_exact_mut(n_groups * PANEL_WIDTH);
        weights
            .zip(scales)
            .zip(sums)
            .map(|((weights, scales), sums)| PanelMut {
                weights,
                scales,
                sums,
                n_in: self.n_in,
            })
            .collect()
    }

    /// How many outputs.
    #[must_use]
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// How many panels.
    #[must_use]
    pub fn n_panels(&self) -> usize {
        self.n_out.div_ceil(PANEL_WIDTH)
    }

    /// The outputs that panel `panel_idx` computes, without padding.
    #[must_use]
    pub fn columns(&self, panel_idx: usize) -> Range<usize> {
        let start = panel_idx * PANEL_WIDTH;
        start..(start + PANEL_WIDTH).min(self.n_out)
    }

    /// Multiplies `rows` with one panel. `out`: `(n_rows, PANEL_WIDTH)`, f32,
    /// row-major; the columns beyond [`Int8Matrix::columns`] become 0.
    ///
    /// # Panics
    /// If the shapes do not fit, or there is no such panel.
    pub fn product(&self, panel_idx: usize, rows: &Int8Rows, out: &mut [f32]) {
        assert_eq!(rows.n_in, self.n_in, "the inputs of both sides are as many");
        let n_groups = self.n_groups();
        let weights = &self.weights[panel_idx * n_groups * GROUP_BYTES..];
        let scales = &self.scales[panel_idx * n_groups * PANEL_WIDTH..];
        let sums = &self.sums[panel_idx * n_groups * PANEL_WIDTH..];
        let panel = Panel {
            weights: &weights[..n_groups * GROUP_BYTES],
            scales: &scales[..n_groups * PANEL_WIDTH],
            sums: &sums[..n_groups * PANEL_WIDTH],
            rows: &rows.values,
            row_scales: &rows.scales,
            n_groups,
        };
        run(self.variant, &panel, out);
        // A row that is not finite has made NaN of the padding.
        let n_columns = self.columns(panel_idx).len();
        for out in out.chunks_exact_mut(PANEL_WIDTH) {
            out[n_columns..].fill(0.0);
        }
    }

    fn n_groups(&self) -> usize {
        self.n_in.div_ceil(GROUP)
    }
}

/// One panel of an [`Int8Matrix`] under construction.
#[derive(Debug)]
pub struct PanelMut<'a> {
    weights: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
    n_in: usize,
}

impl PanelMut<'_> {
    /// Quantises up to [`PANEL_WIDTH`] rows of `W`, `(n, n_in)`, f32, row-major.
    ///
    /// # Panics
    /// If there are more rows, or they are not whole.
    pub fn fill(&mut self, rows: &[f32]) {
        assert!(rows.len().is_multiple_of(self.n_in) && rows.len() <= self.n_in * PANEL_WIDTH);
        let mut quantised = [0_i8; GROUP];
        for (column, row) in rows.chunks_exact(self.n_in).enumerate() {
            for (group_idx, group) in row.chunks(GROUP).enumerate() {
                let scale = quantise(group, &mut quantised);
                let sum: i32 = quantised.iter().map(|value| i32::from(*value)).sum();
                self.scales[group_idx * PANEL_WIDTH + column] = scale;
                self.sums[group_idx * PANEL_WIDTH + column] = sum * 128;
                let panel = &mut self.weights[group_idx * GROUP_BYTES..][..GROUP_BYTES];
                let quads = panel.chunks_exact_mut(PANEL_WIDTH * QUAD);
                for (to, from) in quads.zip(quantised.chunks_exact(QUAD)) {
                    to[column * QUAD..][..QUAD].copy_from_slice(from);
                }
            }
        }
    }
}

/// Activations of shape `(n_rows, n_in)`, quantised.
#[derive(Clone, Debug)]
pub struct Int8Rows {
    /// The integers plus 128.
    values: Vec<u8>,
    scales: Vec<f32>,
    n_in: usize,
}

impl Int8Rows {
    /// Quantises `rows`, `(n_rows, n_in)`, f32, row-major. Each row by itself.
    ///
    /// # Panics
    /// If the rows are not whole, or `n_in` is 0.
    #[must_use]
    pub fn from_f32(rows: &[f32], n_in: usize) -> Self {
        assert!(n_in > 0 && rows.len().is_multiple_of(n_in));
        let n_groups = rows.len() / n_in * n_in.div_ceil(GROUP);
        let mut values = Vec::with_capacity(n_groups * GROUP);
        let mut scales = Vec::with_capacity(n_groups);
        let mut quantised = [0_i8; GROUP];
        for row in rows.chunks_exact(n_in) {
            for group in row.chunks(GROUP) {
                scales.push(quantise(group, &mut quantised));
                values.extend(quantised.iter().map(|value| value.cast_unsigned() ^ 0x80));
            }
        }
        Self {
            values,
            scales,
            n_in,
        }
    }

    /// How many rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.scales.len() / self.n_in.div_ceil(GROUP)
    }
}

/// Quantises up to [`GROUP`] numbers, the rest of `quantised` becomes 0; returns
/// the scale. A group that holds a number that is not finite becomes not finite
/// as a whole, so that it does not pass unnoticed.
fn quantise(group: &[f32], quantised: &mut [i8; GROUP]) -> f32 {
    quantised.fill(0);
    let largest = group.iter().fold(0.0_f32, |largest, value| {
        // `max` would pass over NaN.
        if value.is_nan() || largest.is_nan() {
            f32::NAN
        } else {
            largest.max(value.abs())
        }
    });
    if !largest.is_finite() {
        quantised[0] = 1;
        return largest;
    }
    let scale = largest / LARGEST;
    if scale < f32::MIN_POSITIVE {
        return 0.0;
    }
    for (to, value) in quantised.iter_mut().zip(group) {
        // Adding 1.5 * 2^23 rounds to the nearest integer.
        const ROUND: f32 = 12_582_912.0;
        let rounded = (value / scale + ROUND) - ROUND;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the magnitude is at most 127, and a cast saturates"
        )]
        let value = rounded.clamp(-LARGEST, LARGEST) as i8;
        *to = value;
    }
    scale
}
