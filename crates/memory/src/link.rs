//! How a [`crate::Memory`] reaches its store: it owns it, or asks who does.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    Embed, MemoryError, MemoryOptions, MemoryStats,
    directory::{self, Ownership},
    journal::CollectionId,
    query::Filter,
    record::ContentHash,
    socket::{Client, SocketServer},
    store::{Change, Found, Page, Question, Store},
};

/// How often a process without an owner looks whether there is one now.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// One way to a store.
// The fields are dropped in this order: the answers to others end before the store
// closes, and the store closes before others may have it.
pub(crate) struct Own {
    _server: Option<SocketServer>,
    store: Arc<Store>,
    _ownership: Option<Ownership>,
    _temporary: Option<TempDir>,
}

enum Way {
    Own(Own),
    Client(Client),
}

/// The way to a store, which can change while it is used.
pub(crate) struct Link {
    dir: PathBuf,
    embedder: String,
    dimension: usize,
    options: MemoryOptions,
    is_shared: bool,
    way: RwLock<Arc<Way>>,
    /// Held by the one that looks for a new way.
    relinking: Mutex<()>,
}

/// What every opening needs to know.
pub(crate) struct Opening<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) embed: &'a dyn Embed,
    pub(crate) options: &'a MemoryOptions,
}

impl Opening<'_> {
    /// Owns the store alone; it goes with the value if `temporary` is its directory.
    pub(crate) fn own(&self, temporary: Option<TempDir>) -> Result<Link, MemoryError> {
        let mut own = open_owned(self)?;
        own._temporary = temporary;
        Ok(self.link(Way::Own(own), false))
    }

    pub(crate) fn read_only(&self) -> Result<Link, MemoryError> {
        let copy = temporary_dir()?;
        let (_shared, prepared) = directory::inspect(self.dir, self.embed)?;
        let sizes = (self.embed.dimension(), self.options.clone());
        let store = Store::open_read_only(self.dir, copy.path(), &prepared, sizes)?;
        let own = Own {
            _server: None,
            store: Arc::new(store),
            _ownership: None,
            _temporary: Some(copy),
        };
        Ok(self.link(Way::Own(own), false))
    }

    /// Owns the store and serves it to others, or asks the one that does.
    pub(crate) fn shared(&self) -> Result<Link, MemoryError> {
        let way = find_way(self)?;
        Ok(self.link(way, true))
    }

    fn link(&self, way: Way, is_shared: bool) -> Link {
        Link {
            dir: self.dir.to_owned(),
            embedder: self.embed.identity(),
            dimension: self.embed.dimension(),
            options: self.options.clone(),
            is_shared,
            way: RwLock::new(Arc::new(way)),
            relinking: Mutex::new(()),
        }
    }
}

impl Link {
    pub(crate) fn differing(
        &self,
        collection: CollectionId,
        contents: &[(Uuid, ContentHash)],
    ) -> Result<Vec<bool>, MemoryError> {
        self.call(|way| match way {
            Way::Own(own) => Ok(own.store.differing(collection, contents)),
            Way::Client(client) => client.differing(collection, contents),
        })
    }

    pub(crate) fn change(&self, change: &Change) -> Result<u64, MemoryError> {
        self.call(|way| match way {
            Way::Own(own) => own.store.change(change.clone()),
            Way::Client(client) => client.change(change.clone()),
        })
    }

    pub(crate) fn search(&self, question: &Question) -> Result<Vec<Found>, MemoryError> {
        self.call(|way| match way {
            Way::Own(own) => own.store.search(question),
            Way::Client(client) => client.search(question.clone()),
        })
    }

    pub(crate) fn list(
        &self,
        collection: CollectionId,
        filter: &Filter,
        page: (Option<Uuid>, usize),
    ) -> Result<Page, MemoryError> {
        self.call(|way| match way {
            Way::Own(own) => own.store.list(collection, filter, page),
            Way::Client(client) => client.list(collection, filter, page),
        })
    }

    pub(crate) fn len(&self, collection: CollectionId) -> Result<usize, MemoryError> {
        self.call(|way| match way {
            Way::Own(own) => Ok(own.store.len(collection)),
            Way::Client(client) => client.len(collection),
        })
    }

