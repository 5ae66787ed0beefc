//! What others wrote down about attacks, in the memory: techniques, rules, runbooks.
//!
//! Each kind has a tenant of its own, so that it can be told where a document is from,
//! and an id that stays: importing a newer edition replaces what it is newer than.

mod error;
mod files;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use inwarden_classifier::{RuleNote, RuleSource, rule_notes};
use inwarden_feeds::{
    AttackPattern, MAX_RUNBOOK_PARTS, RunbookPart, read_stix_bundle, split_runbook,
};
use inwarden_memory::{Document, KnowledgeHit, KnowledgeQuery, Memory, Ranking, RecordKey};
use inwarden_models::Sha256;
use inwarden_types::Technique;

pub use self::error::ImportError;
use crate::{AnalystConfig, EngineError, MemoryPlace, store};

/// The largest bundle; ATT&CK for enterprises has about 50 MB.
const MAX_BUNDLE_BYTES: u64 = 192 << 20;
/// The largest file of rules.
const MAX_RULE_BYTES: u64 = 256 << 10;
/// The largest runbook.
const MAX_RUNBOOK_BYTES: u64 = 4 << 20;
/// The most documents of one import.
const MAX_DOCUMENTS: usize = 100_000;
/// The most runbooks of one import.
const MAX_RUNBOOKS: usize = 2_000;
/// The longest name of a file in a document's id, in bytes.
const MAX_FILE_NAME_BYTES: usize = 400;
/// Documents that are stored at once.
const BATCH: usize = 64;
/// Skipped files that are named.
const MAX_NAMED: usize = 20;

/// Where a document comes from; its name is the tenant of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnowledgeKind {
    /// A technique out of a STIX bundle.
    Stix,
    /// What a Sigma rule says about itself.
    Sigma,
    /// A part of a runbook.
    Runbook,
}

impl KnowledgeKind {
    /// The name used in stores: `stix`, `sigma`, `runbook`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stix => "stix",
            Self::Sigma => "sigma",
            Self::Runbook => "runbook",
        }
    }
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Documents that are in the store now.
    pub documents: u64,
    /// Documents of an earlier import that are no longer there.
    pub removed: u64,
    /// What was left out, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// The first files of which all was left out.
    pub skipped_files: Vec<PathBuf>,
}

impl Imported {
    fn skip(&mut self, reason: &'static str, n: u64) {
        if n > 0 {
            *self.skipped.entry(reason).or_default() += n;
        }
    }

    fn skip_file(&mut self, reason: &'static str, path: &Path) {
        self.skip(reason, 1);
        self.name_file(path);
    }

    fn name_file(&mut self, path: &Path) {
        if self.skipped_files.len() < MAX_NAMED {
            self.skipped_files.push(path.to_owned());
        }
    }
}

/// A document that was found.
#[derive(Clone, PartialEq)]
pub struct KnowledgeNote {
    /// Its id: a technique, a rule, a place in a runbook.
    pub id: String,
    /// The tenant it is of: the name of a [`KnowledgeKind`], or `inwarden` for what
    /// is shipped.
    pub tenant: String,
    /// The technique it is about, if it is about one.
    pub technique: Option<Technique>,
    /// Cosine similarity with the text looked for, -1 to 1; higher is closer.
    pub score: f64,
    /// What it says. Untrusted: others wrote it.
    pub text: String,
}

impl fmt::Debug for KnowledgeNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnowledgeNote")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .field("score", &self.score)
            .field("text_bytes", &self.text.len())
            .finish_non_exhaustive()
    }
}

/// The documents of the store that a configuration names.
#[derive(Clone)]
pub struct Knowledge {
    memory: Arc<Memory>,
}

impl fmt::Debug for Knowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knowledge").finish_non_exhaustive()
    }
}

impl Knowledge {
    /// Opens the store that `config` names, without judging anything: through its
    /// owner if a process has it open, and as its owner otherwise.
    ///
    /// # Errors
    /// [`ImportError::NoStore`] unless `config.memory` is a directory;
    /// [`EngineError::Models`], [`EngineError::Inference`] and
    /// [`EngineError::Memory`] if the embedder or the store cannot be opened.
    pub fn open(config: &AnalystConfig) -> Result<Self, EngineError> {
        let MemoryPlace::Directory(dir) = &config.memory else {
            return Err(ImportError::NoStore.into());
        };
        let memory = store::open_unseeded(dir, &config.models)?;
        Ok(Self {
            memory: Arc::new(memory),
        })
    }

