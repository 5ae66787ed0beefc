//! What can go wrong, grouped by who must act.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Sha256, SourceKind};

/// Why a model cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    // The caller.
    /// No model has this id.
    #[error("there is no model `{id}`; known are {}", known.join(", "))]
    UnknownModel {
        /// The id asked for.
        id: String,
        /// All ids there are.
        known: Vec<String>,
    },
    /// The one source asked for does not carry this model.
    #[error("{from} does not carry `{id}`")]
    SourceNotOffered {
        /// The model.
        id: String,
        /// The source asked for.
        from: SourceKind,
    },

    // The operator.
    /// The model has not been fetched yet.
    #[error("the model `{id}` is not on this machine ({} is missing); get it with `{command}`", path.display())]
    Absent {
        /// The model.
        id: String,
        /// The first file that is missing.
        path: PathBuf,
        /// The command that fetches it.
        command: String,
    },
    /// A source did not answer or refused.
    #[error("{from} cannot be reached: {detail}")]
    Unreachable {
        /// The source.
        from: SourceKind,
        /// What it, or the client we use for it, said.
        detail: String,
    },
    /// A source stopped sending.
    #[error("{from} sent nothing of `{file}` for {} s; pull again to resume", after.as_secs())]
    Stalled {
        /// The source.
        from: SourceKind,
        /// What was being fetched.
        file: String,
        /// How long nothing came.
        after: Duration,
    },
    /// There is no Python with pip to fetch wheels with.
    #[error(
        "`{python} -m pip` does not run ({detail}); install it, on Debian with `apt-get install python3-pip`"
    )]
    PipMissing {
        /// The interpreter tried.
        python: String,
        /// What happened.
        detail: String,
    },
    /// Every source that carries the model failed.
    #[error("no source could supply `{id}`: {}", list(attempts))]
    NoSource {
        /// The model.
        id: String,
        /// Each source tried, in order, and why it failed.
        attempts: Vec<Attempt>,
    },
    /// The file system is full, or would be.
    #[error("no space left for {}{}", path.display(), needs(*needed_bytes))]
    DiskFull {
        /// Where the bytes were to go.
        path: PathBuf,
        /// How much is needed, where that is known.
        needed_bytes: Option<u64>,
    },
    /// Another process has been pulling the same model all the time.
    #[error("another process is still pulling `{id}` after {} s", waited.as_secs())]
    Busy {
        /// The model.
        id: String,
        /// How long this one waited.
        waited: Duration,
    },
    /// The file system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// The operation.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    // The data.
    /// The bytes are not those of the manifest.
    #[error("{} has SHA-256 {got}, expected {expected}{}", path.display(), gone(*deleted))]
    WrongHash {
        /// The file.
        path: PathBuf,
        /// What the manifest says.
        expected: Sha256,
        /// What the file hashes to.
        got: Sha256,
        /// Whether the file was removed; if not, `pull` replaces it.
        deleted: bool,
    },
    /// The file is shorter or longer than the manifest says.
    #[error("{} has {got_bytes} bytes, expected {expected_bytes}{}", path.display(), gone(*deleted))]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// What the manifest says.
        expected_bytes: u64,
        /// What is there.
        got_bytes: u64,
        /// Whether the file was removed; if not, `pull` replaces it.
        deleted: bool,
    },
    /// A download, such as a wheel, is not what the manifest expects.
    #[error("the download {} is unusable: {problem}", path.display())]
    BadDownload {
        /// The download; it has been removed.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// One source that was tried in vain.
#[derive(Debug)]
pub struct Attempt {
    /// The source.
    pub from: SourceKind,
    /// Why it failed.
    pub error: Box<ModelError>,
}

impl ModelError {
    /// Sorts a file-system error: a full disk is a case of its own.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull {
                path: path.to_owned(),
                needed_bytes: None,
            },
            _ => Self::Io {
                doing,
                path: path.to_owned(),
                source,
            },
        }
    }

    /// Whether fetching the same bytes again may help.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::WrongHash { .. } | Self::WrongSize { .. } | Self::BadDownload { .. }
        )
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        let mut source = std::error::Error::source(self.error.as_ref());
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

fn list(attempts: &[Attempt]) -> String {
    attempts
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

fn needs(bytes: Option<u64>) -> String {
    bytes.map_or_else(String::new, |bytes| {
        format!(": {} MB are needed", bytes.div_ceil(1_000_000))
    })
}

fn gone(deleted: bool) -> &'static str {
    if deleted { "; it was deleted" } else { "" }
}
