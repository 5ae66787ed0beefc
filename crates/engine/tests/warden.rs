//! A warden on this kernel, judging by rules alone: needs root, no model files.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use inwarden::{
    Analyst, AnalystConfig, CaseReport, MemoryPlace, Warden, WardenConfig, WardenLimits,
    models::ModelCache,
    sensor::SensorConfig,
    types::{Action, ActionOutcome, CgroupId, Mode, Scope},
};

/// Whether this test can run; if it must and cannot, it fails.
fn can_watch() -> bool {
    let root = rustix::process::geteuid().is_root();
    let must = std::env::var_os("INWARDEN_TEST_REAL").is_some_and(|value| value == "1");
    assert!(root || !must, "INWARDEN_TEST_REAL=1 needs root");
    root
}

/// A cgroup v2 of this test, removed with everything in it.
struct Cgroup(PathBuf);

impl Cgroup {
    fn create(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
        let mount = mounts
            .lines()
            .filter_map(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let path = fields.next()?;
                (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
            })
            .next()
            .expect("cgroup v2 is mounted");
        let dir = mount.join(format!("inwarden-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("root may create a cgroup");
        Self(dir)
    }

    fn id(&self) -> CgroupId {
        let metadata = std::fs::metadata(&self.0).expect("the cgroup was created");
        CgroupId(metadata.ino())
    }

    /// Starts a shell inside that runs `script` after it was moved there.
    fn start(&self, script: &str) -> Child {
        let procs = self.0.join("cgroup.procs");
        let outer = format!("echo $$ > {} && exec bash -c \"$0\"", procs.display());
        shell(&["-c", &outer, script])
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A failed test leaves processes; they end here, and so does the cgroup.
        let _killed = std::fs::write(self.0.join("cgroup.kill"), "1");
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn shell(args: &[&str]) -> Child {
    Command::new("bash")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("bash is installed")
}

fn start(
    dir: &Path,
    mode: Mode,
    cgroup: CgroupId,
) -> (Warden, crossbeam_channel::Receiver<CaseReport>) {
    let analyst = Analyst::load(&AnalystConfig {
        model: None,
        memory: MemoryPlace::Off,
        ..AnalystConfig::new(ModelCache::at("unused".into()))
    })
    .expect("the shipped rules and policies load");
    let config = WardenConfig {
        mode,
        scope: Scope::Cgroups(BTreeSet::from([cgroup])),
        audit_log: dir.join("audit.jsonl"),
        recording: Some(dir.join("recording.jsonl")),
        sensor: SensorConfig::default(),
        limits: WardenLimits::default(),
    };
    Warden::start(Arc::new(analyst), config).expect("root may watch")
}

/// The first report on each shell that was started to talk to `port`: inside the
/// cgroup, and outside of it if `wanted` is 2.
fn wait_for_reports(
    reports: &crossbeam_channel::Receiver<CaseReport>,
    port: u16,
    cgroup: CgroupId,
    wanted: usize,
) -> Vec<CaseReport> {
    let limit = Instant::now() + Duration::from_secs(20);
    let mut found: Vec<CaseReport> = Vec::new();
    let is_inside = |report: &CaseReport| report.case.last().process.cgroup_id == Some(cgroup);
    while found.len() < wanted {
        let report = reports
            .recv_deadline(limit)
            .expect("a report on each shell");
        let args = &report.case.last().process.image.argv.args;
        let is_shell = args.len() == 3
            && args[0] == "bash"
            && args[2].contains(&format!("/dev/tcp/127.0.0.1/{port} "));
        let is_new = found.iter().all(|one| is_inside(one) != is_inside(&report));
        if is_shell && is_new && report.decision.action > Action::Allow {
            found.push(report);
        }
    }
    found.sort_by_key(|report| !is_inside(report));
    found
}

/// A shell on a connection of ours, with a child that left its session.
fn remote_shell(port: u16) -> String {
    format!("setsid sleep 300 & bash -i >& /dev/tcp/127.0.0.1/{port} 0>&1; wait")
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next());
    !matches!(state, None | Some("Z" | "X"))
}

#[test]
fn the_decided_process_and_its_forked_child_are_killed_and_a_stranger_is_not_touched() {
    if !can_watch() {
        eprintln!("SKIPPED: a warden on this kernel needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cgroup = Cgroup::create("kill");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (warden, reports) = start(dir.path(), Mode::Enforce, cgroup.id());

    // The same program twice: once inside the scope, once outside.
    let outside = format!("bash -i >& /dev/tcp/127.0.0.1/{port} 0>&1; wait");
    let mut stranger = shell(&["-c", &outside]);
    let mut decided = cgroup.start(&remote_shell(port));
    let status = decided.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "the decided process was killed");

    let found = wait_for_reports(&reports, port, cgroup.id(), 2);
    let (report, outside) = (&found[0], &found[1]);
    assert_eq!(report.decision.enforced, Action::Kill);
    assert_eq!(
        report.action.outcome,
        ActionOutcome::Killed,
        "{:?}",
        report.action
    );
    assert_eq!(
        report.action.processes[0].exit.map(|exit| exit.signal),
        Some(9)
    );
    assert!(report.event_to_action.is_some());
    let left = std::fs::read_to_string(cgroup.0.join("cgroup.procs")).unwrap();
    assert_eq!(left, "", "the forked child was killed, too");

    assert_eq!(outside.decision.enforced, Action::Alert);
    assert!(is_running(stranger.id()), "the stranger lives");
    let summary = warden.stop().unwrap();
    assert!(is_running(stranger.id()), "the stranger still lives");
    assert_eq!(summary.losses.dropped, 0);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn without_enforcing_nothing_is_killed_and_the_audit_log_says_what_would_be() {
    if !can_watch() {
        eprintln!("SKIPPED: a warden on this kernel needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cgroup = Cgroup::create("alert");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (warden, reports) = start(dir.path(), Mode::Monitor, cgroup.id());
    let mut decided = cgroup.start(&remote_shell(port));
    let report = &wait_for_reports(&reports, port, cgroup.id(), 1)[0];
    assert_eq!(report.decision.action, Action::Kill);
    assert_eq!(report.decision.enforced, Action::Alert);
    assert!(is_running(decided.id()));
    warden.stop().unwrap();
    decided.kill().unwrap();
    decided.wait().unwrap();

    let text = std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
    let records: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records[0]["kind"], "start");
    assert_eq!(records[records.len() - 1]["kind"], "end");
    let case = records
        .iter()
        .find(|record| record["case"] == report.case.id().to_string())
        .unwrap();
    for (field, value) in [
        ("decision", "kill"),
        ("enforced", "alert"),
        ("mode", "monitor"),
        ("label", "malicious"),
    ] {
        assert_eq!(case[field], value, "{case:#}");
    }
    let recording = std::fs::File::open(dir.path().join("recording.jsonl")).unwrap();
    let events = inwarden::feeds::RecordingReader::new(std::io::BufReader::new(recording)).unwrap();
    assert!(
        events
            .map(Result::unwrap)
            .any(|event| event.id == report.case.last().id)
    );
}
