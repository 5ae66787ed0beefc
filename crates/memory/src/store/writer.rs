//! The one thread that writes: group commit, compaction, and what readers see.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};
use uuid::Uuid;

use super::Core;
use crate::{
    MemoryError,
    counters::Counters,
    index::Indexer,
    journal::{CollectionId, Entry, EntryRef, Journal, Location},
    query::Fields,
    record::{ContentHash, Record},
    tail::Searchable,
    words::{self, Words},
};

/// The most bytes of one group; what is beyond waits for the next.
const MAX_GROUP_BYTES: usize = 32 * 1024 * 1024;

/// What a caller wants to be stored.
#[derive(Clone)]
pub(crate) enum Change {
    Put {
        collection: CollectionId,
        /// With their vectors, `(dimension,)`, f32, length 1.
        records: Vec<(Record, Vec<f32>)>,
    },
    Remove {
        collection: CollectionId,
        points: Vec<Uuid>,
    },
}

impl Change {
    pub(crate) fn max_written_bytes(&self, dimension: usize) -> u64 {
        match self {
            Self::Put { records, .. } => records
                .iter()
                .map(|(record, _)| record.max_written_bytes(dimension))
                .sum(),
            Self::Remove { points, .. } => 64 * points.len() as u64,
        }
    }
}

