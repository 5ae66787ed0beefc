//! `inwarden import` into a real store.

use crate::support::{inwarden, must_be_real, run_with_input, stderr};

const BUNDLE: &str = concat!(
    r#"{"type":"bundle","id":"bundle--1","objects":[{"type":"attack-pattern","id":"a--1","#,
    r#""name":"Unix Shell","description":"Adversaries may abuse shells."},"#,
    r#"{"type":"attack-pattern","id":"a--2","name":"Old","description":"x","revoked":true},"#,
    r#"{"type":"malware"},7]}"#,
);

#[test]
fn without_a_store_or_a_kind_it_is_misuse() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.json");
    std::fs::write(&path, BUNDLE).unwrap();
    let path = path.to_str().unwrap();
    for args in [
        &["import"][..],
        &["import", "stix"],
        &["import", "sigma2", path],
        &["import", "stix", path],
    ] {
        let output = run_with_input(inwarden(args), b"");
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_is_stored_and_what_is_left_out_is_said_and_a_bad_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let path = dir.path().join("a.json");
    let import = || {
        let mut command = inwarden(&["import", "stix"]);
        command.arg(&path).arg("--memory").arg(&store);
        run_with_input(command, b"")
    };
    std::fs::write(&path, BUNDLE).unwrap();
    let output = import();
    if stderr(&output).contains("models pull") && !must_be_real() {
        eprintln!("SKIPPED: no model files: {}", stderr(&output));
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1 documents stored\n1 left out: malformed object\n1 left out: not an attack-pattern\n\
         1 left out: revoked\n"
    );
    std::fs::write(&path, &BUNDLE[..90]).unwrap();
    let output = import();
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(
        said.contains("a.json") && said.contains("at byte 90"),
        "{said}"
    );
}
