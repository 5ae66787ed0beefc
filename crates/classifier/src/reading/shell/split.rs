//! Splits what the grammar does not understand, iteratively and roughly.
//!
//! Quotes, escapes, pipes, lists, redirections and substitutions are followed;
//! the words are read as those that the grammar finds.

use std::ops::Range;

use super::{MAX_DEPTH, RawCommand, RawRedirect, RedirectKind, Script, Substitution, words};

const MAX_COMMANDS: usize = 1_024;

/// The commands of `text`; their pipelines are numbered from `first_pipeline`.
pub(super) fn split(text: &str, first_pipeline: usize) -> Script {
    let mut splitter = Splitter {
        text,
        script: Script {
            broken: true,
            ..Script::default()
        },
        open: Vec::new(),
        n_pipelines: first_pipeline,
        position: 0,
    };
    let outermost = splitter.frame(None, false);
    splitter.open.push(outermost);
    let mut chars = text.char_indices().peekable();
    while let Some((position, character)) = chars.next() {
        splitter.position = position;
        if splitter.script.commands.len() >= MAX_COMMANDS {
            splitter.script.incomplete = true;
            break;
        }
        let next = chars.peek().map(|(_, next)| *next);
        if splitter.step(character, next, &mut chars) {
            chars.next();
        }
    }
    splitter.position = splitter.position.max(if splitter.script.incomplete {
        0
    } else {
        text.len()
    });
    while splitter.open.len() > 1 {
        splitter.close();
    }
    splitter.end_command(false);
    splitter.script
}

/// What is open around the character being read.
struct Frame {
    command: RawCommand,
    /// Where the word began that is being read, and the substitutions in it.
    word_start: Option<usize>,
    places: Vec<(Range<usize>, usize)>,
    in_double: bool,
    redirect: Option<(Option<u32>, RedirectKind)>,
    inside: Option<usize>,
    by_backtick: bool,
}

struct Splitter<'a> {
    text: &'a str,
    script: Script,
    /// Never empty while text is read.
    open: Vec<Frame>,
    n_pipelines: usize,
    position: usize,
}

type Rest<'a> = std::iter::Peekable<std::str::CharIndices<'a>>;

