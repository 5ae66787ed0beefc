//! The layers of a command line: texts inside texts, opened one by one.

use std::collections::VecDeque;

use super::{
    Command, Language, code,
    decode::{Encoding, hidden_text},
    embedded::{Embedded, Means, called_in, embedded_in, speaks_shell},
    evaluate::{Environment, PrintedText, evaluate},
    is_interpreter, is_shell, shell, unicode,
};
use crate::render::script_is_beyond;

/// Arguments of a program that are read.
const MAX_WORDS: usize = 512;
/// Layers that are opened.
const MAX_LAYERS: usize = 24;
/// How deep layers lie in each other.
const MAX_LAYER_DEPTH: usize = 8;
/// Bytes of one layer that are read; of a longer one both ends.
const MAX_LAYER_BYTES: usize = 64 * 1024;
/// Bytes of all layers.
const MAX_ALL_BYTES: usize = 192 * 1024;
/// Simple commands that are kept in all.
const MAX_COMMANDS: usize = 2_048;
/// Lines of a text that are looked for in the one around it.
const MAX_COMPARED_LINES: usize = 64;
/// Encoded arguments that are tried.
const MAX_DECODED: usize = 8;

/// A text and how it came to be run.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) text: String,
    /// The same in lower case.
    pub(crate) lower: String,
    pub(crate) language: Language,
    pub(crate) origin: Origin,
    depth: usize,
    /// How many encodings and `eval`s it lies behind.
    n_hidden: usize,
}

/// What made a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The command line itself.
    CommandLine,
    /// Given to an interpreter or made to run by other means.
    Embedded(Means),
    /// A here-document or constant output that an interpreter reads.
    Input,
    /// The same that is written into a file.
    Written,
    /// Came out of an encoding.
    Decoded(Encoding),
}

impl Layer {
    pub(crate) fn is_decoded(&self) -> bool {
        matches!(self.origin, Origin::Decoded(_))
    }

    pub(crate) fn is_elsewhere(&self) -> bool {
        self.origin == Origin::Embedded(Means::Elsewhere)
    }
}

/// What a command line says.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// All simple commands of all layers.
    pub(crate) commands: Vec<Command>,
    /// The first is the command line itself.
    pub(crate) layers: Vec<Layer>,
    /// Whether a layer came out of an encoding.
    pub(crate) decoded: bool,
    /// Whether a cap was reached, so that something was not read.
    pub(crate) incomplete: bool,
}

impl Reading {
    /// Reads the arguments a program is started with; `also` is another name under
    /// which the program is looked at.
    pub(crate) fn of_program(args: &[String], also: Option<&str>) -> Self {
        let mut opening = Opening::default();
        opening.reading.incomplete = args.len() > MAX_WORDS || script_is_beyond(args);
        let words: Vec<String> = args
            .iter()
            .take(MAX_WORDS)
            .map(|arg| opening.capped(arg))
            .collect();
        let text = words.join(" ");
        opening.add(text, Language::Data, Origin::CommandLine, None);
        let mut commands = vec![Command::of_words(words.clone())];
        if let Some(name) = also {
            let mut words = words;
            match words.first_mut() {
                Some(first) => name.clone_into(first),
                None => words.push(name.to_owned()),
            }
            // It is no part of the other's pipeline.
            commands.push(Command {
                pipeline: 1,
                ..Command::of_words(words)
            });
        }
        if let Some(plain) = opening
            .reading
            .layers
            .first()
            .and_then(|layer| unicode::normalised(&layer.text))
        {
            opening.add(
                plain,
                Language::Shell,
                Origin::Decoded(Encoding::Characters),
                Some(0),
            );
        }
        opening.take_commands(commands, 0);
        opening.run()
    }

    /// Whether program text lies behind so many encodings and `eval`s that somebody
    /// must want it unread: four, or one where the reading ended before the text did.
    pub(crate) fn is_buried(&self) -> bool {
        let hidden = self.layers.iter().map(|layer| layer.n_hidden).max();
        hidden.unwrap_or(0) >= if self.incomplete { 1 } else { 4 }
    }

    /// Reads a command line as one text.
    pub(crate) fn of_line(line: &str) -> Self {
        let mut opening = Opening::default();
        opening.add(line.to_owned(), Language::Shell, Origin::CommandLine, None);
        opening.run()
    }
}

