//! One collection: a shard of the embedded storage engine and what it holds.
//!
//! The only file that knows `qdrant-edge`. Facts of version 0.7.2 that shape
//! it, all read in its source:
//!
//! * `EdgeShard::load` never replays the write-ahead log, so a change is safe
//!   only after `flush`.
//! * `flush` uses `try_lock().expect(..)`: beside a running update, or on a full
//!   disk, it panics. So one writer at a time, and no call without a guard.
//! * `drop` flushes, so it can panic too.
//! * A point whose stored operation number is not lower than an update's is not
//!   updated. The numbers come from the log, so the log must stay with the
//!   segments; only a copy that is never written may do without.
//! * There is no index until `optimize`, which we never call: search is a scan.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use qdrant_edge::{
    Condition, CreateIndex, Distance, EdgeConfig, EdgeShard, EdgeVectorParams, FieldCondition,
    FieldIndexOperations, Filter, JsonPath, Match, NamedQuery, OperationError, OperationResult,
    Payload, PayloadFieldSchema, PayloadSchemaType, PointId, PointInsertOperations,
    PointOperations, PointStruct, QueryEnum, ScrollRequest, SearchParams, SearchRequest,
    UpdateOperation, WalOptions, WithPayloadInterface, WithVector,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    MemoryError,
    record::{ContentHash, Record},
};

/// A filter on one payload field: the record passes with any of the values.
pub(crate) struct FieldFilter {
    pub(crate) field: &'static str,
    pub(crate) values: Vec<String>,
}

/// The payload fields that can be filtered on, each with an index.
const INDEXED_FIELDS: [&str; 3] = ["tenant", "label", "technique"];

/// How many points one operation of the engine carries; bounds its log entry.
const POINTS_PER_OPERATION: usize = 256;

pub(crate) struct Collection {
    name: &'static str,
    path: PathBuf,
    /// `None` only while dropping.
    shard: Option<EdgeShard>,
    /// One writer at a time.
    writer: Mutex<()>,
    /// What was acknowledged, by point id.
    contents: RwLock<BTreeMap<Uuid, ContentHash>>,
    /// Set when a write failed half-way: what is stored is then not known.
    failed: AtomicBool,
}

