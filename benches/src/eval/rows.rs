//! Labelled rows: what may be read to judge them, and the truth beside it.
//!
//! A [`Question`] holds what a classifier may see and nothing else; label, tier
//! and kind of a [`Row`] are for counting alone.

use std::{fs, io::Read as _, path::Path};

use serde_json::{Map, Value};

use super::error::RowError;

/// A longer file is refused before it is read.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// A longer line is refused before it is parsed: as long as an event may be.
const MAX_LINE_BYTES: usize = inwarden::feeds::MAX_LINE_BYTES;

/// Which file a row stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Exec,
    Prompts,
    ToolCalls,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Exec, Self::Prompts, Self::ToolCalls];

    /// The key of its figures, and the name of its file without the ending.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Prompts => "prompts",
            Self::ToolCalls => "toolcalls",
        }
    }

    /// Its label for an attack.
    fn attack(self) -> &'static str {
        match self {
            Self::Exec => "malicious",
            Self::Prompts => "injection",
            Self::ToolCalls => "attack",
        }
    }
}

/// What is asked about: all that a classifier may see of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Question {
    /// A program start.
    Exec {
        argv: Vec<String>,
        parent: Option<String>,
    },
    /// A text that an agent is about to read.
    Prompt {
        text: String,
        kind: Option<String>,
        user_task: Option<String>,
        tool: Option<String>,
    },
    /// A call that an agent wants to make, after the `history` of earlier ones.
    ToolCall {
        user_task: Option<String>,
        history: Vec<Value>,
        tool: String,
        args: Value,
        agent_role: Option<String>,
    },
}

impl Question {
    /// The same about another text; only texts have one.
    pub(crate) fn with_text(&self, text: String) -> Self {
        let mut question = self.clone();
        if let Self::Prompt { text: old, .. } = &mut question {
            *old = text;
        }
        question
    }

    /// Its text, as simple models and the search for near-duplicates see it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Exec { argv, .. } => argv.join(" "),
            Self::Prompt { text, .. } => text.clone(),
            Self::ToolCall {
                user_task,
                history,
                tool,
                args,
                ..
            } => {
                let mut text = user_task.clone().unwrap_or_default();
                for step in history {
                    text += &format!("\n{step}");
                }
                text + &format!("\n{tool} {args}")
            }
        }
    }
}

/// A question with its truth.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) id: String,
    /// Of its file, from 1.
    pub(crate) line: usize,
    /// `None` where there is no label: such a row is judged and not counted.
    pub(crate) is_attack: Option<bool>,
    pub(crate) tier: Option<String>,
    /// What the figures are broken down by beside the tier.
    pub(crate) group: Option<String>,
    pub(crate) question: Question,
}

/// The objects of a file of JSON lines, each with its line number; `None` if there
/// is no such file.
pub(crate) fn read_lines(path: &Path) -> Result<Option<Vec<Fields>>, RowError> {
    let unreadable = |source| RowError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::new();
    let mut limited = file.take(MAX_FILE_BYTES + 1);
    limited.read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(RowError::FileTooLong {
            path: path.to_owned(),
            limit_bytes: MAX_FILE_BYTES,
        });
    }
    let name = path.file_name().unwrap_or_default();
    parse_lines(&name.to_string_lossy(), &text).map(Some)
}

pub(crate) fn parse_lines(file: &str, text: &str) -> Result<Vec<Fields>, RowError> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(idx, line)| Fields::parse(file, idx + 1, line))
        .collect()
}

/// The fields of one line.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    file: String,
    line: usize,
    map: Map<String, Value>,
}

