//! The play of a scene on this machine, watched by a warden.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use inwarden::{
    Analyst, Warden, WardenConfig, WardenLimits,
    sensor::SensorConfig,
    types::{Mode, Scope},
};

use super::{
    Scene, cgroup_id,
    observe::observe,
    summary::{PlaySummary, Tally},
};
use crate::{commands::watch::with_unwritten_records, console, interrupt};

/// How long `run.sh` may take to prepare, and to put everything away.
const SETUP_LIMIT: Duration = Duration::from_secs(30);

/// What a play needs.
pub(crate) struct Stage<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) analyst: Arc<Analyst>,
    pub(crate) mode: Mode,
    pub(crate) out: &'a Path,
}

/// Plays the scene once: `run.sh` prepares, a warden is scoped to its cgroup,
/// `go`, and what happens is printed until `done`.
pub(crate) fn run(stage: &Stage<'_>) -> anyhow::Result<PlaySummary> {
    let state = tempfile::Builder::new()
        .prefix("inwarden-scene-")
        .tempdir()
        .context("no temporary directory for the scene")?;
    std::fs::set_permissions(state.path(), std::fs::Permissions::from_mode(0o711))?;
    let mut script = Script::start(stage.scene, state.path())?;
    let cgroup = script.wait_until_ready()?;
    let cgroups = BTreeSet::from([cgroup_id(&cgroup)?]);
    let name = stage.mode.name();
    let (warden, reports) = Warden::start(
        Arc::clone(&stage.analyst),
        WardenConfig {
            mode: stage.mode,
            scope: Scope::Cgroups(cgroups.clone()),
            audit_log: stage.out.join("audit.jsonl"),
            recording: Some(stage.out.join(format!("recording-{name}.jsonl"))),
            sensor: SensorConfig {
                cgroups: Some(cgroups),
                ..SensorConfig::default()
            },
            limits: WardenLimits::default(),
        },
    )
    .map_err(with_unwritten_records)?;
    let mut tally = Tally::of(stage.scene);
    let mut show = || -> anyhow::Result<()> {
        for report in reports.try_iter() {
            tally.add(&report);
            console::line(&console::case_line(&report))?;
        }
        Ok(())
    };
    let played = script.go().and_then(|()| {
        let limit = Instant::now() + Duration::from_secs(stage.scene.limit_s);
        while !interrupt::is_asked() && warden.is_running() {
            show()?;
            match script.next_line(Duration::from_millis(100))? {
                Some(line) if line == "done" => return Ok(()),
                Some(line) => console::line(&format!("-- {line}"))?,
                None if Instant::now() > limit => {
                    bail!("the scene was not done after {} s", stage.scene.limit_s)
                }
                None => {}
            }
        }
        Ok(())
    });
    // Whatever happened: detach and flush first, then put the scene away.
    let stopped = warden.stop().map_err(with_unwritten_records);
    let shown = show();
    let ended = script.end();
    let summary = stopped?;
    played?;
    shown?;
    ended?;
    let mut play = PlaySummary::new(stage.mode, tally, summary.counters, Some(summary.losses));
    play.observed = stage
        .scene
        .observations
        .iter()
        .map(|item| (item.title.clone(), observe(item, state.path())))
        .collect();
    Ok(play)
}

/// The running `run.sh`.
struct Script {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Script {
    fn start(scene: &Scene, state: &Path) -> anyhow::Result<Self> {
        let path = scene.dir.join(&scene.run);
        let mut child = Command::new(&path)
            .current_dir(&scene.dir)
            .env("INWARDEN_SCENE_STATE", state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started", path.display()))?;
        let stdout = child.stdout.take().context("run.sh has no output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            lines,
        })
    }

    /// Waits for `cgroup PATH` and `ready`.
    fn wait_until_ready(&mut self) -> anyhow::Result<PathBuf> {
        let limit = Instant::now() + SETUP_LIMIT;
        let mut cgroup = None;
        while Instant::now() < limit && !interrupt::is_asked() {
            match self.next_line(Duration::from_millis(200))?.as_deref() {
                Some("ready") => return cgroup.context("run.sh named no cgroup"),
                Some(line) => {
                    if let Some(path) = line.strip_prefix("cgroup ") {
                        cgroup = Some(PathBuf::from(path));
                    }
                }
                None => {}
            }
        }
        if interrupt::is_asked() {
            bail!("interrupted");
        }
        bail!("run.sh was not ready in {} s", SETUP_LIMIT.as_secs())
    }

    fn go(&mut self) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("run.sh has no input")?;
        writeln!(stdin, "go").context("run.sh does not listen")
    }

    /// The next line it printed, or `None` when there was none in time.
    fn next_line(&mut self, timeout: Duration) -> anyhow::Result<Option<String>> {
        match self.lines.recv_timeout(timeout) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                Err(anyhow!("run.sh ended before its play was done: {status}"))
            }
        }
    }

    /// Closes its input, upon which it puts everything away, and waits for it.
    fn end(&mut self) -> anyhow::Result<()> {
        self.stdin = None;
        let limit = Instant::now() + SETUP_LIMIT;
        while Instant::now() < limit {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.child.kill()?;
        self.child.wait()?;
        bail!(
            "run.sh did not put the scene away in {} s",
            SETUP_LIMIT.as_secs()
        )
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            console::complain(&error);
        }
    }
}
