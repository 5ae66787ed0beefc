//! The store as its callers see it.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use inwarden_types::Label;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{
    Document, Embed, KnowledgeHit, MemoryError, MemoryOptions, Precedent, PrecedentHit,
    PrecedentQuery, RecordKey,
    collection::{Collection, FieldFilter},
    directory::{self, Ownership},
    record::{Record, check_text},
};

const PRECEDENTS: &str = "precedents";
const KNOWLEDGE: &str = "knowledge";

/// A store of precedents and documents.
///
/// All methods take `&self` and may be called from any thread. Reads run side
/// by side, also beside a write; writes to one collection run one at a time.
///
/// # Examples
/// ```
/// use std::sync::Arc;
///
/// use inwarden_memory::{Embed, EmbedError, Memory, Precedent, PrecedentQuery};
/// use inwarden_types::Label;
///
/// /// Counts letters: enough to show the way.
/// struct Letters;
///
/// impl Embed for Letters {
///     fn dimension(&self) -> usize {
///         26
///     }
///     fn identity(&self) -> String {
///         "letters@1".to_owned()
///     }
///     fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
///         Ok(texts
///             .iter()
///             .map(|text| {
///                 let mut counts = vec![0.01; 26];
///                 for letter in text.bytes().filter(u8::is_ascii_lowercase) {
///                     counts[usize::from(letter - b'a')] += 1.0;
///                 }
///                 counts
///             })
///             .collect())
///     }
/// }
///
/// # fn main() -> Result<(), inwarden_memory::MemoryError> {
/// let memory = Memory::ephemeral(Arc::new(Letters))?;
/// memory.upsert_precedents(&[Precedent {
///     id: "backup".into(),
///     text: "tar czf backup.tgz etc".into(),
///     label: Label::Benign,
///     technique: None,
///     tenant: "shared".into(),
///     observed: None,
///     version: "1".into(),
/// }])?;
/// let hits = memory.precedents("tar czf backup.tgz etc home", &PrecedentQuery::nearest(3))?;
/// assert_eq!(hits[0].precedent.id, "backup");
/// assert!(hits[0].score > 0.9);
/// # Ok(())
/// # }
/// ```
// The fields are dropped in this order: first the collections, then what keeps
// others away from their files.
pub struct Memory {
    precedents: Collection,
    knowledge: Collection,
    embed: Arc<dyn Embed>,
    options: MemoryOptions,
    dir: PathBuf,
    access: Access,
}

/// What a store may do, with the guard of its files.
enum Access {
    Owned {
        _ownership: Ownership,
    },
    Ephemeral {
        _ownership: Ownership,
        _dir: TempDir,
    },
    ReadOnly {
        _copy: TempDir,
    },
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("dir", &self.dir)
            .field("read_only", &self.is_read_only())
            .field("precedents", &self.precedents)
            .field("knowledge", &self.knowledge)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// Opens the store in `dir` for reading and writing; makes it if it is
    /// absent.
    ///
    /// Reads every record once to know what is stored.
    ///
    /// # Errors
    /// [`MemoryError::Locked`] while anyone else has it open, also this very
    /// process; [`MemoryError::NotAStore`], [`MemoryError::NewerFormat`],
    /// [`MemoryError::DifferentEmbedder`], [`MemoryError::DifferentDimension`];
    /// [`MemoryError::DiskSpace`]; [`MemoryError::Corrupt`] or
    /// [`MemoryError::Engine`] if the files are damaged; [`MemoryError::Io`].
    /// The directory is then unchanged but for its lock file.
    pub fn open(
        dir: &Path,
        embed: Arc<dyn Embed>,
        options: MemoryOptions,
    ) -> Result<Self, MemoryError> {
        let ownership = Ownership::acquire(dir)?;
        let access = Access::Owned {
            _ownership: ownership,
        };
        Self::open_owned(dir, embed, options, access)
    }

