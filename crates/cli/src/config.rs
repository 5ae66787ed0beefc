//! The configuration file, the environment, and the command line, in rising
//! order of precedence.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use inwarden::{
    Analyst, AnalystConfig, EngineError, Feedback, MemoryPlace, ModelDevice, PolicySource,
    RuleChoice,
    models::{CacheDirQuery, ModelCache},
};
use serde::Deserialize;

use crate::{
    Misuse,
    arguments::{Arguments, StageName},
};

/// The largest policy file that is read, in bytes.
const MAX_POLICY_BYTES: u64 = 1 << 20;

/// What a configuration file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Id of the language model.
    model: Option<String>,
    /// Directory of model files.
    models_dir: Option<PathBuf>,
    /// Directory of the precedent store.
    memory_dir: Option<PathBuf>,
    /// Directory of audit logs and recordings.
    state_dir: Option<PathBuf>,
    /// Cedar policy files; instead of the shipped ones.
    #[serde(default)]
    policies: Vec<PathBuf>,
    /// Threads of the model, 1 to 256.
    threads: Option<usize>,
    /// Where the language model runs: `cpu`, or `cuda:0` for the first card.
    device: Option<String>,
}

/// Everything resolved.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) models: Arc<ModelCache>,
    pub(crate) state_dir: PathBuf,
    analyst: AnalystConfig,
}

impl Config {
    pub(crate) fn resolve(arguments: &Arguments) -> anyhow::Result<Self> {
        let file = match &arguments.config {
            None => File::default(),
            Some(path) => read_file(path)?,
        };
        let models_dir = match file.models_dir {
            Some(dir) => dir,
            None => inwarden::models::default_cache_dir(CacheDirQuery {
                inwarden_models: std::env::var_os("INWARDEN_MODELS"),
                xdg_cache_home: std::env::var_os("XDG_CACHE_HOME"),
                home: std::env::var_os("HOME"),
            })
            .context("no place for model files: set INWARDEN_MODELS or HOME")
            .context(Misuse)?,
        };
        let models = Arc::new(ModelCache::at(models_dir));
        let mut analyst = AnalystConfig::new(Arc::clone(&models));
        if let Some(model) = arguments.model.clone().or(file.model) {
            analyst.model = Some(model);
        }
        if let Some(dir) = arguments.memory.clone().or(file.memory_dir) {
            analyst.memory = MemoryPlace::Directory(dir);
        }
        for stage in &arguments.without {
            match stage {
                StageName::Rules => analyst.rules = RuleChoice::Off,
                StageName::Precedents => analyst.memory = MemoryPlace::Off,
                StageName::Model => analyst.model = None,
            }
        }
        for path in &file.policies {
            analyst.policies.push(read_policy(path)?);
        }
        if let Some(threads) = file.threads {
            analyst.load.threads = std::num::NonZeroUsize::new(threads)
                .filter(|threads| threads.get() <= 256)
                .ok_or_else(|| anyhow!("threads = {threads}: allowed are 1 to 256"))
                .context(Misuse)?;
        }
        if let Some(device) = file.device {
            analyst.device = device.parse::<ModelDevice>().context(Misuse)?;
        }
        Ok(Self {
            models,
            state_dir: file.state_dir.unwrap_or_else(default_state_dir),
            analyst,
        })
    }

    /// Loads the models, rules and policies; takes seconds.
    pub(crate) fn load_analyst(&self) -> anyhow::Result<Analyst> {
        Ok(Analyst::load(&self.analyst)?)
    }

    /// Opens the store for corrections; takes a second for its embedder.
    pub(crate) fn open_feedback(&self) -> Result<Feedback, EngineError> {
        Feedback::open(&self.analyst)
    }

    /// The ids of the models this configuration uses.
    pub(crate) fn model_ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        if !matches!(self.analyst.memory, MemoryPlace::Off) {
            ids.push(inwarden::EMBEDDING_MODEL.to_owned());
        }
        ids.extend(self.analyst.model.clone());
        ids
    }
}

fn read_file(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("configuration {} cannot be read", path.display()))
        .context(Misuse)?;
    toml::from_str(&text)
        .with_context(|| format!("configuration {}", path.display()))
        .context(Misuse)
}

fn read_policy(path: &Path) -> anyhow::Result<PolicySource> {
    let read = || {
        let size = std::fs::metadata(path)?.len();
        if size > MAX_POLICY_BYTES {
            bail!("{size} bytes, allowed are {MAX_POLICY_BYTES}");
        }
        Ok(std::fs::read_to_string(path)?)
    };
    let text = read()
        .with_context(|| format!("policy {} cannot be read", path.display()))
        .context(Misuse)?;
    Ok(PolicySource {
        name: path.display().to_string(),
        text,
    })
}

fn default_state_dir() -> PathBuf {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("inwarden")
}