#[derive(Default)]
struct Opening {
    reading: Reading,
    waiting: VecDeque<(usize, Environment)>,
    n_bytes: usize,
    n_decoded: usize,
    /// Variables at the end of the layer being read.
    environment: Environment,
}

impl Opening {
    fn run(mut self) -> Reading {
        while let Some((layer, environment)) = self.waiting.pop_front() {
            self.environment = environment;
            self.open(layer);
        }
        self.reading
    }

    fn open(&mut self, idx: usize) {
        let (text, language) = {
            let layer = &self.reading.layers[idx];
            (layer.text.clone(), layer.language)
        };
        if let Some(plain) = unicode::normalised(&text) {
            self.add(
                plain,
                language,
                Origin::Decoded(Encoding::Characters),
                Some(idx),
            );
        }
        match language {
            Language::Data => {}
            Language::Shell => {
                let script = shell::parse(&text);
                self.reading.incomplete |= script.incomplete;
                let mut environment = std::mem::take(&mut self.environment);
                let evaluated = evaluate(script, &mut environment);
                self.reading.incomplete |= environment.is_full;
                self.environment = environment;
                for mut printed in evaluated.printed {
                    let file = printed.file.as_deref();
                    let runners = evaluated.commands.iter();
                    if let Some(file) = file
                        && let Some(runner) = runners.filter_map(|one| runner_of(one, file)).next()
                    {
                        printed.interpreter.get_or_insert_with(|| runner.to_owned());
                    }
                    self.take_printed(printed, idx);
                }
                self.take_commands(evaluated.commands, idx);
            }
            _ => {
                for embedded in called_in(&text, language) {
                    self.take_embedded(embedded, idx);
                }
                for (text, encoding) in code::encoded(&text) {
                    let language = language_of(&text, language);
                    self.add(text, language, Origin::Decoded(encoding), Some(idx));
                }
            }
        }
    }

    fn take_printed(&mut self, printed: PrintedText, parent: usize) {
        let named = printed
            .interpreter
            .as_deref()
            .and_then(Language::of_interpreter);
        let language = match named {
            Some(language) => language,
            None => language_of(&printed.text, Language::Shell),
        };
        let origin = match (printed.encoding, printed.interpreter) {
            (Some(encoding), _) => Origin::Decoded(encoding),
            (None, Some(_)) => Origin::Input,
            // Data that is written is not run here.
            (None, None) if !looks_like_script(&printed.text) => return,
            (None, None) => Origin::Written,
        };
        self.add(printed.text, language, origin, Some(parent));
    }

    /// Keeps commands of a layer, and opens what they run.
    fn take_commands(&mut self, commands: Vec<Command>, layer: usize) {
        // Pipelines are numbered per layer: keep them apart.
        let offset = self
            .reading
            .commands
            .iter()
            .map(|c| c.pipeline + 1)
            .max()
            .unwrap_or(0);
        let mut waiting: VecDeque<Command> = commands
            .into_iter()
            .map(|mut command| {
                command.pipeline += offset;
                command.layer = layer;
                command
            })
            .collect();
        while let Some(command) = waiting.pop_front() {
            if self.reading.commands.len() >= MAX_COMMANDS {
                self.reading.incomplete = true;
                return;
            }
            self.reading.incomplete |= script_is_beyond(&command.words);
            for embedded in embedded_in(&command) {
                if let Embedded::Words(words) = embedded {
                    let mut inner = Command {
                        pipeline: command.pipeline,
                        stage: command.stage,
                        layer,
                        in_loop: command.in_loop || command.name() == "find",
                        n_wrappers: command.n_wrappers + 1,
                        ..Command::default()
                    };
                    inner.set_words(words);
                    if inner.n_wrappers <= MAX_LAYER_DEPTH {
                        waiting.push_front(inner);
                    } else {
                        self.reading.incomplete = true;
                    }
                } else {
                    self.take_embedded(embedded, layer);
                }
            }
            self.hidden_in(&command, layer);
            self.reading.commands.push(command);
        }
    }

    fn take_embedded(&mut self, embedded: Embedded, parent: usize) {
        if let Embedded::Text {
            text,
            language,
            means,
        } = embedded
        {
            self.add(text, language, Origin::Embedded(means), Some(parent));
        }
    }

