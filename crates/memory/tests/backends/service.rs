//! The generated gRPC service of `qdrant-client` over embedded shards: what the
//! memory asks of a Qdrant server, answered by the same engine, in this process.
//!
//! It refuses what the memory does not use, and can be told to lie.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

use qdrant_client::qdrant::{
    self, BatchResult, CollectionExists, CollectionExistsResponse, CollectionInfo,
    CollectionOperationResponse, CountResponse, CountResult, GetCollectionInfoResponse,
    PointsOperationResponse, QueryBatchResponse, RetrievedPoint, ScoredPoint, ScrollResponse,
    UpdateResult,
    collections_server::{Collections, CollectionsServer},
    points_server::{Points, PointsServer},
};
use qdrant_edge::{
    Condition, CountRequest, Distance, EdgeConfig, EdgeShard, EdgeSparseVectorParams,
    EdgeVectorParams, FieldCondition, Filter, Match, NamedQuery, Payload, PointId,
    PointInsertOperations, PointOperations, PointStruct, QueryEnum, Range, ScrollRequest,
    SearchRequest, SparseVector, UpdateOperation, Vector, VectorInternal, Vectors,
    WithPayloadInterface, WithVector, external::ordered_float::OrderedFloat,
};
use tempfile::TempDir;
use tonic::{
    Request, Response, Status, service::interceptor::InterceptedService as Guarded,
    transport::server::TcpIncoming,
};

type Answer<T> = Result<Response<T>, Status>;

/// How searches are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Lie {
    None = 0,
    UnknownRecords = 1,
    NotNumbers = 2,
    OneRecordTwice = 3,
    TooFewLists = 4,
    Nothing = 5,
}

/// A running service; ends with the process.
#[derive(Clone)]
pub(crate) struct Service {
    shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
}

#[derive(Default)]
struct Shared {
    collections: Mutex<HashMap<String, Held>>,
    lie: AtomicU8,
}

struct Held {
    shard: EdgeShard,
    info: CollectionInfo,
    _dir: TempDir,
}

impl Service {
    /// Starts it on a port of its own; with a key, it asks for it.
    pub(crate) fn start(key: Option<&'static str>) -> Self {
        let shared = Arc::new(Shared::default());
        let (points, collections) = (Arc::clone(&shared), Arc::clone(&shared));
        let check = move |request: Request<()>| {
            let given = request.metadata().get("api-key");
            match key {
                Some(key) if given.is_none_or(|given| given != key) => {
                    Err(Status::unauthenticated("the key is missing or wrong"))
                }
                _ => Ok(request),
            }
        };
        let (told, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime starts");
            runtime.block_on(async move {
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let incoming = TcpIncoming::bind(any).expect("a port is free");
                let address = incoming.local_addr().expect("it is bound");
                told.send(address).expect("somebody waits");
                tonic::transport::Server::builder()
                    .add_service(Guarded::new(PointsServer::from_arc(points), check))
                    .add_service(Guarded::new(
                        CollectionsServer::from_arc(collections),
                        check,
                    ))
                    .serve_with_incoming(incoming)
                    .await
                    .expect("it serves");
            });
        });
        let address = address.recv().expect("the service starts");
        Self { shared, address }
    }

    pub(crate) fn lie(&self, lie: Lie) {
        self.shared.lie.store(lie as u8, Ordering::SeqCst);
    }
}

impl Shared {
    fn collections(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        let collections = self.collections.lock();
        collections.unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, name: &str, work: impl FnOnce(&EdgeShard) -> Result<T, Status>) -> Answer<T> {
        let collections = self.collections();
        let held = collections
            .get(name)
            .ok_or_else(|| Status::not_found(format!("no collection {name}")))?;
        work(&held.shard).map(Response::new)
    }
}

macro_rules! refuse {
    ($service:ident { $($done:tt)* } $($name:ident($request:ident) -> $answer:ident;)*) => {
        #[tonic::async_trait]
        impl $service for Shared {
            $($done)*
            $(async fn $name(&self, _: Request<qdrant::$request>) -> Answer<qdrant::$answer> {
                Err(Status::unimplemented(stringify!($name)))
            })*
        }
    };
}

