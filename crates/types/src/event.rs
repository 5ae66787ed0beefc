//! What happened.

use crate::{
    AgentText, Ancestor, BootTime, Connection, DnsQuery, EventId, FileAccess, Process, ToolCall,
    WallTime,
};

/// One observed fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name, unique within a recording.
    pub id: EventId,
    /// Boot time; `None` where the source has only wall time.
    pub at: Option<BootTime>,
    /// Wall time; `None` where the source gives none.
    pub wall: Option<WallTime>,
    /// The process it happened to. For [`EventData::Loss`] the sensor itself.
    pub process: Process,
    /// The ancestors of `process`, nearest first, at most 8.
    pub ancestors: Vec<Ancestor>,
    /// What happened.
    pub data: EventData,
}

impl Event {
    /// The kind of [`Event::data`].
    #[must_use]
    pub fn kind(&self) -> EventKind {
        match self.data {
            EventData::Fork => EventKind::Fork,
            EventData::Exec => EventKind::Exec,
            EventData::Exit(_) => EventKind::Exit,
            EventData::Loss(_) => EventKind::Loss,
            EventData::ToolCall(_) => EventKind::ToolCall,
            EventData::Text(_) => EventKind::Text,
            EventData::File(_) => EventKind::File,
            EventData::Connect(_) => EventKind::Connect,
            EventData::Dns(_) => EventKind::Dns,
        }
    }
}

/// What happened, with what is particular to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventData {
    /// [`Event::process`] was born; it runs its parent's image until it execs.
    Fork,
    /// [`Event::process`] began to run [`Process::image`].
    Exec,
    /// The last thread of [`Event::process`] ended.
    Exit(ExitStatus),
    /// The sensor could not deliver some events.
    Loss(Losses),
    /// An agent asks to call a tool.
    ToolCall(ToolCall),
    /// An agent is about to read a text.
    Text(AgentText),
    /// [`Event::process`] does something to a file.
    File(FileAccess),
    /// [`Event::process`] connects to somebody.
    Connect(Connection),
    /// [`Event::process`] asks for the address of a name.
    Dns(DnsQuery),
}

/// The kind of an event, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// See [`EventData::Fork`].
    Fork,
    /// See [`EventData::Exec`].
    Exec,
    /// See [`EventData::Exit`].
    Exit,
    /// See [`EventData::Loss`].
    Loss,
    /// See [`EventData::ToolCall`].
    ToolCall,
    /// See [`EventData::Text`].
    Text,
    /// See [`EventData::File`].
    File,
    /// See [`EventData::Connect`].
    Connect,
    /// See [`EventData::Dns`].
    Dns,
}

impl EventKind {
    /// The name used in ids and files: `fork`, `exec`, `exit`, `loss`, `tool_call`,
    /// `text`, `file`, `connect`, `dns`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Exec => "exec",
            Self::Exit => "exit",
            Self::Loss => "loss",
            Self::ToolCall => "tool_call",
            Self::Text => "text",
            Self::File => "file",
            Self::Connect => "connect",
            Self::Dns => "dns",
        }
    }

    /// The kind with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Fork,
            Self::Exec,
            Self::Exit,
            Self::Loss,
            Self::ToolCall,
            Self::Text,
            Self::File,
            Self::Connect,
            Self::Dns,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }
}

/// How a process ended: the two halves of the status `wait(2)` reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ExitStatus {
    /// The exit code, if it ended by itself.
    pub code: u8,
    /// The signal that ended it; 0 if none did.
    pub signal: u8,
    /// Whether a core was dumped.
    pub core_dumped: bool,
}

/// Counts since the sensor started. `seen = emitted + dropped + filtered`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Losses {
    /// Events the kernel programs saw.
    pub seen: u64,
    /// Written to a ring.
    pub emitted: u64,
    /// Not written because a ring was full or a read failed.
    pub dropped: u64,
    /// Left out on purpose by a filter.
    pub filtered: u64,
    /// Read from the rings by user space.
    pub read: u64,
    /// Read but not decodable.
    pub undecodable: u64,
}
