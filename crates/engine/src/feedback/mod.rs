//! What people say about judged cases.
//!
//! A correction has two parts that are made and undone together: a precedent of the
//! tenant [`FEEDBACK_TENANT`] in the store, which counts from the next case on, and a
//! row beside the store in the format of the corpus, which `inwarden learn` reads.
//! Both are redacted as the audit log is, so a case with a secret in it votes by
//! likeness and is not recognised word for word.
//!
//! What is not here: what a precedent does (`inwarden-classifier`).

mod error;
mod judged;
mod rows;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use inwarden_classifier::{FEEDBACK_TENANT, render_behaviour};
use inwarden_memory::{Memory, Precedent, RecordKey};
use inwarden_models::Sha256;
use inwarden_types::{CaseId, EventKind, Label, WallTime};

pub use self::{error::FeedbackError, judged::JudgedCase};
use self::{
    judged::may_be_corrected,
    rows::{Row, RowFiles},
};
use crate::{AnalystConfig, EngineError, MemoryPlace, redact_text, store};

/// The longest note, in bytes.
const MAX_NOTE_BYTES: usize = 2_000;

/// Where corrections go: the store that a configuration names, and the files beside it.
///
/// Processes of one user that share a store share its corrections.
#[derive(Clone)]
pub struct Feedback {
    memory: Arc<Memory>,
    rows: RowFiles,
}

/// A correction that was given.
#[derive(Clone, PartialEq, Eq)]
pub struct FeedbackEntry {
    /// Its name: that of the precedent and of the row.
    pub id: String,
    /// What the case was: benign or malicious.
    pub label: Label,
    /// Which case it was said of.
    pub case: CaseId,
    /// What kind of case.
    pub kind: EventKind,
    /// Why, in the words of whoever gave it; redacted.
    pub note: Option<String>,
    /// When it was given.
    pub given: WallTime,
    /// What was done or said, redacted: not for logs.
    pub summary: String,
}

impl fmt::Debug for FeedbackEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedbackEntry")
            .field("id", &self.id)
            .field("label", &self.label)
            .field("case", &self.case)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Feedback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feedback")
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl Feedback {
    /// Opens the store that `config` names, without judging anything: through its
    /// owner if a process has it open, and as its owner otherwise.
    ///
    /// # Errors
    /// [`FeedbackError::NoStore`] unless `config.memory` is a directory;
    /// [`EngineError::Models`], [`EngineError::Inference`] and
    /// [`EngineError::Memory`] if the embedder or the store cannot be opened.
    pub fn open(config: &AnalystConfig) -> Result<Self, EngineError> {
        let MemoryPlace::Directory(dir) = &config.memory else {
            return Err(FeedbackError::NoStore.into());
        };
        let memory = store::open_unseeded(dir, &config.models)?;
        Ok(Self::beside(Arc::new(memory), dir))
    }

    pub(crate) fn beside(memory: Arc<Memory>, store: &Path) -> Self {
        Self {
            memory,
            rows: RowFiles::of_store(store),
        }
    }

    /// The directory of the rows, one file a kind.
    #[must_use]
    pub fn rows_dir(&self) -> &Path {
        self.rows.dir()
    }

    /// Stores that `judged` was `label`. The same behaviour has one correction: what
    /// was said of it before is replaced.
    ///
    /// # Errors
    /// [`FeedbackError::Label`], [`FeedbackError::Note`], [`FeedbackError::Kind`] for
    /// what cannot be said; [`FeedbackError::Busy`], [`FeedbackError::Rows`],
    /// [`FeedbackError::RowDamaged`] and [`EngineError::Memory`] if it could not be
    /// stored. Then neither part is there, unless the disk refuses even to take
    /// the row back.
    pub fn give(
        &self,
        judged: &JudgedCase,
        label: Label,
        note: Option<&str>,
    ) -> Result<FeedbackEntry, EngineError> {
        if label == Label::Undetermined {
            return Err(FeedbackError::Label { label }.into());
        }
        let note = note.map(str::trim).filter(|note| !note.is_empty());
        let bytes = note.map_or(0, str::len);
        if bytes > MAX_NOTE_BYTES {
            let max = MAX_NOTE_BYTES;
            return Err(FeedbackError::Note { bytes, max }.into());
        }
        let kind = judged.event().kind();
        if !may_be_corrected(kind) {
            return Err(FeedbackError::Kind { kind }.into());
        }
        let text = render_behaviour(&judged.case);
        let id = entry_id(kind, &text);
        let row = Row::new(&id, judged, label, (now(), note.map(redact_text)));
        let precedent = Precedent {
            id,
            version: short_hash(&text),
            text,
            label,
            kind: Some(kind.name().to_owned()),
            technique: match label {
                Label::Malicious => judged.technique.clone(),
                _ => None,
            },
            tenant: FEEDBACK_TENANT.to_owned(),
            observed: judged.event().wall,
        };
        let locked = self.rows.lock()?;
        let before = locked.read(kind)?;
        let mut after: Vec<Row> = before.clone();
        after.retain(|old| old.id != row.id);
        let entry = row.entry(kind);
        after.push(row);
        locked.write(kind, &after)?;
        if let Err(error) = self.memory.upsert_precedents(&[precedent]) {
            locked.write(kind, &before)?;
            return Err(error.into());
        }
        Ok(entry)
    }

    /// All corrections, the oldest first.
    ///
    /// # Errors
    /// [`FeedbackError::Busy`], [`FeedbackError::Rows`],
    /// [`FeedbackError::RowDamaged`].
    pub fn list(&self) -> Result<Vec<FeedbackEntry>, EngineError> {
        let locked = self.rows.lock()?;
        let mut entries = Vec::new();
        for kind in rows::KINDS {
            entries.extend(locked.read(kind)?.iter().map(|row| row.entry(kind)));
        }
        entries.sort_by(|a, b| (a.given, &a.id).cmp(&(b.given, &b.id)));
        Ok(entries)
    }

    /// Takes back the correction named `id`, both of its parts; returns it.
    ///
    /// # Errors
    /// [`FeedbackError::UnknownFeedback`]; otherwise as [`Feedback::give`]. What was
    /// not taken back can be taken back again.
    pub fn undo(&self, id: &str) -> Result<FeedbackEntry, EngineError> {
        let locked = self.rows.lock()?;
        for kind in rows::KINDS {
            let mut rows = locked.read(kind)?;
            let Some(idx) = rows.iter().position(|row| row.id == id) else {
                continue;
            };
            let row = rows.remove(idx);
            self.memory.remove_precedents(&[RecordKey {
                tenant: FEEDBACK_TENANT.to_owned(),
                id: row.id.clone(),
            }])?;
            locked.write(kind, &rows)?;
            return Ok(row.entry(kind));
        }
        Err(FeedbackError::UnknownFeedback { id: id.to_owned() }.into())
    }
}

/// One behaviour of one kind has one id.
fn entry_id(kind: EventKind, text: &str) -> String {
    format!(
        "feedback-{}",
        short_hash(&format!("{}\n{text}", kind.name()))
    )
}

fn short_hash(text: &str) -> String {
    let digest = Sha256::of(text.as_bytes());
    let bytes = &digest.as_bytes()[..6];
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> WallTime {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since_epoch.map_or(0, |time| time.as_nanos());
    WallTime(u64::try_from(nanos).unwrap_or(0))
}