/// The handle of the thread. Dropping it waits until it has written what it took.
pub(super) struct Writer {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

struct Request {
    operations: Vec<Operation>,
    bytes: usize,
    answer: Sender<Result<u64, Refusal>>,
}

/// One record's part of a change, ready to be written.
struct Operation {
    collection: CollectionId,
    point: Uuid,
    encoded: Vec<u8>,
    put: Option<(Searchable, ContentHash)>,
}

/// An error that several callers get.
#[derive(Clone)]
enum Refusal {
    Failed,
    JournalFull { bytes: u64, max: u64 },
    Disk(String),
}

impl Writer {
    pub(super) fn start(
        journal: Journal,
        core: &Arc<Core>,
        indexer: Arc<Indexer>,
    ) -> Result<Self, MemoryError> {
        // When it is full, callers wait, until `write_deadline`.
        let (requests, received) = bounded(core.options.max_queued_writes.max(1));
        let mut worker = Worker {
            next_compaction_bytes: 0,
            journal,
            core: Arc::clone(core),
            indexer,
        };
        let thread = thread::Builder::new()
            .name("memory-journal".to_owned())
            .spawn(move || worker.run(&received))
            .map_err(|source| MemoryError::Io {
                action: "start a thread for",
                path: core.dir.clone(),
                source,
            })?;
        Ok(Self {
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    pub(super) fn change(&self, change: Change, core: &Core) -> Result<u64, MemoryError> {
        let operations = operations(change).map_err(|part| MemoryError::Corrupt {
            path: core.dir.clone(),
            reason: part.0.to_owned(),
        })?;
        if operations.is_empty() {
            return Ok(0);
        }
        let wait = core.options.write_deadline;
        let late = || MemoryError::WriteDeadline { waited: wait };
        let (answer, answered) = bounded(1);
        let request = Request {
            bytes: operations.iter().map(|one| one.encoded.len()).sum(),
            operations,
            answer,
        };
        let failed = || MemoryError::Failed {
            path: core.dir.clone(),
        };
        let requests = self.requests.as_ref().ok_or_else(failed)?;
        requests
            .send_timeout(request, wait)
            .map_err(|error| match error {
                SendTimeoutError::Timeout(_) => late(),
                SendTimeoutError::Disconnected(_) => failed(),
            })?;
        match answered.recv_timeout(wait) {
            Ok(Ok(changed)) => Ok(changed),
            Ok(Err(Refusal::Failed)) | Err(RecvTimeoutError::Disconnected) => Err(failed()),
            Ok(Err(Refusal::JournalFull { bytes, max })) => Err(MemoryError::JournalFull {
                path: core.dir.clone(),
                bytes,
                max,
            }),
            Ok(Err(Refusal::Disk(reason))) => Err(MemoryError::JournalWrite {
                path: core.dir.clone(),
                reason,
            }),
            Err(RecvTimeoutError::Timeout) => Err(late()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the thread that writes the journal had panicked");
        }
    }
}

fn operations(change: Change) -> Result<Vec<Operation>, crate::wire::Malformed> {
    match change {
        Change::Put {
            collection,
            records,
        } => records
            .into_iter()
            .map(|(record, vector)| {
                let (point, hash) = (record.point(), record.content_hash());
                let (fields, words) = (Fields::of(&record), words::document(&record.text));
                let entry = Entry::Put { record, vector };
                let encoded = EntryRef {
                    collection,
                    entry: &entry,
                }
                .encode()?;
                let Entry::Put { vector, .. } = entry else {
                    return Err(crate::wire::Malformed("a record"));
                };
                let searchable = Searchable {
                    point,
                    vector,
                    words,
                    fields,
                };
                Ok(Operation {
                    collection,
                    point,
                    encoded,
                    put: Some((searchable, hash)),
                })
            })
            .collect(),
        Change::Remove { collection, points } => points
            .into_iter()
            .map(|point| {
                let entry = &Entry::Remove { point };
                Ok(Operation {
                    collection,
                    point,
                    encoded: EntryRef { collection, entry }.encode()?,
                    put: None,
                })
            })
            .collect(),
    }
}

struct Worker {
    journal: Journal,
    core: Arc<Core>,
    indexer: Arc<Indexer>,
    /// The journal is not compacted again below this length.
    next_compaction_bytes: u64,
}

impl Worker {
    fn run(&mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut bytes = first.bytes;
            let mut group = vec![first];
            while bytes < MAX_GROUP_BYTES
                && let Ok(next) = requests.try_recv()
            {
                bytes += next.bytes;
                group.push(next);
            }
            self.commit(group, bytes as u64);
            self.compact_if_worth();
            self.indexer.wake();
        }
    }

    fn commit(&mut self, group: Vec<Request>, bytes: u64) {
        let (mut answers, mut changed) = (Vec::new(), Vec::new());
        for request in group {
            let count = self.select(request.operations, &mut changed);
            answers.push((request.answer, count));
        }
        let outcome = self.write(&mut changed, bytes);
        let counters = &self.core.counters;
        for (answer, count) in answers {
            let outcome = outcome.clone().map(|()| count);
            Counters::count(match outcome {
                Ok(_) => &counters.acknowledged_writes,
                Err(_) => &counters.failed_writes,
            });
            // A caller that has given up learns nothing; the write stands.
            drop(answer.send(outcome));
        }
    }

    /// Moves what changes something to `changed`; returns how much that is.
    fn select(&self, operations: Vec<Operation>, changed: &mut Vec<Operation>) -> u64 {
        let state = self.core.read();
        // What the group has done so far to a record: its content, or none.
        let mut done: HashMap<(CollectionId, Uuid), Option<ContentHash>> = changed
            .iter()
            .map(|one| (one.key(), one.put.as_ref().map(|put| put.1)))
            .collect();
        let before = changed.len();
        for operation in operations {
            let key = operation.key();
            let stored = done.get(&key).copied().unwrap_or_else(|| {
                let slot = state.shelf(operation.collection).get(operation.point);
                slot.map(|slot| slot.hash)
            });
            let wanted = operation.put.as_ref().map(|put| put.1);
            if stored != wanted {
                done.insert(key, wanted);
                changed.push(operation);
            }
        }
        (changed.len() - before) as u64
    }

    fn write(&mut self, changed: &mut Vec<Operation>, bytes: u64) -> Result<(), Refusal> {
        if changed.is_empty() {
            return Ok(());
        }
        let max = self.core.options.max_journal_bytes;
        // A removal is always taken: it is what makes room.
        let grows = changed.iter().any(|operation| operation.put.is_some());
        if grows && self.journal.bytes().saturating_add(bytes) > max {
            self.compact();
            let bytes = self.journal.bytes().saturating_add(bytes);
            if bytes > max {
                return Err(Refusal::JournalFull { bytes, max });
            }
        }
        if self.journal.has_failed() {
            return Err(Refusal::Failed);
        }
        let entries: Vec<_> = changed
            .iter_mut()
            .map(|operation| std::mem::take(&mut operation.encoded))
            .collect();
        let locations = self
            .journal
            .append(&entries)
            .map_err(|error| Refusal::Disk(reason(&error)))?;
        Counters::count(&self.core.counters.commit_groups);
        self.show(std::mem::take(changed), &locations);
        Ok(())
    }

    /// Lets readers see what is safe now.
    fn show(&self, changed: Vec<Operation>, locations: &[Location]) {
        // Words of what is replaced are read before readers are kept waiting.
        let mut replaced: HashMap<(CollectionId, Uuid), Words> = HashMap::new();
        for operation in &changed {
            if let Some(words) = self.stored_words(operation) {
                replaced.insert(operation.key(), words);
            }
        }
        let mut points: [Vec<Uuid>; 3] = Default::default();
        let mut state = self.core.write();
        for (operation, at) in changed.into_iter().zip(locations) {
            let key = operation.key();
            let shelf = state.shelf_mut(operation.collection);
            points[operation.collection.index()].push(operation.point);
            let old = replaced.remove(&key);
            match operation.put {
                Some((searchable, hash)) => {
                    replaced.insert(key, searchable.words.clone());
                    shelf.put(searchable, (hash, *at), old.as_ref());
                }
                None => shelf.remove(operation.point, old.as_ref()),
            }
        }
        for (collection, points) in CollectionId::ALL.into_iter().zip(points) {
            if points.is_empty() {
                continue;
            }
            // While readers wait, so that none asks the server for what it lacks.
            if let Some(server) = &self.core.server {
                server.changed(collection, &points);
            }
            state.shelf_mut(collection).digest_again(points);
        }
    }

    fn stored_words(&self, operation: &Operation) -> Option<Words> {
        let (file, at) = {
            let state = self.core.read();
            let slot = state.shelf(operation.collection).get(operation.point)?;
            (Arc::clone(&state.file), slot.at)
        };
        match file.read(at) {
            Ok((_, Entry::Put { record, .. })) => Some(words::document(&record.text)),
            Ok((_, Entry::Remove { .. })) => None,
            Err(error) => {
                // Only the weights of words are a little off until the next opening.
                tracing::warn!(%error, "cannot read a record that is replaced");
                None
            }
        }
    }

    fn compact_if_worth(&mut self) {
        let live = self.core.read().live_bytes();
        let dead = self.journal.bytes().saturating_sub(live);
        let worth = dead > live && dead > self.core.options.compact_min_bytes;
        if worth && self.journal.bytes() > self.next_compaction_bytes {
            self.compact();
        }
    }

    /// Writes a journal of what is there alone. This thread is the only one that
    /// changes the state's records, so they stay as they are meanwhile.
    fn compact(&mut self) {
        if self.journal.has_failed() {
            return;
        }
        let live: Vec<Location> = {
            let state = self.core.read();
            let shelves = state.shelves.iter();
            shelves
                .flat_map(|shelf| shelf.iter().map(|(_, slot)| slot.at))
                .collect()
        };
        let counters = &self.core.counters;
        match self.journal.compact(&live) {
            Ok(moved) => {
                let mut state = self.core.write();
                let mut moved = moved.into_iter();
                for shelf in &mut state.shelves {
                    shelf.relocate(&mut moved);
                }
                state.file = self.journal.file();
                self.next_compaction_bytes = 0;
                counters.compactions.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(%error, "the journal could not be compacted");
                let more = self.core.options.compact_min_bytes;
                self.next_compaction_bytes = self.journal.bytes().saturating_add(more);
                counters.failed_compactions.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Operation {
    fn key(&self) -> (CollectionId, Uuid) {
        (self.collection, self.point)
    }
}

fn reason(error: &MemoryError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
