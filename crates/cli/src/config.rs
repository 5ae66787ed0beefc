//! The configuration file, the environment, and the command line, in rising
//! order of precedence.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use inwarden::{
    Analyst, AnalystConfig, EngineError, Feedback, Knowledge, MemoryPlace, MemoryServer,
    MemoryServerKey, ModelDevice, PolicySource, RuleChoice,
    models::{CacheDirQuery, ModelCache},
};
use serde::Deserialize;

use crate::{
    Misuse,
    arguments::{Arguments, StageName},
};

/// The largest policy file that is read, in bytes.
const MAX_POLICY_BYTES: u64 = 1 << 20;

/// How much of the file of a server's key is read, in bytes.
const MAX_KEY_FILE_BYTES: u64 = 8 * 1024;

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
    /// Address of a Qdrant server's gRPC interface that indexes the store in
    /// `memory_dir`, such as `https://qdrant.example:6334`.
    memory_server: Option<String>,
    /// File that holds its key.
    memory_server_key_file: Option<PathBuf>,
    /// Start of the names of its collections; default: `inwarden`.
    memory_server_prefix: Option<String>,
    /// Directory of audit logs and recordings.
    state_dir: Option<PathBuf>,
    /// Directory of what was learnt; default: one for each model in `state_dir`.
    learned_dir: Option<PathBuf>,
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
    /// Where what was learnt for the model is looked for; `None` without a model.
    pub(crate) learned_dir: Option<PathBuf>,
    analyst: AnalystConfig,
}

impl Config {
    pub(crate) fn resolve(arguments: &Arguments) -> anyhow::Result<Self> {
        let file = match &arguments.config {
            None => File::default(),
            Some(path) => read_file(path)?,
        };
        let memory_server = memory_server(&file)?;
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
        if memory_server.is_some() && !matches!(analyst.memory, MemoryPlace::Directory(_)) {
            return Err(anyhow!("memory_server needs memory_dir")).context(Misuse);
        }
        analyst.memory_server = memory_server;
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
        let state_dir = file.state_dir.unwrap_or_else(default_state_dir);
        let learned_dir = analyst.model.as_ref().map(|model| {
            let named = file.learned_dir;
            named.unwrap_or_else(|| state_dir.join("learned").join(model))
        });
        analyst.learned.clone_from(&learned_dir);
        Ok(Self {
            models,
            state_dir,
            learned_dir,
            analyst,
        })
    }

    /// Loads the models, rules and policies; takes seconds.
    pub(crate) fn load_analyst(&self) -> anyhow::Result<Analyst> {
        Ok(Analyst::load(&self.analyst)?)
    }

    /// Opens the store for imports; takes a second for its embedder.
    pub(crate) fn open_knowledge(&self) -> Result<Knowledge, EngineError> {
        Knowledge::open(&self.analyst)
    }

    /// Opens the store for corrections; takes a second for its embedder.
    pub(crate) fn open_feedback(&self) -> Result<Feedback, EngineError> {
        Feedback::open(&self.analyst)
    }

    /// What an analyst of this configuration is made of.
    pub(crate) fn analyst(&self) -> &AnalystConfig {
        &self.analyst
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

fn memory_server(file: &File) -> anyhow::Result<Option<MemoryServer>> {
    let Some(url) = &file.memory_server else {
        if file.memory_server_key_file.is_some() || file.memory_server_prefix.is_some() {
            return Err(anyhow!("a key or prefix needs memory_server")).context(Misuse);
        }
        return Ok(None);
    };
    let mut server = MemoryServer::new(url)
        .context("memory_server")
        .context(Misuse)?;
    if let Some(prefix) = &file.memory_server_prefix {
        server = server
            .with_collection_prefix(prefix)
            .context("memory_server_prefix")
            .context(Misuse)?;
    }
    if let Some(path) = &file.memory_server_key_file {
        server.api_key = Some(
            read_key(path)
                .with_context(|| format!("memory_server_key_file {}", path.display()))
                .context(Misuse)?,
        );
    }
    Ok(Some(server))
}

fn read_key(path: &Path) -> anyhow::Result<MemoryServerKey> {
    let mut key = String::new();
    std::fs::File::open(path)?
        .take(MAX_KEY_FILE_BYTES)
        .read_to_string(&mut key)?;
    Ok(MemoryServerKey::new(&key)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_server_is_checked_and_its_key_comes_from_a_file() {
        let key = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(key.path(), "hush-hush\n").unwrap();
        let server = |text: &str| {
            let text = text.replace("KEY", &key.path().display().to_string());
            memory_server(&toml::from_str(&text).unwrap())
        };
        assert!(server("").unwrap().is_none());
        let good = server(
            "memory_server = 'https://qdrant.example:6334'\nmemory_server_key_file = 'KEY'\n\
             memory_server_prefix = 'ours'",
        );
        let good = good.unwrap().unwrap();
        assert_eq!(good.url(), "https://qdrant.example:6334");
        assert_eq!(good.collection_prefix(), "ours");
        assert!(good.api_key.is_some());
        assert!(!format!("{good:?}").contains("hush"));
        for bad in [
            "memory_server = 'qdrant.example'",
            "memory_server = 'http://a'\nmemory_server_prefix = 'a/b'",
            "memory_server = 'http://a'\nmemory_server_key_file = '/nonexistent/key'",
            "memory_server_key_file = 'KEY'",
        ] {
            let error = format!("{:#}", server(bad).unwrap_err());
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
