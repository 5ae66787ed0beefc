//! The text of a case; precedents are compared with its first part, and the model
//! reads that part alone.
//!
//! One case has one text. The behaviour (what runs, under which parent) comes
//! first, one field a line, then its surroundings. Everything of others is
//! quoted, so a line of this text always begins with a field name of ours.

use inwarden_types::{
    AgentText, Ancestor, Case, Event, EventData, Image, Process, TextGiver, ToolCall,
};

use crate::quote::{quote_or_cut, quote_untrusted};

const MAX_EXEC_BYTES: usize = 600;
const MAX_SCRIPT_BYTES: usize = 900;
const MAX_PATH_BYTES: usize = 120;
const MAX_TASK_BYTES: usize = 300;
const MAX_NAME_BYTES: usize = 48;
const MAX_EARLIER_EVENTS: usize = 3;
const MAX_EARLIER_BYTES: usize = 160;
const MAX_ANCESTORS: usize = 5;

/// The text of a case: behaviour and surroundings, bounded, one field a line.
///
/// # Examples
/// ```
/// use inwarden_types::{Argv, Case, Event, EventData, EventId, Image, Process};
///
/// let argv = ["bash", "-c", "make -j2\nmake test"].map(String::from).to_vec();
/// let event = Event {
///     id: EventId::External("e1".into()),
///     at: None,
///     wall: None,
///     process: Process { image: Image { argv: Argv::complete(argv), ..Image::default() }, ..Process::default() },
///     ancestors: Vec::new(),
///     data: EventData::Exec,
/// };
/// let text = inwarden_classifier::render_case(&Case::of(event));
/// assert_eq!(text, "exec: bash -c\nscript: make -j2\\nmake test");
/// ```
#[must_use]
pub fn render_case(case: &Case) -> String {
    let mut lines = behaviour_lines(case.last()).lines;
    lines.extend(surrounding_lines(case));
    lines.join("\n")
}

/// The first part of [`render_case`]: what runs and under which parent. This is
/// what precedents remember and are compared by, and what the model reads.
#[must_use]
pub fn render_behaviour(case: &Case) -> String {
    render_behaviour_or_cut(case).0
}

/// As [`render_behaviour`], and whether a part of the behaviour was left out.
pub(crate) fn render_behaviour_or_cut(case: &Case) -> (String, bool) {
    let behaviour = behaviour_lines(case.last());
    (behaviour.lines.join("\n"), behaviour.is_cut)
}

/// Lines of a behaviour, and whether any does not show all it should.
#[derive(Default)]
struct Behaviour {
    lines: Vec<String>,
    is_cut: bool,
}

impl Behaviour {
    fn push(&mut self, field: &str, text: &str, max_bytes: usize) {
        let (quoted, is_cut) = quote_or_cut(text, max_bytes);
        self.lines.push(format!("{field}: {quoted}"));
        self.is_cut |= is_cut;
    }
}

fn behaviour_lines(event: &Event) -> Behaviour {
    let mut behaviour = match &event.data {
        EventData::ToolCall(call) => return tool_call_lines(call),
        EventData::Text(text) => return text_lines(text),
        EventData::Exec => image_lines("exec", &event.process.image),
        EventData::Fork => image_lines("fork of", &event.process.image),
        EventData::Exit(status) => {
            let mut behaviour = image_lines("exit of", &event.process.image);
            let status = format!("status: {} signal {}", status.code, status.signal);
            behaviour.lines.push(status);
            behaviour
        }
        EventData::File(access) => {
            let mut behaviour = image_lines("file access of", &event.process.image);
            behaviour.push(access.op.name(), &access.path, MAX_EXEC_BYTES);
            if let Some(to) = &access.to {
                behaviour.push("to", to, MAX_EXEC_BYTES);
            }
            behaviour
        }
        EventData::Connect(connection) => {
            let mut behaviour = image_lines("connection of", &event.process.image);
            behaviour.push("to", &connection.peer.to_string(), MAX_EXEC_BYTES);
            if let Some(port) = connection.port {
                behaviour.lines.push(format!("port: {port}"));
            }
            behaviour
        }
        EventData::Dns(query) => {
            let mut behaviour = image_lines("name lookup of", &event.process.image);
            behaviour.push("name", &query.name, MAX_EXEC_BYTES);
            behaviour
        }
        _ => Behaviour {
            lines: vec!["no behaviour".to_owned()],
            is_cut: false,
        },
    };
    if let Some(parent) = event.ancestors.first() {
        let parent = format!("parent: {}", ancestor_name(parent));
        behaviour.lines.push(parent);
    }
    behaviour
}

