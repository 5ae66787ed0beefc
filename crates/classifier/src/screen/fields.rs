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
//! arguments hold a command line counts as an execution of that command line.

use std::collections::HashMap;

use inwarden_types::{Event, EventData, Image, ToolCall};

/// Field values are cut here; Sigma patterns look for short pieces.
const MAX_FIELD_BYTES: usize = 32 * 1024;
/// Tool call arguments longer than this are not searched for a command.
const MAX_ARGS_BYTES: usize = 256 * 1024;

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
            fields.insert("CommandLine", cut(command_of(call)?));
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

/// The command line that a tool call asks to run, if it is that kind of tool.
pub(crate) fn command_of(call: &ToolCall) -> Option<String> {
    const NAMES: [&str; 6] = ["command", "cmd", "script", "code", "shell", "commandline"];
    if call.args_json.len() > MAX_ARGS_BYTES {
        return None;
    }
    let value: serde_json::Value = serde_json::from_str(&call.args_json).ok()?;
    let (_, found) = value
        .as_object()?
        .iter()
        .find(|(name, _)| NAMES.contains(&name.to_lowercase().as_str()))?;
    match found {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Array(words) => Some(
            words
                .iter()
                .filter_map(serde_json::Value::as_str)
                .collect::<Vec<_>>()
                .join(" "),
        ),
        _ => None,
    }
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
    cut(image.argv.args.join(" "))
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
