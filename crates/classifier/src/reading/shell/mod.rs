//! Shell text to a typed model: parsed by tree-sitter, walked without recursion.
//!
//! The model is flat: commands in the order in which they end, with the numbers of
//! their pipelines and substitutions. Inner commands therefore come before the
//! command whose argument they become, which is the order of evaluation. What the
//! grammar does not understand goes through a small splitter of our own, so no
//! part of a text is left unread because another part is broken.

mod attach;
mod inert;
mod outline;
mod parse;
mod split;
mod tree;
mod words;

pub(crate) use inert::{PLACEHOLDER, inert_arguments};
pub(crate) use outline::{Outline, outline};
pub(super) use parse::parse;

/// Substitutions inside each other that are followed.
pub(super) const MAX_DEPTH: usize = 32;

/// One text, understood as far as it goes.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// In the order of their ends.
    pub(super) commands: Vec<RawCommand>,
    pub(super) substitutions: Vec<Substitution>,
    /// Whether a cap was reached, so that something was not read.
    pub(super) incomplete: bool,
    /// Whether the grammar did not understand all of it.
    pub(super) broken: bool,
}

/// A simple command as it is written, or an assignment alone.
#[derive(Debug, Default)]
pub(super) struct RawCommand {
    pub(super) assignments: Vec<Assignment>,
    pub(super) words: Vec<Word>,
    pub(super) redirects: Vec<RawRedirect>,
    /// Commands joined by `|` share the number.
    pub(super) pipeline: usize,
    /// Its place in the pipeline, from 0.
    pub(super) stage: usize,
    /// The innermost substitution it stands in.
    pub(super) inside: Option<usize>,
    /// Where it begins, in bytes.
    pub(super) start: usize,
    pub(super) in_loop: bool,
}

/// `name=value`, `name+=value` or the variable of a `for`.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) name: String,
    pub(super) appends: bool,
    pub(super) value: Word,
}

/// `$( )`, backticks or `<( )`.
#[derive(Debug, Default)]
pub(super) struct Substitution {
    /// `<( )` or `>( )`: a file, not text.
    pub(super) is_stream: bool,
    /// Pipelines directly in it, in order.
    pub(super) pipelines: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RedirectKind {
    Read,
    Write,
    Append,
    ReadWrite,
    /// `<&` and `>&` with a descriptor.
    Duplicate,
    /// The target is the text itself: here-document or here-string.
    Text,
}

#[derive(Debug)]
pub(super) struct RawRedirect {
    pub(super) fd: Option<u32>,
    pub(super) kind: RedirectKind,
    pub(super) target: Word,
}

/// A word before expansion.
#[derive(Clone, Debug, Default)]
pub(super) struct Word {
    pub(super) parts: Vec<Part>,
    /// Quotes and backslashes that split a run of letters and change nothing.
    pub(super) idle_quotes: u32,
    /// Characters written as `$'\x41'` and the like.
    pub(super) escaped_chars: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Text as it stands; `quoted` text is neither split nor matched with files.
    Literal { text: String, quoted: bool },
    /// `$name` or `${name…}`; `operation` is what follows the name in braces.
    Variable {
        name: String,
        prefix: VariablePrefix,
        operation: String,
        quoted: bool,
    },
    /// What a substitution prints, or the file it is.
    Output { substitution: usize, quoted: bool },
    /// `$(( ))`, as written.
    Arithmetic { text: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VariablePrefix {
    None,
    /// `${#name}`
    Length,
    /// `${!name}`
    Indirect,
}

impl Word {
    pub(super) fn literal(text: String) -> Self {
        Self {
            parts: vec![Part::Literal { text, quoted: true }],
            ..Self::default()
        }
    }

    /// Renumbers substitutions, for a text that becomes part of another.
    fn shift_substitutions(&mut self, by: usize) {
        for part in &mut self.parts {
            if let Part::Output { substitution, .. } = part {
                *substitution += by;
            }
        }
    }
}

#[cfg(test)]
mod tests;
