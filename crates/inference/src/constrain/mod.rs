//! Constrained output: the model chooses, but only among what is legal.
//!
//! A [`Constraint`] is a pure state machine over tokens: no model, no clock.
//! Where one continuation alone is legal it hands out the tokens at once, and
//! they ride in the next pass of the model; where there is a choice it names
//! the legal tokens. Two things make one: a [`JsonShape`] of fixed keys, whose
//! values are closed sets, numbers or free text (`shape.rs`, `automaton.rs`,
//! `fields.rs`), and a grammar (`grammar.rs`). `trie.rs` finds the tokens that
//! spell legal bytes. The loop around the model is in `qwen2/constrained.rs`.
//!
//! Added tokens are never legal, save the one that ends an answer, where a
//! grammar could end or go on.

mod automaton;
mod fields;
mod grammar;
mod shape;
mod trie;

use std::sync::Arc;

use self::{fields::FieldsMachine, grammar::GrammarMachine};
use crate::{error::InferenceError, tokenizer::TokenId};

pub(crate) use self::trie::TokenTrie;
pub use self::{
    fields::CompiledShape,
    grammar::{Grammar, GrammarCompiler},
    shape::{FieldKind, FieldValue, JsonShape},
};

/// What comes next in a constrained output.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The one legal continuation, at least one token; it counts as accepted.
    Forced(Vec<TokenId>),
    /// At least two legal tokens, ascending; one of them goes to
    /// [`Constraint::accept`].
    Choose(Arc<[TokenId]>),
    /// The output is complete.
    Done,
}

/// One constrained output on its way.
pub struct Constraint {
    machine: Machine,
    /// The choice that was last handed out and not yet made.
    open: Option<Arc<[TokenId]>>,
}

enum Machine {
    Fields(Box<FieldsMachine>),
    Grammar(Box<GrammarMachine>),
    /// A grammar's, after an error.
    Lost,
}

impl Machine {
    fn next(&mut self) -> Result<Step, InferenceError> {
        match self {
            Self::Fields(fields) => Ok(fields.next()),
            Self::Grammar(grammar) => grammar.next(),
            Self::Lost => Err(InferenceError::Grammar("an error came before".to_owned())),
        }
    }

    fn accept(&mut self, token: TokenId) -> Result<(), InferenceError> {
        match self {
            Self::Fields(fields) => {
                fields.accept(token);
                Ok(())
            }
            Self::Grammar(grammar) => grammar.accept(token),
            Self::Lost => Err(InferenceError::IllegalToken { id: token.0 }),
        }
    }
}

impl Constraint {
    fn new(machine: Machine) -> Self {
        let open = None;
        Self { machine, open }
    }

    /// What comes next; the same choice again until it is made.
    ///
    /// # Errors
    /// [`InferenceError::Grammar`] if a grammar exceeds its limits or leads to
    /// where nothing is legal. The output is then lost.
    pub fn next_step(&mut self) -> Result<Step, InferenceError> {
        if let Some(open) = &self.open {
            return Ok(Step::Choose(Arc::clone(open)));
        }
        let step = self.machine.next();
        let step = step.inspect_err(|_| self.machine = Machine::Lost)?;
        if let Step::Choose(legal) = &step {
            self.open = Some(Arc::clone(legal));
        }
        Ok(step)
    }

    /// Makes the choice that [`Self::next_step`] named.
    ///
    /// # Errors
    /// [`InferenceError::IllegalToken`] for any other token, or where there is
    /// no choice; the choice stays open. [`InferenceError::Grammar`] as above.
    pub fn accept(&mut self, token: TokenId) -> Result<(), InferenceError> {
        let is_legal = |legal: &Arc<[TokenId]>| legal.binary_search(&token).is_ok();
        if !self.open.as_ref().is_some_and(is_legal) {
            return Err(InferenceError::IllegalToken { id: token.0 });
        }
        self.open = None;
        let accepted = self.machine.accept(token);
        accepted.inspect_err(|_| self.machine = Machine::Lost)
    }
}
