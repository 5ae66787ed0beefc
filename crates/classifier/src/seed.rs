//! The data that comes with the crate: precedents, knowledge, labelled rows.
//!
//! Formats, one JSON object a line, unknown fields refused:
//!
//! * `precedents.jsonl`, `calibration.jsonl`: `id`, `label` (`malicious` or
//!   `benign`), `technique`, `family`, `argv`, `parent`, `ancestors`, `note`.
//! * `knowledge.jsonl`: `id`, `title`, `technique`, `text`.

use inwarden_memory::{Document, Memory, Precedent};
use inwarden_types::{
    Ancestor, Argv, Case, Event, EventData, EventId, Image, Label, Process, Technique,
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{
    ClassifierError,
    judge::{CallText, PastCall, render_text},
    render::{render_behaviour, render_case},
    texts::render_call,
};

const PRECEDENTS: &str = include_str!("../data/precedents.jsonl");
const KNOWLEDGE: &str = include_str!("../data/knowledge.jsonl");
const CALIBRATION: &str = include_str!("../data/calibration.jsonl");
/// Tenant of what is shipped, so that it can be told from what a user adds.
pub const SHIPPED_TENANT: &str = "inwarden";
/// Tenant of what people said about judged cases: it outranks what is shipped.
pub const FEEDBACK_TENANT: &str = "feedback";
const BATCH: usize = 256;

/// A labelled program start.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelledExec {
    /// Unique within its file.
    pub id: String,
    label: RowLabel,
    technique: Option<String>,
    /// What kind of behaviour it is; rows of one family resemble each other.
    pub family: String,
    argv: Vec<String>,
    parent: Option<String>,
    #[serde(default)]
    ancestors: Option<Vec<String>>,
    /// Why it has its label, in our words.
    #[serde(default)]
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RowLabel {
    Malicious,
    Benign,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KnowledgeRow {
    id: String,
    title: String,
    technique: Option<String>,
    text: String,
}

impl LabelledExec {
    /// Its label.
    #[must_use]
    pub fn label(&self) -> Label {
        match self.label {
            RowLabel::Malicious => Label::Malicious,
            RowLabel::Benign => Label::Benign,
        }
    }

    /// The technique, for an attack.
    #[must_use]
    pub fn technique(&self) -> Option<Technique> {
        self.technique.clone().map(Technique)
    }

    /// The program start as a case.
    #[must_use]
    pub fn case(&self) -> Case {
        let names = match (&self.parent, &self.ancestors) {
            (Some(parent), Some(chain)) if chain.first() != Some(parent) => {
                let mut names = vec![parent.clone()];
                names.extend(chain.iter().cloned());
                names
            }
            (_, Some(chain)) => chain.clone(),
            (Some(parent), None) => vec![parent.clone()],
            (None, None) => Vec::new(),
        };
        exec_case(&self.id, self.argv.clone(), &names)
    }
}

impl std::fmt::Debug for LabelledExec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LabelledExec")
            .field("id", &self.id)
            .field("label", &self.label)
            .field("family", &self.family)
            .finish_non_exhaustive()
    }
}

/// A case of one program start, of which only the arguments and the names of the
/// ancestors (nearest first) are known.
#[must_use]
pub fn exec_case(id: &str, argv: Vec<String>, ancestors: &[String]) -> Case {
    let named = |name: &String| Ancestor {
        key: None,
        image: Image {
            comm: name.clone(),
            ..Image::default()
        },
    };
    Case::of(Event {
        id: EventId::External(id.to_owned()),
        at: None,
        wall: None,
        process: Process {
            image: Image {
                argv: Argv::complete(argv),
                ..Image::default()
            },
            ..Process::default()
        },
        ancestors: ancestors.iter().take(8).map(named).collect(),
        data: EventData::Exec,
    })
}

/// What [`seed_memory`] put into a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeded {
    /// Precedents that are there now.
    pub precedents: usize,
    /// Documents that are there now.
    pub documents: usize,
}

/// Puts the shipped precedents and technique notes into `memory`. Doing it again
/// changes nothing.
///
/// # Errors
/// [`ClassifierError::Memory`] if the store refuses; what was written before
/// stays. [`ClassifierError::DataLine`] cannot happen with the shipped data.
pub fn seed_memory(memory: &Memory) -> Result<Seeded, ClassifierError> {
    let precedents = precedents_of(&shipped_precedents()?);
    for batch in precedents.chunks(BATCH) {
        memory.upsert_precedents(batch)?;
    }
    let documents = documents_of(shipped_notes()?);
    for batch in documents.chunks(BATCH) {
        memory.upsert_knowledge(batch)?;
    }
    Ok(Seeded {
        precedents: precedents.len(),
        documents: documents.len(),
    })
}

