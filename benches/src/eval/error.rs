//! What can be wrong with labelled rows, by who must act.

use std::{io, path::PathBuf};

/// Why labelled rows were not read. Messages hold no text of a row.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error("{} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is longer than {limit_bytes} bytes", path.display())]
    FileTooLong { path: PathBuf, limit_bytes: u64 },
    #[error("{file} line {line}: longer than {limit_bytes} bytes")]
    LineTooLong {
        file: String,
        line: usize,
        limit_bytes: usize,
    },
    #[error("{file} line {line}: not a JSON object")]
    NotAnObject { file: String, line: usize },
    #[error("{file} line {line}: field `{field}` is missing")]
    Missing {
        file: String,
        line: usize,
        field: &'static str,
    },
    #[error("{file} line {line}: field `{field}` must be {expected}")]
    Wrong {
        file: String,
        line: usize,
        field: &'static str,
        expected: &'static str,
    },
}
