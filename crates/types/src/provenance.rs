//! Where a fact came from.

use std::ops::Range;

use crate::WallTime;

/// What kind of source a fact has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SourceKind {
    /// A detection rule.
    Rule,
    /// A remembered case with its label.
    Precedent,
    /// A document: a technique note or a runbook.
    Knowledge,
    /// The language model.
    Model,
    /// A policy.
    Policy,
}

/// Names the origin of a fact precisely enough to find it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Provenance {
    /// What kind of source.
    pub kind: SourceKind,
    /// The source's id within its kind.
    pub source_id: String,
    /// The version of the source (a file's hash, a model's revision).
    pub version: String,
    /// When the source was observed or written.
    pub observed: Option<WallTime>,
    /// The bytes of the judged text the fact is about.
    pub span: Option<Range<usize>>,
    /// Retrieval score: cosine similarity, higher is closer.
    pub score: Option<f64>,
}
