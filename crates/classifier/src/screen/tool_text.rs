//! Which command lines the arguments of a tool call hold.
//!
//! The arguments are walked as they stand, at every depth, without building a
//! tree: of a key that is given twice both values count, whichever of them the
//! tool will take.

use std::{borrow::Cow, fmt};

use inwarden_types::ToolCall;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Arguments longer than this are read up to here.
const MAX_ARGS_BYTES: usize = 256 * 1024;
/// Levels of arrays and objects that are followed.
const MAX_DEPTH: usize = 32;
/// Texts that are taken.
const MAX_TEXTS: usize = 256;
/// Bytes that are taken in all.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// What a tool call asks to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandText {
    /// The command lines, one a line, if it is that kind of tool.
    pub(crate) line: Option<String>,
    /// Whether the arguments could not be read to the end.
    pub(crate) incomplete: bool,
}

/// The command lines that a tool call asks to run.
pub(crate) fn command_of(call: &ToolCall) -> CommandText {
    let args = call.args_json.trim();
    if args.is_empty() {
        return CommandText::default();
    }
    let mut end = args.len().min(MAX_ARGS_BYTES);
    while !args.is_char_boundary(end) {
        end -= 1;
    }
    let mut found = Found::default();
    // Arguments are one object; any other text is taken for a command.
    let walk = Walk {
        found: &mut found,
        depth: 0,
        takes: if args.starts_with('{') {
            Takes::Nothing
        } else {
            Takes::All
        },
        separator: '\n',
        of_elements: ' ',
    };
    let mut json = serde_json::Deserializer::from_str(&args[..end]);
    let walked = walk.deserialize(&mut json).and_then(|()| json.end());
    CommandText {
        line: (found.n_texts > 0).then_some(found.text),
        incomplete: walked.is_err() || end < args.len(),
    }
}

#[derive(Default)]
struct Found {
    /// Command lines.
    text: String,
    n_texts: usize,
    /// Arguments of the object that is being read, for its command.
    words: String,
    n_words: usize,
}

/// Which strings below a key are command lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    /// Strings and arrays of strings, not what is in objects.
    Words,
    All,
}

/// One value of the arguments on the way.
struct Walk<'a> {
    found: &'a mut Found,
    depth: usize,
    takes: Takes,
    /// What stands before the text if it is not the first.
    separator: char,
    /// What stands between elements, if it is an array.
    of_elements: char,
}

impl Walk<'_> {
    fn take(self, text: &str) -> Result<(), &'static str> {
        let found = self.found;
        let bytes = found.text.len() + found.words.len() + text.len();
        let is_full = found.n_texts + found.n_words >= MAX_TEXTS || bytes >= MAX_TEXT_BYTES;
        let (all, count) = match self.takes {
            Takes::Nothing => return Ok(()),
            _ if is_full => return Err("more command text than is read"),
            Takes::Words => (&mut found.words, &mut found.n_words),
            Takes::All => (&mut found.text, &mut found.n_texts),
        };
        if !all.is_empty() {
            all.push(self.separator);
        }
        all.push_str(text);
        *count += 1;
        Ok(())
    }
}

