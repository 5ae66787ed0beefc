//! Keyword arguments to an analyst.

use std::path::PathBuf;

use inwarden::{
    Analyst, AnalystConfig, MemoryPlace, ModelDevice, PolicySource, RuleChoice,
    models::{CacheDirQuery, ModelCache, default_cache_dir},
    types::Mode,
};
use pyo3::{
    conversion::FromPyObjectOwned,
    exceptions::{PyKeyError, PyTypeError},
    prelude::*,
    types::PyDict,
};

use crate::errors::{ConfigurationError, exception, file_exception};

/// What a guard and a replay have in common.
pub(crate) struct AnalystOptions {
    model: Option<String>,
    models_dir: Option<PathBuf>,
    memory_dir: Option<PathBuf>,
    policies: Vec<PathBuf>,
    without: Vec<String>,
    device: String,
}

/// The value of `options[name]`; one that does not fit is an error that names
/// the option, as a user wrote it.
pub(crate) fn option<'py, T: FromPyObjectOwned<'py>>(
    options: &Bound<'py, PyDict>,
    name: &'static str,
) -> PyResult<T> {
    let value = options
        .get_item(name)?
        .ok_or_else(|| PyKeyError::new_err(name))?;
    let extracted: PyResult<T> = value.extract().map_err(Into::into);
    extracted.map_err(|error| {
        let message = format!("{name}: {}", error.value(options.py()));
        if error.is_instance_of::<PyTypeError>(options.py()) {
            PyTypeError::new_err(message)
        } else {
            ConfigurationError::new_err(message)
        }
    })
}

impl AnalystOptions {
    pub(crate) fn read(options: &Bound<'_, PyDict>) -> PyResult<Self> {
        Ok(Self {
            model: option(options, "model")?,
            models_dir: option(options, "models_dir")?,
            memory_dir: option(options, "memory_dir")?,
            policies: option(options, "policies")?,
            without: option(options, "without")?,
            device: option(options, "device")?,
        })
    }

    fn into_config(self) -> PyResult<AnalystConfig> {
        let dir = self.models_dir.or_else(|| {
            default_cache_dir(CacheDirQuery {
                inwarden_models: std::env::var_os("INWARDEN_MODELS"),
                xdg_cache_home: std::env::var_os("XDG_CACHE_HOME"),
                home: std::env::var_os("HOME"),
            })
        });
        let dir = dir.ok_or_else(|| {
            ConfigurationError::new_err("no place for model files: pass models_dir or set HOME")
        })?;
        let mut config = AnalystConfig::new(ModelCache::at(dir));
        if self.model.is_some() {
            config.model = self.model;
        }
        config.device = self.device.parse::<ModelDevice>().map_err(|_| {
            ConfigurationError::new_err(format!(
                "device={:?}: allowed are 'cpu', and 'cuda:0' for the first card",
                self.device
            ))
        })?;
        if let Some(dir) = self.memory_dir {
            config.memory = MemoryPlace::Directory(dir);
        }
        for path in self.policies {
            let text =
                std::fs::read_to_string(&path).map_err(|error| file_exception(&path, &error))?;
            config.policies.push(PolicySource {
                name: path.display().to_string(),
                text,
            });
        }
        for stage in self.without {
            match stage.as_str() {
                "model" => config.model = None,
                "rules" => config.rules = RuleChoice::Off,
                "precedents" => config.memory = MemoryPlace::Off,
                other => {
                    return Err(ConfigurationError::new_err(format!(
                        "without={other:?}: allowed are 'model', 'rules', 'precedents'"
                    )));
                }
            }
        }
        Ok(config)
    }
}

/// Loads an analyst; takes seconds, so call it with the GIL released.
pub(crate) fn load(options: AnalystOptions) -> PyResult<Analyst> {
    Analyst::load(&options.into_config()?).map_err(|error| exception(&error))
}

/// `'enforce'` or `'monitor'`.
pub(crate) fn mode(name: &str) -> PyResult<Mode> {
    [Mode::Enforce, Mode::Monitor]
        .into_iter()
        .find(|mode| mode.name() == name)
        .ok_or_else(|| {
            ConfigurationError::new_err(format!("mode={name:?}: allowed are 'enforce', 'monitor'"))
        })
}
