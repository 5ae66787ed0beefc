//! What Sigma's field names mean for our events.
//!
//! | Sigma field | our event |
//! |---|---|
//! | `Image` | path of the executable, else `argv[0]` |
//! | `CommandLine` | the arguments joined by single spaces, unquoted, as Sysmon for Linux writes them |
//! | `ParentImage` | the same of the nearest ancestor, else its comm |
//! | `ParentCommandLine` | its arguments joined by spaces, where known |
//! | `User` | `root` for uid 0, else the uid as a number |
//! | `CurrentDirectory` | working directory at the exec |
//!
//! Log source: product `linux`, category `process_creation`. A tool call whose
//! arguments hold command lines counts as an execution of those command lines.
//!
//! Whitespace and quotes in `argv[0]` become `_`: it is free to choose, and must
//! not look like more arguments than one.

use std::collections::HashMap;

use inwarden_types::{Event, EventData, Image};

use super::tool_text::command_of;

/// Field values are cut here; Sigma patterns look for short pieces.
const MAX_FIELD_BYTES: usize = 32 * 1024;

type FieldValues = HashMap<&'static str, String>;

/// The fields of an event; `None` for kinds that rules cannot speak about.
pub(crate) fn field_values(event: &Event) -> Option<FieldValues> {
    let mut fields = HashMap::new();
    match &event.data {
        EventData::Exec => {
            fields.insert("Image", path_of(&event.process.image));
            fields.insert("CommandLine", line_of(&event.process.image));
        }
        EventData::ToolCall(call) => {
            fields.insert("CommandLine", cut(command_of(call).line?));
        }
        _ => return None,
    }
    if let Some(parent) = event.ancestors.first() {
        fields.insert("ParentImage", path_of(&parent.image));
        let line = line_of(&parent.image);
        if !line.is_empty() {
            fields.insert("ParentCommandLine", line);
        }
    }
    if let Some(uid) = event.process.uid {
        let user = if uid.0 == 0 {
            "root".to_owned()
        } else {
            uid.0.to_string()
        };
        fields.insert("User", user);
    }
    if !event.process.image.cwd.is_empty() {
        fields.insert("CurrentDirectory", cut(event.process.image.cwd.clone()));
    }
    Some(fields)
}

fn path_of(image: &Image) -> String {
    let path = if !image.exe.is_empty() {
        &image.exe
    } else {
        image.argv.args.first().unwrap_or(&image.comm)
    };
    cut(path.clone())
}

fn line_of(image: &Image) -> String {
    let Some((argv0, rest)) = image.argv.args.split_first() else {
        return String::new();
    };
    let mut line = argv0.replace(
        |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`'),
        "_",
    );
    for arg in rest {
        line.push(' ');
        line.push_str(arg);
        if line.len() > MAX_FIELD_BYTES {
            break;
        }
    }
    cut(line)
}

/// Whether a field of what the event itself does is longer than rules see.
pub(crate) fn is_cut(event: &Event) -> bool {
    match &event.data {
        EventData::ToolCall(call) => {
            let text = command_of(call);
            text.incomplete || text.line.is_some_and(|line| line.len() > MAX_FIELD_BYTES)
        }
        _ => {
            let image = &event.process.image;
            let bytes: usize = image.argv.args.iter().map(|arg| arg.len() + 1).sum();
            image.exe.len() > MAX_FIELD_BYTES || bytes > MAX_FIELD_BYTES
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_FIELD_BYTES {
        let mut end = MAX_FIELD_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}
