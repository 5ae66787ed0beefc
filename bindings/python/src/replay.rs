//! The background door on a recording.

use std::{
    collections::BTreeSet,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use inwarden::{
    ReplayConfig, Warden,
    feeds::RecordingReader,
    types::{CgroupId, Scope},
};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    answer::Case,
    call::detached,
    config::{AnalystOptions, load, mode},
    errors::{DataError, check_process, feed_exception, file_exception, with_causes},
};

type Events = RecordingReader<BufReader<File>>;

/// See `inwarden.Warden.replay`: an iterator over the cases of a recording.
#[pyclass(frozen, module = "inwarden._native")]
pub(crate) struct Replay {
    cases: Arc<Mutex<inwarden::Replay<Events>>>,
    /// The process it was made in.
    process: u32,
}

#[pymethods]
impl Replay {
    #[new]
    fn new(
        py: Python<'_>,
        recording: PathBuf,
        analyst: &Bound<'_, PyDict>,
        mode_name: &str,
        scope_cgroups: BTreeSet<u64>,
    ) -> PyResult<Self> {
        let analyst = AnalystOptions::read(analyst)?;
        let replay = ReplayConfig {
            mode: mode(mode_name)?,
            scope: match scope_cgroups.is_empty() {
                true => Scope::AlertOnly,
                false => Scope::Cgroups(scope_cgroups.into_iter().map(CgroupId).collect()),
            },
        };
        let cases = detached(py, move || {
            let events = open(&recording)?;
            let analyst = Arc::new(load(analyst)?);
            PyResult::Ok(Warden::replay(analyst, replay, events))
        })??;
        Ok(Self {
            cases: Arc::new(Mutex::new(cases)),
            process: std::process::id(),
        })
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Case>> {
        check_process(self.process)?;
        let cases = Arc::clone(&self.cases);
        let next = detached(py, move || {
            cases.lock().unwrap_or_else(PoisonError::into_inner).next()
        })?;
        match next {
            None => Ok(None),
            Some(Ok(report)) => Ok(Some(Case::from(report))),
            Some(Err(error)) => Err(feed_exception(&error)),
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if check_process(self.process).is_err() {
            // In a forked child its files are the parent's: they stay.
            std::mem::forget(Arc::clone(&self.cases));
        }
    }
}

/// Opens a recording and reads its header.
fn open(path: &Path) -> PyResult<Events> {
    let file = File::open(path).map_err(|error| file_exception(path, &error))?;
    RecordingReader::new(BufReader::new(file))
        .map_err(|error| DataError::new_err(format!("{}: {}", path.display(), with_causes(&error))))
}