impl Fields {
    fn parse(file: &str, line: usize, text: &str) -> Result<Self, RowError> {
        let file = file.to_owned();
        if text.len() > MAX_LINE_BYTES {
            return Err(RowError::LineTooLong {
                file,
                line,
                limit_bytes: MAX_LINE_BYTES,
            });
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Self { file, line, map }),
            _ => Err(RowError::NotAnObject { file, line }),
        }
    }

    /// The row of a file of this kind.
    pub(crate) fn into_row(self, kind: Kind) -> Result<Row, RowError> {
        let question = match kind {
            Kind::Exec => Question::Exec {
                argv: self.strings("argv")?,
                parent: self.optional_text("parent")?,
            },
            Kind::Prompts => Question::Prompt {
                text: self.text("text")?,
                kind: self.optional_text("kind")?,
                user_task: self.optional_text("user_task")?,
                tool: self.optional_text("tool")?,
            },
            Kind::ToolCalls => Question::ToolCall {
                user_task: self.optional_text("user_task")?,
                history: self.list("history")?.unwrap_or_default(),
                tool: self.text("tool")?,
                args: self.args()?,
                agent_role: self.optional_text("agent_role")?,
            },
        };
        let group = match (&question, kind) {
            (Question::Exec { argv, .. }, _) => Some(form_of(argv).to_owned()),
            (_, Kind::Prompts) => self.word("kind"),
            _ => self.word("suite").or_else(|| self.word("domain")),
        };
        Ok(Row {
            id: self.id(),
            line: self.line,
            is_attack: self.is_attack(kind.attack())?,
            tier: self.word("tier"),
            group,
            question,
        })
    }

    /// Its name: `id`, or the number of its line.
    pub(crate) fn id(&self) -> String {
        self.word("id")
            .unwrap_or_else(|| format!("line {}", self.line))
    }

    /// Whether `label` is the word `attack`; the other one is `benign`.
    pub(crate) fn is_attack(&self, attack: &'static str) -> Result<Option<bool>, RowError> {
        match self.optional_text("label")?.as_deref() {
            None => Ok(None),
            Some("benign") => Ok(Some(false)),
            Some(label) if label == attack => Ok(Some(true)),
            Some(_) => Err(self.wrong("label", "\"benign\" or the file's word for an attack")),
        }
    }

    /// A text that only breaks figures down: anything else counts as absent.
    fn word(&self, field: &str) -> Option<String> {
        self.map.get(field)?.as_str().map(str::to_owned)
    }

    fn value(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, field: &'static str) -> Result<String, RowError> {
        self.optional_text(field)?
            .ok_or_else(|| self.missing(field))
    }

    pub(crate) fn optional_text(&self, field: &'static str) -> Result<Option<String>, RowError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(field, "a string")),
        }
    }

    pub(crate) fn strings(&self, field: &'static str) -> Result<Vec<String>, RowError> {
        let list = self.list(field)?.ok_or_else(|| self.missing(field))?;
        let strings = list.into_iter().map(|value| match value {
            Value::String(text) => Ok(text),
            _ => Err(self.wrong(field, "an array of strings")),
        });
        strings.collect()
    }

    pub(crate) fn list(&self, field: &'static str) -> Result<Option<Vec<Value>>, RowError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list.clone())),
            Some(_) => Err(self.wrong(field, "an array")),
        }
    }

    pub(crate) fn object(&self, field: &'static str) -> Result<Option<Self>, RowError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(self.within(map.clone()))),
            Some(_) => Err(self.wrong(field, "an object")),
        }
    }

    pub(crate) fn objects(&self, field: &'static str) -> Result<Vec<Self>, RowError> {
        let list = self.list(field)?.ok_or_else(|| self.missing(field))?;
        let objects = list.into_iter().map(|value| match value {
            Value::Object(map) => Ok(self.within(map)),
            _ => Err(self.wrong(field, "an array of objects")),
        });
        objects.collect()
    }

    pub(crate) fn number(&self, field: &'static str) -> Result<Option<u64>, RowError> {
        let number = |value: &Value| value.as_u64().ok_or(());
        let found = self.value(field).map(number).transpose();
        found.map_err(|()| self.wrong(field, "a whole number that is not negative"))
    }

    /// Seconds, as nanoseconds.
    pub(crate) fn seconds(&self, field: &'static str) -> Result<Option<u64>, RowError> {
        let Some(value) = self.value(field) else {
            return Ok(None);
        };
        let seconds = value
            .as_f64()
            .filter(|seconds| (0.0..1e9).contains(seconds));
        let seconds = seconds.ok_or_else(|| self.wrong(field, "seconds since the start"))?;
        let elapsed = std::time::Duration::from_secs_f64(seconds);
        Ok(u64::try_from(elapsed.as_nanos()).ok())
    }

    /// All fields of an event of an incident but its time and type, whose names
    /// event lines do not use.
    pub(crate) fn passed_on(&self) -> Map<String, Value> {
        let mut map = self.map.clone();
        for field in ["t", "type", "pid", "ppid"] {
            map.remove(field);
        }
        map
    }

    /// The object as it is.
    pub(crate) fn value_of_all(&self) -> Value {
        Value::Object(self.map.clone())
    }

    /// The arguments of a call: an object, or one string.
    fn args(&self) -> Result<Value, RowError> {
        match self.value("args") {
            None => Ok(Value::Object(Map::new())),
            Some(args @ (Value::Object(_) | Value::String(_))) => Ok(args.clone()),
            Some(_) => Err(self.wrong("args", "an object or a string")),
        }
    }

    fn within(&self, map: Map<String, Value>) -> Self {
        Self {
            file: self.file.clone(),
            line: self.line,
            map,
        }
    }

    pub(crate) fn missing(&self, field: &'static str) -> RowError {
        RowError::Missing {
            file: self.file.clone(),
            line: self.line,
            field,
        }
    }

    pub(crate) fn wrong(&self, field: &'static str, expected: &'static str) -> RowError {
        RowError::Wrong {
            file: self.file.clone(),
            line: self.line,
            field,
            expected,
        }
    }
}

