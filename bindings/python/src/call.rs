//! The one way into the engine.

use std::{
    sync::mpsc::{RecvTimeoutError, channel},
    time::Duration,
};

use pyo3::prelude::*;

use crate::errors::InwardenError;

/// How often a waiting call looks for Ctrl-C.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// Runs `work` on a thread of its own with the GIL released, and returns its
/// result. Ctrl-C raises `KeyboardInterrupt` here; the work then finishes
/// unobserved.
pub(crate) fn detached<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let (sender, result) = channel();
    std::thread::Builder::new()
        .name("inwarden-call".to_owned())
        .spawn(move || {
            // The caller may have been interrupted; then nobody wants it.
            let _abandoned = sender.send(work());
        })?;
    // A receiver is not `Sync`; only this thread touches it while detached.
    let result = std::sync::Mutex::new(result);
    loop {
        let received = py.detach(|| match result.lock() {
            Ok(result) => result.recv_timeout(SIGNAL_CHECK),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        });
        match received {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                let message = "a call ended by a panic; please report this";
                return Err(InwardenError::new_err(message));
            }
        }
    }
}
