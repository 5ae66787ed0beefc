//! What a store knows of its records without reading the disk: which there are,
//! where in the journal each lies, and in which part of the index.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    index::{Member, Shard},
    journal::{CollectionId, JournalFile, Location},
    record::ContentHash,
    tail::{Searchable, Tail},
    words::{DocumentFrequency, Words},
};

/// How many buckets the records of a collection are kept in; a change computes the
/// digest of its bucket again, not that of the collection.
const BUCKETS: usize = 1024;

/// Everything that readers share.
pub(crate) struct State {
    pub(crate) file: Arc<JournalFile>,
    pub(crate) shelves: [Shelf; 3],
}

impl State {
    pub(crate) fn shelf(&self, collection: CollectionId) -> &Shelf {
        &self.shelves[collection.index()]
    }

    pub(crate) fn shelf_mut(&mut self, collection: CollectionId) -> &mut Shelf {
        &mut self.shelves[collection.index()]
    }

    /// The bytes of the journal that hold records that are there.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.shelves.iter().map(|shelf| shelf.live_bytes).sum()
    }
}

/// Where the searchable form of a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    Tail,
    Shard(u64),
}

/// One record.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) hash: ContentHash,
    pub(crate) at: Location,
    pub(crate) home: Home,
}

#[derive(Clone, Default)]
struct Bucket {
    slots: BTreeMap<Uuid, Slot>,
    digest: [u8; 32],
}

/// A shard and how much of it still counts.
pub(crate) struct Shelved {
    pub(crate) shard: Shard,
    pub(crate) live: usize,
    pub(crate) stale: usize,
}

/// One collection.
pub(crate) struct Shelf {
    pub(crate) id: CollectionId,
    buckets: Vec<Bucket>,
    len: usize,
    live_bytes: u64,
    digest: [u8; 32],
    pub(crate) frequency: DocumentFrequency,
    pub(crate) tail: Tail,
    pub(crate) shards: Vec<Shelved>,
}

impl Shelf {
    pub(crate) fn new(id: CollectionId, dimension: usize) -> Self {
        Self {
            id,
            buckets: vec![Bucket::default(); BUCKETS],
            len: 0,
            live_bytes: 0,
            digest: [0; 32],
            frequency: DocumentFrequency::default(),
            tail: Tail::new(dimension),
            shards: Vec::new(),
        }
    }

    /// Notes that a record lies in the journal; it is not searchable yet. For the
    /// opening of a store.
    pub(crate) fn note(&mut self, point: Uuid, hash: ContentHash, at: Location) {
        let home = Home::Tail;
        self.insert(point, Slot { hash, at, home });
    }

    /// Notes that a record is gone. For the opening of a store.
    pub(crate) fn forget(&mut self, point: Uuid) {
        self.take(point);
    }

    /// Adds a record to the tail in place of the one with its id, whose words are
    /// `replaced`.
    pub(crate) fn put(
        &mut self,
        record: Searchable,
        (hash, at): (ContentHash, Location),
        replaced: Option<&Words>,
    ) {
        self.leave(record.point, replaced);
        let home = Home::Tail;
        self.insert(record.point, Slot { hash, at, home });
        self.frequency.add(&record.words);
        self.tail.put(record);
    }

    /// Removes a record, whose words are `replaced`.
    pub(crate) fn remove(&mut self, point: Uuid, replaced: Option<&Words>) {
        self.leave(point, replaced);
        self.take(point);
    }

    pub(crate) fn get(&self, point: Uuid) -> Option<&Slot> {
        self.buckets[bucket(point)].slots.get(&point)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All records, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Uuid, &Slot)> {
        let slots = self.buckets.iter().flat_map(|bucket| &bucket.slots);
        slots.map(|(point, slot)| (*point, slot))
    }

    /// The first records after `after`, by id.
    pub(crate) fn after(&self, after: Option<Uuid>) -> impl Iterator<Item = (Uuid, &Slot)> {
        let first = after.map_or(0, bucket);
        let slots = self.buckets[first..]
            .iter()
            .flat_map(|bucket| &bucket.slots);
        slots
            .map(|(point, slot)| (*point, slot))
            .skip_while(move |(point, _)| after.is_some_and(|after| *point <= after))
    }

    /// Tells these contents from all others.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Computes the digest again after changes to `points`.
    pub(crate) fn digest_again(&mut self, points: impl IntoIterator<Item = Uuid>) {
        let changed: HashSet<usize> = points.into_iter().map(bucket).collect();
        for idx in changed {
            let bucket = &mut self.buckets[idx];
            let mut hasher = Sha256::new();
            for (point, slot) in &bucket.slots {
                hasher.update(point.as_bytes());
                hasher.update(slot.hash);
            }
            bucket.digest = hasher.finalize().into();
        }
        let mut hasher = Sha256::new();
        hasher.update(self.id.name());
        for bucket in &self.buckets {
            // An emptied bucket is one that was never filled.
            let digest = if bucket.slots.is_empty() {
                &[0; 32]
            } else {
                &bucket.digest
            };
            hasher.update(digest);
        }
        self.digest = hasher.finalize().into();
    }

    pub(crate) fn digest_all(&mut self) {
        let points: Vec<Uuid> = self.iter().map(|(point, _)| point).collect();
        self.digest_again(points);
    }

    /// Says where the records lie after a compaction; `moved` in the order of
    /// [`Shelf::iter`].
    pub(crate) fn relocate(&mut self, moved: &mut impl Iterator<Item = Location>) {
        for slot in self
            .buckets
            .iter_mut()
            .flat_map(|bucket| bucket.slots.values_mut())
        {
            if let Some(at) = moved.next() {
                slot.at = at;
            }
        }
    }

