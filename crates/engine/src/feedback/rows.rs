//! Rows to learn from, in the format of the corpus, with what was said beside them.
//!
//! `case`, `given_unix_ns` and `note` are for people and for undoing; what learns
//! does not read them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use inwarden_types::{
    AgentText, CaseId, EventData, EventKind, Label, PastCall, TextGiver, ToolCall, WallTime,
};
use rustix::{fs::FlockOperation, io::Errno};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FeedbackEntry, FeedbackError, JudgedCase};

/// What there can be feedback about; each has a file.
pub(super) const KINDS: [EventKind; 3] = [EventKind::Exec, EventKind::Text, EventKind::ToolCall];

/// The largest file of rows.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// How long a process waits for another one's change.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);
const LOCK_CHECK: Duration = Duration::from_millis(10);

/// Bytes of a summary.
const MAX_SUMMARY_BYTES: usize = 160;

/// One line of a file.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) id: String,
    label: String,
    family: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    technique: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    argv: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    parent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    user_task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    history: Option<Vec<PastRow>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    args: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    agent_role: Option<String>,
    case: String,
    given_unix_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    note: Option<String>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PastRow {
    tool: String,
    args: Value,
    output: String,
}

impl Row {
    pub(super) fn new(
        id: &str,
        judged: &JudgedCase,
        label: Label,
        (given, note): (WallTime, Option<String>),
    ) -> Self {
        let malicious = label == Label::Malicious;
        let technique = judged.technique.as_ref().filter(|_| malicious);
        let row = Self {
            id: id.to_owned(),
            label: label.name().to_owned(),
            family: String::new(),
            technique: technique.map(|technique| technique.0.clone()),
            argv: None,
            parent: None,
            kind: None,
            text: None,
            user_task: None,
            history: None,
            tool: None,
            args: None,
            agent_role: None,
            case: judged.id().0.clone(),
            given_unix_ns: given.0,
            note,
        };
        let event = judged.event();
        match &event.data {
            EventData::ToolCall(call) => row.with_call(call, malicious),
            EventData::Text(text) => row.with_text(text, malicious),
            _ => {
                let image = &event.process.image;
                let parent = event.ancestors.first().map(|ancestor| &ancestor.image);
                let program = image.argv.args.first().map_or(image.exe.as_str(), |a| a);
                Self {
                    family: family(base_name(program)),
                    argv: Some(match image.argv.args.is_empty() {
                        true => vec![image.exe.clone()],
                        false => image.argv.args.clone(),
                    }),
                    parent: parent.map(|image| match image.exe.is_empty() {
                        true => image.comm.clone(),
                        false => base_name(&image.exe).to_owned(),
                    }),
                    ..row
                }
            }
        }
    }

    fn with_call(self, call: &ToolCall, malicious: bool) -> Self {
        Self {
            label: if malicious { "attack" } else { "benign" }.to_owned(),
            family: family(&call.tool),
            // The format has no row without a task.
            user_task: Some(call.user_task.clone().unwrap_or_default()),
            history: Some(call.history.iter().map(PastRow::of).collect()),
            tool: Some(call.tool.clone()),
            args: Some(json_or_text(&call.args_json)),
            agent_role: call.role.clone(),
            ..self
        }
    }

    fn with_text(self, text: &AgentText, malicious: bool) -> Self {
        let kind = match text.given_by {
            TextGiver::User => "user_prompt",
            TextGiver::Tool => "tool_output",
        };
        Self {
            label: if malicious { "injection" } else { "benign" }.to_owned(),
            family: family(text.tool.as_deref().unwrap_or(kind)),
            kind: Some(kind.to_owned()),
            text: Some(text.text.clone()),
            user_task: text.user_task.clone(),
            tool: text.tool.clone(),
            ..self
        }
    }

    pub(super) fn entry(&self, kind: EventKind) -> FeedbackEntry {
        let mut summary = match (&self.argv, &self.text) {
            (Some(argv), _) => argv.join(" "),
            (None, Some(text)) => text.clone(),
            (None, None) => {
                let tool = self.tool.as_deref().unwrap_or_default();
                format!("{tool} {}", self.args.as_ref().unwrap_or(&Value::Null))
            }
        };
        if summary.len() > MAX_SUMMARY_BYTES {
            summary.truncate(summary.floor_char_boundary(MAX_SUMMARY_BYTES));
            summary.push_str("...");
        }
        FeedbackEntry {
            id: self.id.clone(),
            label: match self.label.as_str() {
                "benign" => Label::Benign,
                _ => Label::Malicious,
            },
            case: CaseId(self.case.clone()),
            kind,
            note: self.note.clone(),
            given: WallTime(self.given_unix_ns),
            summary,
        }
    }
}

