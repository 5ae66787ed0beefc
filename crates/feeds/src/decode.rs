//! Event JSON to [`Event`].

use inwarden_types::{
    Ancestor, Argv, BootTime, CgroupId, Event, EventData, EventId, EventKind, ExitStatus, Gid,
    Image, Losses, NamespaceInode, Process, ProcessKey, Uid, WallTime,
};

use crate::FeedError;
use crate::activity::ActivityFields;
use crate::agent::AgentFields;
use crate::json::Cursor;
use crate::values::{
    boolean, event_id, expect, kind, need, process_key, text, u8_number, u32_number, u64_number,
};

/// The value of `schema` in every event line this crate writes.
pub const EVENT_SCHEMA: &str = "inwarden.event/1";
/// A longer line is refused before it is parsed: 1 MiB, the line end not counted.
pub const MAX_LINE_BYTES: usize = 1 << 20;
/// More arguments than this in one `argv` are refused.
pub const MAX_ARGS: usize = 16_384;
/// More levels of arrays and objects than this are refused.
pub const MAX_DEPTH: usize = 64;
/// More ancestors than this are refused.
pub const MAX_ANCESTORS: usize = 8;
/// More earlier calls than this in one `history` are refused.
pub const MAX_PAST_CALLS: usize = 64;
/// A longer `id` is refused.
pub const MAX_ID_BYTES: usize = 1024;
/// A longer `path` or `to` of a file is refused: Linux's `PATH_MAX`.
pub const MAX_PATH_BYTES: usize = 4096;
/// A longer `dst` or `query` is refused; a name on the wire has 255 at most, escaped
/// four times that.
pub const MAX_HOST_BYTES: usize = 1024;

/// An event, and what its line held beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedEvent {
    /// The event.
    pub event: Event,
    /// How many fields were passed over: unknown ones at any level, and known
    /// ones that do not belong to an event of this kind.
    pub ignored_fields: u64,
}

/// Reads one line of event JSON; a line end is not part of it.
///
/// | field | holds | if absent |
/// |---|---|---|
/// | `schema` | `"inwarden.event/1"` | taken as that |
/// | `id` | a string, or an integer, whose digits become the string; or the object `{"process","kind","at_ns","sequence"}` of a sensor's event | error |
/// | `kind` | `fork`, `exec`, `exit`, `loss`, `tool_call`, `text`, `file`, `connect`, `dns` | `text` if there is a `text` and neither `args` nor `argv`, else `tool_call` if there is a `tool`, else `exec` |
/// | `at_ns`, `wall_ns` | boot time and Unix time in nanoseconds | unknown |
/// | `key`, `parent_key` | process keys: boot id, tgid and `start_boottime` in nanoseconds, joined by `:` | unknown |
/// | `uid`, `gid`, `cgroup_id`, `mount_ns`, `pid_ns`, `net_ns` | integers | unknown |
/// | `exe`, `comm`, `cwd` | strings | empty |
/// | `argv` | array of strings | error for `exec`, else empty |
/// | `argv_bytes` | true length in bytes | the sum over `argv`, a NUL each |
/// | `argv_truncated` | whether `argv` is cut | `false` |
/// | `exec_at_ns` | boot time of the exec | unknown |
/// | `ancestors` | array, nearest first, of objects with `key`, `exe`, `comm`, `argv`, `argv_bytes`, `argv_truncated`, `cwd`, `exec_at_ns` | none |
/// | `parent` | where `ancestors` is absent, the parent alone: such an object, or its name, path or command line (split at white space) | none |
/// | `exit` | `{"code","signal","core_dumped"}` | error for `exit` |
/// | `loss` | `{"seen","emitted","dropped","filtered","read","undecodable"}` | error for `loss` |
/// | `tool` | the tool's name | error for `tool_call` |
/// | `args` | its arguments, an object, kept byte for byte; or as one string in `args_text` | `{}` |
/// | `history` | array, oldest first, of a tool call's earlier ones: objects with `tool`, `args` or `args_text`, and `output`, a string, or another value, whose text counts | none |
/// | `text` | what an agent is about to read | error for `text` |
/// | `given_by` | who gave the text: `user` or `tool` | `tool` if there is a `tool`, else `user` |
/// | `agent`, `role` (or `agent_role`), `user_task` | strings | empty, none, none |
/// | `op` | what is done to a file: `read`, `write`, `create`, `truncate`, `unlink`, `rename`, `link`, `chmod`, `chown`, `mount`, `connect` (a Unix socket); others are errors | error for `file` |
/// | `path`, `to` | the file, and the other one of a `rename` or `link` | error for `file`, none |
/// | `dst`, `port`, `proto` | whom a `connect` goes to, an address or a name; `0..=65535`; `tcp`, `udp`, `icmp` or `sctp` | error for `connect`, unknown, `tcp` |
/// | `query` | the name that is looked up | error for `dns` |
///
/// `null` counts as absent. Other fields are passed over and counted.
///
/// # Errors
/// [`FeedError`] of the group "the producer of the data", or
/// [`FeedError::NewerSchema`].
pub fn decode_event(line: &[u8]) -> Result<DecodedEvent, FeedError> {
    let mut cursor = Cursor::new(checked_text(line)?, MAX_DEPTH);
    let mut fields = Fields::default();
    cursor.each_field(|cursor, name| fields.read(cursor, name))?;
    cursor.end()?;
    fields.into_event()
}