/// Whether arguments are program text for a shell, for another interpreter, or
/// plain.
fn form_of(argv: &[String]) -> &'static str {
    let name = argv.first().map_or("", String::as_str);
    let name = name.rsplit('/').next().unwrap_or(name);
    let has_text = argv
        .iter()
        .skip(1)
        .any(|arg| arg == "-c" || arg == "-e" || arg == "-lc");
    match name {
        "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash" if has_text => "shell line",
        _ if has_text
            && (name.starts_with("python") || matches!(name, "perl" | "ruby" | "node")) =>
        {
            "interpreter text"
        }
        _ => "plain arguments",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: Kind, line: &str) -> Result<Row, String> {
        let fields = Fields::parse("rows.jsonl", 7, line).map_err(|error| error.to_string())?;
        fields.into_row(kind).map_err(|error| error.to_string())
    }

    #[test]
    fn bad_rows_are_errors_with_line_and_field() {
        let check = |kind, line: &str, expected: &str| {
            assert_eq!(row(kind, line).unwrap_err(), expected);
        };
        check(Kind::Exec, "[]", "rows.jsonl line 7: not a JSON object");
        check(
            Kind::Exec,
            "{}",
            "rows.jsonl line 7: field `argv` is missing",
        );
        check(
            Kind::Exec,
            r#"{"argv":["a",1]}"#,
            "rows.jsonl line 7: field `argv` must be an array of strings",
        );
        check(
            Kind::Prompts,
            r#"{"text":5}"#,
            "rows.jsonl line 7: field `text` must be a string",
        );
        check(
            Kind::ToolCalls,
            r#"{"tool":"t","args":[1]}"#,
            "rows.jsonl line 7: field `args` must be an object or a string",
        );
        check(
            Kind::ToolCalls,
            r#"{"tool":"t","label":"malicious"}"#,
            "rows.jsonl line 7: field `label` must be \"benign\" or the file's word for an attack",
        );
        let long = format!("{{\"text\":\"{}\"}}", "x".repeat(MAX_LINE_BYTES));
        assert!(
            row(Kind::Prompts, &long)
                .unwrap_err()
                .contains("longer than")
        );
    }

    #[test]
    fn a_question_holds_no_field_that_leaks_the_label() {
        let lean = r#"{"argv":["a"],"parent":"sh"}"#;
        let full = r#"{"id":"x","label":"malicious","tier":"core","family":"f","cmdline":"c",
            "argv":["a"],"parent":"sh","execs":[["b"]],"source":"s","technique":"T1","shell":true}"#;
        let (lean, full) = (
            row(Kind::Exec, lean).unwrap(),
            row(Kind::Exec, full).unwrap(),
        );
        assert_eq!(lean.question, full.question);
        assert_eq!((lean.is_attack, full.is_attack), (None, Some(true)));
        let lean = r#"{"tool":"t","args":{},"user_task":"u","history":[]}"#;
        let full = r#"{"tool":"t","args":{},"user_task":"u","history":[],"suite":"s",
            "injected_context":true,"source":"s","label":"attack"}"#;
        let (lean, full) = (
            row(Kind::ToolCalls, lean).unwrap(),
            row(Kind::ToolCalls, full).unwrap(),
        );
        assert_eq!(lean.question, full.question);
        let lean = r#"{"text":"t"}"#;
        let full = r#"{"text":"t","system_prompt":"p","technique":"x","lang":"de"}"#;
        let (lean, full) = (
            row(Kind::Prompts, lean).unwrap(),
            row(Kind::Prompts, full).unwrap(),
        );
        assert_eq!(lean.question, full.question);
    }
}
