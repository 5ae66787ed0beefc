//! A judged case, as far as it is needed to say something about it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
};

use inwarden_types::{
    AgentText, Ancestor, Argv, Case, CaseId, Event, EventData, EventId, EventKind, Image, PastCall,
    Process, Technique, TextGiver, ToolCall, WallTime,
};
use serde::Deserialize;

use super::FeedbackError;
use crate::{
    CaseReport, EngineError,
    audit::AUDIT_SCHEMA,
    redact::{redact_argv, redact_json, redact_text},
};

/// The longest line of an audit log that is looked at.
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// A case that was judged, without its secrets.
#[derive(Clone, Debug)]
pub struct JudgedCase {
    id: CaseId,
    /// Of the event under judgement alone, redacted.
    pub(super) case: Case,
    pub(super) technique: Option<Technique>,
}

impl JudgedCase {
    /// The case of `report`.
    #[must_use]
    pub fn of(report: &CaseReport) -> Self {
        Self {
            id: report.case.id().clone(),
            case: Case::of(redacted(report.case.last())),
            technique: report.verdict.technique.clone(),
        }
    }

    /// The case that the audit log at `path` names `case`; the last one, if it does so
    /// more than once. The log may be in use.
    ///
    /// Of a text, the log holds the beginning; a case that is longer is found again by
    /// likeness, not word for word.
    ///
    /// # Errors
    /// [`FeedbackError::UnknownCase`], [`FeedbackError::AuditRead`],
    /// [`FeedbackError::Kind`].
    pub fn in_audit_log(path: &Path, case: &str) -> Result<Self, EngineError> {
        let unreadable = |source| FeedbackError::AuditRead {
            path: path.to_owned(),
            source,
        };
        let mut log = BufReader::new(File::open(path).map_err(unreadable)?);
        // A string of JSON, with its quotes: a part of another name does not match.
        let needle = serde_json::Value::from(case).to_string();
        let (mut found, mut unread, mut line) = (None, 0, Vec::new());
        while let Some(is_whole) = read_line(&mut log, &mut line).map_err(unreadable)? {
            if !is_whole {
                unread += 1;
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            if !text.contains(&needle) {
                continue;
            }
            match serde_json::from_str::<Record>(&text) {
                Ok(record) if record.is_case(case) => found = Some(record),
                Ok(_) => {}
                Err(_) => unread += 1,
            }
        }
        let record = found.ok_or_else(|| FeedbackError::UnknownCase {
            path: path.to_owned(),
            case: case.to_owned(),
            unread,
        })?;
        Ok(record.into_judged()?)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &CaseId {
        &self.id
    }

    pub(super) fn event(&self) -> &Event {
        self.case.last()
    }
}

/// Whether cases of this kind are judged by what they say.
pub(super) fn may_be_corrected(kind: EventKind) -> bool {
    super::rows::KINDS.contains(&kind)
}

/// Reads one line; `None` at the end, and whether all of it is in `line`.
fn read_line(log: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    log.by_ref()
        .take(MAX_RECORD_BYTES)
        .read_until(b'\n', line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') || (line.len() as u64) < MAX_RECORD_BYTES {
        return Ok(Some(true));
    }
    line.clear();
    log.skip_until(b'\n')?;
    Ok(Some(false))
}

/// What a behaviour is made of, with the redaction of the audit log.
fn redacted(event: &Event) -> Event {
    let argv = &event.process.image.argv;
    let image = Image {
        argv: Argv {
            args: redact_argv(&argv.args),
            ..argv.clone()
        },
        ..event.process.image.clone()
    };
    let ancestors = event.ancestors.iter().map(|ancestor| {
        let argv0 = ancestor.image.argv.args.first().cloned();
        named(
            ancestor.image.exe.clone(),
            ancestor.image.comm.clone(),
            argv0,
        )
    });
    let data = match &event.data {
        EventData::ToolCall(call) => EventData::ToolCall(ToolCall {
            role: call.role.clone(),
            user_task: call.user_task.as_deref().map(redact_text),
            args_json: redact_json(&call.args_json),
            history: call.history.iter().map(redacted_past).collect(),
            ..call.clone()
        }),
        EventData::Text(text) => EventData::Text(AgentText {
            text: redact_text(&text.text),
            user_task: text.user_task.as_deref().map(redact_text),
            ..text.clone()
        }),
        other => other.clone(),
    };
    Event {
        id: event.id.clone(),
        at: None,
        wall: event.wall,
        process: Process {
            image,
            ..Process::default()
        },
        ancestors: ancestors.collect(),
        data,
    }
}

fn redacted_past(past: &PastCall) -> PastCall {
    PastCall {
        tool: past.tool.clone(),
        args_json: redact_json(&past.args_json),
        output: redact_text(&past.output),
    }
}

fn named(exe: String, comm: String, argv0: Option<String>) -> Ancestor {
    Ancestor {
        key: None,
        image: Image {
            exe,
            comm,
            argv: Argv::complete(argv0.into_iter().collect()),
            ..Image::default()
        },
    }
}

/// A record of kind `case`, as far as it is read; see `record.rs`.
#[derive(Deserialize)]
struct Record {
    schema: String,
    kind: String,
    case: String,
    technique: Option<String>,
    event: EventRecord,
}

#[derive(Deserialize)]
struct EventRecord {
    id: String,
    kind: String,
    wall_ns: Option<u64>,
    exe: String,
    comm: String,
    argv: Vec<String>,
    argv_bytes: u64,
    argv_truncated: bool,
    #[serde(default)]
    ancestors: Vec<AncestorRecord>,
    #[serde(default)]
    agent: String,
    role: Option<String>,
    user_task: Option<String>,
    tool: Option<String>,
    args: Option<String>,
    #[serde(default)]
    history: Vec<PastRecord>,
    given_by: Option<String>,
    text: Option<String>,
}

#[derive(Deserialize)]
struct AncestorRecord {
    exe: String,
    comm: String,
}

#[derive(Deserialize)]
struct PastRecord {
    tool: String,
    args: String,
    output: String,
}

impl Record {
    fn is_case(&self, case: &str) -> bool {
        self.schema == AUDIT_SCHEMA && self.kind == "case" && self.case == case
    }

    fn into_judged(self) -> Result<JudgedCase, FeedbackError> {
        let event = self.event;
        let kind = EventKind::from_name(&event.kind).unwrap_or(EventKind::Loss);
        if !may_be_corrected(kind) {
            return Err(FeedbackError::Kind { kind });
        }
        let ancestors = event.ancestors.into_iter().take(8);
        let past = event.history.into_iter().map(|past| PastCall {
            tool: past.tool,
            args_json: past.args,
            output: past.output,
        });
        let data = match kind {
            EventKind::ToolCall => EventData::ToolCall(ToolCall {
                agent: event.agent,
                role: event.role,
                user_task: event.user_task,
                tool: event.tool.unwrap_or_default(),
                args_json: event.args.unwrap_or_default(),
                history: past.collect(),
            }),
            EventKind::Text => EventData::Text(AgentText {
                agent: event.agent,
                role: event.role,
                given_by: event
                    .given_by
                    .and_then(|name| TextGiver::from_name(&name))
                    .unwrap_or_default(),
                text: event.text.unwrap_or_default(),
                user_task: event.user_task,
                tool: event.tool,
            }),
            _ => EventData::Exec,
        };
        let argv = Argv {
            args: event.argv,
            true_bytes: event.argv_bytes,
            truncated: event.argv_truncated,
        };
        let recorded = Event {
            id: EventId::External(event.id),
            at: None,
            wall: event.wall_ns.map(WallTime),
            process: Process {
                image: Image {
                    exe: event.exe,
                    comm: event.comm,
                    argv,
                    ..Image::default()
                },
                ..Process::default()
            },
            ancestors: ancestors
                .map(|ancestor| named(ancestor.exe, ancestor.comm, None))
                .collect(),
            data,
        };
        Ok(JudgedCase {
            id: CaseId(self.case),
            // Whoever could write the log may have put anything into it.
            case: Case::of(redacted(&recorded)),
            technique: self.technique.map(Technique),
        })
    }
}