/// The line as text, if it is short enough and UTF-8.
pub(crate) fn checked_text(line: &[u8]) -> Result<&str, FeedError> {
    if line.len() > MAX_LINE_BYTES {
        return Err(FeedError::LineTooLong {
            limit_bytes: MAX_LINE_BYTES,
        });
    }
    std::str::from_utf8(line).map_err(|error| FeedError::NotUtf8 {
        offset: error.valid_up_to(),
    })
}

/// Reads a `schema` field and compares it with `expected`, which ends in `/` and
/// the newest version understood.
pub(crate) fn check_schema(
    cursor: &mut Cursor<'_>,
    expected: &'static str,
) -> Result<(), FeedError> {
    let Some(schema) = text(cursor, "schema")? else {
        return Ok(());
    };
    if schema == expected {
        return Ok(());
    }
    let version = |schema: &str| {
        let (name, version) = schema.rsplit_once('/')?;
        Some((name.to_owned(), version.parse::<u64>().ok()?))
    };
    match (version(&schema), version(expected)) {
        (Some((name, found)), Some((ours, supported))) if name == ours && found > supported => {
            Err(FeedError::NewerSchema { found, supported })
        }
        _ => Err(FeedError::WrongSchema { expected }),
    }
}

/// The fields of a line as they come, before it is known what they make up.
#[derive(Default)]
struct Fields {
    id: Option<EventId>,
    kind: Option<EventKind>,
    at: Option<u64>,
    wall: Option<u64>,
    key: Option<ProcessKey>,
    parent_key: Option<ProcessKey>,
    uid: Option<u32>,
    gid: Option<u32>,
    cgroup_id: Option<u64>,
    mount_ns: Option<u32>,
    pid_ns: Option<u32>,
    net_ns: Option<u32>,
    image: ImageFields,
    parent: Option<Ancestor>,
    ancestors: Option<Vec<Ancestor>>,
    exit: Option<ExitStatus>,
    loss: Option<Losses>,
    agent: AgentFields,
    activity: ActivityFields,
    ignored: u64,
}

impl Fields {
    fn read(&mut self, cursor: &mut Cursor<'_>, name: &str) -> Result<(), FeedError> {
        match name {
            "schema" => check_schema(cursor, EVENT_SCHEMA)?,
            "id" => self.id = event_id(cursor, &mut self.ignored)?,
            "kind" => self.kind = kind(cursor)?,
            "at_ns" => self.at = u64_number(cursor, "at_ns")?,
            "wall_ns" => self.wall = u64_number(cursor, "wall_ns")?,
            "key" => self.key = process_key(cursor, "key")?,
            "parent_key" => self.parent_key = process_key(cursor, "parent_key")?,
            "uid" => self.uid = u32_number(cursor, "uid")?,
            "gid" => self.gid = u32_number(cursor, "gid")?,
            "cgroup_id" => self.cgroup_id = u64_number(cursor, "cgroup_id")?,
            "mount_ns" => self.mount_ns = u32_number(cursor, "mount_ns")?,
            "pid_ns" => self.pid_ns = u32_number(cursor, "pid_ns")?,
            "net_ns" => self.net_ns = u32_number(cursor, "net_ns")?,
            "parent" => self.parent = parent(cursor, &mut self.ignored)?,
            "ancestors" => self.ancestors = ancestors(cursor, &mut self.ignored)?,
            "exit" => self.exit = exit_status(cursor, &mut self.ignored)?,
            "loss" => self.loss = losses(cursor, &mut self.ignored)?,
            _ if self.image.read(cursor, name)? => {}
            _ if self.agent.read(cursor, name, &mut self.ignored)? => {}
            _ if self.activity.read(cursor, name)? => {}
            _ => {
                cursor.skip_value()?;
                self.ignored += 1;
            }
        }
        Ok(())
    }

