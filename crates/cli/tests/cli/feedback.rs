//! `inwarden feedback` against a real store and a real audit log.

use std::path::Path;

use crate::support::{inwarden, must_be_real, run_with_input, stderr};

const AUDIT: &str = concat!(
    r#"{"schema":"inwarden.audit/1","kind":"start","sequence":0}"#,
    "\n",
    r#"{"schema":"inwarden.audit/1","kind":"case","sequence":1,"case":"c1","technique":"T1105","event":"#,
    r#"{"id":"c1","kind":"exec","wall_ns":1700000000000000000,"exe":"/usr/bin/tar","comm":"tar","#,
    r#""argv":["tar","czf","backup.tgz","--password","hunter2","\u001b[2J"],"argv_bytes":9,"#,
    r#""argv_truncated":false,"ancestors":[{"process":null,"exe":"/usr/sbin/cron","comm":"cron"}]}}"#,
    "\n",
);

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn feedback(dir: &Path, args: &[&str]) -> Said {
    let store = dir.join("store");
    let store = store.to_str().expect("a path of ours");
    let mut all = vec!["--memory", store, "feedback"];
    all.extend(args);
    let output = run_with_input(inwarden(&all), b"");
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: stderr(&output),
    }
}

#[test]
fn what_is_asked_wrongly_is_misuse_and_what_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.jsonl");
    std::fs::write(&log, AUDIT).unwrap();
    let log = log.to_str().unwrap();
    for args in [
        &[][..],
        &["c1"],
        &["c1", "--benign", "--malicious"],
        &["c1", "--list"],
        &["--list", "--undo", "x"],
        &["--benign"],
        &["--list", "--note", "x"],
    ] {
        let said = feedback(dir.path(), args);
        assert_eq!(said.code, Some(2), "{args:?}: {}", said.err);
        assert!(said.out.is_empty());
    }
    let said = feedback(dir.path(), &["nobody", "--benign", "--audit", log]);
    assert_eq!(said.code, Some(3));
    assert!(said.err.contains("no case \"nobody\""), "{}", said.err);
    let said = feedback(dir.path(), &["c1", "--benign", "--audit", "/nonexistent/a"]);
    assert_eq!(said.code, Some(3));
    assert!(said.err.contains("/nonexistent/a"), "{}", said.err);
    // The shipped precedents are nobody's own.
    let output = run_with_input(inwarden(&["feedback", "--list"]), b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--memory"), "{}", stderr(&output));
}

#[test]
fn feedback_is_given_listed_and_undone() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.jsonl");
    std::fs::write(&log, AUDIT).unwrap();
    let log = log.to_str().unwrap();
    let note = "ours, token=hunter2";
    let given = feedback(
        dir.path(),
        &["c1", "--benign", "--note", note, "--audit", log],
    );
    if given.err.contains("models pull") && !must_be_real() {
        eprintln!("SKIPPED: no model files: {}", given.err);
        return;
    }
    assert_eq!(given.code, Some(0), "{}", given.err);
    assert!(
        given.out.contains("  benign  c1  'tar czf"),
        "{}",
        given.out
    );
    let rows = dir.path().join("store/feedback/exec-feedback.jsonl");
    let row = std::fs::read_to_string(&rows).unwrap();
    assert!(row.contains("\"label\":\"benign\"") && !row.contains("hunter2"));

    let listed = feedback(dir.path(), &["--list"]);
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    assert_eq!(listed.out, given.out);
    for text in [&listed.out, &given.out] {
        assert!(
            !text.contains("hunter2") && !text.contains('\u{1b}'),
            "{text}"
        );
    }
    let id = given.out.split(' ').next().unwrap();
    let undone = feedback(dir.path(), &["--undo", id]);
    assert_eq!(undone.code, Some(0), "{}", undone.err);
    assert!(feedback(dir.path(), &["--list"]).out.is_empty());
    assert!(std::fs::read_to_string(&rows).unwrap().is_empty());
    let again = feedback(dir.path(), &["--undo", id]);
    assert_eq!(again.code, Some(3));
    assert!(again.err.contains(id), "{}", again.err);
}