impl fmt::Debug for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collection")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl Collection {
    /// Makes an empty collection on disk; it is opened with [`Collection::load`].
    pub(crate) fn create(
        parent: &Path,
        name: &'static str,
        dimension: usize,
    ) -> Result<(), MemoryError> {
        let path = parent.join(name);
        std::fs::create_dir(&path).map_err(|source| MemoryError::Io {
            action: "make the directory",
            path: path.clone(),
            source,
        })?;
        guard(name, "create", || {
            let shard = EdgeShard::new(&path, config(dimension))?;
            for field in INDEXED_FIELDS {
                shard.update(UpdateOperation::FieldIndexOperation(
                    FieldIndexOperations::CreateIndex(CreateIndex {
                        field_name: json_path(field)?,
                        field_schema: Some(PayloadFieldSchema::FieldType(
                            PayloadSchemaType::Keyword,
                        )),
                    }),
                ))?;
            }
            shard.flush();
            drop(shard);
            Ok(())
        })
    }

    /// Opens a collection and checks every record in it.
    pub(crate) fn load(
        parent: &Path,
        name: &'static str,
        dimension: usize,
    ) -> Result<Self, MemoryError> {
        let path = parent.join(name);
        if !path.is_dir() {
            return Err(MemoryError::Corrupt {
                path,
                reason: "the collection is missing".to_owned(),
            });
        }
        let shard = guard(name, "load", || {
            EdgeShard::load(&path, Some(config(dimension)))
        })?;
        let mut collection = Self {
            name,
            path,
            shard: Some(shard),
            writer: Mutex::new(()),
            contents: RwLock::new(BTreeMap::new()),
            failed: AtomicBool::new(false),
        };
        let contents = collection.read_contents()?;
        collection.contents = RwLock::new(contents);
        Ok(collection)
    }

    /// Stores `records` that differ from what is stored, and flushes.
    ///
    /// `embed` gets the records that differ and returns a vector for each.
    pub(crate) fn upsert(
        &self,
        records: Vec<Record>,
        embed: impl FnOnce(&[&Record]) -> Result<Vec<Vec<f32>>, MemoryError>,
    ) -> Result<(), MemoryError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.refuse_after_failure()?;
        // A map, so that the last of several records with one key counts.
        let mut changed = BTreeMap::new();
        for record in records {
            changed.insert(Record::point_id(&record.tenant, &record.id), record);
        }
        {
            let contents = self.contents.read().unwrap_or_else(PoisonError::into_inner);
            changed.retain(|point, record| contents.get(point) != Some(&record.content_hash()));
        }
        if changed.is_empty() {
            return Ok(());
        }
        let vectors = embed(&changed.values().collect::<Vec<_>>())?;
        let mut points = Vec::with_capacity(changed.len());
        for ((point, record), vector) in changed.iter().zip(vectors) {
            points.push(
                PointStruct::new(PointId::Uuid(*point), vector, self.payload(record)?).into(),
            );
        }
        self.write("write to", || {
            let mut points = points;
            while !points.is_empty() {
                let rest = points.split_off(points.len().min(POINTS_PER_OPERATION));
                self.shard()?.update(UpdateOperation::PointOperation(
                    PointOperations::UpsertPoints(PointInsertOperations::PointsList(points)),
                ))?;
                points = rest;
            }
            Ok(())
        })?;
        let mut contents = self
            .contents
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for (point, record) in &changed {
            contents.insert(*point, record.content_hash());
        }
        Ok(())
    }

    /// Removes the records with these point ids, and flushes. Returns how many
    /// there were.
    pub(crate) fn remove(&self, points: &[Uuid]) -> Result<usize, MemoryError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.refuse_after_failure()?;
        let mut present = points.to_vec();
        present.sort_unstable();
        present.dedup();
        {
            let contents = self.contents.read().unwrap_or_else(PoisonError::into_inner);
            present.retain(|point| contents.contains_key(point));
        }
        if present.is_empty() {
            return Ok(0);
        }
        let ids = present.iter().copied().map(PointId::Uuid).collect();
        self.write("remove from", || {
            self.shard()?.update(UpdateOperation::PointOperation(
                PointOperations::DeletePoints { ids },
            ))
        })?;
        let mut contents = self
            .contents
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for point in &present {
            contents.remove(point);
        }
        Ok(present.len())
    }

    /// The `limit` records nearest to `vector` that pass all `filters`, with
    /// their cosine similarity: highest first, then by id, then by tenant.
    pub(crate) fn nearest(
        &self,
        vector: &[f32],
        limit: usize,
        filters: &[FieldFilter],
    ) -> Result<Vec<(f64, Record)>, MemoryError> {
        // The engine cuts among equal scores as it likes, so look one further
        // than asked, and twice as far for as long as the cut is inside a tie.
        let mut fetch = limit.saturating_add(1);
        let mut hits = loop {
            let hits = self.fetch_nearest(vector, fetch, filters)?;
            let whole = match (hits.get(limit.saturating_sub(1)), hits.last()) {
                (Some(at_cut), Some(last)) => hits.len() < fetch || last.0 < at_cut.0,
                _ => true,
            };
            if whole {
                break hits;
            }
            fetch = fetch.saturating_mul(2);
        };
        hits.sort_by(|(left_score, left), (right_score, right)| {
            right_score
                .total_cmp(left_score)
                .then_with(|| left.id.cmp(&right.id))
                .then_with(|| left.tenant.cmp(&right.tenant))
        });
        hits.truncate(limit);
        Ok(hits)
    }

    pub(crate) fn len(&self) -> usize {
        self.contents
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Feeds everything that tells these contents from others to `hasher`.
    pub(crate) fn hash_contents(&self, hasher: &mut Sha256) {
        let contents = self.contents.read().unwrap_or_else(PoisonError::into_inner);
        hasher.update(self.name.as_bytes());
        hasher.update([u8::from(self.failed.load(Ordering::Acquire))]);
        hasher.update((contents.len() as u64).to_le_bytes());
        for (point, content) in contents.iter() {
            hasher.update(point.as_bytes());
            hasher.update(content);
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn fetch_nearest(
        &self,
        vector: &[f32],
        fetch: usize,
        filters: &[FieldFilter],
    ) -> Result<Vec<(f64, Record)>, MemoryError> {
        let points = guard(self.name, "search", || {
            self.shard()?.search(SearchRequest {
                query: QueryEnum::Nearest(NamedQuery::default_dense(vector.to_vec())),
                filter: engine_filter(filters)?,
                params: Some(SearchParams {
                    exact: true,
                    ..SearchParams::default()
                }),
                limit: fetch,
                offset: 0,
                with_payload: Some(WithPayloadInterface::Bool(true)),
                with_vector: Some(WithVector::Bool(false)),
                score_threshold: None,
            })
        })?;
        points
            .into_iter()
            .map(|point| {
                let score = f64::from(point.score).clamp(-1.0, 1.0);
                Ok((score, self.record(point.payload)?))
            })
            .collect()
    }

    fn read_contents(&self) -> Result<BTreeMap<Uuid, ContentHash>, MemoryError> {
        const PAGE: usize = 1024;
        let mut contents = BTreeMap::new();
        let mut offset = None;
        loop {
            let (points, next) = guard(self.name, "read", || {
                self.shard()?.scroll(ScrollRequest {
                    offset,
                    limit: Some(PAGE),
                    with_payload: Some(WithPayloadInterface::Bool(true)),
                    ..ScrollRequest::default()
                })
            })?;
            for point in points {
                let record = self.record(point.payload)?;
                let id = Record::point_id(&record.tenant, &record.id);
                if point.id != PointId::Uuid(id) {
                    return Err(self.corrupt("a record lies under another's id"));
                }
                contents.insert(id, record.content_hash());
            }
            match next {
                Some(_) => offset = next,
                None => return Ok(contents),
            }
        }
    }

    /// Runs a change and the flush that makes it last. The caller is the writer.
    fn write(
        &self,
        step: &'static str,
        change: impl FnOnce() -> OperationResult<()>,
    ) -> Result<(), MemoryError> {
        let written = guard(self.name, step, || {
            change()?;
            self.shard()?.flush();
            Ok(())
        });
        if written.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        written
    }

    fn refuse_after_failure(&self) -> Result<(), MemoryError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(MemoryError::Failed {
                collection: self.name,
            });
        }
        Ok(())
    }

    fn shard(&self) -> OperationResult<&EdgeShard> {
        self.shard
            .as_ref()
            .ok_or_else(|| OperationError::service_error_light("the shard is closed"))
    }

    fn payload(&self, record: &Record) -> Result<serde_json::Value, MemoryError> {
        serde_json::to_value(record).map_err(|error| MemoryError::Engine {
            collection: self.name,
            step: "write to",
            reason: error.to_string(),
        })
    }

    /// Parses a stored payload. What does not parse is not quoted: it is text.
    fn record(&self, payload: Option<Payload>) -> Result<Record, MemoryError> {
        let payload = payload.ok_or_else(|| self.corrupt("a record without payload"))?;
        serde_json::from_value(serde_json::Value::Object(payload.0))
            .map_err(|_| self.corrupt("a record that does not parse"))
    }

    pub(crate) fn corrupt(&self, reason: &str) -> MemoryError {
        MemoryError::Corrupt {
            path: self.path.clone(),
            reason: reason.to_owned(),
        }
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        let shard = self.shard.take();
        let closed = guard(self.name, "close", || {
            drop(shard);
            Ok(())
        });
        // Whatever was acknowledged was flushed before, so nothing is lost.
        if let Err(error) = closed {
            tracing::warn!(%error, "closing a collection failed");
        }
    }
}

