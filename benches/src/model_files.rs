//! Which files are measured.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use inwarden_models::{CacheDirQuery, ModelCache, default_cache_dir};
use serde_json::{Value, json};

#[derive(Args, Clone, Debug)]
pub(crate) struct ModelChoice {
    /// Model id.
    #[arg(long, default_value = "qwen2.5-coder-0.5b-instruct-q4_k_m")]
    pub(crate) model: String,
    /// A model file, or the parts of a split one in order, in place of an id.
    #[arg(long = "file", value_name = "FILE", conflicts_with = "model")]
    pub(crate) files: Vec<PathBuf>,
}

/// The files of a model.
#[derive(Clone, Debug)]
pub(crate) struct ModelFiles {
    pub(crate) name: String,
    pub(crate) files: Vec<PathBuf>,
    /// Of each file; empty for files that are in no manifest.
    pub(crate) sha256: Vec<String>,
    pub(crate) bytes: u64,
}

impl ModelChoice {
    pub(crate) fn locate(&self) -> anyhow::Result<ModelFiles> {
        let (name, files, sha256) = match self.files.first() {
            Some(first) => (first.display().to_string(), self.files.clone(), Vec::new()),
            None => {
                let found = cache()?.locate(&self.model)?;
                let sha256 = found.sha256.iter().map(ToString::to_string).collect();
                (self.model.clone(), found.files, sha256)
            }
        };
        let mut bytes = 0;
        for file in &files {
            let metadata = std::fs::metadata(file);
            bytes += metadata.with_context(|| file.display().to_string())?.len();
        }
        Ok(ModelFiles {
            name,
            files,
            sha256,
            bytes,
        })
    }
}

impl ModelFiles {
    pub(crate) fn describe(&self) -> Value {
        json!({
            "model": self.name,
            "model_sha256": self.sha256,
            "model_file_bytes": self.bytes,
        })
    }
}

/// The cache that `INWARDEN_MODELS`, `XDG_CACHE_HOME` or `HOME` names.
pub(crate) fn cache() -> anyhow::Result<ModelCache> {
    let dir = default_cache_dir(CacheDirQuery {
        inwarden_models: std::env::var_os("INWARDEN_MODELS"),
        xdg_cache_home: std::env::var_os("XDG_CACHE_HOME"),
        home: std::env::var_os("HOME"),
    });
    Ok(ModelCache::at(dir.context("set INWARDEN_MODELS or HOME")?))
}