    fn into_event(mut self) -> Result<DecodedEvent, FeedError> {
        let id = need(self.id.take(), "id")?;
        let implied = self.agent.implied_kind(self.image.args.is_some());
        let kind = self.kind.unwrap_or(implied);
        if kind == EventKind::Exec && self.image.args.is_none() {
            return Err(FeedError::MissingField { field: "argv" });
        }
        let data = self.data(kind)?;
        self.ignored += self.leftovers();
        let event = Event {
            id,
            at: self.at.map(BootTime),
            wall: self.wall.map(WallTime),
            process: Process {
                key: self.key,
                parent: self.parent_key,
                image: self.image.into_image(),
                uid: self.uid.map(Uid),
                gid: self.gid.map(Gid),
                cgroup_id: self.cgroup_id.map(CgroupId),
                mount_ns: self.mount_ns.map(NamespaceInode),
                pid_ns: self.pid_ns.map(NamespaceInode),
                net_ns: self.net_ns.map(NamespaceInode),
            },
            ancestors: match self.ancestors {
                Some(ancestors) => ancestors,
                None => self.parent.into_iter().collect(),
            },
            data,
        };
        Ok(DecodedEvent {
            event,
            ignored_fields: self.ignored,
        })
    }

    /// Takes the fields that are particular to `kind`.
    fn data(&mut self, kind: EventKind) -> Result<EventData, FeedError> {
        match kind {
            EventKind::Fork => Ok(EventData::Fork),
            EventKind::Exec => Ok(EventData::Exec),
            EventKind::Exit => need(self.exit.take(), "exit").map(EventData::Exit),
            EventKind::Loss => need(self.loss.take(), "loss").map(EventData::Loss),
            EventKind::ToolCall => self.agent.take_call().map(EventData::ToolCall),
            EventKind::Text => self.agent.take_text().map(EventData::Text),
            EventKind::File => self.activity.take_file().map(EventData::File),
            EventKind::Connect => self.activity.take_connection().map(EventData::Connect),
            EventKind::Dns => self.activity.take_query().map(EventData::Dns),
            // A kind of a later version of `types`; `kind` yields none of them.
            _ => Err(FeedError::MissingField { field: "kind" }),
        }
    }

    /// How many known fields do not belong to the event.
    fn leftovers(&self) -> u64 {
        let left = [
            self.exit.is_some(),
            self.loss.is_some(),
            self.parent.is_some() && self.ancestors.is_some(),
        ];
        left.into_iter().map(u64::from).sum::<u64>()
            + self.agent.leftovers()
            + self.activity.leftovers()
    }
}

/// The fields of an [`Image`], which the event and each ancestor have.
#[derive(Default)]
struct ImageFields {
    exe: Option<String>,
    comm: Option<String>,
    args: Option<Vec<String>>,
    true_bytes: Option<u64>,
    truncated: Option<bool>,
    cwd: Option<String>,
    exec_at: Option<u64>,
}

