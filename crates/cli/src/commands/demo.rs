//! `inwarden demo`: a scene, played alert only and then enforcing.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use inwarden::types::Mode;

use crate::{
    Ended,
    arguments::DemoOptions,
    config::Config,
    console, interrupt,
    scene::{self, Scene, play::Stage, summary::PlaySummary},
};

pub(crate) fn run(config: &Config, options: &DemoOptions) -> anyhow::Result<Ended> {
    let scene = Scene::read(&options.scene)?;
    let out = match &options.out {
        Some(dir) => dir.clone(),
        None => new_directory(config)?,
    };
    std::fs::create_dir_all(&out)
        .with_context(|| format!("directory {} cannot be made", out.display()))?;
    let live = rustix::process::geteuid().is_root() && !options.replay;
    console::line(&format!("scene {}: {}", scene.name, scene.title))?;
    if !live {
        console::line(
            "not root: the scene is not played here, its recordings are replayed; \
             verdicts and decisions are made now, actions are not carried out",
        )?;
    }
    console::line("loading the model, rules, precedents and policies")?;
    let analyst = Arc::new(config.load_analyst()?);
    let mut plays = Vec::new();
    for mode in [Mode::Monitor, Mode::Enforce] {
        console::line(&format!("\n== play: {} ==", title(mode)))?;
        let stage = Stage {
            scene: &scene,
            analyst: Arc::clone(&analyst),
            mode,
            out: &out,
        };
        let play = match live {
            true => scene::play::run(&stage),
            false => scene::replay::run(&stage),
        };
        plays.push(play?);
        if interrupt::is_asked() {
            return Ok(Ended::Interrupted);
        }
    }
    for play in &plays {
        console::line(&format!("\n== summary: {} ==", title(play.mode)))?;
        play.print(&scene)?;
    }
    if let Some(path) = &options.json {
        let json: Vec<_> = plays.iter().map(PlaySummary::to_json).collect();
        std::fs::write(path, format!("{:#}\n", serde_json::Value::Array(json)))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    console::line(&format!(
        "\naudit record: {}",
        out.join("audit.jsonl").display()
    ))?;
    Ok(Ended::Done)
}

fn title(mode: Mode) -> &'static str {
    match mode {
        Mode::Monitor => "alert only",
        Mode::Enforce => "enforcing",
    }
}

fn new_directory(config: &Config) -> anyhow::Result<PathBuf> {
    let parent = config.state_dir.join("demo");
    std::fs::create_dir_all(&parent)
        .with_context(|| format!("directory {} cannot be made", parent.display()))?;
    Ok(tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(&parent)
        .with_context(|| format!("no directory in {}", parent.display()))?
        .keep())
}
