//! Searching: the tail exactly, every shard by its index, the best of all, and their
//! scores computed again from what the journal holds.

use std::{
    cmp::Ordering,
    sync::{Arc, atomic},
};

use uuid::Uuid;

use super::{Core, Store};
use crate::{
    MemoryError,
    candidates::{Candidates, Lists, MAX_CANDIDATES, Wanted, fused, nearest},
    counters::Counters,
    directory::index_dir,
    index::Shard,
    journal::{CollectionId, Entry, JournalFile, Location},
    query::{Fields, Filter, Ranking},
    record::Record,
    server::ServerState,
    state::{Home, Shelf, State},
    tail::{Scored, Searchable},
    words::Words,
};

/// The most hits asked of a shard for the sake of those that still lie there.
const MAX_SHARD_HITS: usize = 16_384;

/// How often a search is tried again after a part of the index turned out broken.
const ATTEMPTS: usize = 4;

/// What to look for.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) collection: CollectionId,
    /// `(dimension,)`, f32, length 1.
    pub(crate) vector: Vec<f32>,
    /// Distinct word hashes, ascending; for [`Ranking::Hybrid`].
    pub(crate) words: Vec<u32>,
    pub(crate) ranking: Ranking,
    pub(crate) limit: usize,
    pub(crate) filter: Filter,
}

/// A record that was found.
pub(crate) struct Found {
    pub(crate) record: Record,
    /// Cosine similarity.
    pub(crate) score: f64,
    pub(crate) fused_score: Option<f64>,
}

/// What was read back from the journal.
type ReadBack = Result<Vec<Found>, MemoryError>;

/// Which records an index chose, and the journal they lie in.
struct Picked {
    /// With the fused score, if lists were fused.
    points: Vec<(Location, Option<f64>)>,
    file: Arc<JournalFile>,
}

/// A shard that failed while it was searched.
pub(crate) struct BrokenShard {
    number: u64,
    error: MemoryError,
}

impl Store {
    /// The best records for `question`, best first; equal ones by id, then tenant.
    pub(crate) fn search(&self, question: &Question) -> Result<Vec<Found>, MemoryError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.try_search(question) {
                Ok(found) => return found,
                Err(broken) if attempts < ATTEMPTS => {
                    tracing::warn!(error = %broken.error, "a part of the index is broken; it is made again");
                    self.evict(question.collection, &broken)?;
                }
                Err(broken) => return Err(broken.error),
            }
        }
    }

    fn try_search(
        &self,
        question: &Question,
    ) -> Result<Result<Vec<Found>, MemoryError>, BrokenShard> {
        // The index knows times by the millisecond: what it lets through too much is
        // dropped after it was read, and then more of its hits are needed.
        let mut wider = question.clone();
        loop {
            let (n_picked, found) = self.pick(&wider)?;
            let mut found = match found {
                Ok(found) => found,
                Err(error) => return Ok(Err(error)),
            };
            let all = n_picked < wider.limit || wider.limit >= MAX_CANDIDATES;
            if all || found.len() >= question.limit {
                found.truncate(question.limit);
                return Ok(Ok(found));
            }
            wider.limit = wider.limit.saturating_mul(4).min(MAX_CANDIDATES);
        }
    }

    /// The best records by an index, how many they are, and those of them that
    /// pass the filter exactly, in their final order.
    fn pick(&self, question: &Question) -> Result<(usize, ReadBack), BrokenShard> {
        if let Some(server) = &self.core.server
            && let Some(picked) = self.pick_by_server(server, question)
        {
            return Ok(read_back(picked, question));
        }
        let picked = {
            let state = self.core.read();
            let shelf = state.shelf(question.collection);
            let picked = match question.ranking {
                Ranking::Cosine => nearest(shelf, question)?,
                Ranking::Hybrid => {
                    let weighed = shelf.frequency.weigh(&question.words);
                    let min = self.core.options.min_fused_candidates;
                    fused(shelf, question, &weighed, min)?
                }
            };
            let points = picked
                .into_iter()
                .filter_map(|(point, fused)| Some((shelf.get(point)?.at, fused)))
                .collect();
            Picked {
                points,
                file: Arc::clone(&state.file),
            }
        };
        Ok(read_back(picked, question))
    }

    /// The best records by the server's index; none if it lacks something or does
    /// not answer: then the embedded index does.
    fn pick_by_server(&self, server: &ServerState, question: &Question) -> Option<Picked> {
        let counters = &self.core.counters;
        let answered = server.index(question.collection).and_then(|index| {
            let (weighed, n_records) = {
                let state = self.core.read();
                let shelf = state.shelf(question.collection);
                (shelf.frequency.weigh(&question.words), shelf.len())
            };
            let picked = match question.ranking {
                Ranking::Cosine => nearest(&index, question),
                Ranking::Hybrid => {
                    let min = self.core.options.min_fused_candidates;
                    fused(&index, question, &weighed, min)
                }
            };
            let picked = picked
                .inspect_err(|error| server.failed(counters, error))
                .ok()?;
            // What passes no filter is there as often as records are.
            let unfiltered = question.filter == Filter::default();
            if unfiltered && picked.len() < question.limit.min(n_records) {
                server.fell_short(counters);
                return None;
            }
            self.locate(question.collection, picked)
        });
        Counters::count(match answered {
            Some(_) => &counters.server_searches,
            None => &counters.server_fallbacks,
        });
        answered
    }

    /// Where the records lie; none if one of them is not there any more.
    fn locate(&self, collection: CollectionId, picked: Vec<(Uuid, Option<f64>)>) -> Option<Picked> {
        let state = self.core.read();
        let shelf = state.shelf(collection);
        let points = picked
            .into_iter()
            .map(|(point, fused)| Some((shelf.get(point)?.at, fused)))
            .collect::<Option<_>>()?;
        Some(Picked {
            points,
            file: Arc::clone(&state.file),
        })
    }

    /// Takes a broken shard out; its records are searched one by one until the
    /// index is built again.
    fn evict(&self, collection: CollectionId, broken: &BrokenShard) -> Result<(), MemoryError> {
        let core = &self.core;
        core.note_index_error(&broken.error);
        let mut state = core.write();
        let shard = evict_from(&mut state, collection, broken.number)?;
        drop(state);
        if let Some(shard) = shard {
            Counters::count(&core.counters.broken_index_parts);
            // A private copy is not made again, and not ours to remove.
            if core.index_home == core.dir {
                shard.discard();
            }
        }
        if let Some(indexer) = &self.indexer {
            indexer.wake();
        }
        Ok(())
    }
}

