//! Starting a sensor, waiting for events, and other processes to observe.

use std::{
    fs, io,
    os::fd::AsRawFd as _,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use inwarden_sensor::{CheckState, Sensor, SensorConfig, SensorError, probe};
use inwarden_types::{CgroupId, Event, EventKind};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A sensor, or `None` with a loud line where this machine cannot run one.
pub(crate) fn start(config: &SensorConfig) -> Option<Sensor> {
    let capabilities = probe();
    if !capabilities.can_observe() {
        let lacks: Vec<_> = capabilities
            .checks
            .iter()
            .filter(|check| check.state == CheckState::Missing)
            .map(|check| check.name)
            .collect();
        let real = std::env::var_os("INWARDEN_TEST_REAL").is_some_and(|value| value == "1");
        assert!(!real, "INWARDEN_TEST_REAL=1, but missing: {lacks:?}");
        eprintln!("SKIPPED: kernel test of the sensor, missing: {lacks:?}");
        return None;
    }
    Some(Sensor::start(config).unwrap())
}

/// A text no other process has in its arguments.
pub(crate) fn marker() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("inwarden-marker-{}-{next}", std::process::id())
}

/// Polls until `enough` holds of what came so far.
pub(crate) fn events_until(sensor: &mut Sensor, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let deadline = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    while !enough(&events) {
        assert!(
            Instant::now() < deadline,
            "not seen: {} events",
            events.len()
        );
        sensor.poll(Duration::from_millis(50), &mut events).unwrap();
    }
    events
}

pub(crate) fn is_exec_of(event: &Event, marker: &str) -> bool {
    event.kind() == EventKind::Exec
        && event
            .process
            .image
            .argv
            .args
            .iter()
            .any(|arg| arg == marker)
}

/// The exec of the one program that has `marker` as an argument.
pub(crate) fn exec_of(sensor: &mut Sensor, marker: &str) -> Event {
    find_exec(sensor, |event| is_exec_of(event, marker))
}

/// The same, where other programs have the argument too: the one named `comm`.
pub(crate) fn exec_of_program(sensor: &mut Sensor, comm: &str, marker: &str) -> Event {
    find_exec(sensor, |event| {
        is_exec_of(event, marker) && event.process.image.comm == comm
    })
}

fn find_exec(sensor: &mut Sensor, wanted: impl Fn(&Event) -> bool) -> Event {
    let events = events_until(sensor, |events| events.iter().any(&wanted));
    events.into_iter().find(|event| wanted(event)).unwrap()
}

pub(crate) fn tgid_of(event: &Event) -> u32 {
    event.process.key.unwrap().tgid.0
}

pub(crate) fn is_exit_of(event: &Event, tgid: u32) -> bool {
    event.kind() == EventKind::Exit && tgid_of(event) == tgid
}

pub(crate) fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// This test binary as another process, which then only runs [`helper`].
pub(crate) fn helper_command(binary: &Path, what: &str) -> Command {
    let mut command = quiet(binary.to_str().unwrap());
    command
        .args([
            "--exact",
            "support::helper",
            "--nocapture",
            "--test-threads=2",
        ])
        .env("INWARDEN_HELPER", what);
    command
}

fn exec_echo(program: &str) {
    let marker = std::env::var("INWARDEN_MARKER").unwrap();
    panic!("{}", Command::new(program).arg(marker).exec());
}

/// Does nothing when run as a test of its own.
#[test]
fn helper() {
    match std::env::var("INWARDEN_HELPER").as_deref() {
        Ok("threads") => {
            let threads: Vec<_> = (0..10).map(|_| thread::spawn(thread::yield_now)).collect();
            for thread in threads {
                thread.join().unwrap();
            }
        }
        // libtest runs this in a thread that is not the leader.
        Ok("exec_from_thread") => exec_echo("/bin/echo"),
        Ok("exec_in_deep_directory") => {
            let name = "d".repeat(200);
            for _ in 0..40 {
                fs::create_dir(&name).unwrap();
                std::env::set_current_dir(&name).unwrap();
            }
            exec_echo("/bin/echo");
        }
        Ok("exec_from_memory") => {
            let flags = rustix::fs::MemfdFlags::empty();
            let mut file =
                fs::File::from(rustix::fs::memfd_create("inwarden-test", flags).unwrap());
            io::copy(&mut fs::File::open("/bin/echo").unwrap(), &mut file).unwrap();
            exec_echo(&format!("/proc/self/fd/{}", file.as_raw_fd()));
        }
        Ok("unprivileged") => {
            let error = Sensor::start(&SensorConfig::default()).err().unwrap();
            assert!(
                matches!(&error, SensorError::MissingCapability { missing }
                    if *missing == ["CAP_BPF", "CAP_PERFMON"]),
                "{error:?}"
            );
            assert!(error.to_string().contains("setcap"), "{error}");
            assert!(!probe().can_observe());
        }
        _ => {}
    }
}

/// A child cgroup; removed at the end.
pub(crate) struct TestCgroup(PathBuf);

impl TestCgroup {
    pub(crate) fn create() -> Option<Self> {
        let Some(mount) = probe().cgroup2_mount else {
            eprintln!("SKIPPED: cgroup test of the sensor, cgroup v2 is not mounted");
            return None;
        };
        let path = mount.join(marker());
        fs::create_dir(&path).unwrap();
        Some(Self(path))
    }

    pub(crate) fn id(&self) -> CgroupId {
        CgroupId(fs::metadata(&self.0).unwrap().ino())
    }

    /// Moves a shell into the cgroup, which then execs echo.
    pub(crate) fn echo_inside(&self, marker: &str) {
        let procs = self.0.join("cgroup.procs");
        let script = format!("echo $$ > {}; exec /bin/echo {marker}", procs.display());
        assert!(
            quiet("/bin/sh")
                .args(["-c", &script])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    }
}
