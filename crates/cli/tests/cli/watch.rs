//! `inwarden watch` on this kernel: needs root.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{RULES_ONLY, inwarden, must_be_real, stderr};

/// Whether a warden can be started here; says so loudly if not.
pub(crate) fn can_watch() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || !must_be_real(), "INWARDEN_TEST_REAL=1 needs root");
    if !root {
        eprintln!("SKIPPED: watching needs root");
    }
    root
}

fn start_watch(extra: &[&str]) -> Child {
    let mut args = RULES_ONLY.to_vec();
    args.push("watch");
    args.extend(extra);
    inwarden(&args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_for_line(path: &std::path::Path, wanted: &str) {
    let limit = Instant::now() + Duration::from_secs(30);
    while Instant::now() < limit {
        if std::fs::read_to_string(path).is_ok_and(|text| text.contains(wanted)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{} never held {wanted:?}", path.display());
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

#[test]
fn ctrl_c_detaches_and_leaves_a_complete_audit_log() {
    if !can_watch() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("audit.jsonl");
    let child = start_watch(&["--audit", audit.to_str().unwrap()]);
    wait_for_line(&audit, "\"kind\":\"start\"");
    for _ in 0..20 {
        Command::new("true").status().unwrap();
    }
    wait_for_line(&audit, "\"kind\":\"case\"");
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = std::fs::read_to_string(&audit).unwrap();
    let records: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = records.last().unwrap();
    assert_eq!(last["kind"], "end");
    assert_eq!(last["dropped"], 0);
    assert_eq!(
        last["cases"].as_u64().unwrap(),
        records.iter().filter(|r| r["kind"] == "case").count() as u64
    );
}

/// A file system of 16 KiB, gone with the value.
struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16k", "none"])
            .arg(dir.path())
            .status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "root may mount"
        );
        Self(dir)
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[test]
fn a_disk_that_is_full_from_the_beginning_is_said_with_the_record() {
    if !can_watch() {
        return;
    }
    let output = start_watch(&["--audit", "/dev/full"])
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("\"kind\":\"start\""),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_full_disk_stops_the_warden_and_loses_no_record() {
    if !can_watch() {
        return;
    }
    let disk = TinyDisk::mount();
    let audit = disk.0.path().join("audit.jsonl");
    let child = start_watch(&["--audit", audit.to_str().unwrap()]);
    let mut waited = Duration::ZERO;
    let mut child = child;
    while child.try_wait().unwrap().is_none() && waited < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(100));
        waited += Duration::from_millis(100);
        Command::new("true").status().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("audit.jsonl"), "{said}");
    // What is not in the file was said on standard error: no record is missing.
    let written = std::fs::read_to_string(&audit).unwrap();
    let records: Vec<serde_json::Value> = written
        .lines()
        .chain(said.lines().filter(|line| line.starts_with('{')))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record["sequence"], number);
    }
    assert_eq!(records[0]["kind"], "start");
    assert_eq!(records.last().unwrap()["kind"], "end");
}
