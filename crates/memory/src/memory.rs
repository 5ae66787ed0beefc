//! The store as its callers see it.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    Baseline, Document, Embed, MemoryError, MemoryOptions, MemoryStats, Precedent, RecordKey,
    directory::{self, Ownership},
    journal::CollectionId,
    link::{Link, Opening, temporary_dir},
    record::Record,
    store::Change,
};

/// A store of precedents, documents and baselines.
///
/// All methods take `&self` and may be called from any thread. Reads run side by
/// side, also beside writes; writes that wait at once become safe together.
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
///     kind: None,
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
pub struct Memory {
    link: Link,
    embed: Arc<dyn Embed>,
    options: MemoryOptions,
    dir: PathBuf,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("dir", &self.dir)
            .field("read_only", &self.is_read_only())
            .field("owner", &self.is_owner())
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// Opens the store in `dir` for reading and writing, for this value alone; makes
    /// it if it is absent.
    ///
    /// Reads every record once to know what is stored. A store of format 1 is
    /// brought to format 2; the older release can then not read it any more.
    ///
    /// # Errors
    /// [`MemoryError::Locked`] while anyone else has it open, also this very
    /// process; [`MemoryError::NotAStore`], [`MemoryError::NewerFormat`],
    /// [`MemoryError::DifferentEmbedder`], [`MemoryError::DifferentDimension`];
    /// [`MemoryError::DiskSpace`]; [`MemoryError::JournalDamaged`],
    /// [`MemoryError::Corrupt`] if the files are damaged; [`MemoryError::Io`]. What
    /// is stored is then unchanged.
    pub fn open(
        dir: &Path,
        embed: Arc<dyn Embed>,
        options: MemoryOptions,
    ) -> Result<Self, MemoryError> {
        Self::linked(dir, embed, options, |opening| opening.own(None))
    }

    /// Opens the store in `dir` together with other processes of this user.
    ///
    /// The first opener owns it and answers the others through a socket in the
    /// directory; all see each change as soon as it is acknowledged. When the owner
    /// ends, one of the others takes its place during its next call.
    ///
    /// # Errors
    /// As [`Memory::open`]; [`MemoryError::Locked`] only if the owner does not share
    /// the store within [`MemoryOptions::takeover_deadline`];
    /// [`MemoryError::OwnerRefused`] if it has another embedder or is of a release
    /// with another protocol. Every later call can fail with
    /// [`MemoryError::OwnerGone`] if there is no owner in that time, and with
    /// [`MemoryError::OwnerRefused`] for what is another error in the owner.
    pub fn open_shared(
        dir: &Path,
        embed: Arc<dyn Embed>,
        options: MemoryOptions,
    ) -> Result<Self, MemoryError> {
        Self::linked(dir, embed, options, |opening| opening.shared())
    }

    /// Opens the store in `dir`, as it is now, for reading only.
    ///
    /// The store itself is not touched and need not be writable; later changes are
    /// not seen. A copy of its index lies in the directory for temporary files and
    /// goes with the value.
    ///
    /// # Errors
    /// [`MemoryError::Absent`] if there is no store; [`MemoryError::Locked`]
    /// while a writer has it open; otherwise as [`Memory::open`].
    pub fn open_read_only(
        dir: &Path,
        embed: Arc<dyn Embed>,
        options: MemoryOptions,
    ) -> Result<Self, MemoryError> {
        Self::linked(dir, embed, options, |opening| opening.read_only())
    }

    /// Makes an empty store in the directory for temporary files, removed with
    /// the value.
    ///
    /// # Errors
    /// As [`Memory::open`].
    pub fn ephemeral(embed: Arc<dyn Embed>) -> Result<Self, MemoryError> {
        let temporary = temporary_dir()?;
        let dir = temporary.path().to_owned();
        Self::linked(&dir, embed, MemoryOptions::default(), |opening| {
            opening.own(Some(temporary))
        })
    }

    /// Makes a damaged journal whole again from everything in it that still checks,
    /// and keeps the damaged file beside it as `journal.damaged`. A removal that was
    /// lost brings back what it removed.
    ///
    /// # Errors
    /// [`MemoryError::Locked`], [`MemoryError::Absent`], [`MemoryError::NewerFormat`],
    /// [`MemoryError::Corrupt`], [`MemoryError::Io`].
    pub fn repair(dir: &Path) -> Result<RepairReport, MemoryError> {
        let _ownership = Ownership::acquire(dir)?;
        let salt = directory::salt_for_repair(dir)?;
        let repaired = crate::journal::repair(dir, salt)?;
        Ok(RepairReport {
            kept_entries: repaired.kept_entries,
            damaged_regions: repaired.damaged_regions,
            lost_bytes: repaired.lost_bytes,
        })
    }