impl PastRow {
    fn of(past: &PastCall) -> Self {
        Self {
            tool: past.tool.clone(),
            args: json_or_text(&past.args_json),
            output: past.output.clone(),
        }
    }
}

/// Recorded arguments may be cut, and then are no JSON.
fn json_or_text(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|_| Value::from(json))
}

/// Rows of one program or tool resemble each other, so cross-validation is to keep
/// them together.
fn family(name: &str) -> String {
    let name: String = name
        .chars()
        .take(48)
        .map(|c| match c.is_ascii_alphanumeric() {
            true => c.to_ascii_lowercase(),
            false => '_',
        })
        .collect();
    format!("feedback_{name}")
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The files of one store, in a directory of their own beside it.
#[derive(Clone, Debug)]
pub(super) struct RowFiles {
    dir: PathBuf,
}

/// The files while no other process changes them.
pub(super) struct LockedRows<'a> {
    dir: &'a Path,
    /// Closing it lets the next one in.
    _lock: File,
}

impl RowFiles {
    pub(super) fn of_store(store: &Path) -> Self {
        Self {
            dir: store.join("feedback"),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits at most [`LOCK_DEADLINE`] for other processes.
    pub(super) fn lock(&self) -> Result<LockedRows<'_>, FeedbackError> {
        let path = self.dir.join("lock");
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(failed("make", &self.dir))?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        let limit = Instant::now() + LOCK_DEADLINE;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if Instant::now() < limit => {
                    std::thread::sleep(LOCK_CHECK);
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(FeedbackError::Busy {
                        path: self.dir.clone(),
                        waited: LOCK_DEADLINE,
                    });
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed("lock", &path)(error.into())),
            }
        }
        Ok(LockedRows {
            dir: &self.dir,
            _lock: file,
        })
    }
}

impl LockedRows<'_> {
    /// The rows of `kind`; none if there is no file.
    pub(super) fn read(&self, kind: EventKind) -> Result<Vec<Row>, FeedbackError> {
        let path = self.path(kind);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(failed("read", &path))?;
        check_size(&path, bytes.len())?;
        let damaged = |line: usize, reason: String| FeedbackError::RowDamaged {
            path: path.clone(),
            line,
            reason,
        };
        let lines = bytes.split(|byte| *byte == b'\n').enumerate();
        lines
            .filter(|(_, line)| !line.trim_ascii().is_empty())
            .map(|(idx, line)| {
                let row: Row = serde_json::from_slice(line).map_err(|error| {
                    // Its own words may repeat a value.
                    damaged(
                        idx + 1,
                        format!("{:?} at column {}", error.classify(), error.column()),
                    )
                })?;
                match row.label.as_str() {
                    "malicious" | "injection" | "attack" | "benign" => Ok(row),
                    _ => Err(damaged(idx + 1, "an unknown label".to_owned())),
                }
            })
            .collect()
    }

    /// Puts `rows` in the place of those of `kind`; the file is the old or the new one
    /// at any time.
    pub(super) fn write(&self, kind: EventKind, rows: &[Row]) -> Result<(), FeedbackError> {
        let path = self.path(kind);
        let mut text = String::new();
        for row in rows {
            let line = serde_json::to_string(row).map_err(io::Error::from);
            text.push_str(&line.map_err(failed("write", &path))?);
            text.push('\n');
        }
        check_size(&path, text.len())?;
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(self.dir)?.sync_all()
        };
        write().map_err(failed("write", &path))
    }

    fn path(&self, kind: EventKind) -> PathBuf {
        self.dir.join(match kind {
            EventKind::ToolCall => "toolcalls-feedback.jsonl",
            EventKind::Text => "prompts-feedback.jsonl",
            _ => "exec-feedback.jsonl",
        })
    }
}

fn check_size(path: &Path, bytes: usize) -> Result<(), FeedbackError> {
    let bytes = bytes as u64;
    if bytes <= MAX_FILE_BYTES {
        return Ok(());
    }
    Err(FeedbackError::RowsFull {
        path: path.to_owned(),
        bytes,
        max: MAX_FILE_BYTES,
    })
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FeedbackError {
    let path = path.to_owned();
    move |source| FeedbackError::Rows {
        action,
        path,
        source,
    }
}
