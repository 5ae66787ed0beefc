//! Program text of other languages: its string literals and what it makes a shell
//! run. This is a scan for literals, not a parser of any of the languages.

use super::{decode, is_shell};
use crate::render::base_name;

/// The language of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Language {
    Shell,
    Python,
    Perl,
    Ruby,
    JavaScript,
    Php,
    Lua,
    Awk,
    /// Text that nothing is known to run.
    Data,
}

impl Language {
    /// The language of the program text that an interpreter of this name takes.
    pub(super) fn of_interpreter(name: &str) -> Option<Self> {
        let stem = name
            .trim_start_matches('-')
            .trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        Some(match stem {
            _ if is_shell(name) => Self::Shell,
            "su" | "runuser" | "eval" | "source" => Self::Shell,
            "python" | "pypy" | "ipython" => Self::Python,
            "perl" => Self::Perl,
            "ruby" | "irb" => Self::Ruby,
            "node" | "nodejs" | "deno" | "bun" => Self::JavaScript,
            "php" => Self::Php,
            "lua" | "luajit" => Self::Lua,
            "awk" | "gawk" | "mawk" | "nawk" => Self::Awk,
            _ => return None,
        })
    }
}

/// Literals that are looked at.
const MAX_LITERALS: usize = 256;
/// Bytes of one literal.
const MAX_LITERAL_BYTES: usize = 16 * 1024;

/// A string literal and what stands before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Literal<'a> {
    pub(super) text: String,
    /// Up to 48 bytes of program text before it.
    pub(super) before: &'a str,
    /// Where its closing quote is.
    end: usize,
    quote: char,
}

/// The string literals of `body`.
pub(super) fn literals(body: &str) -> Vec<Literal<'_>> {
    let mut found = Vec::new();
    let mut chars = body.char_indices().peekable();
    while let Some((start, character)) = chars.next() {
        let quote = match character {
            '"' | '\'' | '`' => character,
            // `qx{…}`, `q(…)`, `%x(…)`
            '{' | '(' | '[' if opens_quote(&body[..start]) => match character {
                '{' => '}',
                '(' => ')',
                _ => ']',
            },
            _ => continue,
        };
        let mut text = String::new();
        let mut end = body.len();
        while let Some((at, character)) = chars.next() {
            if character == quote {
                end = at;
                break;
            }
            if character == '\\' && chars.peek().is_some_and(|(_, next)| *next == quote) {
                continue;
            }
            if text.len() < MAX_LITERAL_BYTES {
                text.push(character);
            }
        }
        let mut from = start.saturating_sub(48);
        while !body.is_char_boundary(from) {
            from += 1;
        }
        found.push(Literal {
            text,
            before: &body[from..start],
            end,
            quote,
        });
        if found.len() >= MAX_LITERALS {
            break;
        }
    }
    found
}

fn opens_quote(before: &str) -> bool {
    ["qx", "qq", "%x", "q"].iter().any(|word| {
        before
            .strip_suffix(word)
            .is_some_and(|rest| !rest.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
    })
}

/// Command lines that the text makes run: arguments of functions that start
/// programs, backticks, and literals whose first word names a shell or a path.
pub(super) fn calls(body: &str, language: Language) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut last_end = None;
    for literal in literals(body) {
        let call = literal.before.trim_end_matches(|c: char| {
            c.is_whitespace() || c == '[' || c == 'r' || c == 'b' || c == 'f'
        });
        let is_call = call.strip_suffix('(').unwrap_or(call).to_lowercase();
        let starts_program = RUNNERS.iter().any(|runner| is_call.ends_with(runner))
            || (literal.quote == '`'
                && matches!(language, Language::Perl | Language::Ruby | Language::Php))
            || (matches!(literal.quote, '}' | ')' | ']'))
            || (language == Language::Awk && literal.before.trim_end().ends_with('|'))
            || literal.text.contains("|getline");
        // The elements of one list are one command.
        let continues = last_end.is_some_and(|end: usize| {
            let gap = body
                .get(end + 1..)
                .map_or("", |rest| rest.split(['"', '\'']).next().unwrap_or(""));
            gap.trim() == "," || gap.trim() == ",["
        });
        if starts_program {
            lines.push(literal.text);
            last_end = Some(literal.end);
        } else if continues && !lines.is_empty() {
            if let Some(line) = lines.last_mut() {
                line.push(' ');
                line.push_str(&quoted(&literal.text));
            }
            last_end = Some(literal.end);
        } else {
            last_end = None;
            // A command in AWK stands before its pipe: `"cmd" | getline`.
            let piped = language == Language::Awk
                && body
                    .get(literal.end + 1..)
                    .is_some_and(|rest| rest.trim_start().starts_with('|'));
            if piped || names_shell(&literal.text) {
                lines.push(literal.text);
            }
        }
    }
    lines
}