refuse! {
    Collections {
        async fn collection_exists(
            &self,
            request: Request<qdrant::CollectionExistsRequest>,
        ) -> Answer<CollectionExistsResponse> {
            let exists = self.collections().contains_key(&request.into_inner().collection_name);
            Ok(Response::new(CollectionExistsResponse {
                result: Some(CollectionExists { exists }),
                ..CollectionExistsResponse::default()
            }))
        }

        async fn create(
            &self,
            request: Request<qdrant::CreateCollection>,
        ) -> Answer<CollectionOperationResponse> {
            let request = request.into_inner();
            let name = request.collection_name.clone();
            let held = create(request)?;
            self.collections().insert(name, held);
            Ok(Response::new(CollectionOperationResponse { result: true, ..Default::default() }))
        }

        async fn get(
            &self,
            request: Request<qdrant::GetCollectionInfoRequest>,
        ) -> Answer<GetCollectionInfoResponse> {
            let name = request.into_inner().collection_name;
            let collections = self.collections();
            let held = collections.get(&name).ok_or_else(|| Status::not_found(name))?;
            Ok(Response::new(GetCollectionInfoResponse {
                result: Some(held.info.clone()),
                ..GetCollectionInfoResponse::default()
            }))
        }

        async fn delete(
            &self,
            request: Request<qdrant::DeleteCollection>,
        ) -> Answer<CollectionOperationResponse> {
            let name = request.into_inner().collection_name;
            let result = self.collections().remove(&name).is_some();
            Ok(Response::new(CollectionOperationResponse { result, ..Default::default() }))
        }
    }
    list(ListCollectionsRequest) -> ListCollectionsResponse;
    update(UpdateCollection) -> CollectionOperationResponse;
    update_aliases(ChangeAliases) -> CollectionOperationResponse;
    list_collection_aliases(ListCollectionAliasesRequest) -> ListAliasesResponse;
    list_aliases(ListAliasesRequest) -> ListAliasesResponse;
    collection_cluster_info(CollectionClusterInfoRequest) -> CollectionClusterInfoResponse;
    update_collection_cluster_setup(UpdateCollectionClusterSetupRequest)
        -> UpdateCollectionClusterSetupResponse;
    create_shard_key(CreateShardKeyRequest) -> CreateShardKeyResponse;
    delete_shard_key(DeleteShardKeyRequest) -> DeleteShardKeyResponse;
    list_shard_keys(ListShardKeysRequest) -> ListShardKeysResponse;
}