    pub(crate) fn digest(&self) -> Result<[u8; 32], MemoryError> {
        self.call(|way| match way {
            Way::Own(own) => Ok(own.store.digest()),
            Way::Client(client) => client.digest(),
        })
    }

    pub(crate) fn stats(&self) -> Result<MemoryStats, MemoryError> {
        self.call(|way| match way {
            Way::Own(own) => Ok(own.store.stats()),
            Way::Client(client) => client.stats(),
        })
    }

    pub(crate) fn is_read_only(&self) -> bool {
        matches!(&*self.way(), Way::Own(own) if own.store.is_read_only())
    }

    pub(crate) fn is_owner(&self) -> bool {
        matches!(&*self.way(), Way::Own(own) if !own.store.is_read_only())
    }

    /// Calls, and if the owner has gone, finds another way and calls again.
    fn call<T>(&self, call: impl Fn(&Way) -> Result<T, MemoryError>) -> Result<T, MemoryError> {
        let until = Instant::now() + self.options.takeover_deadline;
        loop {
            let way = self.way();
            match call(&way) {
                Err(MemoryError::OwnerGone { .. }) if self.is_shared && Instant::now() < until => {
                    self.relink(&way)?;
                }
                other => return other,
            }
        }
    }

    fn way(&self) -> Arc<Way> {
        Arc::clone(&self.way.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn relink(&self, broken: &Arc<Way>) -> Result<(), MemoryError> {
        let _one = self
            .relinking
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&self.way(), broken) {
            return Ok(());
        }
        // Every embedder of this identity is the same to a store.
        let embed = NamedEmbedder {
            identity: &self.embedder,
            dimension: self.dimension,
        };
        let way = find_way(&Opening {
            dir: &self.dir,
            embed: &embed,
            options: &self.options,
        })?;
        *self.way.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(way);
        Ok(())
    }
}

/// Becomes the owner or connects to it, whichever succeeds first.
fn find_way(opening: &Opening<'_>) -> Result<Way, MemoryError> {
    let until = Instant::now() + opening.options.takeover_deadline;
    loop {
        let locked = match open_owned(opening) {
            Ok(mut own) => {
                let (embedder, dimension) = (opening.embed.identity(), opening.embed.dimension());
                let server = SocketServer::start(opening.dir, &own.store, embedder, dimension)?;
                own._server = Some(server);
                return Ok(Way::Own(own));
            }
            Err(error @ MemoryError::Locked { .. }) => error,
            Err(error) => return Err(error),
        };
        let (embedder, dimension) = (opening.embed.identity(), opening.embed.dimension());
        match Client::connect(opening.dir, embedder, dimension, opening.options) {
            Ok(client) => return Ok(Way::Client(client)),
            // It is just opening or closing, or does not share its store.
            Err(MemoryError::OwnerGone { .. }) if Instant::now() < until => {
                thread::sleep(LOOK_AGAIN);
            }
            Err(MemoryError::OwnerGone { .. }) => return Err(locked),
            Err(error) => return Err(error),
        }
    }
}

fn open_owned(opening: &Opening<'_>) -> Result<Own, MemoryError> {
    let ownership = Ownership::acquire(opening.dir)?;
    directory::check_free_space(opening.dir, opening.options.min_free_bytes)?;
    let prepared = directory::prepare(opening.dir, opening.embed)?;
    let dimension = opening.embed.dimension();
    let store = Store::open(opening.dir, prepared, dimension, opening.options.clone())?;
    Ok(Own {
        _server: None,
        store: Arc::new(store),
        _ownership: Some(ownership),
        _temporary: None,
    })
}

pub(crate) fn temporary_dir() -> Result<TempDir, MemoryError> {
    tempfile::Builder::new()
        .prefix("inwarden-memory-")
        .tempdir()
        .map_err(directory::io_error(
            "make a directory in",
            &std::env::temp_dir(),
        ))
}

/// Stands for the embedder where only its name and dimension matter.
struct NamedEmbedder<'a> {
    identity: &'a str,
    dimension: usize,
}

impl Embed for NamedEmbedder<'_> {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn identity(&self) -> String {
        self.identity.to_owned()
    }

    fn embed(&self, _texts: &[&str]) -> Result<Vec<Vec<f32>>, crate::EmbedError> {
        Err(crate::EmbedError {
            embedder: self.identity.to_owned(),
            reason: "opening a store embeds nothing".to_owned(),
        })
    }
}
