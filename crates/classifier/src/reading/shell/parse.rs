//! The walk over tree-sitter's syntax tree.
//!
//! Node names are those of the grammar `tree-sitter-bash` 0.25.

use std::ops::Range;

use tree_sitter::{Node, TreeCursor};

use super::{
    Assignment, MAX_DEPTH, Part, RawCommand, RawRedirect, RedirectKind, Script, Substitution, Word,
    split,
    tree::{is_word, tree_of},
    words,
};

/// Nodes that are visited.
const MAX_NODES: usize = 40_000;
/// Here-documents that are handed to the grammar: its scanner keeps them in one
/// buffer of 1024 bytes.
const MAX_HERE_DOCUMENTS: usize = 48;
/// Redirections that are handed to the grammar: its time grows with their square.
const MAX_REDIRECTIONS: usize = 2_000;
/// The same of other operators, if the text is broken at its end.
const MAX_OPERATORS: usize = 2_500;
const MAX_COMMANDS: usize = 1_024;

/// Reads `text`. Never fails: what the grammar cannot take is split by hand.
pub(in crate::reading) fn parse(text: &str) -> Script {
    if is_too_much(text) {
        return split::split(text, 0);
    }
    let Some(tree) = tree_of(text) else {
        let mut script = split::split(text, 0);
        script.incomplete = true;
        return script;
    };
    let mut walk = Walk {
        text,
        script: Script::default(),
        open: Vec::new(),
        levels: Vec::new(),
        n_pipelines: 0,
        substitution_depth: 0,
        loop_depth: 0,
    };
    walk.run(tree.walk());
    walk.script.broken = tree.root_node().has_error();
    walk.script
}

/// Whether `text` has more of something than is handed to the grammar.
pub(super) fn is_too_much(text: &str) -> bool {
    let n_operators = text.bytes().filter(|b| b"|&;(){}[`".contains(b)).count();
    let n_redirections = text.bytes().filter(|b| matches!(b, b'<' | b'>')).count();
    text.matches("<<").count() > MAX_HERE_DOCUMENTS
        || n_redirections > MAX_REDIRECTIONS
        || n_operators > MAX_OPERATORS
}

/// What is open around the node being visited.
pub(super) enum Open {
    /// A command being put together, and the pipeline that only it is in.
    Command {
        command: RawCommand,
        last_end: usize,
    },
    /// `a | b`: its number and the stage of the next command.
    Pipeline {
        id: usize,
        stage: usize,
    },
    Substitution {
        id: usize,
        outer_loops: usize,
    },
    Word {
        span: Range<usize>,
        places: Vec<(Range<usize>, usize)>,
    },
    /// The text of a here-document.
    Document {
        span: Range<usize>,
        places: Vec<(Range<usize>, usize)>,
    },
    Assignment {
        name: String,
        appends: bool,
        value: Option<Word>,
    },
    Redirect {
        redirect: RawRedirect,
        is_verbatim: bool,
    },
    /// Statement with redirections behind it.
    Redirected {
        /// The commands of the statement; its end is known at the first redirection.
        commands: (usize, Option<usize>),
        spreads: bool,
        redirects: Vec<RawRedirect>,
        pipeline: Option<(usize, usize)>,
    },
    For {
        variable: String,
        values: Vec<Word>,
    },
    Loop,
    /// A node that only holds others.
    Other,
}

pub(super) struct Walk<'a> {
    pub(super) text: &'a str,
    pub(super) script: Script,
    pub(super) open: Vec<Open>,
    /// How many were opened by each node on the way down.
    pub(super) levels: Vec<usize>,
    pub(super) n_pipelines: usize,
    pub(super) substitution_depth: usize,
    pub(super) loop_depth: usize,
}

