//! The store's directory: its lock, its version file, and a private copy of it.
//!
//! ```text
//! lock             owned by flock(2); holds the owner's TGID while it is owned
//! store.json       format, embedder, dimension, the journal's salt
//! journal          everything that was acknowledged
//! index/           what is made from the journal to search it faster
//! socket           where the owner answers other processes
//! ```
//!
//! Format 1 had the directory `collections/` of the storage engine instead of
//! journal and index; `migrate.rs` reads it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use inwarden_types::Tgid;
use serde::{Deserialize, Serialize};

use crate::{Embed, MemoryError, journal::Journal};

/// The store format this version writes, and the newest it reads.
const FORMAT: u64 = 2;

/// The format that kept everything in the storage engine.
const FORMAT_ENGINE_ONLY: u64 = 1;

const LOCK_FILE: &str = "lock";
const STORE_FILE: &str = "store.json";
const STORE_FILE_NEW: &str = "store.json.new";
const INDEX: &str = "index";

/// Of format 1.
const COLLECTIONS: &str = "collections";
const COLLECTIONS_NEW: &str = "collections.new";

/// Who the store belongs to: held for as long as the store is open.
#[derive(Debug)]
pub(crate) struct Ownership {
    file: File,
}

impl Ownership {
    /// Makes the directory if it is absent and takes its lock.
    pub(crate) fn acquire(dir: &Path) -> Result<Self, MemoryError> {
        make_dir(dir)?;
        let path = dir.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(locked(dir, &mut file)),
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
        }
        file.set_len(0).map_err(io_error("write", &path))?;
        write!(file, "{}", std::process::id()).map_err(io_error("write", &path))?;
        Ok(Self { file })
    }

    /// Takes the lock for reading, which many may hold while nobody owns it.
    fn acquire_shared(dir: &Path) -> Result<File, MemoryError> {
        let path = dir.join(LOCK_FILE);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(MemoryError::Absent {
                    path: dir.to_owned(),
                });
            }
            Err(source) => return Err(io_error("open", &path)(source)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(locked(dir, &mut file)),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
        }
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        // The lock goes with the file; the number inside is only for people.
        if let Err(error) = self.file.set_len(0) {
            tracing::warn!(%error, "cannot clear the owner in the lock file");
        }
    }
}

fn locked(dir: &Path, file: &mut File) -> MemoryError {
    let mut owner = String::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(16).read_to_string(&mut owner));
    MemoryError::Locked {
        path: dir.to_owned(),
        owner: read.ok().and_then(|_| owner.trim().parse().ok()).map(Tgid),
    }
}

/// What `store.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreFile {
    format: u64,
    embedder: String,
    dimension: usize,
    /// The salt of the journal; none in format 1, which had no journal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    journal_salt: Option<u64>,
}

impl StoreFile {
    fn of(embed: &dyn Embed) -> Self {
        Self {
            format: FORMAT,
            embedder: embed.identity(),
            dimension: embed.dimension(),
            journal_salt: Some(random_salt()),
        }
    }

    /// The salt of the journal.
    pub(crate) fn salt(&self) -> u64 {
        self.journal_salt.unwrap_or(0)
    }

    /// Reads the file; `None` if there is none.
    fn read(dir: &Path) -> Result<Option<Self>, MemoryError> {
        const MAX_BYTES: u64 = 64 * 1024;
        #[derive(Deserialize)]
        struct FormatOnly {
            format: u64,
        }

        let path = dir.join(STORE_FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error("open", &path)(source)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES)
            .read_to_end(&mut bytes)
            .map_err(io_error("read", &path))?;
        let corrupt = |error: serde_json::Error| MemoryError::Corrupt {
            path: path.clone(),
            reason: error.to_string(),
        };
        let FormatOnly { format } = serde_json::from_slice(&bytes).map_err(corrupt)?;
        if format > FORMAT {
            return Err(MemoryError::NewerFormat {
                path: dir.to_owned(),
                found: format,
                supported: FORMAT,
            });
        }
        if format == 0 {
            return Err(MemoryError::Corrupt {
                path,
                reason: "format 0 never existed".to_owned(),
            });
        }
        let parsed: Self = serde_json::from_slice(&bytes).map_err(corrupt)?;
        if (format == FORMAT) != parsed.journal_salt.is_some() {
            return Err(MemoryError::Corrupt {
                path,
                reason: "the journal's salt does not go with the format".to_owned(),
            });
        }
        Ok(Some(parsed))
    }

