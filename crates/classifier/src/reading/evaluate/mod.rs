//! Evaluates what is constant in a shell text: variables, substitutions, pipelines
//! of filters. Nothing is run; what depends on the machine stays unknown.

mod expand;
mod output;

use std::collections::HashMap;

use super::{
    command::{Command, Redirect},
    shell::{RawCommand, RawRedirect, RedirectKind, Script, Word},
};
use expand::{Expanded, expand};
pub(crate) use output::runs_its_input;
use output::{Printed, output_of};

/// Variables that are remembered.
const MAX_VARIABLES: usize = 128;
/// Bytes of all their values.
const MAX_VALUE_BYTES: usize = 128 * 1024;

/// A known or half-known value of a variable.
#[derive(Clone, Debug, Default)]
struct Value {
    text: Option<String>,
    /// Substitutions of this text whose output it holds.
    sources: Vec<usize>,
}

/// The variables of a text and of the texts it runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    variables: HashMap<String, Value>,
    /// Whether a variable was not remembered.
    pub(super) is_full: bool,
}

impl Environment {
    fn value(&self, name: &str) -> Option<&Value> {
        self.variables.get(name)
    }

    /// What a variable is likely to hold on any host.
    fn default_of(name: &str) -> Option<&'static str> {
        Some(match name {
            "IFS" => " \t\n",
            "PATH" => "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "SHELL" | "BASH" => "/bin/bash",
            "OSTYPE" => "linux-gnu",
            _ => return None,
        })
    }

    /// The value that is used where only a part of it is taken.
    fn sliceable(name: &str) -> Option<&'static str> {
        match name {
            "HOME" | "PWD" | "OLDPWD" => Some("/root"),
            _ => None,
        }
    }

    /// `$name` and `${name}` in the words of an operation, quotes left out.
    fn expand_plain(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['$', '\'', '"', '\\']) {
            out.push_str(&rest[..at]);
            let is_variable = rest[at..].starts_with('$');
            rest = &rest[at + 1..];
            if !is_variable {
                continue;
            }
            let inner = rest.trim_start_matches('{');
            let len = inner
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(inner.len());
            let (name, after) = inner.split_at(len);
            if let Some(text) = self.value(name).and_then(|value| value.text.as_deref()) {
                out.push_str(text);
            }
            rest = after
                .strip_prefix('}')
                .filter(|_| inner.len() < rest.len())
                .unwrap_or(after);
        }
        out.push_str(rest);
        out
    }

    /// What separates fields.
    fn separators(&self) -> &str {
        self.variables
            .get("IFS")
            .and_then(|value| value.text.as_deref())
            .unwrap_or(" \t\n")
    }

    fn set(&mut self, name: String, value: Value) {
        let bytes = |value: &Value| value.text.as_ref().map_or(0, String::len);
        let others = self.variables.iter().filter(|(known, _)| **known != name);
        let (n_others, n_bytes) =
            others.fold((0, 0), |(n, sum), (_, other)| (n + 1, sum + bytes(other)));
        if n_others < MAX_VARIABLES && n_bytes + bytes(&value) <= MAX_VALUE_BYTES {
            self.variables.insert(name, value);
        } else {
            self.variables.remove(&name);
            self.is_full = true;
        }
    }
}

/// What the evaluation of one text gives.
#[derive(Debug, Default)]
pub(super) struct Evaluated {
    pub(super) commands: Vec<Command>,
    /// Texts that come out of constant filters or stand in here-documents.
    pub(super) printed: Vec<PrintedText>,
}

/// A text that a command is given, or that a decoder prints.
#[derive(Debug)]
pub(super) struct PrintedText {
    pub(super) text: String,
    /// The interpreter that runs it, if one does.
    pub(super) interpreter: Option<String>,
    /// Whether a decoder made it.
    pub(super) encoding: Option<super::decode::Encoding>,
    /// The file it is written into.
    pub(super) file: Option<String>,
}

/// Evaluates `script`; `environment` holds the variables before and after.
pub(super) fn evaluate(script: Script, environment: &mut Environment) -> Evaluated {
    let mut evaluation = Evaluation {
        substitutions: script
            .substitutions
            .into_iter()
            .map(|s| (s.is_stream, s.pipelines))
            .collect(),
        environment,
        flows: HashMap::new(),
        hosts: HashMap::new(),
        inside: Vec::new(),
        out: Evaluated::default(),
    };
    let mut raw_commands = script.commands;
    let n_stages = stages_of(&raw_commands);
    for raw in raw_commands.drain(..) {
        let is_last = n_stages
            .get(&raw.pipeline)
            .is_none_or(|last| raw.stage >= *last);
        evaluation.command(raw, is_last);
    }
    evaluation.finish()
}

