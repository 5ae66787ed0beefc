//! What can be wrong with a feed, ordered by who must act.

use std::io;

/// Why a line or a recording was not understood, or is not written.
///
/// Offsets count bytes from the start of the line. Messages never contain
/// values of the event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    // The producer of the data.
    /// A line is longer than the cap; it was not parsed.
    #[error("line is longer than {limit_bytes} bytes")]
    LineTooLong {
        /// The cap.
        limit_bytes: usize,
    },
    /// A line is not UTF-8.
    #[error("line is not UTF-8 from byte {offset} on")]
    NotUtf8 {
        /// Where the first wrong byte stands.
        offset: usize,
    },
    /// A line is not JSON.
    #[error("not JSON at byte {offset}: expected {expected}")]
    Syntax {
        /// Where.
        offset: usize,
        /// What would have been legal there.
        expected: &'static str,
    },
    /// Arrays and objects are nested deeper than the cap.
    #[error("nested deeper than {limit} levels at byte {offset}")]
    TooDeep {
        /// Where the first level too many opens.
        offset: usize,
        /// The cap.
        limit: usize,
    },
    /// An object names a field twice, so that two readers may disagree on it.
    #[error("a field is given twice, the second time at byte {offset}")]
    DuplicateField {
        /// Where the second one stands.
        offset: usize,
    },
    /// A field that is needed is not there.
    #[error("field `{field}` is missing")]
    MissingField {
        /// Its name.
        field: &'static str,
    },
    /// A field holds another type or form than it must.
    #[error("field `{field}` at byte {offset} must be {expected}")]
    WrongType {
        /// Its name.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
        /// Where its value stands.
        offset: usize,
    },
    /// A number is too large, or negative.
    #[error("field `{field}` at byte {offset} must be in 0..={max}")]
    OutOfRange {
        /// Its name.
        field: &'static str,
        /// The largest legal value.
        max: u64,
        /// Where its value stands.
        offset: usize,
    },
    /// A list has more entries than the cap.
    #[error("field `{field}` has more than {limit} entries at byte {offset}")]
    TooMany {
        /// Its name.
        field: &'static str,
        /// The cap.
        limit: usize,
        /// Where the first entry too many stands.
        offset: usize,
    },
    /// A text is longer than the cap.
    #[error("field `{field}` at byte {offset} is longer than {limit_bytes} bytes")]
    TooLong {
        /// Its name.
        field: &'static str,
        /// The cap.
        limit_bytes: usize,
        /// Where its value stands.
        offset: usize,
    },
    /// The line follows another schema.
    #[error("schema must be `{expected}`")]
    WrongSchema {
        /// What this reader understands here.
        expected: &'static str,
    },
    /// The recording has no header line.
    #[error("recording is empty: its first line must be a header")]
    NoHeader,

    // The operator.
    /// The line follows a later version of the schema than this build knows.
    #[error("schema version {found} is newer than {supported}, the newest this build reads")]
    NewerSchema {
        /// The version of the line.
        found: u64,
        /// The newest version that is understood.
        supported: u64,
    },
    /// Reading or writing failed.
    #[error("feed input or output failed")]
    Io(#[from] io::Error),

    /// One of the above, with the line of the feed it stands on.
    #[error("line {line}")]
    AtLine {
        /// Counted from 1, header and empty lines included.
        line: u64,
        /// What is wrong with it.
        source: Box<FeedError>,
    },
}

impl FeedError {
    /// The line it is about, where one is known, counted from 1.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        match self {
            Self::AtLine { line, .. } => Some(*line),
            _ => None,
        }
    }

    /// The error itself, without the line number around it.
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::AtLine { source, .. } => source.root(),
            other => other,
        }
    }

    pub(crate) fn at_line(self, line: u64) -> Self {
        Self::AtLine {
            line,
            source: Box::new(self),
        }
    }
}
