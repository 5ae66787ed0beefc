//! [`Event`] to event JSON.

use std::fmt::{Display, Write as _};

use inwarden_types::{AgentText, Event, EventData, EventId, Image, ProcessKey, ToolCall};

use crate::decode::{EVENT_SCHEMA, MAX_DEPTH};
use crate::json::{Cursor, push_string};

/// One line of event JSON without its line end.
///
/// The order of the fields is fixed and those that hold nothing are left out, so
/// that equal events have equal lines. The result has no control characters.
/// [`decode_event`](crate::decode_event) reads it back without loss if the event
/// keeps its caps.
#[must_use]
pub fn encode_event(event: &Event) -> String {
    let mut line = Object::open(String::with_capacity(512));
    line.text("schema", EVENT_SCHEMA);
    match &event.id {
        EventId::External(id) => line.text("id", id),
        EventId::Observed {
            process,
            kind,
            at,
            sequence,
        } => line.object("id", |id| {
            id.key("process", Some(process));
            id.text("kind", kind.name());
            id.number("at_ns", Some(at.0));
            id.number("sequence", Some(sequence));
        }),
    }
    line.text("kind", event.kind().name());
    line.number("at_ns", event.at.map(|at| at.0));
    line.number("wall_ns", event.wall.map(|wall| wall.0));
    let process = &event.process;
    line.key("key", process.key.as_ref());
    line.key("parent_key", process.parent.as_ref());
    line.number("uid", process.uid);
    line.number("gid", process.gid);
    line.number("cgroup_id", process.cgroup_id);
    line.number("mount_ns", process.mount_ns);
    line.number("pid_ns", process.pid_ns);
    line.number("net_ns", process.net_ns);
    line.image(&process.image, matches!(event.data, EventData::Exec));
    if !event.ancestors.is_empty() {
        line.array("ancestors", &event.ancestors, |out, ancestor| {
            let mut object = Object::open(std::mem::take(out));
            object.key("key", ancestor.key.as_ref());
            object.image(&ancestor.image, false);
            *out = object.close();
        });
    }
    encode_data(&mut line, &event.data);
    line.close()
}

fn encode_data(line: &mut Object, data: &EventData) {
    match data {
        EventData::Exit(status) => line.object("exit", |exit| {
            exit.number("code", Some(status.code));
            exit.number("signal", Some(status.signal));
            if status.core_dumped {
                exit.number("core_dumped", Some(true));
            }
        }),
        EventData::Loss(losses) => line.object("loss", |loss| {
            loss.number("seen", Some(losses.seen));
            loss.number("emitted", Some(losses.emitted));
            loss.number("dropped", Some(losses.dropped));
            loss.number("filtered", Some(losses.filtered));
            loss.number("read", Some(losses.read));
            loss.number("undecodable", Some(losses.undecodable));
        }),
        EventData::ToolCall(call) => encode_call(line, call),
        EventData::Text(text) => encode_text(line, text),
        EventData::File(access) => {
            line.text("op", access.op.name());
            line.text("path", &access.path);
            if let Some(to) = &access.to {
                line.text("to", to);
            }
        }
        EventData::Connect(connection) => {
            line.text("dst", &connection.peer.to_string());
            line.number("port", connection.port);
            line.text("proto", connection.protocol.name());
        }
        EventData::Dns(query) => line.text("query", &query.name),
        // Fork and exec have nothing of their own.
        _ => {}
    }
}

fn encode_call(line: &mut Object, call: &ToolCall) {
    line.filled_text("agent", &call.agent);
    if let Some(role) = &call.role {
        line.text("role", role);
    }
    if let Some(task) = &call.user_task {
        line.text("user_task", task);
    }
    line.text("tool", &call.tool);
    line.args(&call.args_json, MAX_DEPTH - 1);
    if !call.history.is_empty() {
        line.array("history", &call.history, |out, past| {
            let mut object = Object::open(std::mem::take(out));
            object.text("tool", &past.tool);
            object.args(&past.args_json, MAX_DEPTH - 3);
            object.text("output", &past.output);
            *out = object.close();
        });
    }
}

fn encode_text(line: &mut Object, text: &AgentText) {
    line.filled_text("agent", &text.agent);
    if let Some(role) = &text.role {
        line.text("role", role);
    }
    if let Some(task) = &text.user_task {
        line.text("user_task", task);
    }
    if let Some(tool) = &text.tool {
        line.text("tool", tool);
    }
    line.text("given_by", text.given_by.name());
    line.text("text", &text.text);
}

/// Whether these arguments, put into a line as they are, are read back as they
/// are; `levels` are left for them.
fn stays_the_same_inside_a_line(args_json: &str, levels: usize) -> bool {
    if !args_json.starts_with('{') || args_json.contains(char::is_control) {
        return false;
    }
    let mut cursor = Cursor::new(args_json, levels);
    cursor.raw_value().is_ok_and(|raw| raw == args_json)
}

/// A JSON object that is being written.
struct Object {
    out: String,
}

impl Object {
    fn open(mut out: String) -> Self {
        out.push('{');
        Self { out }
    }

    fn close(mut self) -> String {
        self.out.push('}');
        self.out
    }

    fn name(&mut self, name: &str) {
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        push_string(&mut self.out, name);
        self.out.push(':');
    }

    fn raw(&mut self, name: &str, json: &str) {
        self.name(name);
        self.out.push_str(json);
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        push_string(&mut self.out, value);
    }

    fn args(&mut self, args_json: &str, levels: usize) {
        if stays_the_same_inside_a_line(args_json, levels) {
            self.raw("args", args_json);
        } else {
            self.text("args_text", args_json);
        }
    }

    fn filled_text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    /// A number or a boolean.
    fn number(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.name(name);
            // Writing to a String does not fail.
            let _ = write!(self.out, "{value}");
        }
    }

    fn key(&mut self, name: &str, key: Option<&ProcessKey>) {
        if let Some(key) = key {
            self.text(name, &key.to_string());
        }
    }

    fn object(&mut self, name: &str, fields: impl FnOnce(&mut Self)) {
        self.name(name);
        let mut object = Self::open(std::mem::take(&mut self.out));
        fields(&mut object);
        self.out = object.close();
    }

    fn array<T>(&mut self, name: &str, items: &[T], write: impl Fn(&mut String, &T)) {
        self.name(name);
        self.out.push('[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            write(&mut self.out, item);
        }
        self.out.push(']');
    }

    fn image(&mut self, image: &Image, argv_is_required: bool) {
        self.filled_text("exe", &image.exe);
        self.filled_text("comm", &image.comm);
        let argv = &image.argv;
        if argv_is_required || !argv.args.is_empty() {
            self.array("argv", &argv.args, |out, arg| push_string(out, arg));
        }
        let complete: u64 = argv.args.iter().map(|arg| arg.len() as u64 + 1).sum();
        if argv.true_bytes != complete {
            self.number("argv_bytes", Some(argv.true_bytes));
        }
        if argv.truncated {
            self.number("argv_truncated", Some(true));
        }
        self.filled_text("cwd", &image.cwd);
        self.number("exec_at_ns", image.exec_at.map(|at| at.0));
    }
}
