//! Our records as points of a Qdrant server, and back.
//!
//! Every point carries the origin, which names its store, and every request filters
//! by it. Ids are those of the records, mixed with the origin so that two stores do
//! not overwrite each other. No text is sent.

use std::{collections::HashMap, fmt::Write as _};

use qdrant_client::qdrant::{
    Condition, DenseVector, FieldCondition, Filter as ServerFilter, Match, NamedVectors, PointId,
    PointStruct, Range, RepeatedStrings, SparseVector, Value, Vector as ServerVector, Vectors,
    condition::ConditionOneOf, r#match::MatchValue, point_id::PointIdOptions, value::Kind,
    vector::Vector, vectors::VectorsOptions,
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{query::Filter, record::ContentHash, tail::Searchable};

/// The names of the two vectors of a point.
pub(super) const TEXT: &str = "text";
pub(super) const WORDS: &str = "words";

/// The payload fields besides those of filters.
pub(super) const ORIGIN: &str = "origin";
pub(super) const HASH: &str = "hash";

/// The payload field for filters on time, in milliseconds since 1970; the store
/// compares the nanoseconds again.
pub(super) const OBSERVED_MS: &str = "observed_ms";

/// The payload fields that are compared with lists of values.
pub(super) const KEYWORD_FIELDS: [&str; 5] = ["tenant", "label", "kind", "technique", "workload"];

/// The start of a record's content hash, as a server holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldHash(String);

impl HeldHash {
    pub(super) fn of(hash: &ContentHash) -> Self {
        let mut hex = String::with_capacity(32);
        for byte in &hash[..16] {
            // Writing to a string does not fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Self(hex)
    }
}

impl From<String> for HeldHash {
    /// As a server gives it, whatever that is: what is not ours equals none of ours.
    fn from(hash: String) -> Self {
        Self(hash)
    }
}

/// A store, as its server tells it from others.
pub(super) struct Origin {
    name: String,
    /// What the ids of points are mixed with.
    id_mask: u128,
}

impl Origin {
    /// Of the store with this random number.
    pub(super) fn new(salt: u64) -> Self {
        let digest = Sha256::digest(salt.to_le_bytes());
        let mut mask = [0; 16];
        mask.copy_from_slice(&digest[..16]);
        Self {
            name: format!("{salt:016x}"),
            id_mask: u128::from_le_bytes(mask),
        }
    }

    pub(super) fn id(&self, point: Uuid) -> PointId {
        let mixed = Uuid::from_u128(point.as_u128() ^ self.id_mask);
        PointId {
            point_id_options: Some(PointIdOptions::Uuid(mixed.to_string())),
        }
    }

    /// The record of a point; none if the id is not ours.
    pub(super) fn record(&self, id: Option<PointId>) -> Option<Uuid> {
        match id?.point_id_options? {
            PointIdOptions::Uuid(id) => {
                let id = Uuid::try_parse(&id).ok()?;
                Some(Uuid::from_u128(id.as_u128() ^ self.id_mask))
            }
            PointIdOptions::Num(_) => None,
        }
    }

    pub(super) fn point(&self, record: Searchable, HeldHash(hash): HeldHash) -> PointStruct {
        let text = |value: &str| Value {
            kind: Some(Kind::StringValue(value.to_owned())),
        };
        let mut payload = HashMap::from([
            (ORIGIN.to_owned(), text(&self.name)),
            (HASH.to_owned(), text(&hash)),
        ]);
        for field in KEYWORD_FIELDS {
            if let Some(value) = record.fields.value(field) {
                payload.insert(field.to_owned(), text(value));
            }
        }
        if let Some(at) = record.fields.observed_unix_ns {
            let at = i64::try_from(at / 1_000_000).unwrap_or(i64::MAX);
            let kind = Some(Kind::IntegerValue(at));
            payload.insert(OBSERVED_MS.to_owned(), Value { kind });
        }
        let (indices, values) = record.words.into_iter().unzip();
        let dense = Vector::Dense(DenseVector {
            data: record.vector,
        });
        let sparse = Vector::Sparse(SparseVector { values, indices });
        let named = |vector| ServerVector {
            vector: Some(vector),
            ..ServerVector::default()
        };
        let vectors = HashMap::from([
            (TEXT.to_owned(), named(dense)),
            (WORDS.to_owned(), named(sparse)),
        ]);
        PointStruct {
            id: Some(self.id(record.point)),
            payload,
            vectors: Some(Vectors {
                vectors_options: Some(VectorsOptions::Vectors(NamedVectors { vectors })),
            }),
        }
    }

    pub(super) fn filter(&self, filter: &Filter) -> ServerFilter {
        let any_of = |field: &str, strings: Vec<String>| FieldCondition {
            key: field.to_owned(),
            r#match: Some(Match {
                match_value: Some(MatchValue::Keywords(RepeatedStrings { strings })),
            }),
            ..FieldCondition::default()
        };
        let mut conditions = vec![any_of(ORIGIN, vec![self.name.clone()])];
        for (field, values) in filter.values() {
            if let Some(values) = values {
                conditions.push(any_of(field, values.clone()));
            }
        }
        if filter.has_time() {
            conditions.push(FieldCondition {
                key: OBSERVED_MS.to_owned(),
                range: Some(Range {
                    lt: None,
                    gt: None,
                    gte: filter.observed_from_unix_ns.map(milliseconds),
                    lte: filter.observed_before_unix_ns.map(milliseconds),
                }),
                ..FieldCondition::default()
            });
        }
        ServerFilter {
            must: conditions
                .into_iter()
                .map(|condition| Condition {
                    condition_one_of: Some(ConditionOneOf::Field(condition)),
                })
                .collect(),
            ..ServerFilter::default()
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds since 1970 fit 53 bits for 285,000 years"
)]
fn milliseconds(unix_ns: u64) -> f64 {
    (unix_ns / 1_000_000) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{query::Fields, words};

    fn searchable(text: &str) -> Searchable {
        Searchable {
            point: Uuid::from_u128(42),
            vector: vec![1.0, 0.0],
            words: words::document(text),
            fields: Fields {
                tenant: "t".into(),
                label: None,
                kind: Some("exec".into()),
                technique: None,
                workload: None,
                observed_unix_ns: Some(1_700_000_000_123_456_789),
            },
        }
    }

    #[test]
    fn ids_come_back_and_differ_between_stores() {
        let (left, right) = (Origin::new(1), Origin::new(2));
        for n in [0, 42, u128::MAX] {
            let point = Uuid::from_u128(n);
            assert_eq!(left.record(Some(left.id(point))), Some(point));
            assert_ne!(left.id(point), right.id(point));
        }
        assert_eq!(left.record(Some(PointId::from(7))), None);
        assert_eq!(left.record(Some(PointId::from("no id"))), None);
        assert_eq!(left.record(None), None);
    }

    #[test]
    fn a_point_has_the_fields_of_filters_and_no_text() {
        let hash = HeldHash::of(&[0xab; 32]);
        let point = Origin::new(1).point(searchable("curl secret-host"), hash);
        let mut fields: Vec<_> = point.payload.keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["hash", "kind", "observed_ms", "origin", "tenant"]);
        let number = |ms| Some(Kind::IntegerValue(ms));
        assert_eq!(point.payload[OBSERVED_MS].kind, number(1_700_000_000_123));
        assert!(!format!("{point:?}").contains("secret"));
    }

    #[test]
    fn every_filter_is_of_one_store() {
        let filter = Origin::new(1).filter(&Filter::default());
        assert_eq!(filter.must.len(), 1);
        assert!(format!("{filter:?}").contains("0000000000000001"));
    }
}
