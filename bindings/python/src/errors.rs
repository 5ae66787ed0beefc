//! From engine errors to the exceptions of `inwarden._errors`, by who must act.

use std::{io, path::Path};

use inwarden::{EngineError, FeedbackError, feeds::FeedError, models::ModelError};
use pyo3::{import_exception, prelude::*};

import_exception!(inwarden._errors, InwardenError);
import_exception!(inwarden._errors, AuditError);
import_exception!(inwarden._errors, ConfigurationError);
import_exception!(inwarden._errors, DataError);
import_exception!(inwarden._errors, ForkedProcessError);
import_exception!(inwarden._errors, HostError);
import_exception!(inwarden._errors, ModelNotFoundError);

/// The exception for an engine error, with all its causes in the message.
pub(crate) fn exception(error: &EngineError) -> PyErr {
    let message = with_causes(error);
    match error {
        EngineError::Models(ModelError::Absent { .. } | ModelError::UnknownModel { .. }) => {
            ModelNotFoundError::new_err(message)
        }
        EngineError::ForkedProcess { .. } => ForkedProcessError::new_err(message),
        EngineError::AuditOpen { .. } => AuditError::new_err(message),
        EngineError::AuditWrite { unwritten, .. } => Python::attach(|py| {
            let error = AuditError::new_err(message);
            match error.value(py).setattr("unwritten", unwritten.clone()) {
                Ok(()) => error,
                Err(other) => other,
            }
        }),
        EngineError::Feedback(error) => match error {
            FeedbackError::AuditRead { .. } => AuditError::new_err(message),
            FeedbackError::Busy { .. }
            | FeedbackError::Rows { .. }
            | FeedbackError::RowsFull { .. } => HostError::new_err(message),
            FeedbackError::RowDamaged { .. } => DataError::new_err(message),
            _ => ConfigurationError::new_err(message),
        },
        EngineError::Import(_) => DataError::new_err(message),
        EngineError::Policy(_) => ConfigurationError::new_err(message),
        EngineError::Models(_)
        | EngineError::Inference(_)
        | EngineError::Judge(_)
        | EngineError::Classifier(_)
        | EngineError::Feed(_) => DataError::new_err(message),
        EngineError::Sensor(_)
        | EngineError::Gpu(_)
        | EngineError::Memory(_)
        | EngineError::Response(_)
        | EngineError::Recording { .. }
        | EngineError::Thread { .. } => HostError::new_err(message),
        _ => InwardenError::new_err(message),
    }
}

/// That this is the process with the id `started`: in a forked child the threads
/// of what was made before are absent, and its locks may be held for ever.
pub(crate) fn check_process(started: u32) -> PyResult<()> {
    let process = std::process::id();
    if process == started {
        return Ok(());
    }
    let forked = EngineError::ForkedProcess { started, process };
    Err(exception(&forked))
}

/// The exception for a line that cannot be read.
pub(crate) fn feed_exception(error: &FeedError) -> PyErr {
    DataError::new_err(with_causes(error))
}

/// The `OSError` for a file that cannot be read, by kind and with its name.
pub(crate) fn file_exception(path: &Path, error: &io::Error) -> PyErr {
    io::Error::new(error.kind(), format!("{}: {error}", path.display())).into()
}

pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
