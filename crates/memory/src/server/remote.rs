//! The calls on a Qdrant server.
//!
//! The client is asynchronous. It runs on one thread of ours; callers hand it their
//! request and wait for the answer, no longer than a deadline.
//!
//! On the server there is one collection for each of ours; `points.rs` says what is in
//! it.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{RecvTimeoutError, bounded};
use qdrant_client::{
    Qdrant, QdrantError,
    qdrant::{
        CountPoints, CreateCollection, CreateFieldIndexCollection, DeletePoints, DenseVector,
        Distance, FieldType, HnswConfigDiff, KeywordIndexParams, PayloadIncludeSelector,
        PayloadIndexParams, PointId, PointsIdsList, PointsSelector, Query, QueryBatchPoints,
        QueryPoints, ScoredPoint, ScrollPoints, SearchParams, SparseVector, SparseVectorConfig,
        SparseVectorParams, UpsertPoints, VectorInput, VectorParams, VectorParamsMap,
        VectorsConfig, WithPayloadSelector, payload_index_params::IndexParams,
        points_selector::PointsSelectorOneOf, query::Variant, value::Kind, vector_input,
        vectors_config::Config, with_payload_selector::SelectorOptions,
    },
};
use tokio::{runtime, sync::oneshot, time::timeout};
use uuid::Uuid;

use super::{
    ServerOptions,
    points::{HASH, HeldHash, KEYWORD_FIELDS, OBSERVED_MS, ORIGIN, Origin, TEXT, WORDS},
};
use crate::{
    MemoryError, MemoryOptions,
    candidates::{Lists, Wanted},
    journal::CollectionId,
    query::Filter,
    tail::{Scored, Searchable},
};

/// The most bytes of what a server says that an error repeats.
const MAX_REASON_BYTES: usize = 200;

/// How much longer than a call its caller waits for the thread that makes it.
const HANDOVER: Duration = Duration::from_millis(250);

/// One page of what a server holds, and the id to go on from.
pub(super) type HeldPage = (Vec<(Uuid, HeldHash)>, Option<Uuid>);

/// A server, and the thread that talks to it.
pub(super) struct Remote {
    client: Qdrant,
    runtime: runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    searches: Arc<AtomicUsize>,
    options: ServerOptions,
    collections: [String; 3],
    origin: Origin,
    dimension: usize,
    graph: (usize, usize),
    search_beam: usize,
}