refuse! {
    Points {
        async fn create_field_index(
            &self,
            request: Request<qdrant::CreateFieldIndexCollection>,
        ) -> Answer<PointsOperationResponse> {
            // A shard that is searched point by point needs none.
            self.with(&request.into_inner().collection_name, |_| Ok(done()))
        }

        async fn upsert(
            &self,
            request: Request<qdrant::UpsertPoints>,
        ) -> Answer<PointsOperationResponse> {
            let request = request.into_inner();
            self.with(&request.collection_name, |shard| {
                let points = request.points.into_iter().map(point);
                let points = points.collect::<Result<Vec<_>, _>>()?;
                let points = points.into_iter().map(Into::into).collect();
                let list = PointInsertOperations::PointsList(points);
                update(shard, PointOperations::UpsertPoints(list))
            })
        }

        async fn delete(
            &self,
            request: Request<qdrant::DeletePoints>,
        ) -> Answer<PointsOperationResponse> {
            let request = request.into_inner();
            self.with(&request.collection_name, |shard| {
                let selector = request.points.and_then(|points| points.points_selector_one_of);
                let Some(qdrant::points_selector::PointsSelectorOneOf::Points(points)) = selector
                else {
                    return Err(Status::unimplemented("deleting by filter"));
                };
                let ids = points.ids.into_iter().map(|id| point_id(Some(id)));
                let ids = ids.collect::<Result<_, _>>()?;
                update(shard, PointOperations::DeletePoints { ids })
            })
        }

        async fn scroll(&self, request: Request<qdrant::ScrollPoints>) -> Answer<ScrollResponse> {
            let request = request.into_inner();
            self.with(&request.collection_name.clone(), |shard| scroll(shard, request))
        }

        async fn count(&self, request: Request<qdrant::CountPoints>) -> Answer<CountResponse> {
            let request = request.into_inner();
            self.with(&request.collection_name, |shard| {
                let filter = request.filter.map(filter).transpose()?;
                let count = shard.count(CountRequest { filter, exact: true }).map_err(internal)?;
                Ok(CountResponse {
                    result: Some(CountResult { count: count as u64 }),
                    ..CountResponse::default()
                })
            })
        }

        async fn query_batch(
            &self,
            request: Request<qdrant::QueryBatchPoints>,
        ) -> Answer<QueryBatchResponse> {
            let request = request.into_inner();
            let lie = self.lie.load(Ordering::SeqCst);
            self.with(&request.collection_name, |shard| {
                let lists = request.query_points.into_iter().map(|query| search(shard, query));
                let mut result = lists.collect::<Result<Vec<_>, _>>()?;
                tell(lie, &mut result);
                Ok(QueryBatchResponse { result, ..QueryBatchResponse::default() })
            })
        }
    }
    get(GetPoints) -> GetResponse;
    update_vectors(UpdatePointVectors) -> PointsOperationResponse;
    delete_vectors(DeletePointVectors) -> PointsOperationResponse;
    set_payload(SetPayloadPoints) -> PointsOperationResponse;
    overwrite_payload(SetPayloadPoints) -> PointsOperationResponse;
    delete_payload(DeletePayloadPoints) -> PointsOperationResponse;
    clear_payload(ClearPayloadPoints) -> PointsOperationResponse;
    delete_field_index(DeleteFieldIndexCollection) -> PointsOperationResponse;
    create_vector_name(CreateVectorNameRequest) -> PointsOperationResponse;
    delete_vector_name(DeleteVectorNameRequest) -> PointsOperationResponse;
    search(SearchPoints) -> SearchResponse;
    search_batch(SearchBatchPoints) -> SearchBatchResponse;
    search_groups(SearchPointGroups) -> SearchGroupsResponse;
    recommend(RecommendPoints) -> RecommendResponse;
    recommend_batch(RecommendBatchPoints) -> RecommendBatchResponse;
    recommend_groups(RecommendPointGroups) -> RecommendGroupsResponse;
    discover(DiscoverPoints) -> DiscoverResponse;
    discover_batch(DiscoverBatchPoints) -> DiscoverBatchResponse;
    update_batch(UpdateBatchPoints) -> UpdateBatchResponse;
    query(QueryPoints) -> QueryResponse;
    query_groups(QueryPointGroups) -> QueryGroupsResponse;
    facet(FacetCounts) -> FacetResponse;
    search_matrix_pairs(SearchMatrixPoints) -> SearchMatrixPairsResponse;
    search_matrix_offsets(SearchMatrixPoints) -> SearchMatrixOffsetsResponse;
}

fn done() -> PointsOperationResponse {
    PointsOperationResponse {
        result: Some(UpdateResult {
            status: qdrant::UpdateStatus::Completed.into(),
            ..UpdateResult::default()
        }),
        ..PointsOperationResponse::default()
    }
}