    /// Opens encoded words.
    fn hidden_in(&mut self, command: &Command, layer: usize) {
        for word in &command.words {
            // A shell's text is read as its own layer.
            let is_text = word.contains(char::is_whitespace)
                && (is_shell(command.name()) || speaks_shell(command.name()));
            if word.len() < 16 || is_text {
                continue;
            }
            let Some((text, encoding)) = hidden_text(word) else {
                continue;
            };
            if self.n_decoded >= MAX_DECODED {
                self.reading.incomplete = true;
                return;
            }
            self.n_decoded += 1;
            let language = language_of(&text, Language::Shell);
            self.add(text, language, Origin::Decoded(encoding), Some(layer));
        }
    }

    fn add(&mut self, text: String, language: Language, origin: Origin, parent: Option<usize>) {
        let depth = parent.map_or(0, |parent| self.reading.layers[parent].depth + 1);
        let n_hidden = parent.map_or(0, |parent| {
            let parent = &self.reading.layers[parent];
            parent.n_hidden + usize::from(is_hidden_in(&parent.text, &text, origin))
        });
        let is_full = self.reading.layers.len() >= MAX_LAYERS
            || depth > MAX_LAYER_DEPTH
            || self.n_bytes.saturating_add(text.len().min(MAX_LAYER_BYTES)) > MAX_ALL_BYTES;
        let same = |layer: &Layer| layer.text == text && layer.language == language;
        if self.reading.layers.iter().any(same) && parent.is_some() {
            return;
        }
        if is_full {
            self.reading.incomplete = true;
            return;
        }
        let text = self.capped(&text);
        self.n_bytes += text.len();
        self.reading.decoded |= matches!(origin, Origin::Decoded(_));
        let idx = self.reading.layers.len();
        self.reading.layers.push(Layer {
            lower: text.to_lowercase(),
            text,
            language,
            origin,
            depth,
            n_hidden,
        });
        if language != Language::Data {
            // What a text runs sees the variables of the text.
            self.waiting.push_back((idx, self.environment.clone()));
        }
    }

    /// Both ends of a text that is too long.
    fn capped(&mut self, text: &str) -> String {
        if text.len() <= MAX_LAYER_BYTES {
            return text.to_owned();
        }
        self.reading.incomplete = true;
        let mut head = MAX_LAYER_BYTES / 4 * 3;
        while !text.is_char_boundary(head) {
            head -= 1;
        }
        let mut tail = text.len() - MAX_LAYER_BYTES / 4;
        while !text.is_char_boundary(tail) {
            tail += 1;
        }
        format!("{}\n{}", &text[..head], &text[tail..])
    }
}

/// Whether a reader of `outer` does not see the text that it makes run.
fn is_hidden_in(outer: &str, text: &str, origin: Origin) -> bool {
    match origin {
        Origin::Decoded(_) | Origin::Embedded(Means::Eval) => true,
        Origin::Input => {
            let mut lines = text.lines().take(MAX_COMPARED_LINES);
            lines.any(|line| !outer.contains(line))
        }
        Origin::CommandLine | Origin::Embedded(_) | Origin::Written => false,
    }
}

/// What runs `file` in `command`: an interpreter, or nothing where the file is
/// started itself.
fn runner_of<'a>(command: &'a Command, file: &str) -> Option<&'a str> {
    let bare = |path: &str| path.strip_prefix("./").unwrap_or(path).to_owned();
    let is_file = |word: &str| bare(word) == bare(file);
    if is_file(command.program()) {
        // Its first line says what runs it.
        return Some("");
    }
    let is_run = is_interpreter(command.name()) && command.operands().next().is_some_and(is_file);
    is_run.then(|| command.name())
}

/// The language that a text seems to be in.
fn language_of(text: &str, otherwise: Language) -> Language {
    let first = text.lines().next().unwrap_or("");
    if let Some(interpreter) = first.strip_prefix("#!") {
        let name = interpreter
            .split(['/', ' '])
            .rev()
            .find(|word| !word.is_empty() && !word.starts_with('-'));
        return name.and_then(Language::of_interpreter).unwrap_or(otherwise);
    }
    if text.contains("<?php") {
        Language::Php
    } else if first.starts_with("import ")
        || text.contains("\nimport ")
        || first.starts_with("from ") && text.contains(" import ")
    {
        Language::Python
    } else if text.contains("require('child_process')") {
        Language::JavaScript
    } else {
        otherwise
    }
}

fn looks_like_script(text: &str) -> bool {
    text.starts_with("#!") || language_of(text, Language::Data) != Language::Data
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
