//! The Hugging Face hub through `hf-hub` 0.4.
//!
//! `hf-hub` runs on a thread of its own: it waits up to 30 s for a connection
//! and for ever for data, and some malformed answers make it panic. Here a
//! silent hub is given up after [`Hub::connect_timeout`] or
//! [`Hub::stall_timeout`], a panic becomes an error, and a file that is not of
//! the manifest's size is refused before it fills the disk. Its cache lies in
//! the work directory, never in the user's; its resume is not checked by it, so
//! the cache hashes the result and has it discarded when wrong.

use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use super::{Job, OnBytes, Source, SourceKind};
use crate::{HubEntry, ModelEntry, ModelError, Phase};

const POLL_EVERY: Duration = Duration::from_millis(100);

/// The hub as a source.
#[derive(Debug)]
pub(crate) struct Hub {
    /// Another server than the public one; the tests' own.
    pub(crate) endpoint: Option<String>,
    /// How long until the hub has told the file's size.
    pub(crate) connect_timeout: Duration,
    /// How long it may then send nothing.
    pub(crate) stall_timeout: Duration,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            endpoint: None,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

impl Source for Hub {
    fn kind(&self) -> SourceKind {
        SourceKind::Hub
    }

    fn offers(&self, model: &ModelEntry) -> bool {
        model.hub.is_some()
    }

    fn fetch(&self, job: &Job<'_>, on_bytes: OnBytes<'_>) -> Result<PathBuf, ModelError> {
        let Some(entry) = &job.model.hub else {
            let id = job.model.id.clone();
            return Err(ModelError::SourceNotOffered {
                id,
                from: SourceKind::Hub,
            });
        };
        let dir = job.work.join("hub");
        let repo = repo(entry);
        // Links of an attempt whose blob was moved away would be in the way.
        remove_all(&dir.join(repo.folder_name()).join("snapshots"))?;
        fs::create_dir_all(&dir).map_err(|error| ModelError::io("create", &dir, error))?;

        let watch = Arc::new(Watch {
            size: job.file.size,
            ..Watch::default()
        });
        let download = Download {
            endpoint: self.endpoint.clone(),
            dir: dir.clone(),
            repo,
            file: job.file.name.clone(),
            watch: Arc::clone(&watch),
        };
        let thread = thread::Builder::new()
            .name("inwarden-hub".to_owned())
            .spawn(move || download.run())
            .map_err(|error| ModelError::io("start a thread for", &dir, error))?;
        self.wait(job, &watch, &|| thread.is_finished(), on_bytes)?;
        match thread.join() {
            Ok(Ok(path)) => inside(&dir, &path),
            Ok(Err(error)) => Err(describe(error, &dir)),
            Err(_) => Err(watch.why_it_stopped(&dir.join(&job.file.name))),
        }
    }

