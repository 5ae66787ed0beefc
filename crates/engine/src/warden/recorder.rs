//! Writes the events to a file as they come.

use std::{fs::File, os::unix::fs::OpenOptionsExt, path::PathBuf};

use inwarden_feeds::{FeedError, RecordingHeader, RecordingWriter};
use inwarden_types::{BootId, Event};

use crate::{EngineError, counters::Counters};

/// A recording being written. What cannot be written is counted; a failing file
/// is also reported at the end. Neither stops the warden.
pub(super) struct Recorder {
    path: PathBuf,
    /// `None` after the first failure.
    writer: Option<RecordingWriter<File>>,
    failed: Option<FeedError>,
}

impl Recorder {
    pub(super) fn create(path: PathBuf, boot_id: BootId) -> Result<Self, EngineError> {
        let header = RecordingHeader {
            boot_id: Some(boot_id),
            kernel: Some(kernel_release()),
            note: None,
        };
        // Command lines stand in it unredacted: for its owner only, and never
        // in place of another recording.
        let created = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(FeedError::Io)
            .and_then(|file| RecordingWriter::new(file, &header));
        match created {
            Ok(writer) => Ok(Self {
                path,
                writer: Some(writer),
                failed: None,
            }),
            Err(source) => Err(EngineError::Recording { path, source }),
        }
    }

    pub(super) fn write(&mut self, event: &Event, counters: &Counters) {
        let Some(writer) = &mut self.writer else {
            counters.recording_failures.add_one();
            return;
        };
        if let Err(error) = writer.write(event) {
            counters.recording_failures.add_one();
            // An event beyond the format's caps is left out, and counted; only a
            // file that cannot be written ends the recording.
            if matches!(error, FeedError::Io(_)) {
                self.failed = Some(error);
                self.writer = None;
            }
        }
    }

    /// Every event written so far is already flushed.
    pub(super) fn close(self) -> Result<(), EngineError> {
        self.failed.map_or(Ok(()), |source| {
            Err(EngineError::Recording {
                path: self.path,
                source,
            })
        })
    }
}

fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}
