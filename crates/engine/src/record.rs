//! What a case looks like in the audit log and on the command line.

use inwarden_types::{
    ActionReport, AgentText, Decision, Event, EventData, StageTimes, ToolCall, Verdict,
};
use serde_json::{Map, Value, json};

use crate::{
    CaseReport,
    redact::{redact_argv, redact_json, redact_text},
};

/// Bytes of a text that are recorded, and of one in a history.
const MAX_TEXT_BYTES: usize = 4_096;
const MAX_PAST_BYTES: usize = 512;
/// Earlier calls that are recorded, the last ones.
const MAX_PAST_CALLS: usize = 8;

/// The answer to one line of `classify`: `id`, `label`, `score`, `technique`,
/// `settled_by`, `source`, `decision`, `policies`, `stages_us`, and `undetermined` where
/// there is a reason for it. Stage times are in microseconds.
#[must_use]
pub fn verdict_json(event: &Event, verdict: &Verdict, decision: &Decision) -> Value {
    let mut line = Map::new();
    line.insert("id".to_owned(), json!(event.id.to_string()));
    add_verdict(&mut line, verdict);
    line.insert("decision".to_owned(), json!(decision.action.name()));
    line.insert("policies".to_owned(), policies(decision));
    line.insert("stages_us".to_owned(), stages_us(&verdict.stages));
    Value::Object(line)
}

pub(crate) fn case_record(report: &CaseReport) -> Map<String, Value> {
    let event = report.case.last();
    let mut record = Map::new();
    record.insert("case".to_owned(), json!(report.case.id().to_string()));
    record.insert("event".to_owned(), event_json(event));
    add_verdict(&mut record, &report.verdict);
    record.insert("evidence".to_owned(), evidence(&report.verdict));
    let decision = &report.decision;
    record.insert("decision".to_owned(), json!(decision.action.name()));
    record.insert("enforced".to_owned(), json!(decision.enforced.name()));
    record.insert("mode".to_owned(), json!(decision.mode.name()));
    record.insert("reason".to_owned(), json!(decision.reason.name()));
    record.insert("policies".to_owned(), policies(decision));
    record.insert("action".to_owned(), action_json(&report.action));
    record.insert("stages_us".to_owned(), stages_us(&report.stages));
    if let Some(elapsed) = report.event_to_action {
        record.insert("event_to_action_us".to_owned(), micros(elapsed));
    }
    record
}

fn add_verdict(record: &mut Map<String, Value>, verdict: &Verdict) {
    let technique = verdict.technique.as_ref().map(ToString::to_string);
    record.insert("label".to_owned(), json!(verdict.label.name()));
    record.insert("score".to_owned(), json!(verdict.score.probability()));
    record.insert("technique".to_owned(), json!(technique));
    record.insert("settled_by".to_owned(), json!(verdict.settled_by.name()));
    record.insert("source".to_owned(), json!(verdict.settled_by.source_id()));
    if let Some(reason) = &verdict.undetermined {
        record.insert("undetermined".to_owned(), json!(reason.to_string()));
    }
}

fn event_json(event: &Event) -> Value {
    let process = &event.process;
    let ancestors: Vec<Value> = event
        .ancestors
        .iter()
        .map(|ancestor| {
            json!({
                "process": ancestor.key.map(|key| key.to_string()),
                "exe": ancestor.image.exe,
                "comm": ancestor.image.comm,
            })
        })
        .collect();
    let mut value = json!({
        "id": event.id.to_string(),
        "kind": event.kind().name(),
        "wall_ns": event.wall.map(|wall| wall.0),
        "boot_ns": event.at.map(|at| at.0),
        "process": process.key.map(|key| key.to_string()),
        "exe": process.image.exe,
        "comm": process.image.comm,
        "argv": redact_argv(&process.image.argv.args),
        "argv_bytes": process.image.argv.true_bytes,
        "argv_truncated": process.image.argv.truncated,
        "cwd": process.image.cwd,
        "uid": process.uid.map(|uid| uid.0),
        "cgroup_id": process.cgroup_id.map(|id| id.0),
        "ancestors": ancestors,
    });
    if let Value::Object(fields) = &mut value {
        match &event.data {
            EventData::ToolCall(call) => add_call(fields, call),
            EventData::Text(text) => add_text(fields, text),
            EventData::File(access) => {
                fields.insert("op".to_owned(), json!(access.op.name()));
                fields.insert("path".to_owned(), json!(redact_text(&access.path)));
                let to = access.to.as_deref().map(redact_text);
                fields.insert("to".to_owned(), json!(to));
            }
            EventData::Connect(connection) => {
                let peer = connection.peer.to_string();
                fields.insert("dst".to_owned(), json!(peer));
                fields.insert("port".to_owned(), json!(connection.port));
                fields.insert("proto".to_owned(), json!(connection.protocol.name()));
            }
            EventData::Dns(query) => {
                fields.insert("query".to_owned(), json!(redact_text(&query.name)));
            }
            _ => {}
        }
    }
    value
}