fn surrounding_lines(case: &Case) -> Vec<String> {
    let event = case.last();
    let mut lines = Vec::new();
    if event.ancestors.len() > 1 {
        let chain: Vec<String> = event
            .ancestors
            .iter()
            .skip(1)
            .take(MAX_ANCESTORS)
            .map(ancestor_name)
            .collect();
        lines.push(format!("ancestors: {}", chain.join(" < ")));
    }
    if let Some(uid) = event.process.uid {
        let user = if uid.0 == 0 { "root" } else { "unprivileged" };
        lines.push(format!("user: {user}"));
    }
    if let Some(class) = directory_class(&event.process) {
        lines.push(format!("directory: {class}"));
    }
    let earlier = case.events().split_last().map_or(&[][..], |(_, rest)| rest);
    for event in earlier.iter().rev().take(MAX_EARLIER_EVENTS).rev() {
        let line = behaviour_lines(event).lines.join("; ");
        // Already quoted: this only shortens.
        lines.push(format!(
            "earlier: {}",
            quote_untrusted(&line, MAX_EARLIER_BYTES)
        ));
    }
    lines
}

fn image_lines(field: &str, image: &Image) -> Behaviour {
    let args = &image.argv.args;
    let body_idx = script_index(args);
    let head = body_idx.map_or(args.len(), |idx| idx);
    let mut command = join_words(&args[..head]);
    if args.is_empty() {
        let known = if image.exe.is_empty() {
            &image.comm
        } else {
            &image.exe
        };
        command.clone_from(known);
    }
    let mut behaviour = Behaviour::default();
    behaviour.push(field, &command, MAX_EXEC_BYTES);
    if let Some(idx) = body_idx {
        behaviour.push("script", &args[idx], MAX_SCRIPT_BYTES);
        if idx + 1 < args.len() {
            let rest = join_words(&args[idx + 1..]);
            behaviour.push("script arguments", &rest, MAX_EXEC_BYTES);
        }
    }
    if image.argv.truncated {
        let cut = format!("arguments cut: {} bytes in all", image.argv.true_bytes);
        behaviour.lines.push(cut);
        behaviour.is_cut = true;
    }
    let argv0 = args.first().map_or("", String::as_str);
    if !image.exe.is_empty()
        && !argv0.is_empty()
        && base_name(&image.exe) != base_name(argv0).trim_start_matches('-')
    {
        behaviour.push("executable", &image.exe, MAX_PATH_BYTES);
    }
    behaviour
}

fn tool_call_lines(call: &ToolCall) -> Behaviour {
    let mut behaviour = Behaviour::default();
    behaviour.push("tool call", &call.tool, MAX_PATH_BYTES);
    behaviour.push("arguments", &call.args_json, MAX_SCRIPT_BYTES);
    agent_lines(&mut behaviour, call.user_task.as_ref(), call.role.as_ref());
    behaviour
}

fn text_lines(text: &AgentText) -> Behaviour {
    let mut behaviour = Behaviour::default();
    let field = match text.given_by {
        TextGiver::User => "text of a user",
        TextGiver::Tool => "text of a tool",
    };
    behaviour.push(field, &text.text, MAX_SCRIPT_BYTES);
    if let Some(tool) = &text.tool {
        behaviour.push("tool", tool, MAX_PATH_BYTES);
    }
    agent_lines(&mut behaviour, text.user_task.as_ref(), text.role.as_ref());
    behaviour
}