fn read_back(picked: Picked, question: &Question) -> (usize, ReadBack) {
    let n_picked = picked.points.len();
    let read = picked
        .points
        .into_iter()
        .map(|(at, fused)| found(&picked.file, at, fused, question))
        .filter_map(Result::transpose)
        .collect::<Result<Vec<_>, _>>();
    let found = read.map(|mut found| {
        found.sort_by(order);
        found
    });
    (n_picked, found)
}

/// Opens the shards that lie in the store; returns those that cannot be used.
pub(super) fn attach_shards(core: &Core, state: &mut State) -> Vec<(CollectionId, Vec<u64>)> {
    let mut all_broken = Vec::new();
    for collection in CollectionId::ALL {
        let mut broken = Vec::new();
        let parent = index_dir(&core.index_home, collection.name());
        for number in crate::index::stored_shards(&parent) {
            core.next_shard
                .fetch_max(number + 1, atomic::Ordering::Relaxed);
            match Shard::open(collection, &parent, number, core.shard_options()) {
                Ok((shard, members)) => {
                    state.shelf_mut(collection).install(shard, &members, &[]);
                }
                Err(error) => {
                    tracing::warn!(%error, "a part of the index cannot be used; it is made again");
                    Counters::count(&core.counters.broken_index_parts);
                    core.note_index_error(&error);
                    broken.push(number);
                }
            }
        }
        all_broken.push((collection, broken));
    }
    all_broken
}

/// Puts what is in no shard into the tail, and counts the words of everything.
pub(super) fn fill_tails(state: &mut State) -> Result<(), MemoryError> {
    let file = Arc::clone(&state.file);
    for shelf in &mut state.shelves {
        let slots: Vec<_> = shelf.iter().map(|(point, slot)| (point, *slot)).collect();
        for (point, slot) in slots {
            let searchable = Searchable::read(&file, slot.at, point)?;
            shelf.frequency.add(&searchable.words);
            if slot.home == Home::Tail {
                shelf.tail.put(searchable);
            }
        }
        shelf.digest_all();
    }
    Ok(())
}

