//! What to look for: filters, ranking, limits.

use inwarden_types::{Label, WallTime};
use serde::{Deserialize, Serialize};

use crate::{MemoryError, record::Record};

/// The constant of reciprocal rank fusion, the same on every backend: a record at
/// rank `r` (from 1) of a list adds `1 / (k + r)`.
///
/// Source: Cormack, Clarke, Büttcher, "Reciprocal Rank Fusion outperforms Condorcet
/// and individual Rank Learning Methods", SIGIR 2009, which found 60.
pub const RECIPROCAL_RANK_K: f64 = 60.0;

/// By what hits are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ranking {
    /// By cosine similarity of the embeddings.
    #[default]
    Cosine,
    /// By reciprocal rank fusion ([`RECIPROCAL_RANK_K`]) of the nearest embeddings
    /// with the best matches of the words (BM25).
    Hybrid,
}

/// Which precedents to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrecedentQuery {
    /// How many hits at most, `1..=`[`crate::MemoryOptions::max_top_k_retrieval`].
    pub top_k_retrieval: usize,
    /// By what they are ordered.
    pub ranking: Ranking,
    /// Only precedents with one of these labels; none filters nothing.
    pub labels: Option<Vec<Label>>,
    /// Only precedents of one of these tenants; none filters nothing.
    pub tenants: Option<Vec<String>>,
    /// Only precedents of one of these kinds; none filters nothing.
    pub kinds: Option<Vec<String>>,
    /// Only precedents of one of these techniques; none filters nothing.
    pub techniques: Option<Vec<String>>,
    /// Only precedents observed at this time or later. One without a time passes no
    /// filter on time.
    pub observed_from: Option<WallTime>,
    /// Only precedents observed before this time.
    pub observed_before: Option<WallTime>,
}

impl PrecedentQuery {
    /// Looks for the `top_k_retrieval` nearest of all precedents.
    #[must_use]
    pub fn nearest(top_k_retrieval: usize) -> Self {
        Self {
            top_k_retrieval,
            ranking: Ranking::Cosine,
            labels: None,
            tenants: None,
            kinds: None,
            techniques: None,
            observed_from: None,
            observed_before: None,
        }
    }

    /// Looks for the `top_k_retrieval` best of all precedents by embedding and
    /// words together.
    #[must_use]
    pub fn hybrid(top_k_retrieval: usize) -> Self {
        Self {
            ranking: Ranking::Hybrid,
            ..Self::nearest(top_k_retrieval)
        }
    }

    pub(crate) fn filter(&self) -> Filter {
        Filter {
            labels: self.labels.as_ref().map(|labels| {
                labels
                    .iter()
                    .map(|label| Label::name(*label).to_owned())
                    .collect()
            }),
            tenants: self.tenants.clone(),
            kinds: self.kinds.clone(),
            techniques: self.techniques.clone(),
            workloads: None,
            observed_from_unix_ns: self.observed_from.map(|time| time.0),
            observed_before_unix_ns: self.observed_before.map(|time| time.0),
        }
    }
}

/// Which documents to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnowledgeQuery {
    /// How many hits at most, `1..=`[`crate::MemoryOptions::max_top_k_retrieval`].
    pub top_k_retrieval: usize,
    /// By what they are ordered.
    pub ranking: Ranking,
    /// Only documents of one of these tenants; none filters nothing.
    pub tenants: Option<Vec<String>>,
    /// Only documents about one of these techniques; none filters nothing.
    pub techniques: Option<Vec<String>>,
}

impl KnowledgeQuery {
    /// Looks for the `top_k_retrieval` nearest of all documents.
    #[must_use]
    pub fn nearest(top_k_retrieval: usize) -> Self {
        Self {
            top_k_retrieval,
            ranking: Ranking::Cosine,
            tenants: None,
            techniques: None,
        }
    }

    pub(crate) fn filter(&self) -> Filter {
        Filter {
            tenants: self.tenants.clone(),
            techniques: self.techniques.clone(),
            ..Filter::default()
        }
    }
}

/// Which baselines to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaselineQuery {
    /// How many hits at most, `1..=`[`crate::MemoryOptions::max_top_k_retrieval`].
    pub top_k_retrieval: usize,
    /// By what they are ordered.
    pub ranking: Ranking,
    /// Only baselines of one of these tenants; none filters nothing.
    pub tenants: Option<Vec<String>>,
    /// Only baselines of one of these workloads; none filters nothing.
    pub workloads: Option<Vec<String>>,
    /// Only baselines of one of these kinds; none filters nothing.
    pub kinds: Option<Vec<String>>,
}

impl BaselineQuery {
    /// Looks for the `top_k_retrieval` nearest things that `workload` does.
    #[must_use]
    pub fn of_workload(workload: &str, top_k_retrieval: usize) -> Self {
        Self {
            top_k_retrieval,
            ranking: Ranking::Cosine,
            tenants: None,
            workloads: Some(vec![workload.to_owned()]),
            kinds: None,
        }
    }

