//! Searching: the tail exactly, every shard by its index, the best of all, and their
//! scores computed again from what the journal holds.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use uuid::Uuid;

use super::{Core, Store};
use crate::{
    MemoryError,
    counters::Counters,
    directory::index_dir,
    index::Shard,
    journal::{CollectionId, Entry, JournalFile},
    query::{Fields, Filter, RECIPROCAL_RANK_K, Ranking},
    record::Record,
    state::{Home, Shelf, State},
    tail::{Scored, Searchable},
    words::{self, Words},
};

/// How near two scores of one record can come out that were computed in different
/// orders.
const ROUNDING: f32 = 2e-6;

/// The most candidates of one list. Beyond it, which of many equal records comes
/// first is decided by the order of their hashed ids.
const MAX_CANDIDATES: usize = 1024;

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

/// A shard that failed while it was searched.
struct BrokenShard {
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

    /// The best records by the index, how many they are, and those of them that
    /// pass the filter exactly, in their final order.
    fn pick(&self, question: &Question) -> Result<(usize, ReadBack), BrokenShard> {
        let (picked, file) = {
            let state = self.core.read();
            let shelf = state.shelf(question.collection);
            let picked = match question.ranking {
                Ranking::Cosine => nearest(shelf, question)?,
                Ranking::Hybrid => fused(shelf, question, self.core.options.min_fused_candidates)?,
            };
            let located: Vec<_> = picked
                .into_iter()
                .filter_map(|(point, fused)| Some((shelf.get(point)?.at, fused)))
                .collect();
            (located, Arc::clone(&state.file))
        };
        let n_picked = picked.len();
        let read = picked
            .into_iter()
            .map(|(at, fused)| found(&file, at, fused, question))
            .filter_map(Result::transpose)
            .collect::<Result<Vec<_>, _>>();
        let found = read.map(|mut found| {
            found.sort_by(order);
            found
        });
        Ok((n_picked, found))
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

/// Opens the shards that lie in the store; returns those that cannot be used.
pub(super) fn attach_shards(core: &Core, state: &mut State) -> Vec<(CollectionId, Vec<u64>)> {
    let mut all_broken = Vec::new();
    for collection in CollectionId::ALL {
        let mut broken = Vec::new();
        let parent = index_dir(&core.index_home, collection.name());
        for number in crate::index::stored_shards(&parent) {
            core.next_shard
                .fetch_max(number + 1, std::sync::atomic::Ordering::Relaxed);
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
            let searchable = searchable(&file, slot.at, point)?;
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
        shelf.tail.put(searchable(&file, member.at, member.point)?);
    }
    Ok(shard)
}

fn searchable(
    file: &JournalFile,
    at: crate::journal::Location,
    point: Uuid,
) -> Result<Searchable, MemoryError> {
    match file.read(at)?.1 {
        Entry::Put { record, vector } => Ok(Searchable {
            point,
            vector,
            words: words::document(&record.text),
            fields: Fields::of(&record),
        }),
        Entry::Remove { .. } => Err(file.damaged(at.offset, "a removal in place of a record")),
    }
}

/// The records nearest to the question's vector, with all that equal the last.
fn nearest(shelf: &Shelf, question: &Question) -> Result<Vec<(Uuid, Option<f64>)>, BrokenShard> {
    // The cut must not lie among equal scores, so look one further than asked, and
    // twice as far for as long as it does.
    let mut fetch = question.limit.saturating_add(1);
    loop {
        let best = dense(shelf, question, fetch)?;
        let cut = best
            .get(question.limit.saturating_sub(1))
            .map(|at| at.score);
        let ties = |scored: &Scored| cut.is_none_or(|cut| scored.score >= cut - ROUNDING);
        let whole = best.len() < fetch || best.last().is_none_or(|last| !ties(last));
        if whole || fetch >= MAX_CANDIDATES {
            return Ok(best
                .into_iter()
                .filter(ties)
                .map(|scored| (scored.point, None))
                .collect());
        }
        fetch = fetch.saturating_mul(2);
    }
}

/// The best records by reciprocal rank fusion, with all that equal the last.
fn fused(
    shelf: &Shelf,
    question: &Question,
    min_candidates: usize,
) -> Result<Vec<(Uuid, Option<f64>)>, BrokenShard> {
    let fetch = question.limit.saturating_mul(2).max(min_candidates);
    let weighed = shelf.frequency.weigh(&question.words);
    let lists = [
        dense(shelf, question, fetch)?,
        sparse(shelf, question, &weighed, fetch)?,
    ];
    let mut best = fuse(&lists);
    if let Some(cut) = best.get(question.limit.saturating_sub(1)).map(|at| at.1) {
        best.retain(|(_, score)| *score >= cut);
    }
    Ok(best
        .into_iter()
        .map(|(point, score)| (point, Some(score)))
        .collect())
}

/// Reciprocal rank fusion of lists that are ordered best first: highest sum first,
/// then by id.
pub(crate) fn fuse(lists: &[Vec<Scored>]) -> Vec<(Uuid, f64)> {
    let mut sums: HashMap<Uuid, f64> = HashMap::new();
    for list in lists {
        let mut rank = 0.0;
        for scored in list {
            rank += 1.0;
            *sums.entry(scored.point).or_insert(0.0) += 1.0 / (RECIPROCAL_RANK_K + rank);
        }
    }
    let mut fused: Vec<_> = sums.into_iter().collect();
    fused.sort_unstable_by(|left, right| {
        right
            .1
            .total_cmp(&left.1)
            .then_with(|| left.0.cmp(&right.0))
    });
    fused
}

fn dense(shelf: &Shelf, question: &Question, fetch: usize) -> Result<Vec<Scored>, BrokenShard> {
    let (vector, filter) = (&question.vector, &question.filter);
    let mut all = shelf.tail.dense(vector, filter, fetch);
    each_shard(shelf, fetch, &mut all, |shard, limit| {
        shard.dense(vector, filter, limit)
    })?;
    Ok(Scored::best(all, fetch))
}

fn sparse(
    shelf: &Shelf,
    question: &Question,
    weighed: &Words,
    fetch: usize,
) -> Result<Vec<Scored>, BrokenShard> {
    if weighed.is_empty() {
        return Ok(Vec::new());
    }
    let filter = &question.filter;
    let mut all = shelf.tail.sparse(weighed, filter, fetch);
    each_shard(shelf, fetch, &mut all, |shard, limit| {
        shard.sparse(weighed, filter, limit)
    })?;
    Ok(Scored::best(all, fetch))
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
    at: crate::journal::Location,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fusion_is_that_of_the_definition() {
        let list = |ids: &[u128]| -> Vec<Scored> {
            ids.iter()
                .map(|id| Scored {
                    point: Uuid::from_u128(*id),
                    score: 0.0,
                })
                .collect()
        };
        let fused = fuse(&[list(&[1, 2, 3]), list(&[3, 1])]);
        let expected = [
            (1, 1.0 / 61.0 + 1.0 / 62.0),
            (3, 1.0 / 63.0 + 1.0 / 61.0),
            (2, 1.0 / 62.0),
        ];
        assert_eq!(fused.len(), expected.len());
        for ((point, score), (id, sum)) in fused.into_iter().zip(expected) {
            assert_eq!(point.as_u128(), id);
            assert!((score - sum).abs() < 1e-15);
        }
        assert!(fuse(&[Vec::new(), Vec::new()]).is_empty());
    }
}
