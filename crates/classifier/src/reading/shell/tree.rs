//! The parser of tree-sitter, bounded in steps and not in time, so that the same
//! text always reads the same.

use std::{cell::RefCell, ops::ControlFlow};

use tree_sitter::{ParseOptions, Parser};

/// Calls of the parser's progress hook, each about a hundred steps of its machine.
const MAX_PROGRESS_CALLS: u32 = 6_000;

thread_local! {
    static PARSER: RefCell<Option<Parser>> = const { RefCell::new(None) };
}

/// The tree of `text`; `None` if the parser gave up.
pub(super) fn tree_of(text: &str) -> Option<tree_sitter::Tree> {
    PARSER.with_borrow_mut(|slot| {
        if slot.is_none() {
            let mut parser = Parser::new();
            parser
                .set_language(&tree_sitter_bash::LANGUAGE.into())
                .ok()?;
            *slot = Some(parser);
        }
        let parser = slot.as_mut()?;
        let mut calls = 0_u32;
        let mut progress = |_: &tree_sitter::ParseState| {
            calls += 1;
            if calls > MAX_PROGRESS_CALLS {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let options = ParseOptions::new().progress_callback(&mut progress);
        let bytes = text.as_bytes();
        let mut read = |offset: usize, _| bytes.get(offset..).unwrap_or_default();
        let tree = parser.parse_with_options(&mut read, None, Some(options));
        if tree.is_none() {
            parser.reset();
        }
        tree
    })
}

/// Whether a node is a word, or a part of one.
pub(super) fn is_word(kind: &str) -> bool {
    matches!(
        kind,
        "word"
            | "string"
            | "raw_string"
            | "ansi_c_string"
            | "translated_string"
            | "concatenation"
            | "simple_expansion"
            | "expansion"
            | "arithmetic_expansion"
            | "brace_expression"
            | "number"
            | "extglob_pattern"
            | "regex"
            | "test_operator"
    )
}