fn stages_of(commands: &[RawCommand]) -> HashMap<usize, usize> {
    let mut last = HashMap::new();
    for command in commands {
        let stage: &mut usize = last.entry(command.pipeline).or_default();
        *stage = command.stage.max(*stage);
    }
    last
}

/// What a pipeline prints so far.
#[derive(Debug, Default)]
struct Flow {
    stage: usize,
    /// What the stage before printed.
    input: Option<Printed>,
    /// What this stage printed.
    output: Option<Printed>,
}

struct Evaluation<'a> {
    /// Whether it is a stream, and its pipelines.
    substitutions: Vec<(bool, Vec<usize>)>,
    environment: &'a mut Environment,
    flows: HashMap<usize, Flow>,
    /// The command whose words a substitution becomes.
    hosts: HashMap<usize, String>,
    /// The substitution each finished command stands in.
    inside: Vec<Option<usize>>,
    out: Evaluated,
}

impl Evaluation<'_> {
    fn command(&mut self, raw: RawCommand, is_last: bool) {
        for assignment in &raw.assignments {
            self.assign(assignment);
        }
        let mut command = Command {
            pipeline: raw.pipeline,
            stage: raw.stage,
            in_loop: raw.in_loop,
            ..Command::default()
        };
        let mut sources = Vec::new();
        let mut words = Vec::new();
        for word in &raw.words {
            command.idle_quotes += word.idle_quotes + word.escaped_chars;
            let expanded = self.expand(word);
            command.assembled |= expanded.assembled;
            sources.extend(expanded.sources);
            sources.extend(expanded.streams);
            words.extend(expanded.fields);
        }
        for assignment in &raw.assignments {
            if let Some(value) = self.environment.value(&assignment.name) {
                let text = value.text.as_deref().unwrap_or("$()");
                command
                    .assignments
                    .push(format!("{}={text}", assignment.name));
            }
        }
        let mut given = None;
        for redirect in raw.redirects {
            self.redirect(redirect, &mut command, &mut sources, &mut given);
        }
        command.set_words(words);
        for source in sources {
            self.hosts
                .entry(source)
                .or_insert_with(|| command.name().to_owned());
        }
        self.builtin(&command, given.as_deref());
        self.flow(&command, given, is_last);
        self.inside.push(raw.inside);
        self.out.commands.push(command);
    }

    fn assign(&mut self, assignment: &super::shell::Assignment) {
        let expanded = self.expand(&assignment.value);
        let mut text = (!expanded.is_unknown).then(|| expanded.fields.join(" "));
        if assignment.appends {
            let before = self
                .environment
                .value(&assignment.name)
                .and_then(|v| v.text.clone());
            text = text.map(|text| before.unwrap_or_default() + &text);
        }
        let value = Value {
            text,
            sources: expanded.sources,
        };
        self.environment.set(assignment.name.clone(), value);
    }

    fn expand(&self, word: &Word) -> Expanded {
        let output = |id: usize| self.printed_by(id);
        let mut expanded = expand(word, self.environment, &output);
        let (streams, texts): (Vec<usize>, Vec<usize>) = expanded.sources.iter().partition(|id| {
            self.substitutions
                .get(**id)
                .is_some_and(|(is_stream, _)| *is_stream)
        });
        expanded.sources = texts;
        expanded.streams = streams;
        expanded
    }

    /// What a substitution prints, if all of its pipelines are known.
    fn printed_by(&self, id: usize) -> Option<String> {
        let (is_stream, pipelines) = self.substitutions.get(id)?;
        if *is_stream {
            return None;
        }
        let mut bytes = Vec::new();
        let mut any = false;
        for pipeline in pipelines {
            // Numbers are given ahead; a pipeline without commands prints nothing.
            let Some(flow) = self.flows.get(pipeline) else {
                continue;
            };
            bytes.extend_from_slice(&flow.output.as_ref()?.bytes);
            any = true;
        }
        let text = String::from_utf8(bytes).ok()?;
        any.then(|| text.trim_end_matches('\n').replace('\0', ""))
    }

    fn redirect(
        &mut self,
        raw: RawRedirect,
        command: &mut Command,
        sources: &mut Vec<usize>,
        given: &mut Option<String>,
    ) {
        let expanded = self.expand(&raw.target);
        sources.extend(&expanded.sources);
        sources.extend(&expanded.streams);
        let target = expanded.fields.join(" ");
        let is_descriptor = target
            .trim_end_matches('-')
            .bytes()
            .all(|b| b.is_ascii_digit());
        let kind = match raw.kind {
            RedirectKind::Text => {
                *given = Some(target);
                return;
            }
            RedirectKind::Duplicate if !is_descriptor => RedirectKind::Write,
            kind => kind,
        };
        command.redirects.push(Redirect {
            fd: raw.fd,
            writes: matches!(
                kind,
                RedirectKind::Write | RedirectKind::Append | RedirectKind::ReadWrite
            ) || (kind == RedirectKind::Duplicate && raw.fd != Some(0)),
            duplicates: kind == RedirectKind::Duplicate,
            target,
        });
    }

    /// Builtins that change variables.
    fn builtin(&mut self, command: &Command, given: Option<&str>) {
        let known = |text: &str| Value {
            text: Some(text.to_owned()),
            sources: Vec::new(),
        };
        match command.name() {
            "read" => {
                if let (Some(text), Some(name)) = (given, command.arguments().last()) {
                    self.environment
                        .set(name.clone(), known(text.trim_end_matches('\n')));
                }
            }
            "set" if command.arguments().first().is_some_and(|arg| arg == "--") => {
                for (idx, arg) in command.arguments().iter().skip(1).take(9).enumerate() {
                    self.environment.set((idx + 1).to_string(), known(arg));
                }
            }
            "printf" => {
                if let [option, name, format, rest @ ..] = command.arguments()
                    && option == "-v"
                {
                    let text = output::printf(format, rest);
                    self.environment
                        .set(name.clone(), known(&String::from_utf8_lossy(&text)));
                }
            }
            "unset" => {
                for name in command.arguments() {
                    self.environment.variables.remove(name);
                }
            }
            _ => {}
        }
    }

    /// Follows what a pipeline carries through this command.
    fn flow(&mut self, command: &Command, given: Option<String>, is_last: bool) {
        let flow = self.flows.entry(command.pipeline).or_default();
        if flow.stage < command.stage {
            flow.stage = command.stage;
            flow.input = flow.output.take();
        }
        let given = given.map(|text| Printed {
            bytes: text.into_bytes(),
            encoding: None,
        });
        let has_given = given.is_some();
        let input = given.or_else(|| flow.input.clone());
        let is_runner = runs_its_input(command);
        let printed = output_of(command, input.as_ref());
        let decoded_here = printed.as_ref().and_then(|p| p.encoding);
        let file = command.written().next().map(str::to_owned);
        if let Some(input) = input
            && (is_runner || has_given)
            && let Ok(text) = String::from_utf8(input.bytes)
        {
            if is_runner || file.is_some() {
                self.out.printed.push(PrintedText {
                    text,
                    interpreter: is_runner.then(|| command.name().to_owned()),
                    encoding: input.encoding,
                    file: file.clone(),
                });
            }
        } else if let (Some(printed), Some(file)) = (&printed, &file)
            && let Ok(text) = str::from_utf8(&printed.bytes)
            && !text.trim().is_empty()
        {
            self.out.printed.push(PrintedText {
                text: text.to_owned(),
                interpreter: None,
                encoding: None,
                file: Some(file.clone()),
            });
        }
        if let (Some(printed), Some(encoding), true) = (&printed, decoded_here, is_last)
            // Changing letters is everyday work unless somebody runs the result.
            && encoding != super::decode::Encoding::Substituted
            && let Some(text) = super::decode::readable(&printed.bytes)
        {
            self.out.printed.push(PrintedText {
                text,
                interpreter: None,
                encoding: Some(encoding),
                file: None,
            });
        }
        flow.output = match (flow.output.take(), printed) {
            // A second command of the same stage prints behind the first.
            (Some(mut before), Some(after)) => {
                before.bytes.extend(after.bytes);
                before.bytes.truncate(super::decode::MAX_OUTPUT_BYTES);
                Some(before)
            }
            (_, printed) => printed,
        };
    }

    fn finish(mut self) -> Evaluated {
        for (command, inside) in self.out.commands.iter_mut().zip(&self.inside) {
            command.feeds = inside.and_then(|id| self.hosts.get(&id).cloned());
        }
        self.out
    }
}

#[cfg(test)]
mod tests;
