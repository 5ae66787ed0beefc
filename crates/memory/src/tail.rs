//! The records that are in no part of the index yet: held in memory, searched one
//! by one, exactly.

use std::collections::HashMap;

use uuid::Uuid;

use crate::{
    MemoryError,
    journal::{Entry, JournalFile, Location},
    query::{Fields, Filter},
    words::{self, Words},
};

/// A record with a score; higher is closer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scored {
    pub(crate) point: Uuid,
    pub(crate) score: f32,
}

impl Scored {
    /// Highest score first, then by id.
    pub(crate) fn order(left: &Self, right: &Self) -> std::cmp::Ordering {
        right
            .score
            .total_cmp(&left.score)
            .then_with(|| left.point.cmp(&right.point))
    }

    /// The first `limit` of `all` in that order.
    pub(crate) fn best(mut all: Vec<Self>, limit: usize) -> Vec<Self> {
        if all.len() > limit && limit > 0 {
            all.select_nth_unstable_by(limit - 1, Self::order);
            all.truncate(limit);
        }
        all.sort_unstable_by(Self::order);
        all
    }
}

/// What is searched of a record.
pub(crate) struct Searchable {
    pub(crate) point: Uuid,
    /// `(dimension,)`, f32, length 1.
    pub(crate) vector: Vec<f32>,
    pub(crate) words: Words,
    pub(crate) fields: Fields,
}

impl Searchable {
    /// Reads the record `point` back from the journal.
    pub(crate) fn read(file: &JournalFile, at: Location, point: Uuid) -> Result<Self, MemoryError> {
        match file.read(at)?.1 {
            Entry::Put { record, vector } => Ok(Self {
                point,
                vector,
                words: words::document(&record.text),
                fields: Fields::of(&record),
            }),
            Entry::Remove { .. } => Err(file.damaged(at.offset, "a removal in place of a record")),
        }
    }
}

/// The records of a collection that are in no shard.
pub(crate) struct Tail {
    dimension: usize,
    points: Vec<Uuid>,
    /// `(points, dimension)`, f32, row-major.
    vectors: Vec<f32>,
    words: Vec<Words>,
    fields: Vec<Fields>,
    place: HashMap<Uuid, usize>,
}

impl Tail {
    pub(crate) fn new(dimension: usize) -> Self {
        Self {
            dimension,
            points: Vec::new(),
            vectors: Vec::new(),
            words: Vec::new(),
            fields: Vec::new(),
            place: HashMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.points.len()
    }

    /// Adds a record; replaces the one with its id.
    pub(crate) fn put(&mut self, record: Searchable) {
        self.remove(record.point);
        self.place.insert(record.point, self.points.len());
        self.points.push(record.point);
        self.vectors.extend_from_slice(&record.vector);
        self.words.push(record.words);
        self.fields.push(record.fields);
    }

    /// Removes the record if it is here.
    pub(crate) fn remove(&mut self, point: Uuid) {
        let Some(row) = self.place.remove(&point) else {
            return;
        };
        let last = self.points.len() - 1;
        self.points.swap_remove(row);
        self.words.swap_remove(row);
        self.fields.swap_remove(row);
        if row < last {
            let from = last * self.dimension;
            self.vectors
                .copy_within(from..from + self.dimension, row * self.dimension);
            self.place.insert(self.points[row], row);
        }
        self.vectors.truncate(last * self.dimension);
        // What a large batch needed is given back once it lies in a shard.
        if self.vectors.capacity() > 4 * self.vectors.len() + (1 << 20) {
            self.vectors.shrink_to(2 * self.vectors.len());
        }
    }

    /// The `limit` nearest records that pass, by dot product with `vector`.
    pub(crate) fn dense(&self, vector: &[f32], filter: &Filter, limit: usize) -> Vec<Scored> {
        let rows = self.vectors.chunks_exact(self.dimension.max(1));
        let everything = *filter == Filter::default();
        let scored = rows
            .enumerate()
            .filter(|(row, _)| everything || filter.passes(&self.fields[*row]))
            .map(|(row, stored)| Scored {
                point: self.points[row],
                score: dot(vector, stored),
            })
            .collect();
        Scored::best(scored, limit)
    }

    /// The `limit` records that pass with the best matching words.
    pub(crate) fn sparse(
        &self,
        query: &[(u32, f32)],
        filter: &Filter,
        limit: usize,
    ) -> Vec<Scored> {
        let scored = self
            .words
            .iter()
            .enumerate()
            .map(|(row, stored)| (row, words::dot(query, stored)))
            .filter(|(row, score)| *score > 0.0 && filter.passes(&self.fields[*row]))
            .map(|(row, score)| Scored {
                point: self.points[row],
                score,
            })
            .collect();
        Scored::best(scored, limit)
    }
}

/// The dot product of two vectors of one length, in 16 partial sums, which the
/// compiler turns into vector instructions.
pub(crate) fn dot(left: &[f32], right: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (left, left_rest) = left.as_chunks::<LANES>();
    let (right, right_rest) = right.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (l, r) in left.iter().zip(right) {
        for lane in 0..LANES {
            sums[lane] += l[lane] * r[lane];
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(l, r)| l * r).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn searchable(n: u128, vector: [f32; 2], tenant: &str) -> Searchable {
        Searchable {
            point: Uuid::from_u128(n),
            vector: vector.to_vec(),
            words: words::document(tenant),
            fields: Fields {
                tenant: tenant.to_owned(),
                label: None,
                kind: None,
                technique: None,
                workload: None,
                observed_unix_ns: None,
            },
        }
    }

    fn found(tail: &Tail, filter: &Filter) -> Vec<u128> {
        tail.dense(&[1.0, 0.0], filter, 10)
            .iter()
            .map(|scored| scored.point.as_u128())
            .collect()
    }

    #[test]
    fn removing_moves_no_record_under_anothers_vector() {
        let mut tail = Tail::new(2);
        for n in 1..=4_u8 {
            tail.put(searchable(u128::from(n), [f32::from(n), 0.0], "a"));
        }
        let all = Filter::default();
        assert_eq!(found(&tail, &all), [4, 3, 2, 1]);
        tail.remove(Uuid::from_u128(1));
        tail.remove(Uuid::from_u128(9));
        assert_eq!(found(&tail, &all), [4, 3, 2]);
        tail.put(searchable(2, [9.0, 0.0], "b"));
        assert_eq!(found(&tail, &all), [2, 4, 3]);
        let only_b = Filter {
            tenants: Some(vec!["b".into()]),
            ..Filter::default()
        };
        assert_eq!(found(&tail, &only_b), [2]);
        for n in [4, 3, 2] {
            tail.remove(Uuid::from_u128(n));
        }
        assert_eq!((tail.len(), tail.vectors.len()), (0, 0));
    }

    #[test]
    fn dot_product_is_that_of_the_definition() {
        let left: Vec<f32> = (0..37_u8).map(f32::from).collect();
        let right: Vec<f32> = (0..37_u8).map(|n| f32::from(n) - 20.0).collect();
        let expected: f32 = left.iter().zip(&right).map(|(l, r)| l * r).sum();
        assert!((dot(&left, &right) - expected).abs() < 1e-2);
    }
}