    /// The records that lie in the tail or in one of `shards`.
    pub(crate) fn members(&self, shards: &[u64]) -> Vec<Member> {
        let chosen = |home: Home| match home {
            Home::Tail => true,
            Home::Shard(number) => shards.contains(&number),
        };
        self.iter()
            .filter(|(_, slot)| chosen(slot.home))
            .map(|(point, slot)| Member {
                point,
                hash: slot.hash,
                at: slot.at,
            })
            .collect()
    }

    /// Takes a shard in that was made of `members`: each of them that has not
    /// changed since, and lies in the tail or in a shard of `merged`, lies there
    /// from now on. Returns the merged shards, which nothing points to any more.
    pub(crate) fn install(
        &mut self,
        shard: Shard,
        members: &[(Uuid, ContentHash)],
        merged: &[u64],
    ) -> Vec<Shard> {
        let number = shard.number;
        let mut live = 0;
        for (point, hash) in members {
            let Some(slot) = self.buckets[bucket(*point)].slots.get_mut(point) else {
                continue;
            };
            let free = match slot.home {
                Home::Tail => true,
                Home::Shard(other) => merged.contains(&other),
            };
            if free && slot.hash == *hash {
                slot.home = Home::Shard(number);
                self.tail.remove(*point);
                live += 1;
            }
        }
        let old = std::mem::take(&mut self.shards);
        let (gone, kept): (Vec<_>, Vec<_>) = old
            .into_iter()
            .partition(|shelved| merged.contains(&shelved.shard.number));
        self.shards = kept;
        self.shards.push(Shelved {
            shard,
            live,
            stale: members.len() - live,
        });
        gone.into_iter().map(|shelved| shelved.shard).collect()
    }

    /// Takes a shard out that does not work; its records are in no part of the
    /// index until they are put into the tail again.
    pub(crate) fn evict(&mut self, number: u64) -> (Option<Shard>, Vec<Member>) {
        let mut members = Vec::new();
        for bucket in &mut self.buckets {
            for (point, slot) in &mut bucket.slots {
                if slot.home == Home::Shard(number) {
                    slot.home = Home::Tail;
                    members.push(Member {
                        point: *point,
                        hash: slot.hash,
                        at: slot.at,
                    });
                }
            }
        }
        let place = self
            .shards
            .iter()
            .position(|shelved| shelved.shard.number == number);
        let shard = place.map(|place| self.shards.swap_remove(place).shard);
        (shard, members)
    }

    fn insert(&mut self, point: Uuid, slot: Slot) {
        self.take(point);
        self.live_bytes += u64::from(slot.at.len);
        self.len += 1;
        self.buckets[bucket(point)].slots.insert(point, slot);
    }

    fn take(&mut self, point: Uuid) {
        if let Some(old) = self.buckets[bucket(point)].slots.remove(&point) {
            self.live_bytes -= u64::from(old.at.len);
            self.len -= 1;
        }
    }

    /// Takes the record out of what is searched.
    fn leave(&mut self, point: Uuid, words: Option<&Words>) {
        let Some(home) = self.get(point).map(|slot| slot.home) else {
            return;
        };
        if let Some(words) = words {
            self.frequency.remove(words);
        }
        match home {
            Home::Tail => self.tail.remove(point),
            Home::Shard(number) => {
                let shelved = self
                    .shards
                    .iter_mut()
                    .find(|shelved| shelved.shard.number == number);
                if let Some(shelved) = shelved {
                    shelved.live -= 1;
                    shelved.stale += 1;
                }
            }
        }
    }
}

/// Ids are hashes, so the first bits spread evenly, in the order of the ids.
fn bucket(point: Uuid) -> usize {
    let [first, second, ..] = *point.as_bytes();
    (usize::from(first) << 2) | usize::from(second >> 6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{query::Fields, words};

    const AT: Location = Location { offset: 0, len: 10 };

    fn searchable(n: u128) -> Searchable {
        Searchable {
            point: Uuid::from_u128(n),
            vector: vec![1.0],
            words: words::document("a b"),
            fields: Fields {
                tenant: "t".into(),
                label: None,
                kind: None,
                technique: None,
                workload: None,
                observed_unix_ns: None,
            },
        }
    }

    fn put(shelf: &mut Shelf, n: u128, hash: u8) {
        let words = words::document("a b");
        shelf.put(searchable(n), ([hash; 32], AT), Some(&words));
        shelf.digest_again([Uuid::from_u128(n)]);
    }

    #[test]
    fn the_digest_returns_when_a_change_is_undone_and_counts_stay_right() {
        let mut shelf = Shelf::new(CollectionId::Precedents, 1);
        shelf.digest_again([]);
        let empty = *shelf.digest();
        let ids = [1, 1 << 120, u128::MAX];
        for n in ids {
            put(&mut shelf, n, 1);
        }
        let full = *shelf.digest();
        put(&mut shelf, 1, 2);
        assert_ne!(*shelf.digest(), full);
        put(&mut shelf, 1, 1);
        assert_eq!(*shelf.digest(), full);
        assert_eq!((shelf.len(), shelf.live_bytes), (3, 30));
        let points: Vec<Uuid> = shelf.iter().map(|(point, _)| point).collect();
        assert!(points.is_sorted());
        let after: Vec<Uuid> = shelf
            .after(Some(points[0]))
            .map(|(point, _)| point)
            .collect();
        assert_eq!(after, points[1..]);
        for point in points {
            shelf.remove(point, Some(&words::document("a b")));
            shelf.digest_again([point]);
        }
        assert_eq!(*shelf.digest(), empty);
        assert_eq!((shelf.len(), shelf.live_bytes, shelf.tail.len()), (0, 0, 0));
        assert!(shelf.frequency.weigh(&words::of_query("a")).is_empty());
    }
}
