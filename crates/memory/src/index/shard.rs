//! A shard: an indexed, unchanging part of a collection.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use super::{
    engine::{Engine, Graph},
    manifest::Manifest,
};
use crate::{
    MemoryError,
    directory::{io_error, make_dir, rename, sync_tree},
    journal::{CollectionId, JournalFile, Location},
    query::Filter,
    record::ContentHash,
    tail::{Scored, Searchable},
};

/// The start of the name of a directory that is still being built.
const BUILDING: &str = "building-";
/// The engine's log, which a finished shard does without.
const WRITE_AHEAD_LOG: &str = "wal";

/// How shards are built and searched.
pub(crate) type ShardOptions = Graph;

/// One record that goes into a shard.
#[derive(Clone, Copy)]
pub(crate) struct Member {
    pub(crate) point: Uuid,
    pub(crate) hash: ContentHash,
    pub(crate) at: Location,
}

/// An opened shard.
pub(crate) struct Shard {
    pub(crate) number: u64,
    engine: Engine,
    dir: PathBuf,
    search_beam: usize,
}

impl Shard {
    /// Builds shard `number` of `members` and puts it under its name in `parent`.
    ///
    /// Works in a directory of its own until it is whole; `keep` is asked before it
    /// gets its name. Returns none if the answer was no.
    pub(crate) fn build(
        place: (CollectionId, &Path, u64),
        options: ShardOptions,
        file: &Arc<JournalFile>,
        members: &[Member],
        keep: impl FnOnce() -> bool,
    ) -> Result<Option<Self>, MemoryError> {
        static BUILDS: AtomicU64 = AtomicU64::new(0);
        let (collection, parent, number) = place;
        let build = BUILDS.fetch_add(1, Ordering::Relaxed);
        let building = parent.join(format!("{BUILDING}{}-{build}", std::process::id()));
        make_dir(&building)?;
        let built = Self::fill(collection, &building, options, file, members);
        let target = parent.join(number.to_string());
        let named = built.and_then(|()| {
            if !keep() {
                return Ok(false);
            }
            rename(&building, &target)?;
            Ok(true)
        });
        match named {
            Ok(true) => Self::open(collection, parent, number, options).map(|shard| Some(shard.0)),
            Ok(false) => {
                remove(&building);
                Ok(None)
            }
            Err(error) => {
                remove(&building);
                Err(error)
            }
        }
    }

    fn fill(
        collection: CollectionId,
        dir: &Path,
        options: ShardOptions,
        file: &Arc<JournalFile>,
        members: &[Member],
    ) -> Result<(), MemoryError> {
        let mut left = members.iter();
        Engine::build(collection, dir, options, || match left.next() {
            Some(member) => Searchable::read(file, member.at, member.point).map(Some),
            None => Ok(None),
        })?;
        let log = dir.join(WRITE_AHEAD_LOG);
        fs::remove_dir_all(&log).map_err(io_error("remove", &log))?;
        let manifest = Manifest {
            members: members
                .iter()
                .map(|member| (member.point, member.hash))
                .collect(),
        };
        manifest.write(dir, options.dimension)?;
        sync_tree(dir)
    }

    /// Opens shard `number` in `parent` and says what it was made of.
    ///
    /// # Errors
    /// If it is not what was written; it is then to be removed.
    pub(crate) fn open(
        collection: CollectionId,
        parent: &Path,
        number: u64,
        options: ShardOptions,
    ) -> Result<(Self, Vec<(Uuid, ContentHash)>), MemoryError> {
        let dir = parent.join(number.to_string());
        let manifest =
            Manifest::read(&dir, options.dimension).map_err(|reason| MemoryError::Corrupt {
                path: dir.clone(),
                reason,
            })?;
        let shard = Self {
            number,
            engine: Engine::load(collection, &dir, options)?,
            dir,
            search_beam: options.search_beam,
        };
        Ok((shard, manifest.members))
    }

    pub(crate) fn dense(
        &self,
        vector: &[f32],
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<Scored>, MemoryError> {
        self.engine.dense(vector, filter, (limit, self.search_beam))
    }

    pub(crate) fn sparse(
        &self,
        words: &[(u32, f32)],
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<Scored>, MemoryError> {
        self.engine.sparse(words, filter, limit)
    }

    /// Closes the shard and removes its directory.
    pub(crate) fn discard(self) {
        let dir = self.dir.clone();
        drop(self);
        remove(&dir);
    }
}

/// The numbers of the shards in `parent`, ascending.
pub(crate) fn stored_shards(parent: &Path) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut numbers: Vec<u64> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Removes what an interrupted build left in `parent`, and the shards `broken`.
pub(crate) fn remove_leftovers(parent: &Path, broken: &[u64]) {
    for number in broken {
        remove(&parent.join(number.to_string()));
    }
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(BUILDING) {
            remove(&entry.path());
        }
    }
}

fn remove(dir: &Path) {
    // It is not used again; only its room is lost until the next opening.
    if let Err(error) = fs::remove_dir_all(dir) {
        tracing::warn!(%error, dir = %dir.display(), "cannot remove a directory of the index");
    }
}
