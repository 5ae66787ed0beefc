//! One process at a time pulls a given model.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::ModelError;

/// How often the lock is tried while another process holds it.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// Held until dropped; the kernel drops it too when the process dies.
#[derive(Debug)]
pub(crate) struct PullLock {
    _file: File,
}

impl PullLock {
    /// Takes the lock, calling `while_waiting` between tries.
    ///
    /// The lock is `flock(2)` on `path`, which is created and never removed:
    /// removing it would let two processes lock two files of the same name.
    pub(crate) fn take(
        id: &str,
        path: &Path,
        deadline: Duration,
        while_waiting: &mut dyn FnMut(),
    ) -> Result<Self, ModelError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(|error| ModelError::io("open the lock", path, error))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if start.elapsed() < deadline => {
                    while_waiting();
                    sleep(RETRY_EVERY);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(ModelError::Busy {
                        id: id.to_owned(),
                        waited: start.elapsed(),
                    });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(ModelError::io("take the lock", path, error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_waited_for_and_then_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.lock");
        let held = PullLock::take("m", &path, Duration::ZERO, &mut || ()).unwrap();
        let mut waits = 0;
        let error =
            PullLock::take("m", &path, Duration::from_millis(150), &mut || waits += 1).unwrap_err();
        assert!(matches!(error, ModelError::Busy { .. }), "{error}");
        assert!(waits >= 1);
        drop(held);
        PullLock::take("m", &path, Duration::ZERO, &mut || ()).unwrap();
    }
}