impl Remote {
    /// Starts the thread. Does not connect.
    pub(super) fn start(
        server: &ServerOptions,
        origin: u64,
        (dimension, options): (usize, &MemoryOptions),
    ) -> Result<Self, MemoryError> {
        let mut config = Qdrant::from_url(server.url())
            .connect_timeout(server.connect_deadline)
            .timeout(server.call_deadline)
            // It prints what it finds.
            .skip_compatibility_check();
        if let Some(key) = &server.api_key {
            if server.url().starts_with("http://") {
                tracing::warn!(
                    url = server.url(),
                    "the memory's server key travels in clear"
                );
            }
            config.set_api_key(key.expose());
        }
        let client = config.build().map_err(|_| MemoryError::ServerOption {
            option: "address",
            reason: "is not one",
        })?;
        let failed = |source| MemoryError::Server {
            url: server.url().to_owned(),
            step: "start",
            reason: format!("{source}"),
        };
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name("memory-server".to_owned())
            .spawn(move || {
                // Ends when the other end is used or gone.
                drop(runtime.block_on(stopped));
                runtime.shutdown_background();
            })
            .map_err(failed)?;
        Ok(Self {
            client,
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread),
            searches: Arc::default(),
            options: server.clone(),
            collections: CollectionId::ALL
                .map(|id| format!("{}-{}", server.collection_prefix(), id.name())),
            origin: Origin::new(origin),
            dimension,
            graph: (options.index_edges, options.index_build_beam),
            search_beam: options.index_search_beam,
        })
    }

    /// Whether as many searches wait as may.
    pub(super) fn is_busy(&self) -> bool {
        self.searches.load(Ordering::Relaxed) >= self.options.max_searches
    }

    /// The error of an answer that cannot be.
    pub(super) fn broken(&self, step: &'static str, reason: &str) -> MemoryError {
        MemoryError::Server {
            url: self.options.url().to_owned(),
            step,
            reason: reason.to_owned(),
        }
    }

    pub(super) fn search(
        &self,
        collection: CollectionId,
        wanted: &Wanted<'_>,
    ) -> Result<Lists, MemoryError> {
        let filter = self.origin.filter(wanted.filter);
        let query = |using: &str, vector, params| QueryPoints {
            collection_name: self.name(collection),
            query: Some(Query {
                variant: Some(Variant::Nearest(VectorInput {
                    variant: Some(vector),
                })),
            }),
            using: Some(using.to_owned()),
            filter: Some(filter.clone()),
            params,
            limit: Some(wanted.fetch as u64),
            with_payload: Some(payload(SelectorOptions::Enable(false))),
            ..QueryPoints::default()
        };
        let data = wanted.vector.to_vec();
        let params = SearchParams {
            hnsw_ef: Some(self.search_beam.max(wanted.fetch) as u64),
            ..SearchParams::default()
        };
        let dense = vector_input::Variant::Dense(DenseVector { data });
        let mut query_points = vec![query(TEXT, dense, Some(params))];
        if let Some(words) = wanted.words.filter(|words| !words.is_empty()) {
            let (indices, values) = words.iter().copied().unzip();
            let sparse = vector_input::Variant::Sparse(SparseVector { values, indices });
            query_points.push(query(WORDS, sparse, None));
        }
        let n_lists = query_points.len();
        let request = QueryBatchPoints {
            collection_name: self.name(collection),
            query_points,
            ..QueryBatchPoints::default()
        };
        let client = self.client.clone();
        let place = Place::take(&self.searches);
        let call = async move {
            let answer = client.query_batch(request).await;
            drop(place);
            answer
        };
        let answer = self.call("search", self.options.search_deadline, call)?;
        if answer.result.len() != n_lists {
            return Err(self.broken("search", "it answered another question"));
        }
        let mut lists = answer
            .result
            .into_iter()
            .map(|list| self.scored(list.result, wanted.fetch));
        Ok(Lists {
            dense: lists.next().unwrap_or(Ok(Vec::new()))?,
            sparse: lists.next().unwrap_or(Ok(Vec::new()))?,
        })
    }

    /// Makes the collection if it is absent, and fails if it is another's.
    pub(super) fn ensure(&self, collection: CollectionId) -> Result<(), MemoryError> {
        let name = self.name(collection);
        let client = self.client.clone();
        let exists = {
            let name = name.clone();
            self.slow("look for a collection", async move {
                client.collection_exists(name).await
            })?
        };
        if !exists {
            self.create(&name)?;
        }
        let client = self.client.clone();
        let info = {
            let name = name.clone();
            self.slow("describe a collection", async move {
                client.collection_info(name).await
            })?
        };
        let params = info.result.and_then(|info| info.config?.params);
        let size = params.as_ref().and_then(|params| {
            match params.vectors_config.as_ref()?.config.as_ref()? {
                Config::ParamsMap(params) => Some(params.map.get(TEXT)?.size),
                Config::Params(_) => None,
            }
        });
        if size != Some(self.dimension as u64) {
            let reason = match size {
                Some(size) => format!(
                    "{name} has vectors of length {size}, not {}; use another prefix",
                    self.dimension
                ),
                None => format!("{name} is not a collection of ours; use another prefix"),
            };
            return Err(self.broken("use a collection", &reason));
        }
        self.index_fields(&name)
    }

    fn create(&self, name: &str) -> Result<(), MemoryError> {
        let (edges, build_beam) = self.graph;
        let params = VectorParams {
            size: self.dimension as u64,
            // The vectors have length 1, so this is the cosine.
            distance: Distance::Dot.into(),
            ..VectorParams::default()
        };
        let request = CreateCollection {
            collection_name: name.to_owned(),
            vectors_config: Some(VectorsConfig {
                config: Some(Config::ParamsMap(VectorParamsMap {
                    map: HashMap::from([(TEXT.to_owned(), params)]),
                })),
            }),
            sparse_vectors_config: Some(SparseVectorConfig {
                map: HashMap::from([(WORDS.to_owned(), SparseVectorParams::default())]),
            }),
            hnsw_config: Some(HnswConfigDiff {
                m: Some(edges as u64),
                ef_construct: Some(build_beam as u64),
                ..HnswConfigDiff::default()
            }),
            ..CreateCollection::default()
        };
        let client = self.client.clone();
        self.slow("make a collection", async move {
            client.create_collection(request).await
        })
        .map(drop)
    }

    fn index_fields(&self, name: &str) -> Result<(), MemoryError> {
        let keyword = |is_tenant| {
            let params = KeywordIndexParams {
                is_tenant: Some(is_tenant),
                ..KeywordIndexParams::default()
            };
            (
                FieldType::Keyword,
                Some(IndexParams::KeywordIndexParams(params)),
            )
        };
        let mut fields = vec![
            (ORIGIN, keyword(true)),
            (OBSERVED_MS, (FieldType::Integer, None)),
        ];
        fields.extend(KEYWORD_FIELDS.map(|field| (field, keyword(false))));
        for (field, (field_type, params)) in fields {
            let request = CreateFieldIndexCollection {
                collection_name: name.to_owned(),
                wait: Some(true),
                field_name: field.to_owned(),
                field_type: Some(field_type.into()),
                field_index_params: params.map(|params| PayloadIndexParams {
                    index_params: Some(params),
                }),
                ..CreateFieldIndexCollection::default()
            };
            let client = self.client.clone();
            self.slow("index a field", async move {
                client.create_field_index(request).await
            })?;
        }
        Ok(())
    }

    /// Stores records in place of those with their ids. On `Ok` they are found.
    pub(super) fn put(
        &self,
        collection: CollectionId,
        records: Vec<(Searchable, HeldHash)>,
    ) -> Result<(), MemoryError> {
        let request = UpsertPoints {
            collection_name: self.name(collection),
            wait: Some(true),
            points: records
                .into_iter()
                .map(|(record, hash)| self.origin.point(record, hash))
                .collect(),
            ..UpsertPoints::default()
        };
        let client = self.client.clone();
        self.slow("store", async move { client.upsert_points(request).await })
            .map(drop)
    }

    /// Removes records; those that are not there are passed over.
    pub(super) fn remove(
        &self,
        collection: CollectionId,
        points: Vec<Uuid>,
    ) -> Result<(), MemoryError> {
        let ids = points
            .into_iter()
            .map(|point| self.origin.id(point))
            .collect();
        let request = DeletePoints {
            collection_name: self.name(collection),
            wait: Some(true),
            points: Some(PointsSelector {
                points_selector_one_of: Some(PointsSelectorOneOf::Points(PointsIdsList { ids })),
            }),
            ..DeletePoints::default()
        };
        let client = self.client.clone();
        self.slow("remove", async move { client.delete_points(request).await })
            .map(drop)
    }

    /// Which records of this store the server holds, in pages.
    pub(super) fn held(
        &self,
        collection: CollectionId,
        after: Option<Uuid>,
    ) -> Result<HeldPage, MemoryError> {
        let request = ScrollPoints {
            collection_name: self.name(collection),
            filter: Some(self.origin.filter(&Filter::default())),
            offset: after.map(|point| self.origin.id(point)),
            limit: Some(u32::try_from(self.options.batch_records.max(1)).unwrap_or(u32::MAX)),
            with_payload: Some(payload(SelectorOptions::Include(PayloadIncludeSelector {
                fields: vec![HASH.to_owned()],
            }))),
            ..ScrollPoints::default()
        };
        let client = self.client.clone();
        let page = self.slow("list", async move { client.scroll(request).await })?;
        let held = page
            .result
            .into_iter()
            .map(|mut held| {
                let hash = match held.payload.remove(HASH).and_then(|value| value.kind) {
                    Some(Kind::StringValue(hash)) => hash,
                    // Not what we wrote: it is written again.
                    _ => String::new(),
                };
                Ok((self.listed(held.id)?, HeldHash::from(hash)))
            })
            .collect::<Result<_, MemoryError>>()?;
        let next = page.next_page_offset;
        let next = next.map(|id| self.listed(Some(id))).transpose()?;
        Ok((held, next))
    }

    /// How many records of this store the server holds.
    pub(super) fn count(&self, collection: CollectionId) -> Result<u64, MemoryError> {
        let request = CountPoints {
            collection_name: self.name(collection),
            filter: Some(self.origin.filter(&Filter::default())),
            exact: Some(true),
            ..CountPoints::default()
        };
        let client = self.client.clone();
        let answer = self.slow("count", async move { client.count(request).await })?;
        Ok(answer.result.map_or(0, |result| result.count))
    }

    fn slow<T: Send + 'static>(
        &self,
        step: &'static str,
        call: impl Future<Output = Result<T, QdrantError>> + Send + 'static,
    ) -> Result<T, MemoryError> {
        self.call(step, self.options.call_deadline, call)
    }

    /// Has the thread make a call and waits for the answer.
    fn call<T: Send + 'static>(
        &self,
        step: &'static str,
        deadline: Duration,
        call: impl Future<Output = Result<T, QdrantError>> + Send + 'static,
    ) -> Result<T, MemoryError> {
        let (answer, answered) = bounded(1);
        self.runtime.spawn(async move {
            // The caller may have given up.
            drop(answer.send(timeout(deadline, call).await));
        });
        match answered.recv_timeout(deadline + HANDOVER) {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(self.broken(step, &reason(&error))),
            Ok(Err(_)) | Err(RecvTimeoutError::Timeout) => {
                Err(self.broken(step, &format!("no answer in {deadline:?}")))
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.broken(step, "the call was cut off")),
        }
    }

    fn name(&self, collection: CollectionId) -> String {
        self.collections[collection.index()].clone()
    }

    fn listed(&self, id: Option<PointId>) -> Result<Uuid, MemoryError> {
        let record = self.origin.record(id);
        record.ok_or_else(|| self.broken("list", "an id that is not ours"))
    }

    fn scored(&self, list: Vec<ScoredPoint>, fetch: usize) -> Result<Vec<Scored>, MemoryError> {
        let n_points = list.len();
        let scored = list
            .into_iter()
            .map(|hit| {
                let (point, score) = (self.origin.record(hit.id)?, hit.score);
                Some(Scored { point, score })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| self.broken("search", "an id that is not ours"))?;
        let distinct: HashSet<_> = scored.iter().map(|hit| hit.point).collect();
        let sound = n_points <= fetch && distinct.len() == n_points;
        if !sound || scored.iter().any(|hit| !hit.score.is_finite()) {
            return Err(self.broken("search", "a list that is none"));
        }
        Ok(Scored::best(scored, fetch))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the thread that talks to the memory's server had panicked");
        }
    }
}

/// One of the searches that may wait at once, for as long as it is held.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(searches: &Arc<AtomicUsize>) -> Self {
        searches.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(searches))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn payload(options: SelectorOptions) -> WithPayloadSelector {
    WithPayloadSelector {
        selector_options: Some(options),
    }
}

/// What a server said, in short: its status and the start of its message.
fn reason(error: &QdrantError) -> String {
    let (code, message) = match error {
        QdrantError::ResponseError { status }
        | QdrantError::ResourceExhaustedError { status, .. } => {
            (format!("{:?}", status.code()), status.message())
        }
        _ => return "the client could not make the call".to_owned(),
    };
    let visible = message.chars().filter(|c| !c.is_control());
    let mut text = format!("{code}: ");
    for c in visible {
        if text.len() + c.len_utf8() > MAX_REASON_BYTES {
            break;
        }
        text.push(c);
    }
    text
}