fn add_call(fields: &mut Map<String, Value>, call: &ToolCall) {
    fields.insert("agent".to_owned(), json!(call.agent));
    add_task(fields, call.role.as_ref(), call.user_task.as_ref());
    fields.insert("tool".to_owned(), json!(call.tool));
    fields.insert("args".to_owned(), json!(redact_json(&call.args_json)));
    if call.history.is_empty() {
        return;
    }
    let n_left_out = call.history.len().saturating_sub(MAX_PAST_CALLS);
    let past: Vec<Value> = call.history[n_left_out..]
        .iter()
        .map(|past| {
            json!({
                "tool": past.tool,
                "args": beginning(&redact_json(&past.args_json), MAX_PAST_BYTES),
                "output": beginning(&redact_text(&past.output), MAX_PAST_BYTES),
                "output_bytes": past.output.len(),
            })
        })
        .collect();
    fields.insert("history".to_owned(), Value::Array(past));
    fields.insert("past_calls".to_owned(), json!(call.history.len()));
}

fn add_text(fields: &mut Map<String, Value>, text: &AgentText) {
    let shown = redact_text(&text.text);
    fields.insert("agent".to_owned(), json!(text.agent));
    add_task(fields, text.role.as_ref(), text.user_task.as_ref());
    fields.insert("tool".to_owned(), json!(text.tool));
    fields.insert("given_by".to_owned(), json!(text.given_by.name()));
    fields.insert("text".to_owned(), json!(beginning(&shown, MAX_TEXT_BYTES)));
    fields.insert("text_bytes".to_owned(), json!(text.text.len()));
}

/// What the agent is for and what it was asked, where that is known.
fn add_task(fields: &mut Map<String, Value>, role: Option<&String>, task: Option<&String>) {
    if let Some(role) = role {
        fields.insert("role".to_owned(), json!(beginning(role, MAX_PAST_BYTES)));
    }
    if let Some(task) = task {
        let shown = redact_text(task);
        let shown = beginning(&shown, MAX_TEXT_BYTES);
        fields.insert("user_task".to_owned(), json!(shown));
    }
}

/// At most about the first `max_bytes`; cut only after redaction, so that no half
/// of a secret is left.
fn beginning(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

fn evidence(verdict: &Verdict) -> Value {
    verdict
        .evidence
        .iter()
        .map(|evidence| {
            json!({
                "source": evidence.provenance.source_id,
                "version": evidence.provenance.version,
                "similarity": evidence.provenance.score,
                "log_odds": evidence.log_odds,
                "summary": evidence.summary,
            })
        })
        .collect()
}

fn action_json(report: &ActionReport) -> Value {
    let processes: Vec<Value> = report
        .processes
        .iter()
        .map(|process| {
            json!({
                "process": process.process.to_string(),
                "outcome": process.outcome.name(),
                "exit_signal": process.exit.map(|exit| exit.signal),
                "image_at_end": process.image_at_end.as_ref().map(|image| &image.exe),
            })
        })
        .collect();
    let refused = match report.outcome {
        inwarden_types::ActionOutcome::Refused(reason) => Some(reason.name()),
        _ => None,
    };
    json!({
        "attempted": report.action.name(),
        "outcome": report.outcome.name(),
        "refused": refused,
        "judged": report.judged.to_string(),
        "processes": processes,
    })
}

fn policies(decision: &Decision) -> Value {
    decision.policies.iter().map(|id| json!(id.0)).collect()
}

fn stages_us(stages: &StageTimes) -> Value {
    let fields = stages
        .as_slice()
        .iter()
        .map(|(stage, elapsed)| (stage.name().to_owned(), micros(*elapsed)));
    Value::Object(fields.collect())
}

fn micros(elapsed: std::time::Duration) -> Value {
    json!(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}