fn create(request: qdrant::CreateCollection) -> Result<Held, Status> {
    let dir = tempfile::tempdir().map_err(internal)?;
    let vectors = request
        .vectors_config
        .clone()
        .and_then(|config| config.config);
    let Some(qdrant::vectors_config::Config::ParamsMap(params)) = vectors else {
        return Err(Status::unimplemented("an unnamed vector"));
    };
    let mut config = EdgeConfig::builder();
    for (name, params) in &params.map {
        if params.distance != i32::from(qdrant::Distance::Dot) {
            return Err(Status::unimplemented("another distance"));
        }
        let size = usize::try_from(params.size).map_err(internal)?;
        let params = EdgeVectorParams::builder(size, Distance::Dot).build();
        config = config.vector(name.as_str(), params);
    }
    let sparse = request.sparse_vectors_config.clone().unwrap_or_default();
    for name in sparse.map.keys() {
        let params = EdgeSparseVectorParams::builder().build();
        config = config.sparse_vector(name.as_str(), params);
    }
    let shard = EdgeShard::new(dir.path(), config.build()).map_err(internal)?;
    let params = qdrant::CollectionParams {
        vectors_config: request.vectors_config,
        sparse_vectors_config: request.sparse_vectors_config,
        ..qdrant::CollectionParams::default()
    };
    let info = CollectionInfo {
        config: Some(qdrant::CollectionConfig {
            params: Some(params),
            ..qdrant::CollectionConfig::default()
        }),
        ..CollectionInfo::default()
    };
    Ok(Held {
        shard,
        info,
        _dir: dir,
    })
}

fn update(
    shard: &EdgeShard,
    operation: PointOperations,
) -> Result<PointsOperationResponse, Status> {
    shard
        .update(UpdateOperation::PointOperation(operation))
        .map_err(internal)?;
    Ok(done())
}

fn scroll(shard: &EdgeShard, request: qdrant::ScrollPoints) -> Result<ScrollResponse, Status> {
    let (points, next) = shard
        .scroll(ScrollRequest {
            offset: request.offset.map(|id| point_id(Some(id))).transpose()?,
            limit: request.limit.map(|limit| limit as usize),
            filter: request.filter.map(filter).transpose()?,
            with_payload: Some(WithPayloadInterface::Bool(true)),
            with_vector: WithVector::Bool(false),
            ..ScrollRequest::default()
        })
        .map_err(internal)?;
    let result = points
        .into_iter()
        .map(|point| RetrievedPoint {
            id: Some(wire_id(point.id)),
            payload: point.payload.map(wire_payload).unwrap_or_default(),
            ..RetrievedPoint::default()
        })
        .collect();
    Ok(ScrollResponse {
        next_page_offset: next.map(wire_id),
        result,
        ..ScrollResponse::default()
    })
}

fn search(shard: &EdgeShard, query: qdrant::QueryPoints) -> Result<BatchResult, Status> {
    let using = query.using.unwrap_or_default();
    let Some(qdrant::query::Variant::Nearest(input)) = query.query.and_then(|query| query.variant)
    else {
        return Err(Status::unimplemented("a query that is not for the nearest"));
    };
    let vector = match input.variant {
        Some(qdrant::vector_input::Variant::Dense(dense)) => VectorInternal::Dense(dense.data),
        Some(qdrant::vector_input::Variant::Sparse(sparse)) => {
            VectorInternal::Sparse(SparseVector {
                indices: sparse.indices,
                values: sparse.values,
            })
        }
        _ => return Err(Status::unimplemented("another vector")),
    };
    let points = shard
        .search(SearchRequest {
            query: QueryEnum::Nearest(NamedQuery::new(vector, using)),
            filter: query.filter.map(filter).transpose()?,
            params: None,
            limit: usize::try_from(query.limit.unwrap_or(10)).map_err(internal)?,
            offset: 0,
            with_payload: Some(WithPayloadInterface::Bool(false)),
            with_vector: Some(WithVector::Bool(false)),
            score_threshold: None,
        })
        .map_err(internal)?;
    let result = points
        .into_iter()
        .map(|point| ScoredPoint {
            id: Some(wire_id(point.id)),
            score: point.score,
            ..ScoredPoint::default()
        })
        .collect();
    Ok(BatchResult { result })
}