fn evict_from(
    state: &mut State,
    collection: CollectionId,
    number: u64,
) -> Result<Option<Shard>, MemoryError> {
    let file = Arc::clone(&state.file);
    let shelf = state.shelf_mut(collection);
    let (shard, members) = shelf.evict(number);
    for member in members {
        shelf
            .tail
            .put(Searchable::read(&file, member.at, member.point)?);
    }
    Ok(shard)
}

impl Candidates for Shelf {
    type Failure = BrokenShard;

    fn lists(&self, wanted: &Wanted<'_>) -> Result<Lists, BrokenShard> {
        let sparse = match wanted.words {
            Some(words) => sparse(self, wanted, words)?,
            None => Vec::new(),
        };
        Ok(Lists {
            dense: dense(self, wanted)?,
            sparse,
        })
    }
}

fn dense(shelf: &Shelf, wanted: &Wanted<'_>) -> Result<Vec<Scored>, BrokenShard> {
    let (vector, filter) = (wanted.vector, wanted.filter);
    let mut all = shelf.tail.dense(vector, filter, wanted.fetch);
    each_shard(shelf, wanted.fetch, &mut all, |shard, limit| {
        shard.dense(vector, filter, limit)
    })?;
    Ok(Scored::best(all, wanted.fetch))
}

fn sparse(shelf: &Shelf, wanted: &Wanted<'_>, weighed: &Words) -> Result<Vec<Scored>, BrokenShard> {
    if weighed.is_empty() {
        return Ok(Vec::new());
    }
    let filter = wanted.filter;
    let mut all = shelf.tail.sparse(weighed, filter, wanted.fetch);
    each_shard(shelf, wanted.fetch, &mut all, |shard, limit| {
        shard.sparse(weighed, filter, limit)
    })?;
    Ok(Scored::best(all, wanted.fetch))
}

/// Adds the best `fetch` of every shard that still lie there.
fn each_shard(
    shelf: &Shelf,
    fetch: usize,
    all: &mut Vec<Scored>,
    search: impl Fn(&Shard, usize) -> Result<Vec<Scored>, MemoryError>,
) -> Result<(), BrokenShard> {
    for part in &shelf.shards {
        let number = part.shard.number;
        if part.live == 0 {
            continue;
        }
        let lives_here = |scored: &Scored| {
            shelf
                .get(scored.point)
                .is_some_and(|slot| slot.home == Home::Shard(number))
        };
        // What was changed or removed since the shard was built still lies in it:
        // look further until enough is left.
        let mut limit = fetch;
        loop {
            let hits = search(&part.shard, limit).map_err(|error| BrokenShard { number, error })?;
            let complete = hits.len() < limit || limit >= MAX_SHARD_HITS;
            let living: Vec<_> = hits.into_iter().filter(lives_here).collect();
            if complete || living.len() >= fetch {
                all.extend(living);
                break;
            }
            limit = limit.saturating_mul(2);
        }
    }
    Ok(())
}

/// Reads a record, computes its score, and applies the filter exactly.
fn found(
    file: &JournalFile,
    at: Location,
    fused_score: Option<f64>,
    question: &Question,
) -> Result<Option<Found>, MemoryError> {
    let Entry::Put { record, vector } = file.read(at)?.1 else {
        return Err(file.damaged(at.offset, "a removal in place of a record"));
    };
    if !question.filter.passes(&Fields::of(&record)) {
        return Ok(None);
    }
    Ok(Some(Found {
        score: cosine(&vector, &question.vector),
        fused_score,
        record,
    }))
}

/// The cosine of two vectors of length 1.
fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let products = left.iter().zip(right);
    products
        .map(|(l, r)| f64::from(*l) * f64::from(*r))
        .sum::<f64>()
        .clamp(-1.0, 1.0)
}

fn order(left: &Found, right: &Found) -> Ordering {
    let fused = |found: &Found| found.fused_score.unwrap_or(0.0);
    fused(right)
        .total_cmp(&fused(left))
        .then_with(|| right.score.total_cmp(&left.score))
        .then_with(|| left.record.id.cmp(&right.record.id))
        .then_with(|| left.record.tenant.cmp(&right.record.tenant))
}
