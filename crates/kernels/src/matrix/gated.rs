//! The gated unit of an MLP: what its two products give goes straight on into the
//! rows of the next one, group by group, and is never written down as f32.

use std::ops::Range;

use super::{
    GROUP, PANEL_WIDTH, QuantizedMatrix, QuantizedRows, columns, kernel::Sums, multiply, quantize,
    rows::RowGroup,
};
use crate::{Pool, Variant, pool::Tile};

/// Both products of a gated unit.
#[derive(Clone, Copy, Debug)]
pub struct Gated<'a> {
    /// `(n_out, n_in)`.
    pub gate: &'a QuantizedMatrix,
    /// `(n_out, n_in)`.
    pub up: &'a QuantizedMatrix,
    /// `x`, `(n_rows, n_in)`.
    pub rows: &'a QuantizedRows,
}

/// Panels whose outputs are one group of the next product's inputs.
const PANELS: usize = GROUP / PANEL_WIDTH;

/// Rows of a task, at most.
const TASK_ROWS: usize = 96;

/// Rows whose sums are held at once, at most: they stay in the second cache.
const ROWS: usize = 48;

/// Makes `out` be `silu(x gate^T) * (x up^T)`, `(n_rows, n_out)`, quantised.
///
/// Bitwise the same as both products, [`swiglu`](crate::swiglu) and
/// [`QuantizedRows::quantize`] one after the other. Allocates only if there was
/// never so much in `out` before.
///
/// # Panics
/// If the shapes do not fit, or there are no outputs.
///
/// Source: Shazeer 2020, arXiv:2002.05202, equation 6.
pub fn multiply_gated(pool: &Pool, variant: Variant, gated: Gated<'_>, out: &mut QuantizedRows) {
    let Gated { gate, up, rows } = gated;
    let (n_rows, n_out) = (rows.n_rows(), gate.n_out());
    assert_eq!(up.n_out(), n_out, "gate and up have one shape");
    for weights in [gate, up] {
        assert_eq!(rows.n_in(), weights.n_in(), "the inputs of both sides");
    }
    let groups = out.resize(n_rows * n_out, n_out);
    let n_tasks_down = n_rows.div_ceil(TASK_ROWS).max(1);
    let task_rows = n_rows.div_ceil(n_tasks_down);
    let n_groups = n_out.div_ceil(GROUP);
    let work_per_group = 2 * GROUP * rows.n_in() * n_rows.max(1);
    let at_least = multiply::LONG_TASK_WORK.div_ceil(work_per_group);
    let at_most = n_groups.div_ceil(4 * pool.threads());
    let task_groups = at_least.min(at_most).max(1);
    let tile = (task_rows, task_groups);
    pool.for_each_tile(groups, n_groups, tile, |down, across, mut tile| {
        for group in 0..tile.n_columns() {
            let first_panel = (across * task_groups + group) * PANELS;
            let end = (first_panel + PANELS).min(columns::n_panels(n_out));
            let task = Task {
                variant,
                gated,
                first_row: down * task_rows,
                group,
                panels: first_panel..end,
            };
            for first in (0..tile.n_rows()).step_by(ROWS) {
                let rows = first..(first + ROWS).min(tile.n_rows());
                // Room for the sums on the stack, not much more than is used.
                match rows.len() {
                    0..=8 => task.run::<8>(rows, &mut tile),
                    _ => task.run::<ROWS>(rows, &mut tile),
                }
            }
        }
    });
}

/// One group of outputs for some rows.
struct Task<'a> {
    variant: Variant,
    gated: Gated<'a>,
    first_row: usize,
    /// Of those of the tile.
    group: usize,
    panels: Range<usize>,
}

impl Task<'_> {
    /// `rows`: of the task, at most `MOST_ROWS`.
    fn run<const MOST_ROWS: usize>(&self, rows: Range<usize>, out: &mut Tile<'_, RowGroup>) {
        let Gated {
            gate,
            up,
            rows: inputs,
        } = self.gated;
        let inputs = inputs
            .view()
            .part(self.first_row + rows.start, rows.len(), 0);
        // Behind the last panel they stay zero, as the rest of a group is.
        let mut sums = [[[Sums::ZERO; MOST_ROWS]; PANELS]; 2];
        for (weights, sums) in [gate, up].into_iter().zip(&mut sums) {
            for (panel_idx, sums) in self.panels.clone().zip(sums) {
                let sums = &mut sums[..rows.len()];
                multiply::panel(self.variant, (weights, panel_idx), inputs, sums);
            }
        }
        let [gate, up] = &sums;
        for (idx, row) in rows.enumerate() {
            let gate: [_; PANELS] = std::array::from_fn(|panel| &gate[panel][idx].0);
            let up: [_; PANELS] = std::array::from_fn(|panel| &up[panel][idx].0);
            quantize::swiglu(self.variant, &gate, &up, &mut out.row_mut(row)[self.group]);
        }
    }
}