    fn linked(
        dir: &Path,
        embed: Arc<dyn Embed>,
        options: MemoryOptions,
        open: impl FnOnce(&Opening<'_>) -> Result<Link, MemoryError>,
    ) -> Result<Self, MemoryError> {
        let link = open(&Opening {
            dir,
            embed: embed.as_ref(),
            options: &options,
        })?;
        Ok(Self {
            link,
            embed,
            options,
            dir: dir.to_owned(),
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
    /// [`MemoryError::JournalFull`], [`MemoryError::JournalWrite`],
    /// [`MemoryError::Embed`] and [`MemoryError::EmbedderContract`]: nothing was
    /// written. [`MemoryError::Failed`]: the disk failed before, and nothing is
    /// written until the store is reopened. [`MemoryError::WriteDeadline`]: they may
    /// still be stored.
    pub fn upsert_precedents(&self, precedents: &[Precedent]) -> Result<(), MemoryError> {
        self.check_batch(precedents.len())?;
        let records = precedents.iter().map(Record::from).collect();
        self.upsert(CollectionId::Precedents, records)
    }

    /// Stores `documents`, replacing those with the same tenant and id.
    ///
    /// # Errors
    /// As [`Memory::upsert_precedents`].
    pub fn upsert_knowledge(&self, documents: &[Document]) -> Result<(), MemoryError> {
        self.check_batch(documents.len())?;
        let records = documents.iter().map(Record::from).collect();
        self.upsert(CollectionId::Knowledge, records)
    }

    /// Stores `baselines`, replacing those with the same tenant and id.
    ///
    /// # Errors
    /// As [`Memory::upsert_precedents`].
    pub fn upsert_baselines(&self, baselines: &[Baseline]) -> Result<(), MemoryError> {
        self.check_batch(baselines.len())?;
        let records = baselines.iter().map(Record::from).collect();
        self.upsert(CollectionId::Baselines, records)
    }

    /// Removes precedents; those that are not there are passed over. Returns how
    /// many were removed; they are gone from disk once the journal is compacted.
    ///
    /// # Errors
    /// As [`Memory::upsert_precedents`].
    pub fn remove_precedents(&self, keys: &[RecordKey]) -> Result<usize, MemoryError> {
        self.remove(CollectionId::Precedents, keys)
    }

    /// Removes documents, as [`Memory::remove_precedents`] does precedents.
    ///
    /// # Errors
    /// As [`Memory::upsert_precedents`].
    pub fn remove_knowledge(&self, keys: &[RecordKey]) -> Result<usize, MemoryError> {
        self.remove(CollectionId::Knowledge, keys)
    }

    /// Removes baselines, as [`Memory::remove_precedents`] does precedents.
    ///
    /// # Errors
    /// As [`Memory::upsert_precedents`].
    pub fn remove_baselines(&self, keys: &[RecordKey]) -> Result<usize, MemoryError> {
        self.remove(CollectionId::Baselines, keys)
    }

    /// How many precedents there are; none if the owner does not answer.
    #[must_use]
    pub fn precedents_len(&self) -> usize {
        self.len(CollectionId::Precedents)
    }

    /// How many documents there are; none if the owner does not answer.
    #[must_use]
    pub fn knowledge_len(&self) -> usize {
        self.len(CollectionId::Knowledge)
    }

    /// How many baselines there are; none if the owner does not answer.
    #[must_use]
    pub fn baselines_len(&self) -> usize {
        self.len(CollectionId::Baselines)
    }

    /// The SHA-256, in hexadecimal, over the embedder and all contents.
    ///
    /// Equal exactly when two stores hold the same: it changes with every change of
    /// contents, returns when the change is undone, and stays when what is there is
    /// written again. It belongs into the key of whatever is cached from an answer.
    /// Kept up to date by the writes; asking costs next to nothing. Never equal to an
    /// earlier one while the owner of a shared store does not answer.
    #[must_use]
    pub fn content_hash(&self) -> String {
        let digest = self.digest();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
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
        self.link.is_read_only()
    }

    /// Whether this value owns the store; another process does, or nobody need,
    /// otherwise.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.link.is_owner()
    }

    /// What the store, in whichever process owns it, did and holds.
    ///
    /// # Errors
    /// [`MemoryError::OwnerGone`].
    pub fn stats(&self) -> Result<MemoryStats, MemoryError> {
        self.link.stats()
    }

    /// [`Embed::identity`] of the embedder whose vectors this memory holds.
    #[must_use]
    pub fn embedder_identity(&self) -> String {
        self.embed.identity()
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn options(&self) -> &MemoryOptions {
        &self.options
    }

    pub(crate) fn dimension(&self) -> usize {
        self.embed.dimension()
    }

    fn len(&self, collection: CollectionId) -> usize {
        self.link.len(collection).unwrap_or_else(|error| {
            tracing::warn!(%error, "the number of records is not known");
            0
        })
    }

    fn digest(&self) -> [u8; 32] {
        // Without an owner nothing can be said to be as it was.
        static UNKNOWN: AtomicU64 = AtomicU64::new(0);
        let mut hasher = Sha256::new();
        let identity = self.embed.identity();
        hasher.update((identity.len() as u64).to_le_bytes());
        hasher.update(identity.as_bytes());
        match self.link.digest() {
            Ok(digest) => hasher.update(digest),
            Err(error) => {
                tracing::warn!(%error, "the contents of the store are not known");
                hasher.update(UNKNOWN.fetch_add(1, Ordering::Relaxed).to_le_bytes());
            }
        }
        hasher.finalize().into()
    }

    pub(crate) fn upsert(
        &self,
        collection: CollectionId,
        records: Vec<Record>,
    ) -> Result<(), MemoryError> {
        for record in &records {
            record.check(&self.options)?;
        }
        // A map, so that the last of several records with one key counts.
        let wanted: BTreeMap<Uuid, Record> = records
            .into_iter()
            .map(|record| (record.point(), record))
            .collect();
        let contents: Vec<_> = wanted
            .iter()
            .map(|(point, record)| (*point, record.content_hash()))
            .collect();
        let differing = self.link.differing(collection, &contents)?;
        let changed: Vec<Record> = wanted
            .into_values()
            .zip(differing)
            .filter_map(|(record, differs)| differs.then_some(record))
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        let dimension = self.embed.dimension();
        let written_bytes: u64 = changed
            .iter()
            .map(|record| record.max_written_bytes(dimension))
            .sum();
        let needed_bytes = self.options.min_free_bytes.saturating_add(written_bytes);
        directory::check_free_space(&self.dir, needed_bytes)?;
        let texts: Vec<&str> = changed.iter().map(|record| record.text.as_str()).collect();
        let vectors = self.embed(&texts)?;
        let records = changed.into_iter().zip(vectors).collect();
        self.link
            .change(&Change::Put {
                collection,
                records,
            })
            .map(drop)
    }

    fn remove(&self, collection: CollectionId, keys: &[RecordKey]) -> Result<usize, MemoryError> {
        self.check_batch(keys.len())?;
        let points = keys
            .iter()
            .map(|key| Record::point_id(&key.tenant, &key.id))
            .collect();
        let removed = self.link.change(&Change::Remove { collection, points })?;
        Ok(usize::try_from(removed).unwrap_or(usize::MAX))
    }

    /// Embeds `texts`, holds the embedder to its contract, and scales every
    /// vector to length 1 (the engine leaves very short ones as they are).
    pub(crate) fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, MemoryError> {
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

    pub(crate) fn broken_contract(&self, reason: String) -> MemoryError {
        MemoryError::EmbedderContract {
            embedder: self.embed.identity(),
            reason,
        }
    }

    pub(crate) fn corrupt(&self, reason: &str) -> MemoryError {
        MemoryError::Corrupt {
            path: self.dir.clone(),
            reason: reason.to_owned(),
        }
    }

    pub(crate) fn check_batch(&self, records: usize) -> Result<(), MemoryError> {
        if self.is_read_only() {
            return Err(MemoryError::ReadOnly {
                path: self.dir.clone(),
            });
        }
        self.check_batch_size(records)
    }

    pub(crate) fn check_batch_size(&self, records: usize) -> Result<(), MemoryError> {
        let max = self.options.max_batch_records;
        if records > max {
            return Err(MemoryError::BatchTooLarge { records, max });
        }
        Ok(())
    }
}

/// What [`Memory::repair`] kept and lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairReport {
    /// Entries of the journal that are whole.
    pub kept_entries: u64,
    /// Places where it was damaged.
    pub damaged_regions: u64,
    /// Bytes that could not be kept.
    pub lost_bytes: u64,
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a component of a unit vector: rounding to f32 is meant"
)]
fn scaled(x: f32, norm: f64) -> f32 {
    (f64::from(x) / norm) as f32
}