    /// Writes the file so that it is whole or absent, whatever happens.
    fn write(&self, dir: &Path) -> Result<(), MemoryError> {
        let new = dir.join(STORE_FILE_NEW);
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            serde_json::to_writer(&mut file, self)?;
            file.write_all(b"\n")?;
            file.sync_all()
        };
        write().map_err(io_error("write", &new))?;
        rename(&new, &dir.join(STORE_FILE))
    }

    fn check(&self, dir: &Path, given: &Self) -> Result<(), MemoryError> {
        if self.dimension != given.dimension {
            return Err(MemoryError::DifferentDimension {
                path: dir.to_owned(),
                stored: self.dimension,
                given: given.dimension,
            });
        }
        if self.embedder != given.embedder {
            return Err(MemoryError::DifferentEmbedder {
                path: dir.to_owned(),
                stored: self.embedder.clone(),
                given: given.embedder.clone(),
            });
        }
        Ok(())
    }
}

/// What an owned directory holds.
pub(crate) enum Prepared {
    /// A store of this format; its journal exists.
    Current,
    /// A store of format 1, to be moved to `target`.
    EngineOnly {
        collections: PathBuf,
        target: StoreFile,
    },
}

/// Brings the directory of an owned store into a state that can be loaded.
pub(crate) fn prepare(dir: &Path, embed: &dyn Embed) -> Result<Prepared, MemoryError> {
    let given = StoreFile::of(embed);
    let Some(stored) = StoreFile::read(dir)? else {
        refuse_foreign_content(dir)?;
        // Cut off before the journal got its name, a creation is done again.
        Journal::create(dir, given.salt())?;
        given.write(dir)?;
        return Ok(Prepared::Current);
    };
    stored.check(dir, &given)?;
    if stored.format != FORMAT_ENGINE_ONLY {
        require_journal(dir)?;
        remove_collections(dir)?;
        return Ok(Prepared::Current);
    }
    let collections = dir.join(COLLECTIONS);
    if is_dir(&collections)? {
        return Ok(Prepared::EngineOnly {
            collections,
            target: given,
        });
    }
    if Journal::has_entries(dir) {
        return Err(MemoryError::Corrupt {
            path: dir.join(STORE_FILE),
            reason: "format 1, but there is a journal".to_owned(),
        });
    }
    // A creation of format 1 that was cut off: nothing was ever acknowledged.
    Journal::create(dir, given.salt())?;
    given.write(dir)?;
    remove_collections(dir)?;
    Ok(Prepared::Current)
}

/// Declares the journal in `dir` to be the store; the last step of a migration.
pub(crate) fn finish_migration(dir: &Path, target: &StoreFile) -> Result<(), MemoryError> {
    target.write(dir)?;
    remove_collections(dir)
}

/// Checks the store at `dir` for reading, without changing it. The lock is held
/// for as long as the file is.
pub(crate) fn inspect(dir: &Path, embed: &dyn Embed) -> Result<(File, Prepared), MemoryError> {
    let shared = Ownership::acquire_shared(dir)?;
    let absent = || MemoryError::Absent {
        path: dir.to_owned(),
    };
    let stored = StoreFile::read(dir)?.ok_or_else(absent)?;
    stored.check(dir, &StoreFile::of(embed))?;
    if stored.format != FORMAT_ENGINE_ONLY {
        require_journal(dir)?;
        return Ok((shared, Prepared::Current));
    }
    let collections = dir.join(COLLECTIONS);
    if !is_dir(&collections)? {
        return Err(absent());
    }
    let prepared = Prepared::EngineOnly {
        collections,
        target: stored,
    };
    Ok((shared, prepared))
}

/// The salt of the journal of the store at `dir`, for a repair.
pub(crate) fn salt_for_repair(dir: &Path) -> Result<u64, MemoryError> {
    let stored = StoreFile::read(dir)?.ok_or_else(|| MemoryError::Absent {
        path: dir.to_owned(),
    })?;
    require_journal(dir)?;
    Ok(stored.salt())
}

/// The directory of the index of `collection`.
pub(crate) fn index_dir(dir: &Path, collection: &str) -> PathBuf {
    dir.join(INDEX).join(collection)
}

