//! The demo, on this kernel with the real models: needs root and model files.

use std::{
    path::PathBuf,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

/// One play at a time: they share two cores and a real clock.
static STAGE: Mutex<()> = Mutex::new(());

fn take_stage() -> MutexGuard<'static, ()> {
    STAGE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn inwarden(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inwarden"));
    command.args(args);
    command
}

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn can_play() -> bool {
    let root = rustix::process::geteuid().is_root();
    let models = inwarden(&["doctor"])
        .output()
        .is_ok_and(|output| !String::from_utf8_lossy(&output.stdout).contains("missing qwen"));
    let must_be_real = std::env::var_os("INWARDEN_TEST_REAL").is_some_and(|value| value == "1");
    assert!(
        (root && models) || !must_be_real,
        "INWARDEN_TEST_REAL=1 needs root and the model files"
    );
    if !(root && models) {
        eprintln!("SKIPPED: the demo on this kernel needs root and the model files");
    }
    root && models
}

/// Plays `scene` and returns the JSON summaries of both plays.
fn play(scene: &str, extra: &[&str]) -> [Value; 2] {
    let _stage = take_stage();
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("summary.json");
    let scene = workspace().join("examples/scenes").join(scene);
    let mut args: Vec<&str> = extra.to_vec();
    let (out, json_arg) = (dir.path().to_str().unwrap(), json.to_str().unwrap());
    args.extend(["demo", "--scene", scene.to_str().unwrap()]);
    args.extend(["--out", out, "--json", json_arg]);
    let output = inwarden(&args).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    eprintln!("{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    let plays: Vec<Value> = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    plays.try_into().unwrap()
}

/// The value of the observation whose title contains `part`.
fn observed<'a>(play: &'a Value, part: &str) -> &'a str {
    play["observed"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["title"].as_str().unwrap().contains(part))
        .unwrap_or_else(|| panic!("no observation {part:?} in {play:#}"))["value"]
        .as_str()
        .unwrap()
}

fn count(play: &Value, part: &str) -> u64 {
    observed(play, part).parse().unwrap()
}

/// What must hold in every play, whatever was missed.
fn check_untouched(play: &Value) {
    let work = observed(play, "finished and verified");
    assert!(
        work.ends_with("no gap"),
        "ordinary work was touched: {work}"
    );
    assert_eq!(play["lost"], 0, "{play:#}");
    assert_eq!(play["counters"]["panics"], 0);
}

/// How many of the three visible attacks reached their end. Read from what the
/// scene's listener wrote, not from our own output.
fn reached(play: &Value) -> u64 {
    u64::from(observed(play, "shell connection returned") == "yes")
        + u64::from(observed(play, "what was uploaded") == "yes")
        + u64::from(count(play, "beats after") > 5)
}

#[test]
fn the_attacks_succeed_when_only_alerting_and_fail_when_enforcing() {
    if !can_play() {
        return;
    }
    let [alerting, enforcing] = play("agent", &[]);
    check_untouched(&alerting);
    check_untouched(&enforcing);
    assert_eq!(reached(&alerting), 3, "{alerting:#}");
    assert_eq!(reached(&enforcing), 0, "{enforcing:#}");
    assert_eq!(alerting["acted_on"].as_array().unwrap().len(), 0);
    assert!(count(&enforcing, "closed from the scene's side") >= 1);
    for settled in [
        "settled_by_rule",
        "settled_by_precedent",
        "settled_by_model",
    ] {
        let cases = enforcing["counters"][settled].as_u64().unwrap();
        assert!(cases >= 1, "{settled}: {enforcing:#}");
    }
    // The sourced script did its work, and no exec event names it.
    assert!(count(&enforcing, "sourced script") >= 1);
    let seen = enforcing["steps_seen"].as_array().unwrap();
    assert_eq!(seen.last().unwrap(), 0);
}

#[test]
fn without_rules_ordinary_work_is_untouched_and_misses_are_printed() {
    if !can_play() {
        return;
    }
    let [_, enforcing] = play("agent", &["--without", "rules"]);
    check_untouched(&enforcing);
    assert_eq!(enforcing["counters"]["settled_by_rule"], 0);
    let missed = reached(&enforcing);
    eprintln!("without rules, {missed} of 3 attacks reached their end");
    assert!(missed < 3, "nothing was stopped without rules");
}

#[test]
fn a_reworded_scene_is_played_without_touching_ordinary_work() {
    if !can_play() {
        return;
    }
    let [alerting, enforcing] = play("worker", &[]);
    check_untouched(&alerting);
    check_untouched(&enforcing);
    assert_eq!(reached(&alerting), 3, "{alerting:#}");
    let missed = reached(&enforcing);
    eprintln!("reworded scene: {missed} of 3 attacks reached their end");
    assert!(missed < 3, "nothing was stopped in the reworded scene");
}

#[test]
fn without_root_the_recordings_are_replayed_and_that_is_said() {
    if !can_play() {
        return;
    }
    let _stage = take_stage();
    let scene = workspace().join("examples/scenes/agent");
    let output = inwarden(&["demo", "--replay", "--scene", scene.to_str().unwrap()])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("recordings are replayed"), "{printed}");
    assert!(printed.contains("kill"), "{printed}");
}