    /// Stores what `path` holds, replacing what an earlier import of the same gave:
    /// a bundle, a file or directory of Sigma rules, or of runbooks (`.md`).
    /// `progress` is told how many documents of how many are stored.
    ///
    /// What is not to be read is left out and counted; files of a directory of rules or
    /// runbooks, too. Links are not followed.
    ///
    /// # Errors
    /// [`ImportError`] with the file, the place and the limit; nothing was stored.
    /// [`EngineError::Memory`]: what was stored before stays.
    pub fn import(
        &self,
        kind: KnowledgeKind,
        path: &Path,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Imported, EngineError> {
        let mut imported = Imported::default();
        let read = match kind {
            KnowledgeKind::Stix => read_stix(path, &mut imported)?,
            KnowledgeKind::Sigma => read_sigma(path, &mut imported)?,
            KnowledgeKind::Runbook => read_runbooks(path, &mut imported)?,
        };
        if read.documents.len() > MAX_DOCUMENTS {
            return Err(ImportError::Limit {
                path: path.to_owned(),
                what: "documents",
                limit: MAX_DOCUMENTS as u64,
            }
            .into());
        }
        let all = read.documents.len();
        for (idx, batch) in read.documents.chunks(BATCH).enumerate() {
            self.memory.upsert_knowledge(batch)?;
            progress(idx * BATCH + batch.len(), all);
        }
        for keys in read.outdated.chunks(MAX_RUNBOOK_PARTS) {
            imported.removed += self.memory.remove_knowledge(keys)? as u64;
        }
        // What an earlier, longer edition had after its last part of today.
        for (name, n_parts) in read.runbooks {
            let rest = (n_parts..MAX_RUNBOOK_PARTS)
                .map(|idx| key(KnowledgeKind::Runbook, part_id(&name, idx)));
            let keys: Vec<RecordKey> = rest.collect();
            imported.removed += self.memory.remove_knowledge(&keys)? as u64;
        }
        imported.documents = all as u64;
        Ok(imported)
    }

    /// The documents that are best for `text` by meaning and words, best first, at most
    /// `top_k_retrieval`; only those of `kinds`, if any is named.
    ///
    /// # Errors
    /// [`EngineError::Memory`].
    pub fn search(
        &self,
        text: &str,
        kinds: &[KnowledgeKind],
        top_k_retrieval: usize,
    ) -> Result<Vec<KnowledgeNote>, EngineError> {
        let tenants = kinds.iter().map(|kind| kind.name().to_owned());
        let query = KnowledgeQuery {
            ranking: Ranking::Hybrid,
            tenants: (!kinds.is_empty()).then(|| tenants.collect()),
            ..KnowledgeQuery::nearest(top_k_retrieval)
        };
        let hits = self.memory.search_knowledge(text, &query)?;
        Ok(hits.into_iter().map(note_of).collect())
    }
}

fn note_of(hit: KnowledgeHit) -> KnowledgeNote {
    KnowledgeNote {
        id: hit.document.id,
        tenant: hit.document.tenant,
        technique: hit.document.technique,
        score: hit.score,
        text: hit.document.text,
    }
}

/// What was read.
#[derive(Default)]
struct Read {
    documents: Vec<Document>,
    /// What is no longer to be there.
    outdated: Vec<RecordKey>,
    /// The names of runbooks and how many parts each has.
    runbooks: Vec<(String, usize)>,
}

fn read_stix(path: &Path, imported: &mut Imported) -> Result<Read, ImportError> {
    let text = files::read_text(path, MAX_BUNDLE_BYTES)?;
    let bundle = read_stix_bundle(&text).map_err(|source| ImportError::Format {
        path: path.to_owned(),
        source,
    })?;
    for (reason, n) in bundle.skipped {
        imported.skip(reason, n);
    }
    let mut documents: BTreeMap<String, Document> = BTreeMap::new();
    for pattern in bundle.patterns {
        let document = technique_document(pattern);
        if documents.insert(document.id.clone(), document).is_some() {
            imported.skip("an id that comes again", 1);
        }
    }
    let outdated = bundle.withdrawn.into_iter();
    Ok(Read {
        outdated: outdated
            .filter(|id| !documents.contains_key(id))
            .map(|id| key(KnowledgeKind::Stix, id))
            .collect(),
        documents: documents.into_values().collect(),
        ..Read::default()
    })
}

fn technique_document(pattern: AttackPattern) -> Document {
    let mut text = pattern.name;
    for (name, values) in [
        ("tactics", pattern.tactics),
        ("platforms", pattern.platforms),
    ] {
        if !values.is_empty() {
            text.push_str(&format!("\n{name}: {}", values.join(", ")));
        }
    }
    text.push('\n');
    text.push_str(pattern.description.trim());
    let technique = pattern.is_numbered.then(|| Technique(pattern.id.clone()));
    document(KnowledgeKind::Stix, pattern.id, text, technique)
}

fn read_sigma(path: &Path, imported: &mut Imported) -> Result<Read, ImportError> {
    let mut documents: BTreeMap<String, Document> = BTreeMap::new();
    let found = files::below(path, &["yml", "yaml"], imported)?;
    if found.is_empty() {
        return Err(nothing(path, "Sigma rules (.yml, .yaml)"));
    }
    for file in found {
        let Some(name) = name_below(path, &file) else {
            imported.skip_file("the file's name is too long or not UTF-8", &file);
            continue;
        };
        let Some(text) = text_of_one(path, &file, MAX_RULE_BYTES, imported)? else {
            continue;
        };
        let source = RuleSource {
            name: &name,
            text: &text,
        };
        let Ok(notes) = rule_notes(&source, &mut imported.skipped) else {
            imported.skip_file("not YAML", &file);
            continue;
        };
        if notes.is_empty() {
            // Why is counted with its rules.
            imported.name_file(&file);
        }
        for (idx, note) in notes.into_iter().enumerate() {
            let document = rule_document(note, &name, idx);
            if documents.insert(document.id.clone(), document).is_some() {
                imported.skip("an id that comes again", 1);
            }
        }
    }
    Ok(Read {
        documents: documents.into_values().collect(),
        ..Read::default()
    })
}

fn rule_document(note: RuleNote, file: &str, idx: usize) -> Document {
    let id = note.id.filter(|id| id.len() <= MAX_FILE_NAME_BYTES);
    let id = id.unwrap_or_else(|| format!("{file}#{}", idx + 1));
    let mut text = note.title;
    let level = note.level.map(str::to_owned);
    for (name, values) in [
        ("level", level.into_iter().collect()),
        ("log source", note.log_source),
        ("tags", note.tags),
    ] {
        if !values.is_empty() {
            text.push_str(&format!("\n{name}: {}", values.join(", ")));
        }
    }
    text.push('\n');
    text.push_str(&note.description);
    let technique = note.technique.filter(|technique| technique.0.len() <= 32);
    document(KnowledgeKind::Sigma, id, text, technique)
}

fn read_runbooks(path: &Path, imported: &mut Imported) -> Result<Read, ImportError> {
    let mut read = Read::default();
    let found = files::below(path, &["md", "markdown"], imported)?;
    if found.is_empty() {
        return Err(nothing(path, "runbooks (.md, .markdown)"));
    }
    if found.len() > MAX_RUNBOOKS {
        return Err(ImportError::Limit {
            path: path.to_owned(),
            what: "runbooks",
            limit: MAX_RUNBOOKS as u64,
        });
    }
    for file in found {
        let Some(name) = name_below(path, &file) else {
            imported.skip_file("the file's name is too long or not UTF-8", &file);
            continue;
        };
        let Some(text) = text_of_one(path, &file, MAX_RUNBOOK_BYTES, imported)? else {
            continue;
        };
        let parts = split_runbook(&text).map_err(|source| ImportError::Format {
            path: file.clone(),
            source,
        })?;
        if parts.is_empty() {
            imported.skip_file("without text", &file);
        }
        read.runbooks.push((name.clone(), parts.len()));
        for (idx, part) in parts.into_iter().enumerate() {
            read.documents.push(part_document(part, &name, idx));
        }
    }
    Ok(read)
}

fn part_document(part: RunbookPart, file: &str, idx: usize) -> Document {
    let mut text = part.headings.join(" > ");
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&part.text);
    document(KnowledgeKind::Runbook, part_id(file, idx), text, None)
}