fn tell(lie: u8, lists: &mut Vec<BatchResult>) {
    let first = lists.first_mut().map(|list| &mut list.result);
    let Some(first) = first.filter(|list| !list.is_empty()) else {
        return;
    };
    match lie {
        lie if lie == Lie::UnknownRecords as u8 => {
            first[0].id = Some(qdrant::PointId::from(uuid::Uuid::from_u128(7).to_string()));
        }
        lie if lie == Lie::NotNumbers as u8 => first[0].score = f32::NAN,
        lie if lie == Lie::OneRecordTwice as u8 => first.push(first[0].clone()),
        lie if lie == Lie::TooFewLists as u8 => lists.clear(),
        lie if lie == Lie::Nothing as u8 => first.clear(),
        _ => {}
    }
}

fn point(point: qdrant::PointStruct) -> Result<PointStruct, Status> {
    let id = point_id(point.id)?;
    let options = point.vectors.and_then(|vectors| vectors.vectors_options);
    let Some(qdrant::vectors::VectorsOptions::Vectors(named)) = options else {
        return Err(Status::unimplemented("an unnamed vector"));
    };
    let mut vectors = Vec::new();
    for (name, vector) in named.vectors {
        let vector = match vector.vector {
            Some(qdrant::vector::Vector::Dense(dense)) => Vector::new_dense(dense.data),
            Some(qdrant::vector::Vector::Sparse(sparse)) => {
                Vector::new_sparse(sparse.indices, sparse.values).map_err(internal)?
            }
            _ => return Err(Status::unimplemented("another vector")),
        };
        vectors.push((name, vector));
    }
    let mut payload = serde_json::Map::new();
    for (field, value) in point.payload {
        let value = match value.kind {
            Some(qdrant::value::Kind::StringValue(text)) => text.into(),
            Some(qdrant::value::Kind::IntegerValue(number)) => number.into(),
            _ => return Err(Status::unimplemented("another payload")),
        };
        payload.insert(field, value);
    }
    let payload = serde_json::Value::Object(payload);
    Ok(PointStruct::new(id, Vectors::new_named(vectors), payload))
}

fn filter(filter: qdrant::Filter) -> Result<Filter, Status> {
    let mut conditions = Vec::new();
    for condition in filter.must {
        let Some(qdrant::condition::ConditionOneOf::Field(field)) = condition.condition_one_of
        else {
            return Err(Status::unimplemented("another condition"));
        };
        let path = field
            .key
            .parse()
            .map_err(|()| Status::invalid_argument("a path"))?;
        let matched = field.r#match.and_then(|matched| matched.match_value);
        let condition = match (matched, field.range) {
            (Some(qdrant::r#match::MatchValue::Keywords(any)), None) => {
                FieldCondition::new_match(path, Match::from(any.strings))
            }
            (None, Some(range)) => FieldCondition::new_range(
                path,
                Range {
                    lt: range.lt.map(OrderedFloat),
                    gt: range.gt.map(OrderedFloat),
                    gte: range.gte.map(OrderedFloat),
                    lte: range.lte.map(OrderedFloat),
                },
            ),
            _ => return Err(Status::unimplemented("another condition")),
        };
        conditions.push(Condition::Field(condition));
    }
    Ok(Filter {
        must: Some(conditions),
        ..Filter::new()
    })
}

fn point_id(id: Option<qdrant::PointId>) -> Result<PointId, Status> {
    match id.and_then(|id| id.point_id_options) {
        Some(qdrant::point_id::PointIdOptions::Uuid(id)) => uuid::Uuid::parse_str(&id)
            .map(PointId::Uuid)
            .map_err(internal),
        _ => Err(Status::unimplemented("a number as id")),
    }
}

fn wire_id(id: PointId) -> qdrant::PointId {
    match id {
        PointId::Uuid(id) => qdrant::PointId::from(id.to_string()),
        PointId::NumId(id) => qdrant::PointId::from(id),
    }
}

fn wire_payload(payload: Payload) -> HashMap<String, qdrant::Value> {
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => Some(qdrant::value::Kind::StringValue(text)),
        _ => None,
    };
    payload
        .0
        .into_iter()
        .map(|(field, value)| (field, qdrant::Value { kind: text(value) }))
        .collect()
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}
