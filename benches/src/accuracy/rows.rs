//! Labelled processes.

use std::{fmt::Write, path::Path};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

/// A process and whether it was part of an attack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) text: String,
    pub(crate) is_malicious: bool,
}

#[derive(Deserialize)]
struct Line {
    label: String,
    argv: Vec<String>,
    #[serde(default)]
    parent: Option<String>,
}

/// Reads one JSON object a line; keys that are not needed are passed over.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Row>> {
    let text = std::fs::read_to_string(path)?;
    let rows: Vec<Row> = text
        .lines()
        .enumerate()
        .map(|(idx, line)| parse(line).with_context(|| format!("line {}", idx + 1)))
        .collect::<anyhow::Result<_>>()?;
    ensure!(!rows.is_empty(), "the file is empty");
    Ok(rows)
}

fn parse(line: &str) -> anyhow::Result<Row> {
    let line: Line = serde_json::from_str(line)?;
    let is_malicious = match &*line.label {
        "benign" => false,
        "malicious" => true,
        other => bail!("unknown label {other:?}"),
    };
    let mut text = String::new();
    if let Some(parent) = &line.parent {
        writeln!(text, "parent: {parent}")?;
    }
    write!(text, "argv: {}", serde_json::to_string(&line.argv)?)?;
    Ok(Row { text, is_malicious })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_what_may_be_read_and_nothing_else() {
        let row = parse(
            r#"{"id":"x","label":"malicious","argv":["a","b c"],"parent":"sh","source":"s"}"#,
        );
        let expected = Row {
            text: "parent: sh\nargv: [\"a\",\"b c\"]".to_owned(),
            is_malicious: true,
        };
        assert_eq!(row.unwrap(), expected);
        assert!(parse(r#"{"label":"odd","argv":[]}"#).is_err());
        assert!(parse(r#"{"label":"benign"}"#).is_err());
    }
}
