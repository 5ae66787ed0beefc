//! The inline door.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use inwarden::{
    EngineError, FailureMode, Feedback, GuardConfig,
    types::{AgentText, Label, PastCall, TextGiver, ToolCall},
};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    answer::Case,
    call::detached,
    config::{AnalystOptions, load, mode, option},
    errors::{ConfigurationError, InwardenError, check_process, exception},
    feedback::Entry,
};

/// See `inwarden.Guard`.
#[pyclass(frozen, module = "inwarden._native")]
pub(crate) struct Guard {
    /// `None` once closed. Each call holds it for reading until it is answered,
    /// even if Ctrl-C has let the caller go; closing holds it for writing and so
    /// waits for all of them.
    guard: Arc<RwLock<Option<inwarden::Guard>>>,
    /// The process it was made in.
    process: u32,
}

/// How the guard runs, as keyword arguments.
struct GuardOptions {
    mode: String,
    failure: String,
    deadline_s: f64,
    queue: i64,
    audit_log: Option<PathBuf>,
}

#[pymethods]
impl Guard {
    #[new]
    fn new(
        py: Python<'_>,
        analyst: &Bound<'_, PyDict>,
        guard: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let analyst = AnalystOptions::read(analyst)?;
        let config = GuardOptions::read(guard)?.into_config()?;
        let guard = detached(py, move || {
            let analyst = Arc::new(load(analyst)?);
            inwarden::Guard::start(analyst, config).map_err(|error| exception(&error))
        })??;
        Ok(Self {
            guard: Arc::new(RwLock::new(Some(guard))),
            process: std::process::id(),
        })
    }

    fn check_tool_call(&self, py: Python<'_>, call: &Bound<'_, PyDict>) -> PyResult<Case> {
        let call = ToolCall {
            agent: option(call, "agent")?,
            role: option(call, "role")?,
            user_task: option(call, "user_task")?,
            tool: option(call, "tool")?,
            args_json: option(call, "args_json")?,
            history: option::<Vec<(String, String, String)>>(call, "history")?
                .into_iter()
                .map(|(tool, args_json, output)| PastCall {
                    tool,
                    args_json,
                    output,
                })
                .collect(),
        };
        self.with_open(py, |guard| guard.check_tool_call(call))
            .map(Case::from)
    }

    fn check_text(&self, py: Python<'_>, text: &Bound<'_, PyDict>) -> PyResult<Case> {
        let given_by: String = option(text, "given_by")?;
        let Some(given_by) = TextGiver::from_name(&given_by) else {
            return Err(ConfigurationError::new_err(format!(
                "given_by={given_by:?}: allowed are 'user', 'tool'"
            )));
        };
        let text = AgentText {
            agent: option(text, "agent")?,
            role: option(text, "role")?,
            given_by,
            text: option(text, "text")?,
            user_task: option(text, "user_task")?,
            tool: option(text, "tool")?,
        };
        self.with_open(py, |guard| guard.check_text(text))
            .map(Case::from)
    }

    fn give_feedback(
        &self,
        py: Python<'_>,
        case: &Case,
        label: &str,
        note: Option<String>,
    ) -> PyResult<Entry> {
        let judged = case.judged.clone();
        let label = label_named(label)?;
        self.with_feedback(py, move |feedback| {
            feedback.give(&judged, label, note.as_deref())
        })
        .map(Entry::from)
    }

    fn list_feedback(&self, py: Python<'_>) -> PyResult<Vec<Entry>> {
        let entries = self.with_feedback(py, Feedback::list)?;
        Ok(entries.into_iter().map(Entry::from).collect())
    }

    fn undo_feedback(&self, py: Python<'_>, id: String) -> PyResult<Entry> {
        self.with_feedback(py, move |feedback| feedback.undo(&id))
            .map(Entry::from)
    }

    fn check_process(&self) -> PyResult<()> {
        check_process(self.process)
    }

    fn counters(&self, py: Python<'_>) -> PyResult<Vec<(&'static str, u64)>> {
        self.with_open(py, |guard| guard.counters().named())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        check_process(self.process)?;
        let guard = Arc::clone(&self.guard);
        let closed = detached(py, move || {
            let taken = guard.write().unwrap_or_else(PoisonError::into_inner).take();
            taken.map_or(Ok(()), inwarden::Guard::close)
        })?;
        closed.map_err(|error| exception(&error))
    }
}

/// A guard that was never closed waits for its threads when dropped, which must
/// not happen where the GIL is held.
impl Drop for Guard {
    fn drop(&mut self) {
        let guard = std::mem::take(&mut self.guard);
        if check_process(self.process).is_err() {
            // Its threads and files are the parent's.
            return std::mem::forget(guard);
        }
        let dropping = std::thread::Builder::new().spawn(move || drop(guard));
        // If no thread can be had, it was dropped here.
        drop(dropping);
    }
}

impl Guard {
    fn with_feedback<T: Send + 'static>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&Feedback) -> Result<T, EngineError> + Send + 'static,
    ) -> PyResult<T> {
        self.with_open(py, |guard| guard.feedback().and_then(ask))?
            .map_err(|error| exception(&error))
    }

    fn with_open<T: Send + 'static>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&inwarden::Guard) -> T + Send + 'static,
    ) -> PyResult<T> {
        check_process(self.process)?;
        let guard = Arc::clone(&self.guard);
        detached(py, move || {
            let guard = guard.read().unwrap_or_else(PoisonError::into_inner);
            guard.as_ref().map(ask)
        })?
        .ok_or_else(|| InwardenError::new_err("the guard is closed"))
    }
}

fn label_named(name: &str) -> PyResult<Label> {
    [Label::Benign, Label::Malicious]
        .into_iter()
        .find(|label| label.name() == name)
        .ok_or_else(|| {
            ConfigurationError::new_err(format!(
                "label={name:?}: allowed are 'benign', 'malicious'"
            ))
        })
}

impl GuardOptions {
    fn read(options: &Bound<'_, PyDict>) -> PyResult<Self> {
        Ok(Self {
            mode: option(options, "mode")?,
            failure: option(options, "failure")?,
            deadline_s: option(options, "deadline_s")?,
            queue: option(options, "queue")?,
            audit_log: option(options, "audit_log")?,
        })
    }

    fn into_config(self) -> PyResult<GuardConfig> {
        let failure = match self.failure.as_str() {
            "closed" => FailureMode::Closed,
            "open" => FailureMode::Open,
            other => {
                return Err(ConfigurationError::new_err(format!(
                    "failure={other:?}: allowed are 'closed', 'open'"
                )));
            }
        };
        let deadline = Duration::try_from_secs_f64(self.deadline_s)
            .ok()
            .filter(|deadline| (0.001..=3600.0).contains(&deadline.as_secs_f64()))
            .ok_or_else(|| {
                ConfigurationError::new_err(format!(
                    "deadline_s={}: allowed are 0.001 to 3600",
                    self.deadline_s
                ))
            })?;
        let queue = usize::try_from(self.queue)
            .ok()
            .filter(|queue| (1..=65_536).contains(queue))
            .ok_or_else(|| {
                ConfigurationError::new_err(format!("queue={}: allowed are 1 to 65536", self.queue))
            })?;
        Ok(GuardConfig {
            mode: mode(&self.mode)?,
            failure,
            deadline,
            queue,
            audit_log: self.audit_log,
        })
    }
}
