//! The figures, as a table, as JSON and as a plot.

mod json;
mod svg;
mod table;

use serde_json::Value;

pub(super) use self::json::BEST;
use super::{cold_start::ColdStart, compare::Comparison, grid::Cell};

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) about: Value,
    pub(crate) comparison: Option<Comparison>,
    pub(crate) grid: Vec<Cell>,
    pub(crate) cold_start: Option<ColdStart>,
}
