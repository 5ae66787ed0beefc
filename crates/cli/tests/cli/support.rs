//! Runs the built binary.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// The stages that need no model files.
pub(crate) const RULES_ONLY: [&str; 4] = ["--without", "model", "--without", "precedents"];

/// `inwarden` with these arguments, in a directory of its own for state.
pub(crate) fn inwarden(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inwarden"));
    command.args(args);
    command
}

/// Runs `command` with `input` on its standard input.
pub(crate) fn run_with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("the binary runs");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A program that ends early closes its input.
        let _closed = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("the binary runs");
    writer.join().expect("the binary runs");
    output
}

/// Standard error as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The lines of standard output as JSON.
pub(crate) fn json_lines(output: &Output) -> Vec<serde_json::Value> {
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("the binary runs"))
        .collect()
}

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Whether the real model and a real kernel must be used.
pub(crate) fn must_be_real() -> bool {
    std::env::var_os("INWARDEN_TEST_REAL").is_some_and(|value| value == "1")
}
