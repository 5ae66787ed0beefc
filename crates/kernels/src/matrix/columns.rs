//! Which outputs a panel holds, for both forms of weights.

use std::ops::Range;

use super::PANEL_WIDTH;

/// How many panels `n_out` outputs fill.
pub(super) fn n_panels(n_out: usize) -> usize {
    n_out.div_ceil(PANEL_WIDTH)
}

/// The outputs of panel `panel_idx`, without padding.
pub(super) fn of_panel(n_out: usize, panel_idx: usize) -> Range<usize> {
    let start = panel_idx * PANEL_WIDTH;
    start..(start + PANEL_WIDTH).min(n_out)
}
