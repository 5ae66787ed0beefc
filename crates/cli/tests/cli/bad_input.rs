//! What is broken around the binary ends in a message and a non-zero exit.

use crate::support::{RULES_ONLY, inwarden, json_lines, run_with_input, stderr, workspace};

#[test]
fn a_replay_is_the_same_bytes_twice() {
    let recording = workspace().join("crates/feeds/tests/data/recording-v1.jsonl");
    let mut args = RULES_ONLY.to_vec();
    args.extend(["replay", "--no-times", recording.to_str().unwrap()]);
    let first = run_with_input(inwarden(&args), b"");
    let second = run_with_input(inwarden(&args), b"");
    assert!(first.status.success(), "{}", stderr(&first));
    assert!(!json_lines(&first).is_empty());
    assert_eq!(first.stdout, second.stdout);
}

#[test]
fn a_file_that_is_no_recording_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.jsonl");
    std::fs::write(&path, "\u{0}\u{1}garbage").unwrap();
    let mut args = RULES_ONLY.to_vec();
    args.extend(["replay", path.to_str().unwrap()]);
    let output = run_with_input(inwarden(&args), b"");
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("r.jsonl"), "{}", stderr(&output));
}

#[test]
fn damaged_model_files_are_refused_by_name() {
    let id = "qwen2.5-coder-0.5b-instruct-q4_k_m";
    for (what, bytes) in [
        ("garbage", &b"GGUF\xff\xff\xff\xff"[..]),
        ("empty", &b""[..]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join(id);
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join(format!("{id}.gguf")), bytes).unwrap();
        let mut command = inwarden(&["--without", "precedents", "classify"]);
        command.env("INWARDEN_MODELS", dir.path());
        let output = run_with_input(command, b"{\"id\":1,\"argv\":[\"ls\"]}\n");
        assert_eq!(output.status.code(), Some(2), "{what}: {}", stderr(&output));
        assert!(stderr(&output).contains(id), "{what}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_device_that_cannot_be_is_refused_and_a_card_needs_its_own_build() {
    for (device, said) in [
        ("gpu", "device must be cpu, or cuda:0"),
        ("cuda:0", "built with the feature `cuda`"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("inwarden.toml");
        std::fs::write(&config, format!("device = \"{device}\"\n")).unwrap();
        let mut command = inwarden(&["--without", "precedents", "--config"]);
        command.arg(&config).arg("classify");
        command.env("INWARDEN_MODELS", dir.path());
        let output = run_with_input(command, b"{\"id\":1,\"argv\":[\"ls\"]}\n");
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn watching_without_the_right_says_what_is_missing() {
    if rustix::process::geteuid().is_root() {
        // Root may watch; the unprivileged case is run as another user.
        let status = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "true"])
            .status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: setpriv cannot drop root here");
            return;
        }
    }
    let binary = env!("CARGO_BIN_EXE_inwarden");
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let copy = dir.path().join("inwarden");
    std::fs::copy(binary, &copy).unwrap();
    let mut command = match rustix::process::geteuid().is_root() {
        true => {
            let mut command = std::process::Command::new("setpriv");
            command
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .arg(&copy);
            command
        }
        false => std::process::Command::new(&copy),
    };
    command
        .args(RULES_ONLY)
        .args(["watch", "--audit"])
        .arg(dir.path().join("audit.jsonl"))
        .env("HOME", dir.path());
    let output = run_with_input(command, b"");
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("CAP_BPF") || said.contains("root"), "{said}");
}
