//! Opening a store: for its owner, for a reader, and from format 1.

use std::{
    path::Path,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Core, Store,
    search::{attach_shards, fill_tails},
    writer::Writer,
};
use crate::{
    MemoryError, MemoryOptions,
    counters::Counters,
    directory::{self, Prepared, index_dir},
    index::{self, Indexer},
    journal::{CollectionId, Entry, EntryRef, Journal, JournalFile, Location},
    server::{CatchUp, ServerState},
    state::{Shelf, State},
};

/// How many bytes of entries a migration writes as one group.
const GROUP_BYTES: usize = 8 * 1024 * 1024;

impl Store {
    /// Opens the store in `dir`, which the caller owns and has prepared.
    pub(crate) fn open(
        dir: &Path,
        prepared: Prepared,
        dimension: usize,
        options: MemoryOptions,
    ) -> Result<Self, MemoryError> {
        if let Prepared::EngineOnly {
            collections,
            target,
        } = &prepared
        {
            migrate(collections, dir, (target.salt(), dimension))?;
            directory::finish_migration(dir, target)?;
        }
        let mut shelves = empty(dimension);
        let (journal, recovered) = Journal::open(dir, note(&mut shelves, dimension, dir))?;
        let core = load(dir, dir, (journal.file(), shelves), (dimension, options))?;
        let torn = &core.counters.torn_bytes;
        torn.store(recovered.torn_bytes, Ordering::Relaxed);
        let core = Arc::new(core);
        let indexer = Arc::new(Indexer::start(&core)?);
        indexer.wake();
        Ok(Self {
            writer: Some(Writer::start(journal, &core, Arc::clone(&indexer))?),
            _catch_up: CatchUp::start(&core)?,
            indexer: Some(indexer),
            core,
        })
    }

    /// Opens the store in `dir` as it is now, for reading. What the engine would
    /// change is copied to `copy` before.
    pub(crate) fn open_read_only(
        dir: &Path,
        copy: &Path,
        prepared: &Prepared,
        (dimension, options): (usize, MemoryOptions),
    ) -> Result<Self, MemoryError> {
        let journal_dir = match prepared {
            Prepared::Current => {
                for collection in CollectionId::ALL {
                    let from = index_dir(dir, collection.name());
                    if from.is_dir() {
                        directory::copy_tree(&from, &index_dir(copy, collection.name()))?;
                    }
                }
                dir
            }
            Prepared::EngineOnly {
                collections,
                target,
            } => {
                let copied = copy.join("collections");
                directory::copy_tree(collections, &copied)?;
                migrate(&copied, copy, (target.salt(), dimension))?;
                copy
            }
        };
        let mut shelves = empty(dimension);
        let file = Journal::read_all(journal_dir, note(&mut shelves, dimension, dir))?;
        let core = load(dir, copy, (file, shelves), (dimension, options))?;
        Ok(Self {
            writer: None,
            _catch_up: None,
            indexer: None,
            core: Arc::new(core),
        })
    }
}

fn empty(dimension: usize) -> [Shelf; 3] {
    CollectionId::ALL.map(|id| Shelf::new(id, dimension))
}

/// Follows the journal: what is there at its end is what is stored.
fn note<'a>(
    shelves: &'a mut [Shelf; 3],
    dimension: usize,
    dir: &'a Path,
) -> impl FnMut(CollectionId, Entry, Location) -> Result<(), MemoryError> + 'a {
    move |collection, entry, at| {
        let shelf = &mut shelves[collection.index()];
        match entry {
            Entry::Put { record, vector } => {
                if vector.len() != dimension {
                    return Err(MemoryError::Corrupt {
                        path: dir.to_owned(),
                        reason: format!("a vector of length {} in the journal", vector.len()),
                    });
                }
                shelf.note(record.point(), record.content_hash(), at);
            }
            Entry::Remove { point } => shelf.forget(point),
        }
        Ok(())
    }
}

fn load(
    dir: &Path,
    index_home: &Path,
    (file, shelves): (Arc<JournalFile>, [Shelf; 3]),
    (dimension, options): (usize, MemoryOptions),
) -> Result<Core, MemoryError> {
    let server = match &options.server {
        // A reader sees the store as it was, and leaves a server as it is.
        Some(server) if dir == index_home => {
            let origin = file.salt();
            Some(Arc::new(ServerState::new(
                server,
                origin,
                (dimension, &options),
            )?))
        }
        _ => None,
    };
    let core = Core {
        server,
        dir: dir.to_owned(),
        index_home: index_home.to_owned(),
        options,
        counters: Counters::default(),
        dimension,
        next_shard: AtomicU64::new(1),
        state: RwLock::new(State { file, shelves }),
    };
    let mut state = core.write();
    for (collection, broken) in attach_shards(&core, &mut state) {
        let parent = index_dir(index_home, collection.name());
        index::remove_leftovers(&parent, &broken);
    }
    fill_tails(&mut state)?;
    drop(state);
    Ok(core)
}

/// Writes the records of format 1 to a journal in `dir`. Cut off, it is done again:
/// the old store is not touched before `store.json` names the new format.
fn migrate(
    collections: &Path,
    dir: &Path,
    (salt, dimension): (u64, usize),
) -> Result<(), MemoryError> {
    let mut journal = Journal::create(dir, salt)?;
    for collection in [CollectionId::Precedents, CollectionId::Knowledge] {
        let from = collections.join(collection.name());
        let mut group = Vec::new();
        let mut bytes = 0;
        for (record, vector) in index::read_format_1(collection, &from, dimension)? {
            let entry = &Entry::Put { record, vector };
            let encoded = EntryRef { collection, entry }.encode();
            let encoded = encoded.map_err(|part| MemoryError::Corrupt {
                path: from.clone(),
                reason: part.0.to_owned(),
            })?;
            bytes += encoded.len();
            group.push(encoded);
            if bytes > GROUP_BYTES {
                journal.append(&std::mem::take(&mut group))?;
                bytes = 0;
            }
        }
        if !group.is_empty() {
            journal.append(&group)?;
        }
    }
    Ok(())
}
