//! Stores to check, with and without a server, and the server they use.

use std::{path::Path, time::Duration};

use inwarden_memory::{ByCollection, Memory, MemoryOptions, ServerKey, ServerOptions};
use qdrant_client::{
    Qdrant,
    qdrant::{
        DeletePoints, PointsIdsList, PointsSelector, ScrollPoints,
        points_selector::PointsSelectorOneOf,
    },
};
use tempfile::TempDir;

use crate::{
    service::Service,
    support::{HashingEmbed, wait_until},
};

/// The server of this run.
pub(crate) struct TestServer {
    url: String,
    key: Option<String>,
    /// None if it is a server that somebody named.
    pub(crate) service: Option<Service>,
    prefix: String,
}

impl TestServer {
    /// The server that the environment names, or a service of our own.
    pub(crate) fn find() -> Self {
        let prefix = format!("inwarden-test-{}", std::process::id());
        let named = std::env::var("INWARDEN_TEST_QDRANT_URL").ok();
        match named.filter(|url| !url.is_empty()) {
            Some(url) => Self {
                url,
                key: std::env::var("INWARDEN_TEST_QDRANT_KEY").ok(),
                service: None,
                prefix,
            },
            None => {
                let service = Service::start(None);
                Self {
                    url: format!("http://{}", service.address),
                    key: None,
                    service: Some(service),
                    prefix,
                }
            }
        }
    }

    pub(crate) fn description(&self) -> String {
        match &self.service {
            Some(_) => "server: qdrant-client's generated gRPC service over an embedded shard, in \
                        this process (INWARDEN_TEST_QDRANT_URL is not set)"
                .to_owned(),
            None => {
                let version = block_on(async {
                    let health = self.client().health_check().await;
                    health.map_or_else(|_| "?".to_owned(), |health| health.version)
                });
                format!(
                    "server: Qdrant {version} at {} (INWARDEN_TEST_QDRANT_URL)",
                    self.url
                )
            }
        }
    }

    /// Host and port, unless it is reached through TLS.
    pub(crate) fn clear_address(&self) -> Option<&str> {
        self.url.trim_end_matches('/').strip_prefix("http://")
    }

    pub(crate) fn options(&self) -> ServerOptions {
        self.options_through(&self.url)
    }

    /// The same server reached by another address.
    pub(crate) fn options_through(&self, url: &str) -> ServerOptions {
        let options = ServerOptions::new(url).expect("the address is one");
        let mut options = options
            .with_collection_prefix(&self.prefix)
            .expect("the prefix is one");
        options.api_key = self
            .key
            .as_deref()
            .map(|key| ServerKey::new(key).expect("the key is one"));
        options.retry_after = Duration::from_millis(50);
        // What is measured here is not speed, and machines are loaded.
        options.search_deadline = Duration::from_secs(10);
        options
    }

    /// Removes a collection behind the back of the stores.
    pub(crate) fn drop_collection(&self, name: &str) {
        let name = format!("{}-{name}", self.prefix);
        block_on(async {
            let dropped = self.client().delete_collection(name).await;
            dropped.expect("the collection can be removed");
        });
    }

    /// Removes one point of a collection with another prefix behind the back of the
    /// store.
    pub(crate) fn remove_one_point(&self, collection: &str) {
        block_on(async {
            let client = self.client();
            let scroll = ScrollPoints {
                collection_name: collection.to_owned(),
                limit: Some(1),
                ..ScrollPoints::default()
            };
            let page = client.scroll(scroll).await.expect("it lists");
            let ids = page.result.into_iter().filter_map(|point| point.id);
            let points = PointsSelectorOneOf::Points(PointsIdsList { ids: ids.collect() });
            let delete = DeletePoints {
                collection_name: collection.to_owned(),
                wait: Some(true),
                points: Some(PointsSelector {
                    points_selector_one_of: Some(points),
                }),
                ..DeletePoints::default()
            };
            client.delete_points(delete).await.expect("it removes");
        });
    }

    /// Removes what a store with another prefix made.
    pub(crate) fn drop_all(&self, prefix: &str) {
        block_on(async {
            for name in ["precedents", "knowledge", "baselines"] {
                let client = self.client();
                let dropped = client.delete_collection(format!("{prefix}-{name}"));
                dropped.await.expect("the collection can be removed");
            }
        });
    }

    pub(crate) fn clean_up(&self) {
        self.drop_all(&self.prefix);
    }

    fn client(&self) -> Qdrant {
        Qdrant::from_url(&self.url)
            .api_key(self.key.clone())
            .skip_compatibility_check()
            .build()
            .expect("a client can be made")
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts")
        .block_on(future)
}

/// What answers the searches of a store.
pub(crate) enum Backend {
    Embedded,
    Server(ServerOptions),
}

impl Backend {
    pub(crate) fn subject(&self) -> Subject {
        let dir = tempfile::tempdir().expect("there is a place for a store");
        let memory = self.open(dir.path());
        Subject {
            memory,
            is_server: matches!(self, Self::Server(_)),
            _dir: dir,
        }
    }

    pub(crate) fn open(&self, dir: &Path) -> Memory {
        let server = match self {
            Self::Embedded => None,
            Self::Server(server) => Some(server.clone()),
        };
        let options = MemoryOptions {
            server,
            ..MemoryOptions::default()
        };
        Memory::open(dir, HashingEmbed::new(), options).expect("the store opens")
    }
}

/// An open store.
pub(crate) struct Subject {
    pub(crate) memory: Memory,
    is_server: bool,
    _dir: TempDir,
}

impl Subject {
    /// Searches, and makes sure that the index in question answered.
    pub(crate) fn search<T>(&self, search: impl FnOnce(&Memory) -> T) -> T {
        if self.is_server {
            wait_caught_up(&self.memory);
        }
        let before = self.memory.stats().expect("we own it");
        let found = search(&self.memory);
        let after = self.memory.stats().expect("we own it");
        let answered = after.server_searches > before.server_searches;
        assert_eq!(answered, self.is_server, "{after:?}");
        assert_eq!(after.server_fallbacks, before.server_fallbacks, "{after:?}");
        found
    }
}

pub(crate) fn wait_caught_up(memory: &Memory) {
    wait_until("the server has caught up", || {
        let stats = memory.stats().expect("we own it");
        stats.server_answers && stats.server_lacks == ByCollection::default()
    });
}