/// Ends of what stands before the argument of a function that starts a program,
/// lower case, without the bracket.
const RUNNERS: [&str; 32] = [
    "os.system",
    "os.popen",
    "popen",
    "subprocess.run",
    "subprocess.call",
    "check_output",
    "check_call",
    "getoutput",
    "getstatusoutput",
    "pty.spawn",
    "os.execl",
    "os.execv",
    "os.execvp",
    "os.execlp",
    "os.execve",
    "os.spawnl",
    "os.posix_spawn",
    "create_subprocess_shell",
    "create_subprocess_exec",
    "system",
    "exec",
    "execsync",
    "spawn",
    "spawnsync",
    "execfile",
    "execfilesync",
    "shell_exec",
    "passthru",
    "proc_open",
    "os.execute",
    "io.popen",
    "kernel.exec",
];

fn names_shell(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let Some(first) = words.next() else {
        return false;
    };
    (first.starts_with('/') && is_shell(base_name(first)))
        || (is_shell(first) && words.next().is_some())
}

fn quoted(word: &str) -> String {
    let is_plain = !word.is_empty()
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&b));
    if is_plain {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Texts that are encoded in literals, with what they decode to; the literal may be
/// reversed.
pub(super) fn encoded(body: &str) -> Vec<(String, decode::Encoding)> {
    literals(body)
        .iter()
        .filter_map(|literal| {
            decode::hidden_text(&literal.text).or_else(|| {
                let reversed: String = literal.text.chars().rev().collect();
                decode::hidden_text(&reversed)
            })
        })
        .take(4)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, language: Language, expected: &[&str]) {
        assert_eq!(calls(body, language), expected, "{body}");
    }

    #[test]
    fn what_program_text_runs_is_found() {
        check(
            "import os; os.system(\"id; ls\")",
            Language::Python,
            &["id; ls"],
        );
        check(
            "subprocess.run(['nc','-e','/bin/sh'])",
            Language::Python,
            &["nc -e /bin/sh"],
        );
        check("exec \"/bin/sh -i\"", Language::Perl, &["/bin/sh -i"]);
        check("print `id -u`", Language::Perl, &["id -u"]);
        check("puts qx{id -g}", Language::Perl, &["id -g"]);
        check(
            "require('child_process').exec('id')",
            Language::JavaScript,
            &["id"],
        );
        check("BEGIN {system(\"/bin/sh\")}", Language::Awk, &["/bin/sh"]);
        check("BEGIN {\"date\" | getline d}", Language::Awk, &["date"]);
        check("<?php shell_exec('id');", Language::Php, &["id"]);
    }

    #[test]
    fn other_literals_are_no_commands() {
        check("print('hello world', end='')", Language::Python, &[]);
        check("open('/etc/hosts').read()", Language::Python, &[]);
        check("{print $1 \" \" $2}", Language::Awk, &[]);
    }

    #[test]
    fn encoded_literals_are_decoded() {
        let body = "exec(base64.b64decode('aW1wb3J0IG9zOyBvcy5zeXN0ZW0oImlkIik='))";
        assert_eq!(encoded(body)[0].0, "import os; os.system(\"id\")");
    }
}
