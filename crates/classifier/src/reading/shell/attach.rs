//! To whom the words, assignments, redirections and broken parts of a text belong.

use std::ops::Range;

use tree_sitter::Node;

use super::{
    Assignment, Part, RawCommand, RawRedirect, RedirectKind, Word,
    parse::{Open, Walk},
    split, words,
};

impl Walk<'_> {
    /// The grammar sometimes loses the end of a line and takes the next command for
    /// arguments of this one; that one begins here then.
    pub(super) fn split_at_lost_newline(&mut self, span: &Range<usize>) {
        let innermost = self
            .open
            .iter_mut()
            .rev()
            .find(|open| !matches!(open, Open::Other));
        let Some(Open::Command { command, last_end }) = innermost else {
            return;
        };
        // A test may go over several lines.
        let is_test = |part: &Part| matches!(part, Part::Literal { text, .. } if text == "[");
        if command
            .words
            .first()
            .and_then(|word| word.parts.first())
            .is_some_and(is_test)
        {
            return;
        }
        let gap = self
            .text
            .get(std::mem::replace(last_end, span.end)..span.start)
            .unwrap_or("");
        let lost = gap
            .match_indices('\n')
            .any(|(at, _)| !gap[..at].ends_with('\\'));
        if !lost {
            return;
        }
        let id = self.new_pipeline();
        let mut following = RawCommand {
            pipeline: id,
            inside: self.inside(),
            start: span.start,
            in_loop: self.loop_depth > 0,
            ..RawCommand::default()
        };
        for open in self.open.iter_mut().rev() {
            match open {
                Open::Command { command, .. } => {
                    std::mem::swap(command, &mut following);
                }
                // What still comes belongs to the new line.
                Open::Pipeline {
                    id: of_pipeline,
                    stage,
                } => {
                    (*of_pipeline, *stage) = (id, 0);
                }
                Open::Substitution { .. } => break,
                _ => {}
            }
        }
        self.script.commands.push(following);
    }

    pub(super) fn take_word(&mut self, word: Word) {
        let is_direct = !matches!(self.open.last(), Some(Open::Other));
        let owner = self
            .open
            .iter_mut()
            .rev()
            .find(|open| !matches!(open, Open::Other));
        match owner {
            Some(Open::Command { command, .. }) => command.words.push(word),
            // The first word counts; behind a here-document's name others may stand.
            Some(Open::Redirect { redirect, .. }) if redirect.target.parts.is_empty() => {
                redirect.target = word;
            }
            // The elements of an array count as one text.
            Some(Open::Assignment {
                value: Some(value), ..
            }) => value.parts.extend(word.parts),
            Some(Open::Assignment { value, .. }) => *value = Some(word),
            Some(Open::For { values, variable }) if is_direct => {
                values.push(word.clone());
                if values.len() == 1 {
                    let name = variable.clone();
                    self.take_assignment(Assignment {
                        name,
                        appends: false,
                        value: word,
                    });
                }
            }
            _ => {}
        }
    }

    pub(super) fn take_document(&mut self, span: Range<usize>, places: words::Places<'_>) {
        let Some(Open::Redirect {
            redirect,
            is_verbatim,
        }) = self.open.last_mut()
        else {
            return;
        };
        redirect.target = if *is_verbatim {
            Word::literal(self.text[span].to_owned())
        } else {
            words::text_at(self.text, span, places)
        };
    }

    pub(super) fn take_assignment(&mut self, assignment: Assignment) {
        for open in self.open.iter_mut().rev() {
            match open {
                Open::Command { command, .. } => return command.assignments.push(assignment),
                Open::Substitution { .. } | Open::Word { .. } => break,
                _ => {}
            }
        }
        let mut alone = self.fresh_command(0);
        alone.assignments.push(assignment);
        self.script.commands.push(alone);
    }

    pub(super) fn take_redirect(&mut self, redirect: RawRedirect) {
        for open in self.open.iter_mut().rev() {
            match open {
                Open::Command { command, .. } => return command.redirects.push(redirect),
                Open::Redirected { redirects, .. } => return redirects.push(redirect),
                Open::Other | Open::Pipeline { .. } | Open::Redirect { .. } => {}
                _ => break,
            }
        }
        // `> file` alone empties it.
        let mut alone = self.fresh_command(0);
        alone.redirects.push(redirect);
        self.script.commands.push(alone);
    }

    /// Gives redirections to the commands they are written behind.
    pub(super) fn spread(
        &mut self,
        (from, to): (usize, Option<usize>),
        spreads: bool,
        redirects: Vec<RawRedirect>,
    ) {
        let inside = self.inside();
        let to = to.unwrap_or(self.script.commands.len());
        let mut targets: Vec<usize> = (from..to)
            .filter(|idx| self.script.commands[*idx].inside == inside)
            .collect();
        if targets.is_empty() {
            for redirect in redirects {
                let mut alone = self.fresh_command(0);
                alone.redirects.push(redirect);
                self.script.commands.push(alone);
            }
            return;
        }
        if !spreads {
            targets.drain(..targets.len() - 1);
        }
        targets.truncate(64);
        for redirect in redirects {
            // A here-document feeds the first, other redirections all of them.
            let is_text = redirect.kind == RedirectKind::Text;
            for target in targets.iter().take(if is_text { 1 } else { usize::MAX }) {
                self.script.commands[*target].redirects.push(RawRedirect {
                    fd: redirect.fd,
                    kind: redirect.kind,
                    target: redirect.target.clone(),
                });
            }
        }
    }

    /// What the grammar did not understand is split by hand.
    pub(super) fn broken_part(&mut self, node: Node<'_>) {
        let text = self.slice(node);
        if !text.bytes().any(|b| b.is_ascii_alphanumeric()) {
            return;
        }
        let part = split::split(text, self.n_pipelines);
        self.script.incomplete |= part.incomplete;
        let offset = self.script.substitutions.len();
        self.script.substitutions.extend(part.substitutions);
        for mut command in part.commands {
            command.start += node.start_byte();
            self.n_pipelines = self.n_pipelines.max(command.pipeline + 1);
            command.inside = command.inside.map(|id| id + offset);
            for word in &mut command.words {
                word.shift_substitutions(offset);
            }
            self.script.commands.push(command);
        }
    }
}
