//! The embedded storage engine, `qdrant-edge`: the only file that knows it.
//!
//! Facts of version 0.7.2 that shape this, all read in its source:
//!
//! * `EdgeShard::load` never replays the write-ahead log, and nothing cuts it: so a
//!   shard is written once, flushed, and its log thrown away.
//! * `flush` uses `try_lock().expect(..)`, and `drop` flushes: both can panic. So
//!   no call without [`guard`].
//! * There is no index until `optimize`, which works in the calling thread until it
//!   is done: so it runs in a thread of ours, on a directory nobody else sees yet.
//! * `optimize` gives its threads a budget by `max_indexing_threads`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use qdrant_edge::{
    Condition, CreateIndex, DEFAULT_VECTOR_NAME, Distance, EdgeConfig, EdgeOptimizersConfig,
    EdgeShard, EdgeSparseVectorParams, EdgeVectorParams, FieldCondition, FieldIndexOperations,
    Filter as EngineFilter, JsonPath, Match, NamedQuery, OperationError, OperationResult,
    PayloadFieldSchema, PayloadSchemaType, PointId, PointInsertOperations, PointOperations,
    PointStruct, QueryEnum, Range, ScrollRequest, SearchParams, SearchRequest, SparseVector,
    UpdateOperation, Vector, VectorInternal, VectorStructInternal, Vectors, WalOptions,
    WithPayloadInterface, WithVector, external::ordered_float::OrderedFloat,
};
use serde_json::json;

use crate::{
    MemoryError,
    journal::CollectionId,
    query::Filter,
    record::Record,
    tail::{Scored, Searchable},
};

/// The name of the sparse vector; the dense one has the engine's default name.
const WORDS: &str = "words";

/// The payload field for filters on time: milliseconds, which a 64-bit float holds
/// exactly. The store compares the nanoseconds again.
const OBSERVED_MS: &str = "observed_ms";

/// The payload fields that are compared with lists of values.
const KEYWORD_FIELDS: [&str; 5] = ["tenant", "label", "kind", "technique", "workload"];

/// How many points one operation of the engine carries; bounds its log entry.
const POINTS_PER_OPERATION: usize = 128;

/// How the approximate index is built and searched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Graph {
    pub(crate) dimension: usize,
    pub(crate) edges: usize,
    pub(crate) build_beam: usize,
    pub(crate) search_beam: usize,
    pub(crate) threads: usize,
    pub(crate) full_scan_records: usize,
}

/// An opened shard of the engine. Closing it cannot panic out of here.
pub(super) struct Engine {
    collection: CollectionId,
    shard: Option<EdgeShard>,
}

impl Engine {
    /// Builds a shard of `records` in the empty directory `dir`, indexed and on the
    /// disk. `next` gives the records one by one until it gives none.
    pub(super) fn build(
        collection: CollectionId,
        dir: &Path,
        graph: Graph,
        mut next: impl FnMut() -> Result<Option<Searchable>, MemoryError>,
    ) -> Result<(), MemoryError> {
        let shard = guard(collection, "create", || {
            let shard = EdgeShard::new(dir, config(graph))?;
            for field in KEYWORD_FIELDS {
                create_field_index(&shard, field, PayloadSchemaType::Keyword)?;
            }
            create_field_index(&shard, OBSERVED_MS, PayloadSchemaType::Integer)?;
            Ok(shard)
        })?;
        let engine = Self {
            collection,
            shard: Some(shard),
        };
        loop {
            let mut points = Vec::with_capacity(POINTS_PER_OPERATION);
            while points.len() < POINTS_PER_OPERATION {
                match next()? {
                    Some(record) => points.push(engine.point(record)?.into()),
                    None => break,
                }
            }
            if points.is_empty() {
                break;
            }
            engine.call("write to", |shard| {
                shard.update(UpdateOperation::PointOperation(
                    PointOperations::UpsertPoints(PointInsertOperations::PointsList(points)),
                ))
            })?;
        }
        engine.call("optimize", |shard| shard.optimize().map(drop))?;
        engine.call("flush", |shard| {
            shard.flush();
            Ok(())
        })?;
        Ok(())
    }

    pub(super) fn load(
        collection: CollectionId,
        dir: &Path,
        graph: Graph,
    ) -> Result<Self, MemoryError> {
        let shard = guard(collection, "load", || {
            EdgeShard::load(dir, Some(config(graph)))
        })?;
        Ok(Self {
            collection,
            shard: Some(shard),
        })
    }