impl ImageFields {
    /// Reads the field if it is one of an image.
    fn read(&mut self, cursor: &mut Cursor<'_>, name: &str) -> Result<bool, FeedError> {
        match name {
            "exe" => self.exe = text(cursor, "exe")?,
            "comm" => self.comm = text(cursor, "comm")?,
            "argv" => self.args = args(cursor)?,
            "argv_bytes" => self.true_bytes = u64_number(cursor, "argv_bytes")?,
            "argv_truncated" => self.truncated = boolean(cursor, "argv_truncated")?,
            "cwd" => self.cwd = text(cursor, "cwd")?,
            "exec_at_ns" => self.exec_at = u64_number(cursor, "exec_at_ns")?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn into_image(self) -> Image {
        let mut argv = Argv::complete(self.args.unwrap_or_default());
        argv.true_bytes = self.true_bytes.unwrap_or(argv.true_bytes);
        argv.truncated = self.truncated.unwrap_or(false);
        Image {
            exe: self.exe.unwrap_or_default(),
            comm: self.comm.unwrap_or_default(),
            argv,
            cwd: self.cwd.unwrap_or_default(),
            exec_at: self.exec_at.map(BootTime),
        }
    }
}

fn args(cursor: &mut Cursor<'_>) -> Result<Option<Vec<String>>, FeedError> {
    if cursor.null() {
        return Ok(None);
    }
    expect(cursor, "argv", b'[', "an array of strings")?;
    let mut args = Vec::new();
    cursor.each_element(|cursor| {
        let offset = expect(cursor, "argv", b'"', "an array of strings")?;
        if args.len() == MAX_ARGS {
            return Err(FeedError::TooMany {
                field: "argv",
                limit: MAX_ARGS,
                offset,
            });
        }
        args.push(cursor.string()?.into_owned());
        Ok(())
    })?;
    Ok(Some(args))
}

fn ancestors(
    cursor: &mut Cursor<'_>,
    ignored: &mut u64,
) -> Result<Option<Vec<Ancestor>>, FeedError> {
    if cursor.null() {
        return Ok(None);
    }
    expect(cursor, "ancestors", b'[', "an array of objects")?;
    let mut ancestors = Vec::new();
    cursor.each_element(|cursor| {
        let offset = expect(cursor, "ancestors", b'{', "an array of objects")?;
        if ancestors.len() == MAX_ANCESTORS {
            return Err(FeedError::TooMany {
                field: "ancestors",
                limit: MAX_ANCESTORS,
                offset,
            });
        }
        ancestors.push(ancestor(cursor, ignored)?);
        Ok(())
    })?;
    Ok(Some(ancestors))
}

fn ancestor(cursor: &mut Cursor<'_>, ignored: &mut u64) -> Result<Ancestor, FeedError> {
    let mut key = None;
    let mut image = ImageFields::default();
    cursor.each_field(|cursor, name| {
        if name == "key" {
            key = process_key(cursor, "key")?;
        } else if !image.read(cursor, name)? {
            cursor.skip_value()?;
            *ignored += 1;
        }
        Ok(())
    })?;
    Ok(Ancestor {
        key,
        image: image.into_image(),
    })
}

fn parent(cursor: &mut Cursor<'_>, ignored: &mut u64) -> Result<Option<Ancestor>, FeedError> {
    let offset = cursor.offset();
    match cursor.peek() {
        Some(b'n') if cursor.null() => Ok(None),
        Some(b'{') => ancestor(cursor, ignored).map(Some),
        Some(b'"') => Ok(named_parent(&cursor.string()?, offset)?),
        _ => Err(FeedError::WrongType {
            field: "parent",
            expected: "a string or an object",
            offset,
        }),
    }
}

/// The parent that a name, a path or a command line describes. Quoting is not
/// understood: the words only serve to be read.
fn named_parent(line: &str, offset: usize) -> Result<Option<Ancestor>, FeedError> {
    let words: Vec<String> = line
        .split_ascii_whitespace()
        .take(MAX_ARGS + 1)
        .map(str::to_owned)
        .collect();
    if words.len() > MAX_ARGS {
        return Err(FeedError::TooMany {
            field: "parent",
            limit: MAX_ARGS,
            offset,
        });
    }
    let Some(program) = words.first().cloned() else {
        return Ok(None);
    };
    let name = program.rsplit('/').next().unwrap_or_default();
    let comm = &name[..name.floor_char_boundary(MAX_COMM_BYTES)];
    Ok(Some(Ancestor {
        key: None,
        image: Image {
            comm: comm.to_owned(),
            argv: Argv::complete(words),
            exe: match program.starts_with('/') {
                true => program,
                false => String::new(),
            },
            ..Image::default()
        },
    }))
}

/// `TASK_COMM_LEN` without its NUL.
const MAX_COMM_BYTES: usize = 15;

fn exit_status(
    cursor: &mut Cursor<'_>,
    ignored: &mut u64,
) -> Result<Option<ExitStatus>, FeedError> {
    if cursor.null() {
        return Ok(None);
    }
    expect(cursor, "exit", b'{', "an object")?;
    let (mut code, mut signal, mut core_dumped) = (None, None, None);
    cursor.each_field(|cursor, name| {
        match name {
            "code" => code = u8_number(cursor, "exit.code")?,
            "signal" => signal = u8_number(cursor, "exit.signal")?,
            "core_dumped" => core_dumped = boolean(cursor, "exit.core_dumped")?,
            _ => {
                cursor.skip_value()?;
                *ignored += 1;
            }
        }
        Ok(())
    })?;
    Ok(Some(ExitStatus {
        code: need(code, "exit.code")?,
        signal: need(signal, "exit.signal")?,
        core_dumped: core_dumped.unwrap_or(false),
    }))
}

fn losses(cursor: &mut Cursor<'_>, ignored: &mut u64) -> Result<Option<Losses>, FeedError> {
    const NAMES: [&str; 6] = [
        "loss.seen",
        "loss.emitted",
        "loss.dropped",
        "loss.filtered",
        "loss.read",
        "loss.undecodable",
    ];
    if cursor.null() {
        return Ok(None);
    }
    expect(cursor, "loss", b'{', "an object")?;
    let mut counts = [None; NAMES.len()];
    cursor.each_field(|cursor, name| {
        match NAMES
            .iter()
            .position(|known| &known["loss.".len()..] == name)
        {
            Some(index) => counts[index] = u64_number(cursor, NAMES[index])?,
            None => {
                cursor.skip_value()?;
                *ignored += 1;
            }
        }
        Ok(())
    })?;
    let count = |index: usize| need(counts[index], NAMES[index]);
    Ok(Some(Losses {
        seen: count(0)?,
        emitted: count(1)?,
        dropped: count(2)?,
        filtered: count(3)?,
        read: count(4)?,
        undecodable: count(5)?,
    }))
}
