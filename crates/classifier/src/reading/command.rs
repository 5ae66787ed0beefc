//! A simple command as it runs: words resolved, wrappers looked through.

use crate::render::base_name;

/// One program with its arguments, or one builtin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) words: Vec<String>,
    /// `NAME=value` before the words; an unknown value is `$()`.
    pub(crate) assignments: Vec<String>,
    pub(crate) redirects: Vec<Redirect>,
    /// Commands joined by `|` share the number.
    pub(crate) pipeline: usize,
    /// Its place in the pipeline, from 0.
    pub(crate) stage: usize,
    /// The command whose argument this one's output becomes (`$( )`, `<( )`).
    pub(crate) feeds: Option<String>,
    /// The text it stands in.
    pub(crate) layer: usize,
    /// Letters were put together from variables, braces or patterns.
    pub(crate) assembled: bool,
    /// Quotes and backslashes that change nothing, and letters written as numbers.
    pub(crate) idle_quotes: u32,
    pub(crate) in_loop: bool,
    /// Wrappers that run it: `sudo`, `find -exec`, `ssh` and their like.
    pub(crate) n_wrappers: usize,
    pub(super) program_idx: usize,
}

/// A redirection such as `>>` with its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) fd: Option<u32>,
    pub(crate) writes: bool,
    /// The target is a descriptor.
    pub(crate) duplicates: bool,
    pub(crate) target: String,
}

impl Command {
    pub(crate) fn of_words(words: Vec<String>) -> Self {
        let mut command = Self::default();
        command.set_words(words);
        command
    }

    /// Gives it its words and finds the program among them.
    pub(crate) fn set_words(&mut self, words: Vec<String>) {
        self.words = words;
        self.program_idx = 0;
        while let Some(next) = wrapped_program(&self.words[self.program_idx..]) {
            let skipped = &self.words[self.program_idx];
            self.n_wrappers += usize::from(!is_keyword(skipped) && !is_assignment(skipped));
            self.program_idx += next;
        }
    }

    /// The program's name without its path, wrappers such as `sudo` skipped.
    pub(crate) fn name(&self) -> &str {
        base_name(self.program()).trim_start_matches('-')
    }

    /// The program as it is written.
    pub(crate) fn program(&self) -> &str {
        self.words.get(self.program_idx).map_or("", String::as_str)
    }

    /// The program and what follows it.
    pub(crate) fn inner_words(&self) -> Vec<String> {
        self.words
            .get(self.program_idx..)
            .unwrap_or_default()
            .to_vec()
    }

    /// What follows the program.
    pub(crate) fn arguments(&self) -> &[String] {
        self.words.get(self.program_idx + 1..).unwrap_or_default()
    }

    /// Arguments that are no options.
    pub(crate) fn operands(&self) -> impl Iterator<Item = &str> {
        self.arguments()
            .iter()
            .map(String::as_str)
            .filter(|arg| !arg.starts_with('-'))
    }

    pub(crate) fn has_argument(&self, wanted: &[&str]) -> bool {
        self.arguments()
            .iter()
            .any(|arg| wanted.contains(&arg.as_str()))
    }

    /// Whether a one-letter option is given, alone or in a cluster.
    pub(crate) fn has_flag(&self, letter: char) -> bool {
        self.arguments()
            .iter()
            .any(|arg| arg.starts_with('-') && !arg.starts_with("--") && arg.contains(letter))
    }

    /// The value of an option: `-o x`, `-ox`, `--out x`, `--out=x`.
    pub(crate) fn option(&self, names: &[&str]) -> Option<&str> {
        let args = self.arguments();
        for (idx, arg) in args.iter().enumerate() {
            for name in names {
                let Some(rest) = arg.strip_prefix(name) else {
                    continue;
                };
                if rest.is_empty() {
                    return args.get(idx + 1).map(String::as_str);
                }
                if let Some(value) = rest.strip_prefix('=') {
                    return Some(value);
                }
                if !name.starts_with("--") && name.len() == 2 {
                    return Some(rest);
                }
            }
        }
        None
    }

    /// Files that its redirections write.
    pub(crate) fn written(&self) -> impl Iterator<Item = &str> {
        self.redirects
            .iter()
            .filter(|r| r.writes && !r.duplicates)
            .map(|r| r.target.as_str())
    }