fn precedents_of(rows: &[LabelledExec]) -> Vec<Precedent> {
    rows.iter()
        .map(|row| {
            let text = render_behaviour(&row.case());
            Precedent {
                id: row.id.clone(),
                version: short_hash(&text),
                text,
                label: row.label(),
                kind: Some("exec".to_owned()),
                technique: row.technique(),
                tenant: SHIPPED_TENANT.to_owned(),
                observed: None,
            }
        })
        .collect()
}

fn documents_of(notes: Vec<KnowledgeRow>) -> Vec<Document> {
    notes
        .into_iter()
        .map(|note| Document {
            id: note.id,
            version: short_hash(&note.text),
            text: format!("{}\n{}", note.title, note.text),
            technique: note.technique.map(Technique),
            tenant: SHIPPED_TENANT.to_owned(),
            observed: None,
        })
        .collect()
}

fn shipped_notes() -> Result<Vec<KnowledgeRow>, ClassifierError> {
    parse_lines("knowledge.jsonl", KNOWLEDGE)
}

/// The shipped precedents.
///
/// # Errors
/// [`ClassifierError::DataLine`]; a test makes sure that there is none.
pub fn shipped_precedents() -> Result<Vec<LabelledExec>, ClassifierError> {
    parse_lines("precedents.jsonl", PRECEDENTS)
}

/// Hash of everything [`seed_memory`] puts into a store, as hexadecimal digits.
/// A store seeded under another hash is outdated.
///
/// # Errors
/// [`ClassifierError::DataLine`]; a test makes sure that there is none.
pub fn shipped_data_hash() -> Result<String, ClassifierError> {
    let precedents = precedents_of(&shipped_precedents()?);
    Ok(data_hash(&precedents, &documents_of(shipped_notes()?)))
}

/// Hash of all fields, each with its length before it.
fn data_hash(precedents: &[Precedent], documents: &[Document]) -> String {
    fn field(hasher: &mut Sha256, text: &str) {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    fn technique(hasher: &mut Sha256, technique: Option<&Technique>) {
        hasher.update([u8::from(technique.is_some())]);
        field(hasher, technique.map_or("", |technique| &technique.0));
    }
    let mut hasher = Sha256::new();
    hasher.update((precedents.len() as u64).to_le_bytes());
    for row in precedents {
        for text in [&row.id, &row.text, &row.tenant, &row.version] {
            field(&mut hasher, text);
        }
        field(&mut hasher, row.label.name());
        field(&mut hasher, row.kind.as_deref().unwrap_or(""));
        technique(&mut hasher, row.technique.as_ref());
    }
    hasher.update((documents.len() as u64).to_le_bytes());
    for row in documents {
        for text in [&row.id, &row.text, &row.tenant, &row.version] {
            field(&mut hasher, text);
        }
        technique(&mut hasher, row.technique.as_ref());
    }
    hex(&hasher.finalize()[..8])
}

/// Hash of how cases are written for the judge, as hexadecimal digits: what was
/// trained on texts of another hash does not fit.
///
/// Taken over fixed cases, so a change that none of them shows is not seen.
#[must_use]
pub fn rendering_hash() -> String {
    let mut hasher = Sha256::new();
    let mut add = |text: &str| {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    };
    let long = format!("printf '\\x41{}\u{202e}' > /dev/shm/x", "y ".repeat(900));
    let argvs: [&[&str]; 5] = [
        &["curl", "-fsS", "http://127.0.0.1:9090/a b", "-o", "/tmp/x"],
        &["sh", "-c", "cd /srv && ls\n\ttail -f log 'a'"],
        &["bash", "-c", &long, "name", "arg"],
        &["sudo", "-u", "www", "python3", "-c", "print(1)", ""],
        &[],
    ];
    for argv in argvs {
        let argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
        let parents = ["/usr/sbin/cron".to_owned(), "systemd".to_owned()];
        add(&render_case(&exec_case("x", argv, &parents)));
    }
    add(&render_text(&long, Some("sum up\nthis"), Some("read_mail")));
    let past = PastCall {
        tool: "read".to_owned(),
        args_json: "{\"path\":\"a\"}".to_owned(),
        output: long,
    };
    add(&render_call(&CallText {
        user_task: "sum up".to_owned(),
        history: vec![past; 4],
        tool: "send".to_owned(),
        args_json: "{\"to\":\"b\"}".to_owned(),
    }));
    hex(&hasher.finalize()[..6])
}

/// The rows that the shipped calibration was fitted on.
///
/// # Errors
/// [`ClassifierError::DataLine`]; a test makes sure that there is none.
pub fn calibration_rows() -> Result<Vec<LabelledExec>, ClassifierError> {
    parse_lines("calibration.jsonl", CALIBRATION)
}

fn parse_lines<T: serde::de::DeserializeOwned>(
    file: &'static str,
    text: &str,
) -> Result<Vec<T>, ClassifierError> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(idx, line)| {
            serde_json::from_str(line).map_err(|error| ClassifierError::DataLine {
                file,
                line: idx + 1,
                problem: error.to_string(),
            })
        })
        .collect()
}