/// Calls into the engine; a panic in there becomes an error.
fn guard<T>(
    collection: &'static str,
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
        collection,
        step,
        reason,
    })
}

fn config(dimension: usize) -> EdgeConfig {
    EdgeConfig::builder()
        .vector(
            qdrant_edge::DEFAULT_VECTOR_NAME,
            EdgeVectorParams::builder(dimension, Distance::Cosine).build(),
        )
        .wal_options(WalOptions {
            segment_capacity: 4 * 1024 * 1024,
            ..WalOptions::default()
        })
        .build()
}

fn engine_filter(filters: &[FieldFilter]) -> OperationResult<Option<Filter>> {
    if filters.is_empty() {
        return Ok(None);
    }
    let conditions = filters
        .iter()
        .map(|filter| {
            let any_of = Match::from(filter.values.clone());
            let condition = FieldCondition::new_match(json_path(filter.field)?, any_of);
            Ok(Condition::Field(condition))
        })
        .collect::<OperationResult<Vec<_>>>()?;
    Ok(Some(Filter {
        must: Some(conditions),
        ..Filter::new()
    }))
}

fn json_path(field: &str) -> OperationResult<JsonPath> {
    field
        .parse()
        .map_err(|()| OperationError::validation_error(format!("{field} is not a payload path")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record {
            id: id.to_owned(),
            tenant: "t".to_owned(),
            text: id.to_owned(),
            label: None,
            technique: None,
            observed_unix_ns: None,
            version: String::new(),
        }
    }

    fn upsert(collection: &Collection, ids: &[&str]) -> Result<(), MemoryError> {
        let records = ids.iter().copied().map(record).collect();
        collection.upsert(records, |changed| {
            Ok(changed.iter().map(|_| vec![1.0, 0.5]).collect())
        })
    }

    fn collection(dir: &Path) -> Collection {
        Collection::create(dir, "tests", 2).unwrap();
        Collection::load(dir, "tests", 2).unwrap()
    }

    fn hash(collection: &Collection) -> [u8; 32] {
        let mut hasher = Sha256::new();
        collection.hash_contents(&mut hasher);
        hasher.finalize().into()
    }

    #[test]
    fn a_panic_of_the_engine_is_a_typed_error() {
        let result = guard::<()>("tests", "search", || panic!("boom {}", 7));
        match result {
            Err(MemoryError::Engine { step, reason, .. }) => {
                assert_eq!((step, reason.as_str()), ("search", "panic: boom 7"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn after_a_failed_write_no_write_is_acknowledged_until_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let collection = collection(dir.path());
        upsert(&collection, &["a"]).unwrap();
        let before = hash(&collection);
        let failed = collection.write("write to", || panic!("disk full"));
        assert!(matches!(failed, Err(MemoryError::Engine { .. })));
        for refused in [
            upsert(&collection, &["b"]),
            collection.remove(&[]).map(drop),
        ] {
            assert!(
                matches!(refused, Err(MemoryError::Failed { .. })),
                "{refused:?}"
            );
        }
        // What it answers from now on may not be what was acknowledged.
        assert_ne!(hash(&collection), before);
        assert_eq!(collection.nearest(&[1.0, 1.0], 5, &[]).unwrap().len(), 1);
        drop(collection);
        let collection = Collection::load(dir.path(), "tests", 2).unwrap();
        assert_eq!(hash(&collection), before);
        upsert(&collection, &["b"]).unwrap();
    }

    #[test]
    fn a_batch_larger_than_an_operation_is_stored_whole() {
        let dir = tempfile::tempdir().unwrap();
        let collection = collection(dir.path());
        let ids = (0..3 * POINTS_PER_OPERATION + 1)
            .map(|n| format!("r{n}"))
            .collect::<Vec<_>>();
        upsert(
            &collection,
            &ids.iter().map(String::as_str).collect::<Vec<_>>(),
        )
        .unwrap();
        let before = hash(&collection);
        drop(collection);
        let collection = Collection::load(dir.path(), "tests", 2).unwrap();
        assert_eq!(collection.len(), ids.len());
        assert_eq!(hash(&collection), before);
    }

    #[test]
    fn a_record_under_anothers_id_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let collection = collection(dir.path());
        let wrong = PointId::Uuid(Record::point_id("t", "other"));
        let payload = serde_json::to_value(record("a")).unwrap();
        let point = PointStruct::new(wrong, vec![1.0, 0.0], payload);
        collection
            .write("write to", || {
                collection.shard()?.update(UpdateOperation::PointOperation(
                    PointOperations::UpsertPoints(PointInsertOperations::PointsList(vec![
                        point.into(),
                    ])),
                ))
            })
            .unwrap();
        drop(collection);
        let damaged = Collection::load(dir.path(), "tests", 2);
        assert!(
            matches!(damaged, Err(MemoryError::Corrupt { .. })),
            "{damaged:?}"
        );
    }
}
