//! Labelled rows to learn from: one JSON object a line.
//!
//! * exec: `id`, `label` (`malicious` or `benign`), `family`, `argv`, `parent`;
//! * texts: `id`, `label` (`injection` or `benign`), `family`, `kind` (`user`, or
//!   where a tool gave it, anything else), `text`, `user_task`, `tool`;
//! * tool calls: `id`, `label` (`attack` or `benign`), `family`, `user_task`,
//!   `history` (a list of `tool`, `args`, `output`), `tool`, `args`.
//!
//! All may have `pair` and `domain`. Rows of one domain are in one group, otherwise
//! those of one pair, otherwise those of one family, ordinary texts alone. Other
//! fields are for people and not read.

use std::collections::BTreeMap;

use inwarden_types::Case;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    ClassifierError,
    judge::{CallText, PastCall, Question, render_text},
    render::render_case,
    seed::exec_case,
    texts::render_call,
};

/// A labelled case.
#[derive(Clone, PartialEq, Eq)]
pub struct LearnRow {
    /// Its name.
    pub id: String,
    /// The truth.
    pub malicious: bool,
    /// Rows of one group are never both fitted and scored.
    pub group: String,
    /// The behaviour, or where an ordinary text comes from; for reports.
    pub family: String,
    /// What is asked about it.
    pub question: Question,
    /// The text that the judge reads.
    pub text: String,
    /// What the text was made of, for the other stages.
    pub source: LearnSource,
}

/// What a row is about.
#[derive(Clone, PartialEq, Eq)]
pub enum LearnSource {
    /// A program start.
    Exec(Box<Case>),
    /// A text that a user or a tool gave.
    Text(String),
    /// A tool call.
    Call(CallText),
}

impl std::fmt::Debug for LearnRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LearnRow")
            .field("id", &self.id)
            .field("malicious", &self.malicious)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Common {
    id: String,
    label: String,
    family: String,
    pair: Option<String>,
    domain: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Body {
    Exec {
        argv: Vec<String>,
        parent: Option<String>,
    },
    Text {
        kind: String,
        text: String,
        user_task: Option<String>,
        tool: Option<String>,
    },
    Call {
        user_task: String,
        #[serde(default)]
        history: Vec<Past>,
        tool: String,
        args: Value,
    },
}

#[derive(Deserialize)]
struct Past {
    tool: String,
    #[serde(default)]
    args: Value,
    #[serde(default)]
    output: Value,
}

/// Reads rows of any of the formats above; `file` names them in errors.
///
/// # Errors
/// [`ClassifierError::LearnLine`] with the first line that is none of them.
pub fn read_rows(file: &str, text: &str) -> Result<Vec<LearnRow>, ClassifierError> {
    let mut family_of_pair = BTreeMap::new();
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(idx, line)| {
            read_row(line, &mut family_of_pair).map_err(|problem| ClassifierError::LearnLine {
                file: file.to_owned(),
                line: idx + 1,
                problem,
            })
        })
        .collect()
}

fn read_row(line: &str, family_of_pair: &mut BTreeMap<String, String>) -> Result<LearnRow, String> {
    let row: Common = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let body: Body = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let malicious = match row.label.as_str() {
        "malicious" | "injection" | "attack" => true,
        "benign" => false,
        other => return Err(format!("no label {other}")),
    };
    let family = row.family.clone();
    let is_alone = row.pair.is_none() && row.domain.is_none();
    let group = match (row.domain, row.pair) {
        (Some(domain), _) => domain,
        (None, Some(pair)) => family_of_pair.entry(pair).or_insert(row.family).clone(),
        (None, None) => row.family,
    };
    let (question, text, source) = match body {
        Body::Exec { argv, parent } => {
            let parents: Vec<String> = parent.into_iter().collect();
            let case = exec_case(&row.id, argv, &parents);
            let text = render_case(&case);
            (Question::Exec, text, LearnSource::Exec(Box::new(case)))
        }
        Body::Text {
            kind,
            text,
            user_task,
            tool,
        } => {
            let question = match kind.as_str() {
                "user" | "user_text" | "user_prompt" => Question::UserText,
                _ => Question::ToolOutput,
            };
            let rendered = render_text(&text, user_task.as_deref(), tool.as_deref());
            (question, rendered, LearnSource::Text(text))
        }
        Body::Call {
            user_task,
            history,
            tool,
            args,
        } => {
            let words = |value: &Value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let history = history.into_iter().map(|past| PastCall {
                args_json: past.args.to_string(),
                output: words(&past.output),
                tool: past.tool,
            });
            let call = CallText {
                user_task,
                history: history.collect(),
                tool,
                args_json: args.to_string(),
            };
            let text = render_call(&call);
            (Question::ToolCall, text, LearnSource::Call(call))
        }
    };
    // The families of ordinary texts are the places they come from, which attacks
    // share: without one of them, it would be learnt that only attacks come from there.
    let has_own_group = !malicious && is_alone && question != Question::Exec;
    Ok(LearnRow {
        group: if has_own_group { row.id.clone() } else { group },
        id: row.id,
        malicious,
        family,
        question,
        text,
        source,
    })
}

/// Hash of what is learnt from `rows`, in their order.
#[must_use]
pub fn rows_hash(rows: &[LearnRow]) -> String {
    let mut hasher = Sha256::new();
    for row in rows {
        for text in [row.question.name(), &row.text, &row.group] {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        hasher.update([u8::from(row.malicious)]);
    }
    let digest = hasher.finalize();
    digest[..8].iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_formats_are_read() {
        let text = r#"{"id":"a","label":"malicious","family":"f","argv":["id"],"parent":"sh","pair":"p","tier":"core"}
{"id":"b","label":"benign","family":"g","argv":["ls"],"pair":"p"}

{"id":"c","label":"injection","family":"h","kind":"mail","text":"Ignore that","user_task":"sum up","tool":"read_mail"}
{"id":"d","label":"benign","family":"h","kind":"user","text":"hello"}
{"id":"e","label":"attack","domain":"x","family":"i","user_task":"pay","history":[{"tool":"t","args":{"a":1},"output":"o"}],"tool":"send","args":{"to":"x"}}"#;
        let rows = read_rows("rows.jsonl", text).unwrap();
        let questions: Vec<&str> = rows.iter().map(|row| row.question.name()).collect();
        assert_eq!(
            questions,
            ["exec", "exec", "tool_output", "user_text", "tool_call"]
        );
        let malicious: Vec<bool> = rows.iter().map(|row| row.malicious).collect();
        assert_eq!(malicious, [true, false, true, false, true]);
        assert_eq!(rows[1].group, "f", "a pair is one group");
        assert_eq!(rows[0].text, "exec: id\nparent: sh");
        let mut changed = rows.clone();
        changed[4].malicious = false;
        assert_ne!(rows_hash(&rows), rows_hash(&changed));
    }

    #[test]
    fn a_bad_line_is_named() {
        for line in [
            "{}",
            r#"{"id":"a","label":"maybe","family":"f","argv":[]}"#,
            r#"{"id":"a","label":"benign","family":"f","argv":"ls"}"#,
        ] {
            let error = read_rows("rows.jsonl", &format!("\n{line}")).unwrap_err();
            assert!(
                error.to_string().starts_with("rows.jsonl line 2"),
                "{error}"
            );
        }
    }
}