    /// Files that its redirections read.
    pub(crate) fn read(&self) -> impl Iterator<Item = &str> {
        self.redirects
            .iter()
            .filter(|r| !r.writes && !r.duplicates)
            .map(|r| r.target.as_str())
    }
}

/// How far behind its start the program stands that `words` wrap, if they do.
fn wrapped_program(words: &[String]) -> Option<usize> {
    let first = words.first()?;
    if is_assignment(first) || is_keyword(first) {
        return (words.len() > 1).then_some(1);
    }
    let (options_with_value, n_operands) = wrapper(base_name(first))?;
    let mut next = 1;
    while let Some(option) = words.get(next) {
        if option == "--" {
            next += 1;
            break;
        }
        if !option.starts_with('-') && !is_assignment(option) {
            break;
        }
        let takes_value = options_with_value.contains(&option.as_str());
        next += 1 + usize::from(takes_value);
    }
    next += n_operands;
    (next < words.len()).then_some(next)
}

/// Programs that run another and change nothing of what it does: the options that
/// take a value, and the operands before the program.
fn wrapper(name: &str) -> Option<(&'static [&'static str], usize)> {
    Some(match name {
        "sudo" => (
            &[
                "-u", "-g", "-h", "-p", "-C", "-D", "-R", "-T", "-U", "-r", "-t", "--user",
                "--group",
            ],
            0,
        ),
        "doas" => (&["-u", "-C"], 0),
        "env" => (&["-u", "-C", "--unset", "--chdir"], 0),
        "nice" => (&["-n", "--adjustment"], 0),
        "ionice" => (&["-c", "-n", "-t"], 0),
        "timeout" => (&["-s", "-k", "--signal", "--kill-after"], 1),
        "stdbuf" => (&["-i", "-o", "-e"], 0),
        "exec" => (&["-a"], 0),
        "chrt" | "taskset" => (&["-T", "-P", "-D"], 1),
        "time" => (&["-f", "-o"], 0),
        "strace" | "ltrace" => (&["-o", "-e", "-s", "-p", "-u", "-P", "-E"], 0),
        "xargs" => (
            &[
                "-I",
                "-n",
                "-P",
                "-L",
                "-d",
                "-s",
                "-a",
                "-E",
                "--max-args",
                "--max-procs",
            ],
            0,
        ),
        "watch" => (&["-n", "--interval"], 0),
        "flock" => (&["-w", "-E", "--timeout"], 1),
        "proxychains" | "proxychains4" => (&["-f"], 0),
        "faketime" => (&["-f"], 1),
        "nohup" | "setsid" | "command" | "builtin" | "busybox" | "toybox" | "script"
        | "unbuffer" | "fakeroot" | "eatmydata" | "catchsegv" | "dbus-run-session"
        | "systemd-inhibit" | "caffeinate" | "coproc" => (&[], 0),
        _ => return None,
    })
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

fn is_keyword(word: &str) -> bool {
    matches!(
        word,
        "if" | "then" | "else" | "elif" | "do" | "while" | "until" | "!" | "{" | "}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_skipped_when_a_program_is_named() {
        for (line, name, n_wrappers) in [
            ("sudo -u www-data env A=b /usr/bin/nc -l", "nc", 2),
            ("timeout 5 nohup sh x", "sh", 2),
            ("timeout -s KILL 5 sh x", "sh", 1),
            ("nice -n 19 busybox wget u", "wget", 2),
            ("xargs -n 1 -I {} rm {}", "rm", 1),
            ("flock -w 3 /run/lock make", "make", 1),
            ("sudo", "sudo", 0),
            ("env", "env", 0),
            ("timeout 5", "timeout", 0),
        ] {
            let command = Command::of_words(line.split(' ').map(str::to_owned).collect());
            assert_eq!(
                (command.name(), command.n_wrappers),
                (name, n_wrappers),
                "{line}"
            );
        }
    }

    #[test]
    fn values_of_options_are_found_in_every_spelling() {
        for line in [
            "curl -o f u",
            "curl -of u",
            "curl --output f u",
            "curl --output=f u",
        ] {
            let command = Command::of_words(line.split(' ').map(str::to_owned).collect());
            assert_eq!(command.option(&["-o", "--output"]), Some("f"), "{line}");
        }
    }
}
