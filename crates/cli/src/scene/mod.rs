//! Scenes: a directory with `scene.toml` and plain scripts.
//!
//! The form, and what `run.sh` must do, is described in
//! `examples/scenes/README.md`. A scene carries no labels: what is said about
//! its processes comes from the engine, what is said about its outcome from the
//! files that the scene itself left behind.

mod observe;
pub(crate) mod play;
pub(crate) mod replay;
pub(crate) mod summary;

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use inwarden::types::CgroupId;
use serde::Deserialize;

use crate::Misuse;

/// The form of `scene.toml` this program reads.
const SCHEMA: &str = "inwarden.scene/1";

/// A scene, read from its directory.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scene {
    schema: String,
    pub(crate) name: String,
    pub(crate) title: String,
    run: PathBuf,
    /// When a play is ended at the latest, in seconds.
    limit_s: u64,
    #[serde(default, rename = "step")]
    pub(crate) steps: Vec<Step>,
    #[serde(default, rename = "observe")]
    pub(crate) observations: Vec<Observation>,
    #[serde(skip)]
    pub(crate) dir: PathBuf,
}

/// One part of the play.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    pub(crate) id: String,
    pub(crate) title: String,
    /// The script that is run: an exec event that names it makes the step
    /// visible.
    pub(crate) script: String,
}

/// One fact to read from a file of the state directory after a play.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Observation {
    pub(crate) title: String,
    pub(crate) file: PathBuf,
    pub(crate) kind: ObservationKind,
    /// For `count-lines`: only lines after the first that contains this.
    pub(crate) after: Option<String>,
    /// For `sequence`: the last number.
    pub(crate) expected: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ObservationKind {
    ContainsCanary,
    CountLines,
    Sequence,
}

impl Scene {
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("scene.toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("scene {} cannot be read", path.display()))
            .context(Misuse)?;
        let mut scene: Self = toml::from_str(&text)
            .with_context(|| format!("scene {}", path.display()))
            .context(Misuse)?;
        if scene.schema != SCHEMA {
            let found = &scene.schema;
            return Err(anyhow::anyhow!(
                "schema is {found:?}, this program reads {SCHEMA:?}"
            ))
            .context(Misuse);
        }
        scene.dir = std::fs::canonicalize(dir)?;
        Ok(scene)
    }
}

/// The id of a cgroup v2: the inode number of its directory.
pub(crate) fn cgroup_id(dir: &Path) -> anyhow::Result<CgroupId> {
    if !dir.join("cgroup.procs").exists() {
        bail!("{} is not a cgroup v2 directory", dir.display());
    }
    Ok(CgroupId(std::fs::metadata(dir)?.ino()))
}