impl Walk<'_> {
    fn run(&mut self, mut cursor: TreeCursor<'_>) {
        let mut n_nodes = 0_usize;
        loop {
            let node = cursor.node();
            n_nodes += 1;
            let full = n_nodes > MAX_NODES || self.script.commands.len() >= MAX_COMMANDS;
            self.script.incomplete |= full;
            if !full {
                let before = self.open.len();
                if self.enter(node, cursor.field_name()) {
                    self.levels.push(self.open.len() - before);
                    if cursor.goto_first_child() {
                        continue;
                    }
                    self.leave();
                }
            }
            loop {
                if !full && cursor.goto_next_sibling() {
                    break;
                }
                if !cursor.goto_parent() {
                    return;
                }
                self.leave();
            }
        }
    }

    /// Opens a node; false if neither it nor what is in it is to be looked at.
    fn enter(&mut self, node: Node<'_>, field: Option<&str>) -> bool {
        if !node.is_named() {
            self.token(node, field);
            return false;
        }
        let kind = node.kind();
        let opened = match kind {
            "comment" | "heredoc_end" => return false,
            "heredoc_start" => {
                let quoted = self.slice(node).contains(['\'', '"', '\\']);
                if let Some(Open::Redirect { is_verbatim, .. }) = self.open.last_mut() {
                    *is_verbatim = quoted;
                }
                return false;
            }
            "ERROR" => {
                self.broken_part(node);
                return false;
            }
            "file_descriptor" => {
                let fd = self.slice(node).parse().ok();
                if let Some(Open::Redirect { redirect, .. }) = self.open.last_mut() {
                    redirect.fd = fd;
                }
                return false;
            }
            "variable_name" => {
                self.name_seen(node);
                return false;
            }
            "command" | "test_command" | "declaration_command" | "unset_command" => {
                let mut command = self.fresh_command(node.start_byte());
                if kind != "command" {
                    // The keyword is a token of its own; `[[` and `((` count as `[`.
                    let keyword = node.child(0).map_or("", |first| self.slice(first));
                    let name = if kind == "test_command" { "[" } else { keyword };
                    command.words.push(Word::literal(name.to_owned()));
                }
                Open::Command {
                    command,
                    last_end: usize::MAX,
                }
            }
            "pipeline" => self.pipeline(),
            "command_substitution" | "process_substitution" => {
                return self.substitution(node, kind == "process_substitution");
            }
            "variable_assignment" => {
                let appends = self
                    .slice(node)
                    .find("+=")
                    .is_some_and(|at| self.slice(node).find('=') == Some(at + 1));
                Open::Assignment {
                    name: String::new(),
                    appends,
                    value: None,
                }
            }
            "redirected_statement" => self.redirected(node),
            "file_redirect" | "herestring_redirect" | "heredoc_redirect" => {
                let n_commands = self.script.commands.len();
                if let Some(Open::Redirected { commands, .. }) = self.open.last_mut() {
                    commands.1.get_or_insert(n_commands);
                }
                let is_text = kind != "file_redirect";
                let fd = self.descriptor_before(node.start_byte());
                let redirect = RawRedirect {
                    fd,
                    kind: if is_text {
                        RedirectKind::Text
                    } else {
                        RedirectKind::Read
                    },
                    target: Word::default(),
                };
                Open::Redirect {
                    redirect,
                    is_verbatim: false,
                }
            }
            "heredoc_body" => Open::Document {
                span: node.byte_range(),
                places: Vec::new(),
            },
            "for_statement" => Open::For {
                variable: String::new(),
                values: Vec::new(),
            },
            "while_statement" | "c_style_for_statement" => {
                self.loop_depth += 1;
                Open::Loop
            }
            _ if is_word(kind) && !self.in_word() => Open::Word {
                span: node.byte_range(),
                places: Vec::new(),
            },
            _ => Open::Other,
        };
        self.open.push(opened);
        true
    }

    /// Closes what the node opened that is being left.
    fn leave(&mut self) {
        for _ in 0..self.levels.pop().unwrap_or(0) {
            self.close();
        }
    }

    fn close(&mut self) {
        match self.open.pop() {
            None | Some(Open::Other) => {}
            Some(Open::Pipeline { id, stage }) => {
                if let Some(Open::Redirected {
                    pipeline: Some(outer),
                    ..
                }) = self.open.last_mut()
                    && outer.0 == id
                {
                    outer.1 = stage;
                }
            }
            Some(Open::Command { command, .. }) => self.script.commands.push(command),
            Some(Open::Substitution { outer_loops, .. }) => {
                self.substitution_depth -= 1;
                self.loop_depth = outer_loops;
            }
            Some(Open::Word { span, places }) => {
                let word = words::word_at(self.text, span.clone(), &places);
                self.split_at_lost_newline(&span);
                self.take_word(word);
            }
            Some(Open::Document { span, places }) => self.take_document(span, &places),
            Some(Open::Assignment {
                name,
                appends,
                value,
            }) => {
                self.take_assignment(Assignment {
                    name,
                    appends,
                    value: value.unwrap_or_default(),
                });
            }
            Some(Open::Redirect { redirect, .. }) => self.take_redirect(redirect),
            Some(Open::Redirected {
                commands,
                spreads,
                redirects,
                ..
            }) => {
                self.spread(commands, spreads, redirects);
            }
            Some(Open::For { variable, .. }) => {
                self.loop_depth = self
                    .loop_depth
                    .saturating_sub(usize::from(!variable.is_empty()));
            }
            Some(Open::Loop) => self.loop_depth = self.loop_depth.saturating_sub(1),
        }
    }

    /// An anonymous token: operators of redirections and pipelines.
    fn token(&mut self, node: Node<'_>, field: Option<&str>) {
        let token = node.kind();
        match self.open.last_mut() {
            Some(Open::Redirect { redirect, .. }) if redirect.kind != RedirectKind::Text => {
                redirect.kind = match token {
                    "<" => RedirectKind::Read,
                    ">" | ">|" | "&>" => RedirectKind::Write,
                    ">>" | "&>>" => RedirectKind::Append,
                    "<>" => RedirectKind::ReadWrite,
                    "<&" | ">&" | "<&-" | ">&-" => RedirectKind::Duplicate,
                    _ => redirect.kind,
                };
            }
            Some(Open::Pipeline { stage, .. }) if token.starts_with('|') => *stage += 1,
            Some(Open::Command { command, .. }) if field == Some("argument") => {
                // `$` alone, `==` and `=~` are arguments without a node of a word.
                command.words.push(Word::literal(token.to_owned()));
            }
            _ => {}
        }
    }

    /// The descriptor written right before a redirection that the grammar takes for
    /// a word of its own: `sh 0>&1`.
    fn descriptor_before(&mut self, at: usize) -> Option<u32> {
        let before = &self.text[..at];
        let start = before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let is_alone = before[..start].ends_with(|c: char| c.is_whitespace());
        let fd = before[start..].parse().ok().filter(|_| is_alone)?;
        let owner = match self
            .open
            .iter_mut()
            .rev()
            .find(|open| !matches!(open, Open::Other))
        {
            Some(Open::Command { command, .. }) => Some(command),
            Some(Open::Redirected { redirects, .. }) if redirects.is_empty() => {
                self.script.commands.last_mut()
            }
            _ => None,
        };
        if let Some(command) = owner
            && matches!(command.words.last().map(|w| w.parts.as_slice()), Some([Part::Literal { text, .. }]) if *text == before[start..])
        {
            command.words.pop();
        }
        Some(fd)
    }

    fn name_seen(&mut self, node: Node<'_>) {
        let name = self.slice(node).to_owned();
        match self
            .open
            .iter_mut()
            .rev()
            .find(|open| !matches!(open, Open::Other))
        {
            Some(Open::Assignment { name: slot, .. }) if slot.is_empty() => *slot = name,
            Some(Open::For { variable, .. }) => {
                *variable = name;
                self.loop_depth += 1;
            }
            Some(Open::Command { command, .. }) => command.words.push(Word::literal(name)),
            _ => {}
        }
    }

    pub(super) fn fresh_command(&mut self, start: usize) -> RawCommand {
        let (pipeline, stage) = self.pipeline_here();
        RawCommand {
            pipeline,
            stage,
            inside: self.inside(),
            start,
            in_loop: self.loop_depth > 0,
            ..RawCommand::default()
        }
    }

    /// The pipeline that encloses this place, or a new one.
    fn pipeline_here(&mut self) -> (usize, usize) {
        for open in self.open.iter().rev() {
            match open {
                Open::Pipeline { id, stage } => return (*id, *stage),
                Open::Substitution { .. } | Open::Word { .. } | Open::Redirect { .. } => break,
                _ => {}
            }
        }
        (self.new_pipeline(), 0)
    }

    pub(super) fn new_pipeline(&mut self) -> usize {
        let id = self.n_pipelines;
        self.n_pipelines += 1;
        if let Some(substitution) = self.inside() {
            self.script.substitutions[substitution].pipelines.push(id);
        }
        id
    }

    fn pipeline(&mut self) -> Open {
        // Behind a here-document the pipeline of the command before goes on.
        if let [
            ..,
            Open::Redirected {
                pipeline: Some((id, stage)),
                ..
            },
            Open::Redirect { .. },
        ] = self.open.as_slice()
        {
            return Open::Pipeline {
                id: *id,
                stage: *stage,
            };
        }
        let (id, stage) = self.pipeline_here();
        Open::Pipeline { id, stage }
    }

    fn redirected(&mut self, node: Node<'_>) -> Open {
        let body = node
            .child_by_field_name("body")
            .map_or("", |body| body.kind());
        let has_document = node
            .children(&mut node.walk())
            .any(|child| child.kind() == "heredoc_redirect");
        let pipeline = has_document.then(|| self.pipeline_here());
        if let Some((id, stage)) = pipeline {
            // The body takes this pipeline, so that what follows can go on with it.
            self.open.push(Open::Pipeline { id, stage });
        }
        Open::Redirected {
            commands: (self.script.commands.len(), None),
            spreads: !matches!(body, "command" | "pipeline" | "list"),
            redirects: Vec::new(),
            pipeline,
        }
    }

    /// Whether the innermost thing that is open is a word or a here-document.
    fn in_word(&self) -> bool {
        let innermost = self
            .open
            .iter()
            .rev()
            .find(|open| !matches!(open, Open::Other));
        matches!(innermost, Some(Open::Word { .. } | Open::Document { .. }))
    }

    pub(super) fn inside(&self) -> Option<usize> {
        self.open.iter().rev().find_map(|open| match open {
            Open::Substitution { id, .. } => Some(*id),
            _ => None,
        })
    }

    fn substitution(&mut self, node: Node<'_>, is_stream: bool) -> bool {
        if self.substitution_depth >= MAX_DEPTH {
            self.script.incomplete = true;
            self.broken_part(node);
            return false;
        }
        let id = self.script.substitutions.len();
        let place = (node.byte_range(), id);
        match self
            .open
            .iter_mut()
            .rev()
            .find(|o| !matches!(o, Open::Other))
        {
            Some(Open::Word { places, .. } | Open::Document { places, .. }) => places.push(place),
            _ => self.open.push(Open::Word {
                span: node.byte_range(),
                places: vec![place],
            }),
        }
        self.script.substitutions.push(Substitution {
            is_stream,
            pipelines: Vec::new(),
        });
        self.substitution_depth += 1;
        self.open.push(Open::Substitution {
            id,
            outer_loops: self.loop_depth,
        });
        true
    }

    pub(super) fn slice(&self, node: Node<'_>) -> &str {
        self.text.get(node.byte_range()).unwrap_or("")
    }
}