fn part_id(file: &str, idx: usize) -> String {
    format!("{file}#{}", idx + 1)
}

/// The text of a file; one of several that cannot be read is left out, a single one is
/// an error.
fn text_of_one(
    named: &Path,
    file: &Path,
    max_bytes: u64,
    imported: &mut Imported,
) -> Result<Option<String>, ImportError> {
    let reason = match files::read_text(file, max_bytes) {
        Ok(text) => return Ok(Some(text)),
        Err(error) if named == file => return Err(error),
        Err(ImportError::Limit { .. }) => "the file is too large",
        Err(ImportError::NotUtf8 { .. }) => "not UTF-8",
        Err(_) => "the file cannot be read",
    };
    imported.skip_file(reason, file);
    Ok(None)
}

/// The path of `file` below `root`, or the name of the file if it is that itself.
fn name_below(root: &Path, file: &Path) -> Option<String> {
    let below = file.strip_prefix(root).ok();
    let below = below.filter(|path| !path.as_os_str().is_empty());
    let name = below
        .or_else(|| file.file_name().map(Path::new))?
        .to_str()?;
    (name.len() <= MAX_FILE_NAME_BYTES).then(|| name.to_owned())
}

fn nothing(path: &Path, wanted: &'static str) -> ImportError {
    ImportError::NothingFound {
        path: path.to_owned(),
        wanted,
    }
}

fn document(
    kind: KnowledgeKind,
    id: String,
    text: String,
    technique: Option<Technique>,
) -> Document {
    let digest = Sha256::of(text.as_bytes());
    let version = &digest.as_bytes()[..6];
    Document {
        id,
        version: version.iter().map(|byte| format!("{byte:02x}")).collect(),
        text,
        technique,
        tenant: kind.name().to_owned(),
        observed: None,
    }
}

fn key(kind: KnowledgeKind, id: String) -> RecordKey {
    RecordKey {
        tenant: kind.name().to_owned(),
        id,
    }
}
