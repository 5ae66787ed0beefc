//! Why something could not be imported.

use std::{io, path::PathBuf};

/// Errors of importing. They never repeat a text of what is imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    // The caller must act.
    /// There is no store of one's own to keep it in.
    #[error("an import needs a store of your own: name its directory (--memory DIR)")]
    NoStore,
    /// What is named has none of the files that are looked for.
    #[error("{path} holds no {wanted}")]
    NothingFound {
        /// What was named.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },

    // The operator must act.
    /// A file or directory cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    // The data.
    /// There is more than is read.
    #[error("{path}: more than {limit} {what}")]
    Limit {
        /// Which file or directory.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// The most that is read.
        limit: u64,
    },
    /// A file is not UTF-8.
    #[error("{path}: not UTF-8 from byte {offset} on")]
    NotUtf8 {
        /// Which file.
        path: PathBuf,
        /// Where the first wrong byte stands.
        offset: usize,
    },
    /// A file is not what it should be.
    #[error("{path}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        source: inwarden_feeds::FeedError,
    },
}
