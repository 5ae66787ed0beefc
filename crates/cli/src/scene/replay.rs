//! The play of a scene from its recordings, for those who are not root.

use std::{collections::BTreeSet, fs::File, io::BufReader, sync::Arc};

use anyhow::Context;
use inwarden::{
    ReplayConfig, Warden, feeds,
    types::{Mode, Scope},
};

use super::{
    play::Stage,
    summary::{PlaySummary, Tally},
};
use crate::{console, interrupt};

/// Replays the recording of `stage.mode` that lies in the scene's directory.
pub(crate) fn run(stage: &Stage<'_>) -> anyhow::Result<PlaySummary> {
    let path = stage.scene.dir.join(match stage.mode {
        Mode::Monitor => "recording-alert.jsonl",
        Mode::Enforce => "recording-enforce.jsonl",
    });
    let open = || {
        let file = File::open(&path).with_context(|| format!("recording {}", path.display()))?;
        anyhow::Ok(feeds::RecordingReader::new(BufReader::new(file))?)
    };
    let cgroups: BTreeSet<_> = open()?
        .filter_map(|event| event.ok()?.process.cgroup_id)
        .collect();
    let config = ReplayConfig {
        mode: stage.mode,
        scope: Scope::Cgroups(cgroups),
    };
    let mut tally = Tally::of(stage.scene);
    let mut replay = Warden::replay(Arc::clone(&stage.analyst), config, open()?);
    for report in replay.by_ref() {
        let report = report.with_context(|| format!("recording {}", path.display()))?;
        tally.add(&report);
        console::line(&console::case_line(&report))?;
        if interrupt::is_asked() {
            break;
        }
    }
    Ok(PlaySummary::new(stage.mode, tally, replay.counters(), None))
}