    fn discard(&self, job: &Job<'_>) {
        if let Err(error) = remove_all(&job.work.join("hub")) {
            tracing::warn!(%error, "cannot discard a download");
        }
    }
}

impl Hub {
    /// Waits for the thread, or gives it up. An abandoned one ends by itself at
    /// its next byte or at `hf-hub`'s own connection timeout.
    fn wait(
        &self,
        job: &Job<'_>,
        watch: &Watch,
        is_finished: &dyn Fn() -> bool,
        on_bytes: OnBytes<'_>,
    ) -> Result<(), ModelError> {
        let mut last = (Instant::now(), 0);
        while !is_finished() {
            thread::sleep(POLL_EVERY);
            let bytes = watch.bytes.load(Ordering::Relaxed);
            if bytes != last.1 {
                last = (Instant::now(), bytes);
                on_bytes(Phase::Download, bytes);
            }
            let silent = last.0.elapsed();
            if watch.started.load(Ordering::Relaxed) {
                if silent > self.stall_timeout {
                    watch.cancelled.store(true, Ordering::Relaxed);
                    let file = job.file.name.clone();
                    return Err(ModelError::Stalled {
                        from: SourceKind::Hub,
                        file,
                        after: silent,
                    });
                }
            } else if silent > self.connect_timeout {
                watch.cancelled.store(true, Ordering::Relaxed);
                let detail = format!("no answer within {} s", self.connect_timeout.as_secs());
                return Err(ModelError::Unreachable {
                    from: SourceKind::Hub,
                    detail,
                });
            }
        }
        Ok(())
    }
}

/// What the downloading thread and the waiting one share.
#[derive(Debug, Default)]
struct Watch {
    /// The only size accepted, in bytes.
    size: u64,
    started: AtomicBool,
    cancelled: AtomicBool,
    bytes: AtomicU64,
    /// The size that was refused; 0 if none was.
    refused_size: AtomicU64,
}

impl Watch {
    fn why_it_stopped(&self, path: &Path) -> ModelError {
        match self.refused_size.load(Ordering::Relaxed) {
            0 => ModelError::Unreachable {
                from: SourceKind::Hub,
                detail: "it sent an answer that its client could not read".to_owned(),
            },
            got_bytes => ModelError::WrongSize {
                path: path.to_owned(),
                expected_bytes: self.size,
                got_bytes,
                deleted: true,
            },
        }
    }
}

struct Download {
    endpoint: Option<String>,
    dir: PathBuf,
    repo: Repo,
    file: String,
    watch: Arc<Watch>,
}

impl Download {
    fn run(self) -> Result<PathBuf, ApiError> {
        let mut builder = ApiBuilder::from_cache(Cache::new(self.dir))
            .with_progress(false)
            .with_token(None)
            .with_retries(0);
        if let Some(endpoint) = self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let watcher = Watcher { watch: self.watch };
        builder
            .build()?
            .repo(self.repo)
            .download_with_progress(&self.file, watcher)
    }
}

struct Watcher {
    watch: Arc<Watch>,
}

impl Watcher {
    /// Ends the thread: the trait has no other way out. `resume_unwind` does so
    /// without the panic hook, and the thread's owner sees it in `join`.
    fn refuse(&self, size: u64) -> ! {
        self.watch.refused_size.store(size, Ordering::Relaxed);
        resume_unwind(Box::new("refused"))
    }
}

impl hf_hub::api::Progress for Watcher {
    fn init(&mut self, size: usize, _filename: &str) {
        let size = size as u64;
        if size != self.watch.size {
            self.refuse(size);
        }
        self.watch.bytes.store(0, Ordering::Relaxed);
        self.watch.started.store(true, Ordering::Relaxed);
    }

    fn update(&mut self, size: usize) {
        let done = self.watch.bytes.fetch_add(size as u64, Ordering::Relaxed) + size as u64;
        if self.watch.cancelled.load(Ordering::Relaxed) {
            resume_unwind(Box::new("cancelled"));
        }
        if done > self.watch.size {
            self.refuse(done);
        }
    }

    fn finish(&mut self) {}
}

fn repo(entry: &HubEntry) -> Repo {
    Repo::with_revision(entry.repo.clone(), RepoType::Model, entry.revision.clone())
}

/// The file behind the link that `hf-hub` returns, which must lie in its cache.
fn inside(dir: &Path, path: &Path) -> Result<PathBuf, ModelError> {
    let resolve = |path: &Path| {
        path.canonicalize()
            .map_err(|error| ModelError::io("find the download", path, error))
    };
    let file = resolve(path)?;
    if file.starts_with(resolve(dir)?) {
        return Ok(file);
    }
    Err(ModelError::Unreachable {
        from: SourceKind::Hub,
        detail: format!(
            "its client left the file outside its cache, at {}",
            file.display()
        ),
    })
}

fn describe(error: ApiError, dir: &Path) -> ModelError {
    let detail = error.to_string();
    match error {
        ApiError::IoError(error) => match ModelError::io("write", dir, error) {
            full @ ModelError::DiskFull { .. } => full,
            _ => ModelError::Unreachable {
                from: SourceKind::Hub,
                detail,
            },
        },
        // The half-finished file is longer than the real one.
        ApiError::InvalidResume => ModelError::BadDownload {
            path: dir.to_owned(),
            problem: detail,
        },
        _ => ModelError::Unreachable {
            from: SourceKind::Hub,
            detail,
        },
    }
}

fn remove_all(dir: &Path) -> Result<(), ModelError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ModelError::io("remove", dir, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
