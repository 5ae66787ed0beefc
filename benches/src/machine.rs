//! What a number was measured on.

use std::process::Command;

use serde_json::{Value, json};

/// Processor, cores, kernel and commit, as far as they can be found out.
pub(crate) fn describe() -> Value {
    let processor = field("/proc/cpuinfo", "model name");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    json!({
        "processor": processor,
        "cores": std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
        "kernel": kernel.map(|text| text.trim().to_owned()).ok(),
        "commit": commit(),
    })
}

/// The most memory this process has had resident, in bytes, mapped files
/// included; `None` where `/proc` does not say.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    let text = field("/proc/self/status", "VmHWM")?;
    let kib: u64 = text.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(match changed.is_empty() {
        true => commit,
        false => format!("{commit}, changed"),
    })
}