    /// Opens a copy of the store in `dir`, as it is now, for reading only.
    ///
    /// The store itself is not touched and need not be writable. The copy lies
    /// in the directory for temporary files and goes with the value.
    ///
    /// # Errors
    /// [`MemoryError::Absent`] if there is no store; [`MemoryError::Locked`]
    /// while a writer has it open; otherwise as [`Memory::open`].
    pub fn open_read_only(
        dir: &Path,
        embed: Arc<dyn Embed>,
        options: MemoryOptions,
    ) -> Result<Self, MemoryError> {
        let copy = temporary_dir()?;
        let collections = directory::copy_collections(dir, embed.as_ref(), copy.path())?;
        let access = Access::ReadOnly { _copy: copy };
        Self::load(
            dir,
            &collections,
            Parts {
                embed,
                options,
                access,
            },
        )
    }

    /// Makes an empty store in the directory for temporary files, removed with
    /// the value.
    ///
    /// # Errors
    /// As [`Memory::open`].
    pub fn ephemeral(embed: Arc<dyn Embed>) -> Result<Self, MemoryError> {
        let dir = temporary_dir()?;
        let path = dir.path().to_owned();
        let access = Access::Ephemeral {
            _ownership: Ownership::acquire(&path)?,
            _dir: dir,
        };
        Self::open_owned(&path, embed, MemoryOptions::default(), access)
    }

    fn open_owned(
        dir: &Path,
        embed: Arc<dyn Embed>,
        options: MemoryOptions,
        access: Access,
    ) -> Result<Self, MemoryError> {
        directory::check_free_space(dir, options.min_free_bytes)?;
        let dimension = embed.dimension();
        let collections = directory::prepare(dir, embed.as_ref(), |parent| {
            Collection::create(parent, PRECEDENTS, dimension)?;
            Collection::create(parent, KNOWLEDGE, dimension)
        })?;
        Self::load(
            dir,
            &collections,
            Parts {
                embed,
                options,
                access,
            },
        )
    }

    fn load(dir: &Path, collections: &Path, parts: Parts) -> Result<Self, MemoryError> {
        let dimension = parts.embed.dimension();
        Ok(Self {
            precedents: Collection::load(collections, PRECEDENTS, dimension)?,
            knowledge: Collection::load(collections, KNOWLEDGE, dimension)?,
            embed: parts.embed,
            options: parts.options,
            dir: dir.to_owned(),
            access: parts.access,
        })
    }

    /// Stores `precedents`, replacing those with the same tenant and id.
    ///
    /// On `Ok` all of them are on disk. A precedent that is stored already, with
    /// the same content, is neither embedded nor written again. If two have the
    /// same tenant and id, the later one counts.
    ///
    /// # Errors
    /// [`MemoryError::ReadOnly`], [`MemoryError::BatchTooLarge`],
    /// [`MemoryError::Length`], [`MemoryError::DiskSpace`],
    /// [`MemoryError::Embed`] and [`MemoryError::EmbedderContract`]: nothing was
    /// written. [`MemoryError::Engine`]: some may have been written, and further
    /// writes are refused with [`MemoryError::Failed`] until the store is
    /// reopened.
    pub fn upsert_precedents(&self, precedents: &[Precedent]) -> Result<(), MemoryError> {
        self.check_batch(precedents.len())?;
        self.upsert(
            &self.precedents,
            precedents.iter().map(Record::from).collect(),
        )
    }

    /// Stores `documents`, replacing those with the same tenant and id.
    ///
    /// # Errors
    /// As [`Memory::upsert_precedents`].
    pub fn upsert_knowledge(&self, documents: &[Document]) -> Result<(), MemoryError> {
        self.check_batch(documents.len())?;
        self.upsert(
            &self.knowledge,
            documents.iter().map(Record::from).collect(),
        )
    }

    /// Removes precedents; those that are not there are passed over. Returns how
    /// many were removed; they are gone from disk.
    ///
    /// # Errors
    /// As [`Memory::upsert_precedents`].
    pub fn remove_precedents(&self, keys: &[RecordKey]) -> Result<usize, MemoryError> {
        self.remove(&self.precedents, keys)
    }