    /// The `limit` points nearest to `vector` that pass, about.
    pub(super) fn dense(
        &self,
        vector: &[f32],
        filter: &Filter,
        search: (usize, usize),
    ) -> Result<Vec<Scored>, MemoryError> {
        let (limit, search_beam) = search;
        let query = NamedQuery::default_dense(vector.to_vec());
        let params = SearchParams {
            hnsw_ef: Some(search_beam.max(limit)),
            ..SearchParams::default()
        };
        self.search(QueryEnum::Nearest(query), Some(params), filter, limit)
    }

    /// The `limit` points that pass with the best matching words.
    pub(super) fn sparse(
        &self,
        words: &[(u32, f32)],
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<Scored>, MemoryError> {
        let (indices, values) = words.iter().copied().unzip();
        let sparse = SparseVector { indices, values };
        let query = NamedQuery::new(VectorInternal::Sparse(sparse), WORDS);
        self.search(QueryEnum::Nearest(query), None, filter, limit)
    }

    fn search(
        &self,
        query: QueryEnum,
        params: Option<SearchParams>,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<Scored>, MemoryError> {
        let points = self.call("search", |shard| {
            shard.search(SearchRequest {
                query,
                filter: engine_filter(filter)?,
                params,
                limit,
                offset: 0,
                with_payload: Some(WithPayloadInterface::Bool(false)),
                with_vector: Some(WithVector::Bool(false)),
                score_threshold: None,
            })
        })?;
        Ok(points
            .into_iter()
            .filter_map(|point| match point.id {
                PointId::Uuid(id) => Some(Scored {
                    point: id,
                    score: point.score,
                }),
                PointId::NumId(_) => None,
            })
            .collect())
    }

    fn point(&self, record: Searchable) -> Result<PointStruct, MemoryError> {
        let mut payload = serde_json::Map::new();
        for field in KEYWORD_FIELDS {
            if let Some(value) = record.fields.value(field) {
                payload.insert(field.to_owned(), json!(value));
            }
        }
        if let Some(at) = record.fields.observed_unix_ns {
            payload.insert(OBSERVED_MS.to_owned(), json!(at / 1_000_000));
        }
        let (indices, values): (Vec<u32>, Vec<f32>) = record.words.into_iter().unzip();
        let words = guard(self.collection, "write to", || {
            Vector::new_sparse(indices, values)
        })?;
        let vectors = Vectors::new_named([
            (DEFAULT_VECTOR_NAME, Vector::new_dense(record.vector)),
            (WORDS, words),
        ]);
        Ok(PointStruct::new(
            PointId::Uuid(record.point),
            vectors,
            serde_json::Value::Object(payload),
        ))
    }

    fn call<T>(
        &self,
        step: &'static str,
        call: impl FnOnce(&EdgeShard) -> OperationResult<T>,
    ) -> Result<T, MemoryError> {
        guard(self.collection, step, || match &self.shard {
            Some(shard) => call(shard),
            None => Err(OperationError::service_error_light("the shard is closed")),
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let shard = self.shard.take();
        let closed = guard(self.collection, "close", || {
            drop(shard);
            Ok(())
        });
        // Nothing is lost: the journal has everything.
        if let Err(error) = closed {
            tracing::warn!(%error, "closing a shard failed");
        }
    }
}

/// Reads every record of a collection of format 1, which kept them in the engine.
/// The directory may be changed by the engine, but not what is in it.
pub(crate) fn read_format_1(
    collection: CollectionId,
    dir: &Path,
    dimension: usize,
) -> Result<Vec<(Record, Vec<f32>)>, MemoryError> {
    const PAGE: usize = 1024;
    let corrupt = |reason: &str| MemoryError::Corrupt {
        path: dir.to_owned(),
        reason: reason.to_owned(),
    };
    if !dir.is_dir() {
        return Err(corrupt("the collection is missing"));
    }
    let shard = guard(collection, "load", || {
        let params = EdgeVectorParams::builder(dimension, Distance::Cosine).build();
        let config = EdgeConfig::builder()
            .vector(DEFAULT_VECTOR_NAME, params)
            .wal_options(wal_options())
            .build();
        EdgeShard::load(dir, Some(config))
    })?;
    let engine = Engine {
        collection,
        shard: Some(shard),
    };
    let mut records = Vec::new();
    let mut offset = None;
    loop {
        let (points, next) = engine.call("read", |shard| {
            shard.scroll(ScrollRequest {
                offset,
                limit: Some(PAGE),
                with_payload: Some(WithPayloadInterface::Bool(true)),
                with_vector: WithVector::Bool(true),
                ..ScrollRequest::default()
            })
        })?;
        for point in points {
            let payload = point
                .payload
                .ok_or_else(|| corrupt("a record without payload"))?;
            // What does not parse is not quoted: it is text.
            let record: Record = serde_json::from_value(serde_json::Value::Object(payload.0))
                .map_err(|_| corrupt("a record that does not parse"))?;
            if point.id != PointId::Uuid(record.point()) {
                return Err(corrupt("a record lies under another's id"));
            }
            let Some(VectorStructInternal::Single(vector)) = point.vector else {
                return Err(corrupt("a record without a vector"));
            };
            records.push((record, vector));
        }
        match next {
            Some(_) => offset = next,
            None => return Ok(records),
        }
    }
}

/// Calls into the engine; a panic in there becomes an error.
fn guard<T>(
    collection: CollectionId,
    step: &'static str,
    call: impl FnOnce() -> OperationResult<T>,
) -> Result<T, MemoryError> {
    let reason = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            format!("panic: {}", message.unwrap_or("no message"))
        }
    };
    Err(MemoryError::Engine {
        collection: collection.name(),
        step,
        reason,
    })
}

fn config(graph: Graph) -> EdgeConfig {
    let mut hnsw = EdgeConfig::default().hnsw_config;
    hnsw.m = graph.edges;
    hnsw.ef_construct = graph.build_beam;
    hnsw.max_indexing_threads = graph.threads.max(1);
    // In KiB of vectors.
    hnsw.full_scan_threshold = (graph.full_scan_records * graph.dimension * 4 / 1024).max(1);
    EdgeConfig::builder()
        .vector(
            DEFAULT_VECTOR_NAME,
            // The vectors have length 1, so this is the cosine.
            EdgeVectorParams::builder(graph.dimension, Distance::Dot).build(),
        )
        .sparse_vector(WORDS, EdgeSparseVectorParams::builder().build())
        .hnsw_config(hnsw)
        .optimizers(EdgeOptimizersConfig {
            // Whatever the size, one segment, with an index.
            indexing_threshold: Some(1),
            default_segment_number: Some(1),
            max_segment_size: Some(usize::MAX / 4096),
            ..EdgeOptimizersConfig::default()
        })
        .wal_options(wal_options())
        .build()
}

fn wal_options() -> WalOptions {
    WalOptions {
        segment_capacity: 4 * 1024 * 1024,
        ..WalOptions::default()
    }
}

fn create_field_index(
    shard: &EdgeShard,
    field: &str,
    schema: PayloadSchemaType,
) -> OperationResult<()> {
    shard.update(UpdateOperation::FieldIndexOperation(
        FieldIndexOperations::CreateIndex(CreateIndex {
            field_name: json_path(field)?,
            field_schema: Some(PayloadFieldSchema::FieldType(schema)),
        }),
    ))
}

fn engine_filter(filter: &Filter) -> OperationResult<Option<EngineFilter>> {
    let mut conditions = Vec::new();
    for (field, values) in filter.values() {
        if let Some(values) = values {
            let any_of = Match::from(values.clone());
            let condition = FieldCondition::new_match(json_path(field)?, any_of);
            conditions.push(Condition::Field(condition));
        }
    }
    if filter.has_time() {
        let range = Range {
            lt: None,
            gt: None,
            gte: filter.observed_from_unix_ns.map(milliseconds),
            lte: filter.observed_before_unix_ns.map(milliseconds),
        };
        let condition = FieldCondition::new_range(json_path(OBSERVED_MS)?, range);
        conditions.push(Condition::Field(condition));
    }
    Ok((!conditions.is_empty()).then(|| EngineFilter {
        must: Some(conditions),
        ..EngineFilter::new()
    }))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds since 1970 fit 53 bits for 285,000 years"
)]
fn milliseconds(unix_ns: u64) -> OrderedFloat<f64> {
    OrderedFloat((unix_ns / 1_000_000) as f64)
}

fn json_path(field: &str) -> OperationResult<JsonPath> {
    field
        .parse()
        .map_err(|()| OperationError::validation_error(format!("{field} is not a payload path")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_engine_is_a_typed_error() {
        let result = guard::<()>(CollectionId::Knowledge, "search", || panic!("boom {}", 7));
        match result {
            Err(MemoryError::Engine { step, reason, .. }) => {
                assert_eq!((step, reason.as_str()), ("search", "panic: boom 7"));
            }
            other => panic!("{other:?}"),
        }
    }
}
