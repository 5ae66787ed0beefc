//! The audit log: one JSON object a line, append-only.
//!
//! Format `inwarden.audit/1`. The first record of a run is `start` (what was
//! loaded, with hashes), the last `end` (counters and losses); between them one
//! `case` record per case and one `loss` record whenever events were lost.
//! Command lines stand in it redacted, see [`crate::redact_argv`].
//!
//! A record that cannot be written (a full disk) is never dropped: it and all
//! later ones are kept, tried again with the next record, and handed out by
//! [`AuditLog::close`] in the error.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use serde_json::{Map, Value, json};

use crate::EngineError;

/// The schema named in each record.
pub const AUDIT_SCHEMA: &str = "inwarden.audit/1";

/// The most bytes of records that are kept while they cannot be written. A guard
/// goes on answering (by its failure mode) on a full disk; beyond this its
/// records are counted and named as lost.
const MAX_UNWRITTEN_BYTES: usize = 64 << 20;

/// An open audit log.
#[derive(Debug)]
pub(crate) struct AuditLog {
    path: PathBuf,
    file: File,
    next_sequence: u64,
    /// Records that are not in the file yet, oldest first.
    unwritten: Vec<String>,
    unwritten_bytes: usize,
    /// How many records were beyond [`MAX_UNWRITTEN_BYTES`].
    lost: u64,
    last_error: Option<io::Error>,
}

impl AuditLog {
    /// Opens `path` for appending, mode 0600 if it is new. A regular file has one
    /// writer at a time.
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        let open = || {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(path)?;
            if file.metadata()?.is_file() {
                rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            }
            Ok(file)
        };
        let file = open().map_err(|source: io::Error| EngineError::AuditOpen {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            next_sequence: 0,
            unwritten: Vec::new(),
            unwritten_bytes: 0,
            lost: 0,
            last_error: None,
        })
    }

    /// Appends the first record of a run.
    ///
    /// # Errors
    /// [`EngineError::AuditWrite`] with the record, if it cannot be written.
    pub(crate) fn begin(mut self, fields: Map<String, Value>) -> Result<Self, EngineError> {
        self.append("start", fields);
        match self.last_error.take() {
            None => Ok(self),
            Some(source) => Err(self.into_error(source)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one record. Returns whether everything so far is in the file.
    pub(crate) fn append(&mut self, kind: &str, fields: Map<String, Value>) -> bool {
        let mut record = Map::new();
        record.insert("schema".to_owned(), json!(AUDIT_SCHEMA));
        record.insert("kind".to_owned(), json!(kind));
        record.insert("sequence".to_owned(), json!(self.next_sequence));
        record.extend(fields);
        self.next_sequence += 1;
        let record = Value::Object(record).to_string();
        if self.unwritten_bytes + record.len() > MAX_UNWRITTEN_BYTES {
            self.lost += 1;
        } else {
            self.unwritten_bytes += record.len();
            self.unwritten.push(record);
        }
        self.write_what_waits()
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// [`EngineError::AuditWrite`] with the records that are not in the file.
    pub(crate) fn close(mut self) -> Result<(), EngineError> {
        self.write_what_waits();
        if self.lost > 0 && self.last_error.is_none() {
            self.last_error = Some(io::ErrorKind::StorageFull.into());
        }
        let failed = self
            .last_error
            .take()
            .or_else(|| match self.file.sync_data() {
                // A pipe or device has no disk behind it.
                Err(error) if error.kind() != io::ErrorKind::InvalidInput => Some(error),
                _ => None,
            });
        match failed {
            None => Ok(()),
            Some(source) => Err(self.into_error(source)),
        }
    }

    fn into_error(self, source: io::Error) -> EngineError {
        EngineError::AuditWrite {
            path: self.path,
            unwritten: self.unwritten,
            lost: self.lost,
            source,
        }
    }

    fn write_what_waits(&mut self) -> bool {
        let mut written = 0;
        self.last_error = None;
        for record in &self.unwritten {
            if let Err(error) = append_line(&mut self.file, record) {
                self.last_error = Some(error);
                break;
            }
            written += 1;
            self.unwritten_bytes -= record.len();
        }
        self.unwritten.drain(..written);
        self.unwritten.is_empty() && self.lost == 0
    }
}

/// Appends the whole line or nothing: a part that was written is cut off again,
/// so that the file stays one record a line.
fn append_line(file: &mut File, record: &str) -> io::Result<()> {
    let before = file.metadata()?.len();
    let line = format!("{record}\n");
    file.write_all(line.as_bytes()).inspect_err(|_| {
        let is_regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if is_regular && let Err(error) = file.set_len(before) {
            tracing::warn!(%error, "a partly written audit record could not be cut off");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Map<String, Value> {
        Map::from_iter([("name".to_owned(), json!(name))])
    }

    #[test]
    fn records_are_appended_with_a_running_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/audit.jsonl");
        for _ in 0..2 {
            let mut log = AuditLog::open(&path).unwrap();
            assert!(log.append("case", record("a")));
            assert!(log.append("case", record("b")));
            log.close().unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let sequences: Vec<u64> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["sequence"]
                    .as_u64()
                    .unwrap()
            })
            .collect();
        assert_eq!(sequences, [0, 1, 0, 1]);
    }

    #[test]
    fn a_full_disk_keeps_every_record_and_is_an_error_at_close() {
        let mut log = AuditLog::open(Path::new("/dev/full")).unwrap();
        assert!(!log.append("case", record("a")));
        assert!(!log.append("case", record("b")));
        match log.close() {
            Err(EngineError::AuditWrite { unwritten, .. }) => {
                assert_eq!(unwritten.len(), 2);
                assert!(unwritten[0].contains("\"a\""));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_second_writer_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let first = AuditLog::open(&path).unwrap();
        assert!(matches!(
            AuditLog::open(&path),
            Err(EngineError::AuditOpen { .. })
        ));
        first.close().unwrap();
        AuditLog::open(&path).unwrap();
    }

    #[test]
    fn what_is_kept_on_a_full_disk_is_bounded_and_the_rest_is_counted() {
        let mut log = AuditLog::open(Path::new("/dev/full")).unwrap();
        let large = record(&"x".repeat(MAX_UNWRITTEN_BYTES / 2));
        for _ in 0..4 {
            assert!(!log.append("case", large.clone()));
        }
        match log.close() {
            Err(EngineError::AuditWrite {
                unwritten, lost, ..
            }) => assert_eq!((unwritten.len(), lost), (1, 3)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_unwritable_place_is_an_error_at_open() {
        assert!(matches!(
            AuditLog::open(Path::new("/proc/nope/audit.jsonl")),
            Err(EngineError::AuditOpen { .. })
        ));
    }
}