fn short_hash(text: &str) -> String {
    hex(&Sha256::digest(text)[..6])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::screen::RuleSet;

    fn count(rows: &[LabelledExec], label: Label) -> usize {
        rows.iter().filter(|row| row.label() == label).count()
    }

    #[test]
    fn the_shipped_rows_parse_and_their_ids_are_unique() {
        let precedents = shipped_precedents().unwrap();
        let rows = calibration_rows().unwrap();
        let notes = shipped_notes().unwrap();
        for set in [&precedents, &rows] {
            assert!(count(set, Label::Malicious) >= 60);
            assert!(count(set, Label::Benign) >= 60);
            let ids: BTreeSet<&str> = set.iter().map(|row| row.id.as_str()).collect();
            assert_eq!(ids.len(), set.len());
        }
        let ids: BTreeSet<&str> = notes.iter().map(|note| note.id.as_str()).collect();
        assert_eq!(ids.len(), notes.len());
        assert!(!notes.is_empty());
    }

    #[test]
    fn the_hash_of_the_data_changes_with_every_field() {
        let precedents = precedents_of(&shipped_precedents().unwrap());
        let documents = documents_of(shipped_notes().unwrap());
        let mut seen = BTreeSet::from([data_hash(&precedents, &documents)]);
        let changes: [fn(&mut Precedent); 7] = [
            |row| row.kind = Some("prompt".into()),
            |row| {
                row.label = match row.label {
                    Label::Malicious => Label::Benign,
                    _ => Label::Malicious,
                };
            },
            |row| row.technique = Some(Technique("T0000".into())),
            |row| row.id.push('x'),
            |row| row.text.push('x'),
            |row| row.tenant.push('x'),
            |row| row.version.push('x'),
        ];
        for change in changes {
            let mut changed = precedents.clone();
            change(&mut changed[1]);
            assert!(seen.insert(data_hash(&changed, &documents)));
        }
        let changes: [fn(&mut Document); 3] = [
            |row| row.technique = Some(Technique("T0000".into())),
            |row| row.text.push('x'),
            |row| row.version.push('x'),
        ];
        for change in changes {
            let mut changed = documents.clone();
            change(&mut changed[1]);
            assert!(seen.insert(data_hash(&precedents, &changed)));
        }
    }

    #[test]
    fn no_calibration_row_is_a_precedent() {
        let remembered: BTreeSet<String> = shipped_precedents()
            .unwrap()
            .iter()
            .map(|row| render_behaviour(&row.case()))
            .collect();
        for row in calibration_rows().unwrap() {
            assert!(
                !remembered.contains(&render_behaviour(&row.case())),
                "{}",
                row.id
            );
        }
    }

    #[test]
    fn no_settling_rule_matches_an_ordinary_row() {
        let rules = RuleSet::shipped().unwrap();
        let mut rows = shipped_precedents().unwrap();
        rows.extend(calibration_rows().unwrap());
        for row in rows.iter().filter(|row| row.label() == Label::Benign) {
            let settling: Vec<String> = rules
                .screen(&row.case())
                .into_iter()
                .filter(crate::screen::ScreenHit::settles)
                .map(|hit| hit.title)
                .collect();
            assert!(settling.is_empty(), "{}: {settling:?}", row.id);
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = parse_lines::<LabelledExec>("calibration.jsonl", "\n{\"id\":1}").unwrap_err();
        assert!(
            error.to_string().starts_with("calibration.jsonl line 2"),
            "{error}"
        );
    }
}