    /// Removes documents; those that are not there are passed over. Returns how
    /// many were removed; they are gone from disk.
    ///
    /// # Errors
    /// As [`Memory::upsert_precedents`].
    pub fn remove_knowledge(&self, keys: &[RecordKey]) -> Result<usize, MemoryError> {
        self.remove(&self.knowledge, keys)
    }

    /// The precedents nearest to `text` that pass the filters of `query`, by
    /// exact cosine similarity: highest score first, then by id, then by tenant.
    ///
    /// # Errors
    /// [`MemoryError::TopKRetrieval`], [`MemoryError::EmptyFilter`],
    /// [`MemoryError::Length`], [`MemoryError::Embed`],
    /// [`MemoryError::EmbedderContract`], [`MemoryError::Engine`],
    /// [`MemoryError::Corrupt`].
    pub fn precedents(
        &self,
        text: &str,
        query: &PrecedentQuery,
    ) -> Result<Vec<PrecedentHit>, MemoryError> {
        let labels = query.labels.as_ref().map(|labels| {
            labels
                .iter()
                .map(|label| Label::name(*label).to_owned())
                .collect()
        });
        let filters = [("label", labels), ("tenant", query.tenants.clone())]
            .into_iter()
            .filter_map(|(field, values)| {
                Some(FieldFilter {
                    field,
                    values: values?,
                })
            })
            .collect::<Vec<_>>();
        self.nearest(&self.precedents, text, query.top_k_retrieval, &filters)?
            .into_iter()
            .map(|(score, record)| {
                record
                    .into_precedent_hit(score)
                    .map_err(|reason| self.precedents.corrupt(reason))
            })
            .collect()
    }

    /// The documents nearest to `text`, by exact cosine similarity: highest
    /// score first, then by id, then by tenant.
    ///
    /// # Errors
    /// As [`Memory::precedents`].
    pub fn knowledge(
        &self,
        text: &str,
        top_k_retrieval: usize,
    ) -> Result<Vec<KnowledgeHit>, MemoryError> {
        let hits = self.nearest(&self.knowledge, text, top_k_retrieval, &[])?;
        Ok(hits
            .into_iter()
            .map(|(score, record)| record.into_knowledge_hit(score))
            .collect())
    }

    /// How many precedents there are.
    #[must_use]
    pub fn precedents_len(&self) -> usize {
        self.precedents.len()
    }

    /// How many documents there are.
    #[must_use]
    pub fn knowledge_len(&self) -> usize {
        self.knowledge.len()
    }

    /// The SHA-256, in hexadecimal, over the embedder and all contents.
    ///
    /// Equal exactly when two stores answer every query alike: it changes with
    /// every change of contents, returns when the change is undone, and stays
    /// when what is there is written again. It belongs into the key of whatever
    /// is cached from an answer. Costs a pass over 48 bytes a record.
    #[must_use]
    pub fn content_hash(&self) -> String {
        self.digest()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The first 64 bits of [`Memory::content_hash`].
    #[must_use]
    pub fn generation(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.digest()[..8]);
        u64::from_be_bytes(first)
    }

