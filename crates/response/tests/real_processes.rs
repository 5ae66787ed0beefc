//! Real processes die, or do not. Needs no root but for the cgroup test, which
//! says so when it cannot run.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up must fail"
)]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader},
    ops::Range,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use inwarden_response::{ExitEvents, KillRequest, ObservedExit, Responder, ResponseError};
use inwarden_types::{
    ActionOutcome, ActionReport, BootId, BootTime, CgroupId, EventId, ExitStatus, ProcessKey,
    RefusedReason, Scope, Tgid,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{
        Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, kill_process,
        pidfd_open, setrlimit, waitid,
    },
};

const DEADLINE: Duration = Duration::from_secs(10);

fn boot_id() -> BootId {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    text.trim().parse().unwrap()
}

/// Fields of `/proc/PID/stat` from the third on; `None` if there is no process.
fn stat(tgid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{tgid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// The key, with the start to the clock tick (100 a second on every Linux that
/// runs these tests).
fn key(tgid: u32) -> ProcessKey {
    let ticks: u64 = stat(tgid).unwrap()[19].parse().unwrap();
    ProcessKey {
        boot_id: boot_id(),
        tgid: Tgid(tgid),
        start: BootTime(ticks * 10_000_000),
    }
}

fn runs(tgid: u32) -> bool {
    stat(tgid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "T")
}

/// Stands in for the sensor: reaps what it watches and remembers how it ended.
/// Orphans come to us because we are their subreaper.
#[derive(Default)]
struct Reaper {
    exits: Mutex<BTreeMap<ProcessKey, ExitStatus>>,
    arrived: Condvar,
}

impl Reaper {
    fn new() -> Arc<Self> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        Arc::default()
    }

    fn watch(self: &Arc<Self>, process: ProcessKey) {
        let pid = Pid::from_raw(i32::try_from(process.tgid.0).unwrap()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let reaper = Arc::clone(self);
        thread::spawn(move || {
            poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
            let status = loop {
                // Not our child until its parent is gone.
                match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {
                    Ok(Some(status)) => break status,
                    _ => thread::sleep(Duration::from_millis(1)),
                }
            };
            let number = |value: Option<i32>| u8::try_from(value.unwrap_or(0)).unwrap();
            let exit = ExitStatus {
                code: number(status.exit_status()),
                signal: number(status.terminating_signal()),
                core_dumped: false,
            };
            reaper.exits.lock().unwrap().insert(process, exit);
            reaper.arrived.notify_all();
        });
    }

    fn find(
        &self,
        deadline: Instant,
        wanted: impl Fn(&ProcessKey) -> bool,
    ) -> Option<(ProcessKey, ObservedExit)> {
        let mut exits = self.exits.lock().unwrap();
        loop {
            if let Some((key, status)) = exits.iter().find(|(key, _)| wanted(key)) {
                let status = *status;
                return Some((
                    *key,
                    ObservedExit {
                        status,
                        image: None,
                    },
                ));
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            exits = self.arrived.wait_timeout(exits, left).unwrap().0;
        }
    }
}

impl ExitEvents for Reaper {
    fn wait_exit(&self, process: ProcessKey, deadline: Instant) -> Option<ObservedExit> {
        let found = self.find(deadline, |key| *key == process);
        found.map(|(_, exit)| exit)
    }

    fn wait_exit_started_in(
        &self,
        tgid: Tgid,
        started: Range<BootTime>,
        deadline: Instant,
    ) -> Option<(ProcessKey, ObservedExit)> {
        self.find(deadline, |key| {
            key.tgid == tgid && started.contains(&key.start)
        })
    }
}

/// Starts a shell; `lines` TGIDs are read from its output.
#[expect(clippy::zombie_processes, reason = "the reaper waits for it")]
fn shell(script: &str, lines: usize) -> (u32, Vec<u32>) {
    let mut child = Command::new("/bin/sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let printed = output.lines().take(lines);
    let tgids = printed.map(|line| line.unwrap().trim().parse().unwrap());
    let tgids = tgids.collect();
    (child.id(), tgids)
}

fn our_tree() -> Scope {
    Scope::ProcessTree {
        root: key(std::process::id()),
        include_root: false,
    }
}

fn kill(target: ProcessKey, scope: &Scope, known: &[ProcessKey], exits: &Reaper) -> ActionReport {
    Responder::new(boot_id()).unwrap().kill(
        &KillRequest {
            target,
            judged: &EventId::External("e".into()),
            scope,
            deadline: DEADLINE,
            known_descendants: known,
            known_ancestors: &[],
        },
        exits,
    )
}

fn sleeper() -> Child {
    Command::new("sleep").arg("300").spawn().unwrap()
}

#[test]
fn a_shell_dies_with_the_child_that_left_its_session() {
    let reaper = Reaper::new();
    let mut stranger = sleeper();
    let (shell, children) = shell(
        "setsid sleep 300 & echo $!; (sleep 300 & echo $!; wait) & echo $!; wait",
        3,
    );
    let keys: Vec<ProcessKey> = [shell]
        .iter()
        .chain(&children)
        .map(|tgid| key(*tgid))
        .collect();
    keys.iter().for_each(|key| reaper.watch(*key));

    let report = kill(keys[0], &our_tree(), &[], &reaper);
    assert_eq!(report.outcome, ActionOutcome::Killed, "{report:?}");
    assert_eq!(report.processes[0].process, keys[0]);
    for key in &keys {
        let of = |p: &&inwarden_types::ProcessOutcome| p.process == *key;
        let process = report.processes.iter().find(of).unwrap();
        assert_eq!(process.outcome, ActionOutcome::Killed, "{report:?}");
        assert_eq!(process.exit.map(|exit| exit.signal), Some(9));
        assert!(!runs(key.tgid.0));
    }
    assert!(runs(stranger.id()));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn an_orphan_dies_if_the_caller_knows_it() {
    let reaper = Reaper::new();
    let (shell, orphans) = shell("(setsid sleep 300 >&2 & echo $!); exec sleep 300", 1);
    let (target, orphan) = (key(shell), key(orphans[0]));
    reaper.watch(target);
    reaper.watch(orphan);
    let report = kill(target, &our_tree(), &[orphan], &reaper);
    assert_eq!(report.outcome, ActionOutcome::Killed, "{report:?}");
    assert!(!runs(orphans[0]), "{report:?}");
}

#[test]
fn a_stranger_is_refused_and_runs_on() {
    let reaper = Reaper::new();
    let (mut root, mut stranger) = (sleeper(), sleeper());
    let scope = Scope::ProcessTree {
        root: key(root.id()),
        include_root: true,
    };
    let report = kill(key(stranger.id()), &scope, &[], &reaper);
    assert_eq!(
        report.outcome,
        ActionOutcome::Refused(RefusedReason::OutsideScope)
    );
    thread::sleep(Duration::from_millis(20));
    assert!(runs(stranger.id()));
    for child in [&mut root, &mut stranger] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_reused_tgid_is_a_stranger() {
    let reaper = Reaper::new();
    let mut child = sleeper();
    let mut before = key(child.id());
    before.start = BootTime(before.start.0 - 10_000_000);
    let report = kill(before, &our_tree(), &[], &reaper);
    assert_eq!(report.outcome, ActionOutcome::AlreadyExited);
    thread::sleep(Duration::from_millis(20));
    assert!(runs(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_zombie_and_a_reaped_child_have_already_exited() {
    let reaper = Reaper::new();
    let mut child = Command::new("true").spawn().unwrap();
    let process = key(child.id());
    while stat(child.id()).unwrap()[0] != "Z" {
        thread::sleep(Duration::from_millis(1));
    }
    let report = kill(process, &our_tree(), &[], &reaper);
    assert_eq!(report.outcome, ActionOutcome::AlreadyExited, "{report:?}");
    child.wait().unwrap();
    let report = kill(process, &our_tree(), &[], &reaper);
    assert_eq!(report.outcome, ActionOutcome::AlreadyExited, "{report:?}");
}

/// Uses up this process's descriptors but for `free`, until dropped.
fn leave_descriptors(free: usize) -> Vec<File> {
    let limit = Rlimit {
        current: Some(256),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    taken.truncate(taken.len() - free);
    taken
}

/// Does nothing when run as a test of its own.
#[test]
fn helper() {
    let Ok(free) = std::env::var("INWARDEN_HELPER") else {
        return;
    };
    let reaper = Reaper::new();
    let (shell, children) = shell("sleep 300 & echo $!; wait", 1);
    let (target, scope) = (key(shell), our_tree());
    reaper.watch(target);
    let taken = leave_descriptors(free.parse().unwrap());
    let report = kill(target, &scope, &[], &reaper);
    drop(taken);
    let run_on = (runs(shell), runs(children[0]));
    for tgid in [children[0], shell] {
        let pid = Pid::from_raw(i32::try_from(tgid).unwrap()).unwrap();
        // The shell may be gone.
        kill_process(pid, Signal::KILL).ok();
    }
    if free == "1" {
        // The pidfd takes it, and nothing is left to read the start with.
        let unsupported = ActionOutcome::Refused(RefusedReason::Unsupported);
        assert_eq!(report.outcome, unsupported, "{report:?}");
        assert_eq!(run_on, (true, true));
    } else {
        // One beside the pidfd lists the processes, and none of them can be read.
        assert_eq!(report.outcome, ActionOutcome::Survived, "{report:?}");
        assert_eq!(report.processes[0].outcome, ActionOutcome::Killed);
        assert_eq!(run_on, (false, true));
    }
}

#[test]
fn without_descriptors_nothing_is_called_gone_or_killed() {
    for free in ["1", "2"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "helper", "--nocapture", "--test-threads=1"])
            .env("INWARDEN_HELPER", free)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{free}: {output:?}"
        );
    }
}

#[test]
fn ourselves_our_parent_and_process_1_are_refused() {
    let reaper = Reaper::new();
    let parent: u32 = stat(std::process::id()).unwrap()[1].parse().unwrap();
    for tgid in [std::process::id(), parent, 1] {
        let scope = Scope::ProcessTree {
            root: key(tgid),
            include_root: true,
        };
        let report = kill(key(tgid), &scope, &[], &reaper);
        let protected = ActionOutcome::Refused(RefusedReason::Protected);
        assert_eq!(report.outcome, protected, "{tgid}");
    }
}

#[test]
fn events_of_another_boot_are_refused_at_the_door() {
    let error = Responder::new(BootId([1; 16])).unwrap_err();
    assert!(matches!(error, ResponseError::WrongBoot { .. }), "{error}");
}

/// A cgroup of our own below the cgroup v2 mount; removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let name = format!("inwarden-response-test-{}", std::process::id());
        let directory = PathBuf::from(mount.split(' ').nth(4)?).join(name);
        fs::create_dir(&directory).ok()?;
        let cgroup = Self(directory);
        // Creating can be allowed where joining is not.
        let mut probe = sleeper();
        let joined = cgroup.add(probe.id());
        probe.kill().unwrap();
        probe.wait().unwrap();
        joined.then_some(cgroup)
    }

    fn add(&self, tgid: u32) -> bool {
        fs::write(self.0.join("cgroup.procs"), tgid.to_string()).is_ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel lets go of the dead a moment later.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn in_a_cgroup_its_members_die_and_a_child_outside_does_not() {
    let Some(cgroup) = Cgroup::new() else {
        let why = "no cgroup v2 directory can be made here (needs root)";
        assert!(std::env::var_os("INWARDEN_TEST_REAL").is_none(), "{why}");
        eprintln!("SKIPPED: {why}");
        return;
    };
    let reaper = Reaper::new();
    let (shell, children) = shell("sleep 300 & echo $!; sleep 300 & echo $!; wait", 2);
    assert!(cgroup.add(shell) && cgroup.add(children[0]));
    let scope = Scope::Cgroups([CgroupId(fs::metadata(&cgroup.0).unwrap().ino())].into());
    for tgid in [shell, children[0], children[1]] {
        reaper.watch(key(tgid));
    }
    let outside = kill(key(children[1]), &scope, &[], &reaper);
    assert_eq!(
        outside.outcome,
        ActionOutcome::Refused(RefusedReason::OutsideScope)
    );

    let report = kill(key(shell), &scope, &[], &reaper);
    assert_eq!(report.outcome, ActionOutcome::Killed, "{report:?}");
    assert!(!runs(children[0]));
    assert!(runs(children[1]), "{report:?}");
    Command::new("kill")
        .arg(children[1].to_string())
        .status()
        .unwrap();
}
