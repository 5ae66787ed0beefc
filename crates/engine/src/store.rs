//! Opens the store of precedents that a configuration names.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use inwarden_classifier::{MiniLmEmbed, seed_memory, shipped_data_hash};
use inwarden_inference::Embedder;
use inwarden_memory::{Memory, MemoryError, MemoryOptions, ServerOptions};
use inwarden_models::ModelCache;

use crate::{EngineError, MemoryPlace};

/// The embedding model precedents are searched with.
pub const EMBEDDING_MODEL: &str = "all-minilm-l6-v2";

/// How long one process waits for another that is embedding the precedents.
const SEEDING_LIMIT: Duration = Duration::from_secs(120);

/// How often it looks.
const SEEDING_CHECK: Duration = Duration::from_millis(100);

/// Opens it without a server. If others are meant to use one, it catches up with what
/// is written here as soon as one of them owns the store.
pub(crate) fn open(
    place: &MemoryPlace,
    models: &ModelCache,
) -> Result<Option<Memory>, EngineError> {
    open_with_server(place, None, models)
}

pub(crate) fn open_with_server(
    place: &MemoryPlace,
    server: Option<&ServerOptions>,
    models: &ModelCache,
) -> Result<Option<Memory>, EngineError> {
    if matches!(place, MemoryPlace::Off) {
        return Ok(None);
    }
    let embedder = load_embedder(models)?;
    let memory = match place {
        MemoryPlace::Shipped(parent) => {
            // A store of other data or another release is another directory.
            let dir = parent.join(shipped_data_hash()?);
            return open_shipped(&dir, &embedder).map(Some);
        }
        MemoryPlace::Directory(dir) => open_own(dir, embedder, server)?,
        _ => Memory::ephemeral(embedder)?,
    };
    seed_memory(&memory)?;
    Ok(Some(memory))
}

/// The store in `dir` as it is: whoever judges with it first puts what is shipped into
/// it.
pub(crate) fn open_unseeded(dir: &Path, models: &ModelCache) -> Result<Memory, EngineError> {
    open_own(dir, load_embedder(models)?, None)
}

/// Others of this user on this host may use it at the same time.
fn open_own(
    dir: &Path,
    embedder: Arc<MiniLmEmbed>,
    server: Option<&ServerOptions>,
) -> Result<Memory, EngineError> {
    let options = MemoryOptions {
        server: server.cloned(),
        ..MemoryOptions::default()
    };
    Ok(Memory::open_shared(dir, embedder, options)?)
}

fn load_embedder(models: &ModelCache) -> Result<Arc<MiniLmEmbed>, EngineError> {
    let files = models.locate(EMBEDDING_MODEL)?;
    let embedder = Embedder::load(&files.dir)?;
    Ok(Arc::new(MiniLmEmbed::new(embedder, EMBEDDING_MODEL)))
}

fn open_shipped(dir: &Path, embedder: &Arc<MiniLmEmbed>) -> Result<Memory, EngineError> {
    let done = dir.join("seeded");
    let limit = Instant::now() + SEEDING_LIMIT;
    loop {
        let opened = if done.exists() {
            Memory::open_read_only(dir, embedder.clone(), MemoryOptions::default())
                .map_err(EngineError::from)
        } else {
            seed(dir, embedder, &done)
        };
        match opened {
            Err(EngineError::Memory(MemoryError::Locked { .. })) if Instant::now() < limit => {
                std::thread::sleep(SEEDING_CHECK);
            }
            other => return other,
        }
    }
}

/// Fills the store; the mark comes last, so that a half-filled one is filled on.
fn seed(dir: &Path, embedder: &Arc<MiniLmEmbed>, done: &Path) -> Result<Memory, EngineError> {
    let memory = Memory::open(dir, embedder.clone(), MemoryOptions::default())?;
    seed_memory(&memory)?;
    drop(memory);
    std::fs::write(done, b"").map_err(|source| {
        EngineError::Memory(MemoryError::Io {
            action: "mark as seeded",
            path: done.to_owned(),
            source,
        })
    })?;
    Ok(Memory::open_read_only(
        dir,
        embedder.clone(),
        MemoryOptions::default(),
    )?)
}