    /// Whether writes are refused.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self.access, Access::ReadOnly { .. })
    }

    fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let identity = self.embed.identity();
        hasher.update((identity.len() as u64).to_le_bytes());
        hasher.update(identity.as_bytes());
        self.precedents.hash_contents(&mut hasher);
        self.knowledge.hash_contents(&mut hasher);
        hasher.finalize().into()
    }

    fn upsert(&self, collection: &Collection, records: Vec<Record>) -> Result<(), MemoryError> {
        for record in &records {
            record.check(&self.options)?;
        }
        let dimension = self.embed.dimension();
        let written_bytes = records
            .iter()
            .map(|record| record.max_written_bytes(dimension))
            .sum::<u64>();
        let needed_bytes = self.options.min_free_bytes.saturating_add(written_bytes);
        directory::check_free_space(collection.path(), needed_bytes)?;
        collection.upsert(records, |changed| {
            let texts = changed
                .iter()
                .map(|record| record.text.as_str())
                .collect::<Vec<_>>();
            self.embed(&texts)
        })
    }

    fn remove(&self, collection: &Collection, keys: &[RecordKey]) -> Result<usize, MemoryError> {
        self.check_batch(keys.len())?;
        directory::check_free_space(collection.path(), self.options.min_free_bytes)?;
        let points = keys
            .iter()
            .map(|key| Record::point_id(&key.tenant, &key.id))
            .collect::<Vec<_>>();
        collection.remove(&points)
    }

    fn nearest(
        &self,
        collection: &Collection,
        text: &str,
        top_k_retrieval: usize,
        filters: &[FieldFilter],
    ) -> Result<Vec<(f64, Record)>, MemoryError> {
        let max = self.options.max_top_k_retrieval;
        if !(1..=max).contains(&top_k_retrieval) {
            return Err(MemoryError::TopKRetrieval {
                given: top_k_retrieval,
                max,
            });
        }
        if let Some(empty) = filters.iter().find(|filter| filter.values.is_empty()) {
            return Err(MemoryError::EmptyFilter { field: empty.field });
        }
        check_text(text, &self.options)?;
        let vectors = self.embed(&[text])?;
        match vectors.first() {
            Some(vector) => collection.nearest(vector, top_k_retrieval, filters),
            None => Err(self.broken_contract("no vector for a text".to_owned())),
        }
    }

    /// Embeds `texts`, holds the embedder to its contract, and scales every
    /// vector to length 1 (the engine leaves very short ones as they are).
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, MemoryError> {
        let dimension = self.embed.dimension();
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(self.options.embed_batch_texts.max(1)) {
            let embedded = self.embed.embed(batch)?;
            if embedded.len() != batch.len() {
                let (got, expected) = (embedded.len(), batch.len());
                return Err(self.broken_contract(format!("{got} vectors for {expected} texts")));
            }
            vectors.extend(embedded);
        }
        for vector in &mut vectors {
            if vector.len() != dimension {
                let got = vector.len();
                return Err(self.broken_contract(format!(
                    "a vector of length {got}; promised were {dimension}"
                )));
            }
            let norm = vector
                .iter()
                .map(|x| f64::from(*x).powi(2))
                .sum::<f64>()
                .sqrt();
            if !norm.is_normal() {
                return Err(self.broken_contract("a vector that is zero or not finite".to_owned()));
            }
            for x in vector {
                *x = scaled(*x, norm);
            }
        }
        Ok(vectors)
    }

    /// [`Embed::identity`] of the embedder whose vectors this memory holds.
    #[must_use]
    pub fn embedder_identity(&self) -> String {
        self.embed.identity()
    }

    fn broken_contract(&self, reason: String) -> MemoryError {
        MemoryError::EmbedderContract {
            embedder: self.embed.identity(),
            reason,
        }
    }

    fn check_batch(&self, records: usize) -> Result<(), MemoryError> {
        if self.is_read_only() {
            return Err(MemoryError::ReadOnly {
                path: self.dir.clone(),
            });
        }
        let max = self.options.max_batch_records;
        if records > max {
            return Err(MemoryError::BatchTooLarge { records, max });
        }
        Ok(())
    }
}

struct Parts {
    embed: Arc<dyn Embed>,
    options: MemoryOptions,
    access: Access,
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a component of a unit vector: rounding to f32 is meant"
)]
fn scaled(x: f32, norm: f64) -> f32 {
    (f64::from(x) / norm) as f32
}

fn temporary_dir() -> Result<TempDir, MemoryError> {
    tempfile::Builder::new()
        .prefix("inwarden-memory-")
        .tempdir()
        .map_err(|source| MemoryError::Io {
            action: "make a directory in",
            path: std::env::temp_dir(),
            source,
        })
}