/// What was asked for is not what is done: shortening it hides no behaviour.
fn agent_lines(behaviour: &mut Behaviour, user_task: Option<&String>, role: Option<&String>) {
    let mut push = |field: &str, text: &str, max_bytes: usize| {
        let quoted = quote_untrusted(text, max_bytes);
        behaviour.lines.push(format!("{field}: {quoted}"));
    };
    if let Some(task) = user_task {
        push("user asked", task, MAX_TASK_BYTES);
    }
    if let Some(role) = role {
        push("agent role", role, MAX_NAME_BYTES);
    }
}

fn ancestor_name(ancestor: &Ancestor) -> String {
    let image = &ancestor.image;
    let name = if !image.exe.is_empty() {
        base_name(&image.exe)
    } else if let Some(argv0) = image.argv.args.first() {
        base_name(argv0).trim_start_matches('-')
    } else {
        &image.comm
    };
    quote_untrusted(name, MAX_NAME_BYTES)
}

/// What kind of place the working directory is; its path says little more.
fn directory_class(process: &Process) -> Option<&'static str> {
    let cwd = process.image.cwd.as_str();
    if cwd.is_empty() {
        return None;
    }
    let within = |root: &str| {
        cwd == root
            || cwd
                .strip_prefix(root)
                .is_some_and(|rest| rest.starts_with('/'))
    };
    Some(if within("/tmp") || within("/var/tmp") {
        "temporary"
    } else if within("/dev/shm") || within("/run/shm") {
        "shared memory"
    } else if within("/root") {
        "home of root"
    } else if within("/home") {
        "a home"
    } else if within("/var/www") || within("/srv") {
        "web or service data"
    } else if cwd == "/" {
        "/"
    } else {
        "system"
    })
}

/// Index of the argument that is program text for an interpreter: the body of
/// `sh -c`, `python -c`, `perl -e` and their like, wrappers before it included.
pub(crate) fn script_index(args: &[String]) -> Option<usize> {
    script_index_within(args, 12, 8)
}

/// Whether there is such an argument further on than [`script_index`] looks.
pub(crate) fn script_is_beyond(args: &[String]) -> bool {
    script_index(args).is_none() && script_index_within(args, 512, 512).is_some()
}

fn script_index_within(args: &[String], max_start: usize, window: usize) -> Option<usize> {
    let limit = args.len().min(max_start);
    for start in 0..limit {
        let Some(flag) = program_text_flag(base_name(&args[start])) else {
            continue;
        };
        for (idx, arg) in args.iter().enumerate().take(start + window).skip(start + 1) {
            let long = arg == "--eval" || arg == "--command";
            let short = arg.starts_with('-') && !arg.starts_with("--") && arg.contains(flag);
            if long || short {
                return (idx + 1 < args.len()).then_some(idx + 1);
            }
            if !arg.starts_with('-') && !arg.starts_with('+') {
                break;
            }
        }
    }
    None
}

/// The letter by which a program takes program text as an argument.
fn program_text_flag(program: &str) -> Option<char> {
    let stem = program
        .trim_start_matches('-')
        .trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    match stem {
        "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash" | "fish" | "python" | "pypy" | "su" => {
            Some('c')
        }
        "perl" | "ruby" | "node" | "nodejs" | "lua" | "osascript" => Some('e'),
        "php" => Some('r'),
        _ => None,
    }
}

/// The last component of a path.
pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Joins arguments so that their borders stay visible, quoted as a shell would.
pub(crate) fn join_words(args: &[String]) -> String {
    let mut out = String::new();
    for (idx, arg) in args.iter().enumerate() {
        if idx > 0 {
            out.push(' ');
        }
        let plain = !arg.is_empty()
            && arg
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&b) || b >= 0x80);
        if plain {
            out.push_str(arg);
        } else {
            out.push('\'');
            out.push_str(&arg.replace('\'', "'\\''"));
            out.push('\'');
        }
    }
    out
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