impl Splitter<'_> {
    fn frame(&mut self, inside: Option<usize>, by_backtick: bool) -> Frame {
        let pipeline = self.n_pipelines;
        self.n_pipelines += 1;
        if let Some(id) = inside {
            self.script.substitutions[id].pipelines.push(pipeline);
        }
        Frame {
            command: RawCommand {
                pipeline,
                inside,
                ..RawCommand::default()
            },
            word_start: None,
            places: Vec::new(),
            in_double: false,
            redirect: None,
            inside,
            by_backtick,
        }
    }

    fn top(&mut self) -> &mut Frame {
        self.open.last_mut().expect("the outermost frame stays")
    }

    /// Takes one character; true if `next` belongs to it and is to be skipped.
    fn step(&mut self, character: char, next: Option<char>, rest: &mut Rest<'_>) -> bool {
        let in_double = self.top().in_double;
        match (character, next) {
            ('\\', Some('\n')) => return true,
            ('\\', Some(_)) => {
                self.push();
                return true;
            }
            ('$' | '<' | '>', Some('(')) if character == '$' || !in_double => {
                self.open_substitution(character != '$', false);
                return true;
            }
            ('`', _) if self.top().by_backtick => self.close(),
            ('`', _) => self.open_substitution(false, true),
            (')', _) if !in_double && self.open.len() > 1 => self.close(),
            ('"', _) => {
                self.push();
                self.top().in_double = !in_double;
            }
            (_, _) if in_double => self.push(),
            ('\'', _) => {
                self.push();
                for (_, quoted) in rest.by_ref() {
                    if quoted == '\'' {
                        break;
                    }
                }
            }
            ('|' | '&', Some(second)) if second == character => {
                self.end_command(false);
                return true;
            }
            ('|', _) => {
                self.end_command(true);
                return next == Some('&');
            }
            ('&', Some('>')) => self.end_word(),
            ('&' | ';' | '\n' | '(' | ')', _) => self.end_command(false),
            ('<' | '>', _) => return self.redirect(character, next),
            ('#', _) if self.top().word_start.is_none() => {
                for (_, skipped) in rest.by_ref() {
                    if skipped == '\n' {
                        break;
                    }
                }
                self.end_command(false);
            }
            (blank, _) if blank.is_whitespace() => self.end_word(),
            _ => self.push(),
        }
        false
    }

    /// The character at this place belongs to a word.
    fn push(&mut self) {
        let position = self.position;
        self.top().word_start.get_or_insert(position);
    }

    /// `<`, `>` and their two-character forms.
    fn redirect(&mut self, character: char, next: Option<char>) -> bool {
        let position = self.position;
        let text = self.text;
        let frame = self.top();
        // The number of a file descriptor, not an argument.
        let number = frame.word_start.and_then(|start| text.get(start..position));
        let fd = number.and_then(|digits| digits.parse().ok());
        if fd.is_some() {
            frame.word_start = None;
        }
        self.end_word();
        let kind = match (character, next) {
            (_, Some('&')) => RedirectKind::Duplicate,
            ('>', Some('>')) => RedirectKind::Append,
            ('>', _) | ('<', Some('>')) => RedirectKind::Write,
            _ => RedirectKind::Read,
        };
        self.top().redirect = Some((fd, kind));
        matches!(next, Some('>' | '<' | '&' | '|'))
    }

    fn open_substitution(&mut self, is_stream: bool, by_backtick: bool) {
        if self.open.len() > MAX_DEPTH {
            self.script.incomplete = true;
            self.end_command(false);
            return;
        }
        let id = self.script.substitutions.len();
        self.script.substitutions.push(Substitution {
            is_stream,
            pipelines: Vec::new(),
        });
        self.push();
        let position = self.position;
        let frame = self.top();
        // Its end is known when it closes.
        frame.places.push((position..usize::MAX, id));
        let inner = self.frame(Some(id), by_backtick);
        self.open.push(inner);
    }

    fn close(&mut self) {
        self.end_command(false);
        self.open.pop();
        let end = self.position + 1;
        if let Some((place, _)) = self
            .open
            .last_mut()
            .and_then(|frame| frame.places.last_mut())
        {
            place.end = end;
        }
    }

    fn end_word(&mut self) {
        let end = self.position;
        let frame = self.open.last_mut().expect("the outermost frame stays");
        let Some(start) = frame.word_start.take() else {
            return;
        };
        let places = std::mem::take(&mut frame.places);
        let word = words::word_at(self.text, start..end.max(start), &places);
        match frame.redirect.take() {
            Some((fd, kind)) => frame.command.redirects.push(RawRedirect {
                fd,
                kind,
                target: word,
            }),
            None => frame.command.words.push(word),
        }
    }

    fn end_command(&mut self, piped: bool) {
        self.end_word();
        let start = self.position;
        let fresh = self.n_pipelines;
        let frame = self.top();
        frame.redirect = None;
        let inside = frame.inside;
        let following = RawCommand {
            pipeline: if piped { frame.command.pipeline } else { fresh },
            stage: if piped { frame.command.stage + 1 } else { 0 },
            inside,
            start,
            ..RawCommand::default()
        };
        let is_empty = frame.command.words.is_empty() && frame.command.redirects.is_empty();
        if is_empty && !piped {
            return;
        }
        let command = std::mem::replace(&mut frame.command, following);
        if !piped {
            self.n_pipelines += 1;
            if let Some(id) = inside {
                self.script.substitutions[id].pipelines.push(fresh);
            }
        }
        if !is_empty {
            self.script.commands.push(command);
        }
    }
}
