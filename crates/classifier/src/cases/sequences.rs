//! Labelled sequences of events: the corpus that weights are fitted on.

use std::collections::BTreeMap;

use inwarden_types::{
    AgentText, Ancestor, Argv, BootId, BootTime, CgroupId, Connection, DnsQuery, Event, EventData,
    EventId, FileAccess, FileOp, Image, Peer, Process, ProcessKey, Protocol, TextGiver, Tgid,
    ToolCall, Uid,
};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::ClassifierError;

const SHIPPED: [(&str, &str); 3] = [
    (
        "sequences-attack.jsonl",
        include_str!("../../data/corpus/sequences-attack.jsonl"),
    ),
    (
        "sequences-benign.jsonl",
        include_str!("../../data/corpus/sequences-benign.jsonl"),
    ),
    (
        "sequences-recorded.jsonl",
        include_str!("../../data/corpus/sequences-recorded.jsonl"),
    ),
];
/// All of a sequence happens in this cgroup.
const CGROUP: CgroupId = CgroupId(1_000);
const MAX_ANCESTORS: usize = 8;

/// Events of one case in order, with what is to be thought of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Unique in the corpus.
    pub id: String,
    /// Sequences of one family are never both fitted and scored.
    pub family: String,
    /// The first event, from 0, at which an attack is clear; `None` for ordinary work.
    pub decisive: Option<usize>,
    /// Whether an alert is enough, since ordinary work looks alike at times.
    pub is_alert: bool,
    /// What happened.
    pub events: Vec<Event>,
}

/// The shipped sequences, and the hash of their files.
///
/// # Errors
/// [`ClassifierError::DataLine`]; a test makes sure that there is none.
pub fn shipped_sequences() -> Result<(Vec<Sequence>, String), ClassifierError> {
    let mut sequences = Vec::new();
    let mut hasher = Sha256::new();
    for (file, text) in SHIPPED {
        hasher.update(text);
        for (idx, line) in text.lines().enumerate() {
            let wrong = |problem: String| ClassifierError::DataLine {
                file,
                line: idx + 1,
                problem,
            };
            let row: Row = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            sequences.push(row.into_sequence().map_err(wrong)?);
        }
    }
    let digest = hasher.finalize();
    let hash = digest[..8].iter().map(|byte| format!("{byte:02x}"));
    Ok((sequences, hash.collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    family: String,
    label: String,
    decisive: Option<usize>,
    action: Option<String>,
    events: Vec<RowEvent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowEvent {
    t: f64,
    kind: String,
    #[serde(default)]
    pid: u32,
    ppid: Option<u32>,
    parent: Option<String>,
    #[serde(default)]
    exe: String,
    #[serde(default)]
    argv: Vec<String>,
    uid: Option<u32>,
    op: Option<String>,
    path: Option<String>,
    to: Option<String>,
    dst: Option<String>,
    port: Option<u16>,
    query: Option<String>,
    #[serde(default)]
    agent: String,
    given_by: Option<String>,
    text: Option<String>,
    tool: Option<String>,
    task: Option<String>,
    args: Option<Value>,
}

impl Row {
    fn into_sequence(self) -> Result<Sequence, String> {
        let is_attack = match self.label.as_str() {
            "attack" => true,
            "benign" => false,
            _ => return Err("label is neither attack nor benign".to_owned()),
        };
        let decisive = self.decisive.filter(|at| *at < self.events.len());
        if is_attack != decisive.is_some() || is_attack != self.action.is_some() {
            return Err("decisive and action belong to attacks".to_owned());
        }
        let mut tree = BTreeMap::new();
        let events = self.events.into_iter().enumerate();
        let events = events.map(|(idx, event)| event.into_event(idx, &mut tree));
        Ok(Sequence {
            id: self.id,
            family: self.family,
            decisive,
            is_alert: self.action.as_deref() == Some("alert"),
            events: events.collect::<Result<_, _>>()?,
        })
    }
}

/// By process number: its image and its parent.
type Tree = BTreeMap<u32, (Image, Option<u32>)>;

impl RowEvent {
    fn into_event(self, idx: usize, tree: &mut Tree) -> Result<Event, String> {
        let data = self.data()?;
        let image = Image {
            exe: self.exe,
            argv: Argv::complete(self.argv),
            ..Image::default()
        };
        let parent = self.ppid.or_else(|| tree.get(&self.pid)?.1);
        let ancestors = ancestors(tree, parent, self.parent);
        if self.pid > 0 && (data == EventData::Exec || !tree.contains_key(&self.pid)) {
            tree.insert(self.pid, (image.clone(), parent));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "seconds of a short sequence; a negative time is 0"
        )]
        let at = (self.t * 1e9) as u64;
        Ok(Event {
            id: EventId::External(idx.to_string()),
            at: Some(BootTime(at)),
            wall: None,
            process: Process {
                key: (self.pid > 0).then(|| key(self.pid)),
                parent: parent.map(key),
                image,
                uid: self.uid.map(Uid),
                cgroup_id: Some(CGROUP),
                ..Process::default()
            },
            ancestors,
            data,
        })
    }

    fn data(&self) -> Result<EventData, String> {
        let needed = |field: &Option<String>, name: &str| {
            field.clone().ok_or_else(|| format!("`{name}` is missing"))
        };
        Ok(match self.kind.as_str() {
            "exec" => EventData::Exec,
            "file" => EventData::File(FileAccess {
                op: FileOp::from_name(&needed(&self.op, "op")?).ok_or("unknown op")?,
                path: needed(&self.path, "path")?,
                to: self.to.clone(),
            }),
            "connect" => EventData::Connect(Connection {
                peer: Peer::of(&needed(&self.dst, "dst")?),
                port: self.port,
                protocol: Protocol::Tcp,
            }),
            "dns" => EventData::Dns(DnsQuery {
                name: needed(&self.query, "query")?,
            }),
            "text" => EventData::Text(AgentText {
                agent: self.agent.clone(),
                given_by: TextGiver::from_name(&needed(&self.given_by, "given_by")?)
                    .ok_or("given_by is neither user nor tool")?,
                text: needed(&self.text, "text")?,
                tool: self.tool.clone(),
                ..AgentText::default()
            }),
            "tool_call" => EventData::ToolCall(ToolCall {
                agent: self.agent.clone(),
                user_task: self.task.clone(),
                tool: needed(&self.tool, "tool")?,
                args_json: self.args.as_ref().ok_or("`args` is missing")?.to_string(),
                ..ToolCall::default()
            }),
            other => return Err(format!("unknown kind {other}")),
        })
    }
}

fn ancestors(tree: &Tree, parent: Option<u32>, name: Option<String>) -> Vec<Ancestor> {
    let mut chain = Vec::new();
    let mut next = parent;
    while let Some((number, (image, above))) = next.and_then(|n| Some((n, tree.get(&n)?))) {
        if chain.len() == MAX_ANCESTORS {
            break;
        }
        chain.push(Ancestor {
            key: Some(key(number)),
            image: image.clone(),
        });
        next = *above;
    }
    if let (true, Some(comm)) = (chain.is_empty(), name) {
        chain.push(Ancestor {
            key: parent.map(key),
            image: Image {
                comm,
                ..Image::default()
            },
        });
    }
    chain
}

fn key(tgid: u32) -> ProcessKey {
    ProcessKey {
        boot_id: BootId([1; 16]),
        tgid: Tgid(tgid),
        start: BootTime(u64::from(tgid) * 1_000),
    }
}