/// The bytes that the files below `dir` take on the disk; holes do not count.
pub(crate) fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks().saturating_mul(512),
            Err(_) => 0,
        })
        .fold(0, u64::saturating_add)
}

fn require_journal(dir: &Path) -> Result<(), MemoryError> {
    if Journal::exists(dir) {
        return Ok(());
    }
    Err(MemoryError::Corrupt {
        path: dir.to_owned(),
        reason: "the journal is missing".to_owned(),
    })
}

fn remove_collections(dir: &Path) -> Result<(), MemoryError> {
    for name in [COLLECTIONS, COLLECTIONS_NEW] {
        let path = dir.join(name);
        if is_dir(&path)? {
            fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

/// Random for each store: keyed by the operating system's randomness.
fn random_salt() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id())
}

/// Fails if a write in `dir` could run into a full file system.
pub(crate) fn check_free_space(dir: &Path, needed_bytes: u64) -> Result<(), MemoryError> {
    let stat = rustix::fs::statvfs(dir)
        .map_err(|errno| io_error("read the free space of", dir)(errno.into()))?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(MemoryError::DiskSpace {
        path: dir.to_owned(),
        free_bytes,
        needed_bytes,
    })
}

fn refuse_foreign_content(dir: &Path) -> Result<(), MemoryError> {
    for entry in fs::read_dir(dir).map_err(io_error("read", dir))? {
        let entry = entry.map_err(io_error("read", dir))?;
        let name = entry.file_name();
        // A creation that was cut off leaves a journal without entries.
        if name == COLLECTIONS || name == INDEX || Journal::has_entries(dir) {
            return Err(MemoryError::Corrupt {
                path: dir.join(STORE_FILE),
                reason: "the file is missing, but there is a store".to_owned(),
            });
        }
        let ours = [
            LOCK_FILE,
            STORE_FILE_NEW,
            "journal",
            "journal.new",
            "socket",
        ];
        if !ours.iter().any(|own| name == *own) {
            return Err(MemoryError::NotAStore {
                path: dir.to_owned(),
            });
        }
    }
    Ok(())
}

/// Copies everything below `from` to `to`, which is made.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<(), MemoryError> {
    make_dir(to)?;
    for entry in fs::read_dir(from).map_err(io_error("read", from))? {
        let entry = entry.map_err(io_error("read", from))?;
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(io_error("read", &source))?;
        if kind.is_dir() {
            copy_tree(&source, &copy)?;
        } else if kind.is_file() {
            copy_file(&source, &copy).map_err(io_error("copy", &source))?;
        }
    }
    Ok(())
}

/// Copies a file, leaving blocks of zeros out: the engine's files are sparse,
/// a small store has over a hundred times its data in holes.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    const BLOCK_BYTES: usize = 64 * 1024;
    let mut source = File::open(from)?;
    let copy = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    let zeros = vec![0; BLOCK_BYTES];
    let mut block = zeros.clone();
    let mut offset = 0;
    loop {
        let read = source.read(&mut block)?;
        if read == 0 {
            return copy.set_len(offset);
        }
        let bytes = &block[..read];
        if bytes != &zeros[..read] {
            copy.write_all_at(bytes, offset)?;
        }
        offset += read as u64;
    }
}

pub(crate) fn sync_tree(dir: &Path) -> Result<(), MemoryError> {
    for entry in fs::read_dir(dir).map_err(io_error("read", dir))? {
        let entry = entry.map_err(io_error("read", dir))?;
        let path = entry.path();
        if entry.file_type().map_err(io_error("read", &path))?.is_dir() {
            sync_tree(&path)?;
        } else {
            sync(&path)?;
        }
    }
    sync(dir)
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), MemoryError> {
    fs::rename(from, to).map_err(io_error("rename", from))?;
    match to.parent() {
        Some(parent) => sync(parent),
        None => Ok(()),
    }
}

fn sync(path: &Path) -> Result<(), MemoryError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(io_error("sync", path))
}

pub(crate) fn make_dir(dir: &Path) -> Result<(), MemoryError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io_error("make the directory", dir))
}

fn is_dir(path: &Path) -> Result<bool, MemoryError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(io_error("read", path)(source)),
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MemoryError {
    let path = path.to_owned();
    move |source| MemoryError::Io {
        action,
        path,
        source,
    }
}