    pub(crate) fn filter(&self) -> Filter {
        Filter {
            tenants: self.tenants.clone(),
            workloads: self.workloads.clone(),
            kinds: self.kinds.clone(),
            ..Filter::default()
        }
    }
}

/// What a record must be like; a part that is none filters nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Filter {
    pub(crate) labels: Option<Vec<String>>,
    pub(crate) tenants: Option<Vec<String>>,
    pub(crate) kinds: Option<Vec<String>>,
    pub(crate) techniques: Option<Vec<String>>,
    pub(crate) workloads: Option<Vec<String>>,
    pub(crate) observed_from_unix_ns: Option<u64>,
    pub(crate) observed_before_unix_ns: Option<u64>,
}

impl Filter {
    /// The fields that are compared with a list of values.
    pub(crate) fn values(&self) -> [(&'static str, Option<&Vec<String>>); 5] {
        [
            ("label", self.labels.as_ref()),
            ("tenant", self.tenants.as_ref()),
            ("kind", self.kinds.as_ref()),
            ("technique", self.techniques.as_ref()),
            ("workload", self.workloads.as_ref()),
        ]
    }

    pub(crate) fn has_time(&self) -> bool {
        self.observed_from_unix_ns.is_some() || self.observed_before_unix_ns.is_some()
    }

    /// Fails if a list names no value or more than `max` values.
    pub(crate) fn check(&self, max: usize) -> Result<(), MemoryError> {
        for (field, values) in self.values() {
            match values.map(Vec::len) {
                Some(0) => return Err(MemoryError::EmptyFilter { field }),
                Some(values) if values > max => {
                    return Err(MemoryError::FilterTooLarge { field, values, max });
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn passes(&self, fields: &Fields) -> bool {
        let time_passes = match fields.observed_unix_ns {
            None => !self.has_time(),
            Some(at) => {
                self.observed_from_unix_ns.is_none_or(|from| at >= from)
                    && self
                        .observed_before_unix_ns
                        .is_none_or(|before| at < before)
            }
        };
        time_passes
            && self.values().into_iter().all(|(field, allowed)| {
                allowed.is_none_or(|allowed| {
                    fields
                        .value(field)
                        .is_some_and(|value| allowed.iter().any(|one| one == value))
                })
            })
    }
}

/// The fields of a record that can be filtered on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) tenant: String,
    pub(crate) label: Option<Label>,
    pub(crate) kind: Option<String>,
    pub(crate) technique: Option<String>,
    pub(crate) workload: Option<String>,
    pub(crate) observed_unix_ns: Option<u64>,
}

impl Fields {
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            tenant: record.tenant.clone(),
            label: record.label,
            kind: record.kind.clone(),
            technique: record.technique.clone(),
            workload: record.workload.clone(),
            observed_unix_ns: record.observed_unix_ns,
        }
    }

    pub(crate) fn value(&self, field: &str) -> Option<&str> {
        match field {
            "tenant" => Some(&self.tenant),
            "label" => self.label.map(Label::name),
            "kind" => self.kind.as_deref(),
            "technique" => self.technique.as_deref(),
            "workload" => self.workload.as_deref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields {
            tenant: "a".into(),
            label: Some(Label::Benign),
            kind: Some("exec".into()),
            technique: None,
            workload: None,
            observed_unix_ns: Some(100),
        }
    }

    #[test]
    fn all_parts_of_a_filter_must_hold() {
        let one = |value: &str| Some(vec![value.to_owned()]);
        let check = |filter: Filter, expected: bool| {
            assert_eq!(filter.passes(&fields()), expected, "{filter:?}");
        };
        check(Filter::default(), true);
        check(
            Filter {
                tenants: one("a"),
                kinds: one("exec"),
                ..Filter::default()
            },
            true,
        );
        check(
            Filter {
                tenants: one("a"),
                kinds: one("prompt"),
                ..Filter::default()
            },
            false,
        );
        check(
            Filter {
                techniques: one("T1059"),
                ..Filter::default()
            },
            false,
        );
        check(
            Filter {
                labels: one("benign"),
                ..Filter::default()
            },
            true,
        );
        for (from, before, expected) in [
            (100, 101, true),
            (101, 200, false),
            (0, 100, false),
            (0, u64::MAX, true),
        ] {
            let filter = Filter {
                observed_from_unix_ns: Some(from),
                observed_before_unix_ns: Some(before),
                ..Filter::default()
            };
            check(filter, expected);
        }
        let untimed = Fields {
            observed_unix_ns: None,
            ..fields()
        };
        let from = Filter {
            observed_from_unix_ns: Some(0),
            ..Filter::default()
        };
        assert!(!from.passes(&untimed) && Filter::default().passes(&untimed));
    }
}