/// What the values of a key are: which are taken, what stands before them, what
/// between the elements of an array.
fn meaning(key: &str) -> Option<(Takes, char, char)> {
    let mut name = key.to_lowercase();
    name.retain(|c| !matches!(c, '_' | '-' | ' ' | '.'));
    match name.as_str() {
        "command" | "cmd" | "script" | "code" | "shell" | "commandline" | "shellcommand"
        | "bash" | "cmdline" => Some((Takes::All, '\n', ' ')),
        "commands" | "cmds" | "scripts" | "commandlines" => Some((Takes::All, '\n', '\n')),
        "args" | "argv" | "arguments" => Some((Takes::Words, ' ', ' ')),
        _ => None,
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("arguments of a tool call")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.take(text).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        if self.depth >= MAX_DEPTH {
            return Err(A::Error::custom("nested too deep"));
        }
        let mut separator = self.separator;
        while elements
            .next_element_seed(Walk {
                found: &mut *self.found,
                depth: self.depth + 1,
                takes: self.takes,
                separator,
                of_elements: ' ',
            })?
            .is_some()
        {
            separator = self.of_elements;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        if self.depth >= MAX_DEPTH {
            return Err(A::Error::custom("nested too deep"));
        }
        let of_outer = std::mem::take(&mut self.found.words);
        let n_before = self.found.n_texts;
        while let Some(key) = entries.next_key::<Cow<'_, str>>()? {
            let inherited = match self.takes {
                Takes::All => (Takes::All, '\n', ' '),
                Takes::Words | Takes::Nothing => (Takes::Nothing, '\n', ' '),
            };
            let (takes, separator, of_elements) = meaning(&key).unwrap_or(inherited);
            entries.next_value_seed(Walk {
                found: &mut *self.found,
                depth: self.depth + 1,
                takes,
                separator,
                of_elements,
            })?;
        }
        // Arguments count with a command beside them, in whatever order.
        let words = std::mem::replace(&mut self.found.words, of_outer);
        if self.found.n_texts > n_before && !words.is_empty() {
            self.found.text.push(' ');
            self.found.text.push_str(&words);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &str) -> CommandText {
        command_of(&ToolCall {
            args_json: args.into(),
            ..ToolCall::default()
        })
    }

    fn check(args: &str, line: Option<&str>) {
        let expected = CommandText {
            line: line.map(ToOwned::to_owned),
            incomplete: false,
        };
        assert_eq!(read(args), expected, "{args}");
    }

    #[test]
    fn every_key_at_every_depth_is_read() {
        check(r#"{"cmd":"ls","command":"nc -l"}"#, Some("ls\nnc -l"));
        check(r#"{"command":"nc -l","command":"ls"}"#, Some("nc -l\nls"));
        check(r#"{"input":{"Shell_Command":"id"}}"#, Some("id"));
        check(r#"{"command":{"value":"id"}}"#, Some("id"));
        check(r#"{"steps":[{"cmd":"a"},{"cmd":"b"}]}"#, Some("a\nb"));
        check(r#"{"command":["nc","-e","sh"]}"#, Some("nc -e sh"));
        check(r#"{"commands":["ls","id"]}"#, Some("ls\nid"));
        check(r#"{"command":"nc","args":["-e","sh"]}"#, Some("nc -e sh"));
        check(r#"{"args":["-e","sh"],"command":"nc"}"#, Some("nc -e sh"));
        check(r#"{"args":["-l"],"x":{"y":1},"cmd":"nc"}"#, Some("nc -l"));
        check(r#""id""#, Some("id"));
    }

    #[test]
    fn other_tools_hold_no_command_and_are_read_to_the_end() {
        check(r#"{"path":"/etc/hosts","n":1.5,"b":true,"x":null}"#, None);
        check(r#"{"args":{"note":"x"}}"#, None);
        check("", None);
        check("{}", None);
    }

    #[test]
    fn what_cannot_be_read_is_said_to_be_incomplete() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(40), "]".repeat(40));
        let long = format!(r#"{{"command":"id","x":"{}"}}"#, "y".repeat(MAX_ARGS_BYTES));
        let many = format!(r#"{{"commands":[{}"x"]}}"#, "\"x\",".repeat(MAX_TEXTS));
        let big = format!(r#"{{"command":"{}"}}"#, "y".repeat(MAX_TEXT_BYTES));
        for args in [
            r#"{"command":"id""#,
            r#"{"command":"id"} {"#,
            "rm -rf /",
            &deep,
            &long,
            &many,
            &big,
        ] {
            assert!(read(args).incomplete, "{}", &args[..args.len().min(60)]);
        }
        assert_eq!(read(&long).line.as_deref(), Some("id"), "rules see it");
    }
}
