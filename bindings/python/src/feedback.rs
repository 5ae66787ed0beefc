//! What was said about a case, as Python sees it.

use inwarden::FeedbackEntry;
use pyo3::prelude::*;

/// What was said about a case: read-only attributes, described in `_native.pyi`.
#[pyclass(frozen, get_all, name = "FeedbackEntry", module = "inwarden")]
pub(crate) struct Entry {
    id: String,
    label: &'static str,
    case: String,
    kind: &'static str,
    note: Option<String>,
    given_unix_ns: u64,
    summary: String,
}

impl From<FeedbackEntry> for Entry {
    fn from(entry: FeedbackEntry) -> Self {
        Self {
            id: entry.id,
            label: entry.label.name(),
            case: entry.case.0,
            kind: entry.kind.name(),
            note: entry.note,
            given_unix_ns: entry.given.0,
            summary: entry.summary,
        }
    }
}

#[pymethods]
impl Entry {
    fn __repr__(&self) -> String {
        format!(
            "<FeedbackEntry {} {} of {}>",
            self.id, self.label, self.case
        )
    }
}
