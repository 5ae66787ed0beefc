//! The user's own ordinary work as rows of the corpus.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::Write as _,
    ops::ControlFlow,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use inwarden_classifier::{Classifier, ClassifierConfig, Parts, exec_case, recorded_family};
use inwarden_sensor::{Sensor, SensorConfig};
use inwarden_types::{Event, EventData};
use serde_json::json;

use super::{file_error, mine::parent_of};
use crate::{EngineError, redact_argv};

/// Most rows of one file.
const MAX_ROWS: usize = 200_000;
/// How long the sensor is waited for at a time.
const POLL: Duration = Duration::from_millis(200);

/// What became of the executions that were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordedWork {
    /// Executions that were seen.
    pub seen: u64,
    /// Rows that were written: one for each behaviour.
    pub written: u64,
    /// Executions whose arguments were not all captured; they were passed over.
    pub cut: u64,
    /// Executions past the most rows of a file.
    pub beyond: u64,
    /// Events that the kernel had no room for.
    pub lost: u64,
}

/// Writes rows of ordinary work: label `benign`, arguments redacted, one row for each
/// behaviour.
#[derive(Debug)]
pub struct WorkRecorder {
    path: PathBuf,
    file: File,
    /// Without parts: it names behaviours.
    classifier: Classifier,
    seen: HashSet<[u8; 32]>,
    counts: RecordedWork,
}

impl WorkRecorder {
    /// Begins a file, which is its owner's alone and must not be there yet.
    ///
    /// # Errors
    /// [`EngineError::LearnFile`] if it cannot be made.
    pub fn create(path: &Path) -> Result<Self, EngineError> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| file_error(path, source))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            classifier: Classifier::new(ClassifierConfig::shipped()?, Parts::default())?,
            seen: HashSet::new(),
            counts: RecordedWork::default(),
        })
    }

    /// Records what this machine runs until `step`, which is asked several times a
    /// second, breaks off. Needs what [`crate::sensor::probe`] lists.
    ///
    /// # Errors
    /// [`EngineError::Sensor`] if it cannot start or fails, [`EngineError::LearnFile`]
    /// if a row cannot be written; the rows before it stay.
    pub fn run(
        mut self,
        step: &mut dyn FnMut(RecordedWork) -> ControlFlow<()>,
    ) -> Result<RecordedWork, EngineError> {
        let sensor = Sensor::start(&SensorConfig::default());
        // Nothing was written: the next try is to find the name free.
        let mut sensor = sensor.inspect_err(|_| drop(fs::remove_file(&self.path)))?;
        let mut events = Vec::new();
        while step(self.counts).is_continue() {
            sensor.poll(POLL, &mut events)?;
            for event in events.drain(..) {
                self.take(&event)?;
            }
        }
        let (rest, losses) = sensor.stop()?;
        for event in &rest {
            self.take(event)?;
        }
        self.counts.lost = losses.dropped;
        Ok(self.counts)
    }

    /// Writes the row of an execution whose behaviour is new; other events are passed
    /// over.
    ///
    /// # Errors
    /// [`EngineError::LearnFile`] if it cannot be written.
    pub fn take(&mut self, event: &Event) -> Result<(), EngineError> {
        let argv = &event.process.image.argv;
        if !matches!(event.data, EventData::Exec) || argv.args.is_empty() {
            return Ok(());
        }
        self.counts.seen += 1;
        if argv.truncated {
            self.counts.cut += 1;
            return Ok(());
        }
        let argv = redact_argv(&argv.args);
        let parent = parent_of(event);
        let parents: Vec<String> = parent.clone().into_iter().collect();
        // Of what a row has alone: two that differ elsewhere would be one row twice.
        let key = self
            .classifier
            .behaviour_of(&exec_case("", argv.clone(), &parents));
        if self.seen.contains(&key) {
            return Ok(());
        }
        if self.seen.len() >= MAX_ROWS {
            self.counts.beyond += 1;
            return Ok(());
        }
        self.seen.insert(key);
        let name: String = key[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        let row = json!({
            "id": format!("recorded-{name}"),
            "label": "benign",
            "family": recorded_family(&argv),
            "tier": "plain",
            "argv": argv,
            "parent": parent,
        });
        writeln!(self.file, "{row}").map_err(|source| file_error(&self.path, source))?;
        self.counts.written += 1;
        Ok(())
    }

    /// What became of the executions so far.
    #[must_use]
    pub fn counts(&self) -> RecordedWork {
        self.counts
    }
}
