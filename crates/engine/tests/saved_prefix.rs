//! The real model with its prefix kept on disk, with `INWARDEN_TEST_REAL=1`.

#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use inwarden::{
    Analyst, AnalystConfig, CounterSnapshot, DEFAULT_MODEL, FailureMode, Guard, GuardConfig,
    MemoryPlace, RuleChoice,
    models::{CacheDirQuery, ModelCache, default_cache_dir},
    types::{Mode, SettledBy, StageTimes, ToolCall, Verdict},
};
use inwarden_classifier::{TextCalibration, TextWeights};

/// Weights of the judge alone for each question about texts and calls.
fn text_calibrations() -> Vec<TextCalibration> {
    let set = TextWeights {
        intercept: 0.0,
        malicious_threshold: 0.9,
        benign_threshold: 0.1,
        weights: [("judge".to_owned(), 1.0)].into(),
    };
    ["user_text", "tool_output", "tool_call"]
        .map(|question| TextCalibration {
            format: 2,
            question: question.into(),
            judge: "any".into(),
            corpus: "none".into(),
            rows: 0,
            prior: 0.5,
            with_head: set.clone(),
            with_judge: set.clone(),
            without_judge: set.clone(),
        })
        .to_vec()
}

/// Only the model, with its prefixes kept in `dir`.
fn config(dir: &Path) -> Option<AnalystConfig> {
    if std::env::var_os("INWARDEN_TEST_REAL").is_none_or(|value| value != "1") {
        eprintln!("SKIPPED: the real model's prefix is saved with INWARDEN_TEST_REAL=1");
        return None;
    }
    let models = default_cache_dir(CacheDirQuery {
        inwarden_models: std::env::var_os("INWARDEN_MODELS"),
        xdg_cache_home: std::env::var_os("XDG_CACHE_HOME"),
        home: std::env::var_os("HOME"),
    });
    Some(AnalystConfig {
        memory: MemoryPlace::Off,
        rules: RuleChoice::Off,
        prefix_dir: Some(dir.to_owned()),
        text_calibrations: text_calibrations(),
        ..AnalystConfig::new(ModelCache::at(models.expect("HOME is set")))
    })
}

/// Loads as a new process would, and judges a call.
fn start(config: &AnalystConfig) -> (Verdict, CounterSnapshot, Duration) {
    let started = Instant::now();
    let analyst = Arc::new(Analyst::load(config).expect("the models are installed"));
    let took = started.elapsed();
    let guard = Guard::start(
        analyst,
        GuardConfig {
            mode: Mode::Monitor,
            failure: FailureMode::Closed,
            deadline: Duration::from_secs(60),
            queue: 1,
            audit_log: None,
        },
    )
    .expect("a guard without an audit log starts");
    let mut report = guard.check_tool_call(ToolCall {
        agent: "reporter".into(),
        tool: "shell".into(),
        args_json: r#"{"command":"tar czf /srv/report.tgz /srv/report"}"#.into(),
        ..ToolCall::default()
    });
    report.verdict.stages = StageTimes::default();
    (report.verdict, guard.counters(), took)
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("the directory is there");
    entries
        .map(|entry| entry.expect("it is readable").path())
        .collect()
}

#[test]
fn a_start_with_a_saved_prefix_gives_the_same_verdict_sooner() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("prefixes");
    let Some(config) = config(&dir) else { return };
    let uncached = AnalystConfig {
        prefix_dir: None,
        ..config.clone()
    };
    let (expected, counters, took) = start(&uncached);
    assert_eq!(expected.settled_by, SettledBy::Model);
    assert_eq!(counters.saved_prefix_used, 0);
    eprintln!("loaded in {took:?} without a directory");

    let file = dir.join(format!("{DEFAULT_MODEL}.prefix"));
    drop(Analyst::load(&config).expect("the models are installed"));
    assert_eq!(
        files_in(&dir),
        std::slice::from_ref(&file),
        "no other is asked yet"
    );
    let (verdict, counters, took) = start(&config);
    assert_eq!(verdict, expected);
    let counted = |counters: &CounterSnapshot| {
        (
            counters.saved_prefix_used,
            counters.saved_prefix_refused,
            counters.saved_prefix_not_saved,
        )
    };
    assert_eq!(counted(&counters), (1, 0, 0));
    eprintln!("loaded in {took:?}, and saved those of texts and calls");
    assert_eq!(files_in(&dir).len(), 4);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&file)), (0o700, 0o600));

    let (verdict, counters, took) = start(&config);
    assert_eq!(verdict, expected);
    assert_eq!(counted(&counters), (4, 0, 0));
    // The call is asked about as a command and as a call.
    assert_eq!(counters.model_completed, 2);
    eprintln!("loaded in {took:?} from the saved prefix");

    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (verdict, counters, _) = start(&config);
    assert_eq!(verdict, expected);
    assert_eq!(counted(&counters), (3, 1, 0));

    let mut permissions = std::fs::metadata(&dir).unwrap().permissions();
    permissions.set_mode(0o777);
    std::fs::set_permissions(&dir, permissions).unwrap();
    let (verdict, counters, _) = start(&config);
    assert_eq!(verdict, expected);
    assert_eq!(counted(&counters), (0, 0, 4));
}
