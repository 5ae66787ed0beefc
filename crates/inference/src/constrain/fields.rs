//! Constrained output of a JSON shape.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Constraint, JsonShape, Machine, Step, automaton::State};
use crate::tokenizer::{TokenId, Tokenizer};

/// A [`JsonShape`] over the tokens of one model; cheap to clone.
#[derive(Clone)]
pub struct CompiledShape {
    tokenizer: Tokenizer,
    shape: JsonShape,
    /// The legal tokens of the states within texts: few states, many tokens.
    in_texts: Arc<Mutex<HashMap<State, Arc<[TokenId]>>>>,
}

impl JsonShape {
    /// The shape over the tokens of `tokenizer`.
    ///
    /// Of a tokenizer's first compilation, sorting its tokens is most of the time.
    #[must_use]
    pub fn compile(&self, tokenizer: &Tokenizer) -> CompiledShape {
        tokenizer.trie();
        CompiledShape {
            tokenizer: tokenizer.clone(),
            shape: self.clone(),
            in_texts: Arc::default(),
        }
    }
}

impl CompiledShape {
    /// A new output of this shape.
    #[must_use]
    pub fn start(&self) -> Constraint {
        Constraint::new(Machine::Fields(Box::new(FieldsMachine {
            state: self.shape.automaton().start(),
            n_text_tokens: 0,
            compiled: self.clone(),
        })))
    }

    /// The shape itself.
    #[must_use]
    pub fn shape(&self) -> &JsonShape {
        &self.shape
    }

    fn legal(&self, state: State) -> Arc<[TokenId]> {
        let automaton = self.shape.automaton();
        let search = || -> Arc<[TokenId]> {
            let step = |state, byte| automaton.step(state, byte);
            let vocabulary = self.tokenizer.vocabulary();
            self.tokenizer.trie().legal(vocabulary, state, step).into()
        };
        if automaton.text_field(state).is_none() {
            return search();
        }
        // What another thread left half done is a whole entry or none.
        let mut known = self.in_texts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(state).or_insert_with(search))
    }
}

pub(super) struct FieldsMachine {
    compiled: CompiledShape,
    state: State,
    /// Tokens of the text that is being written.
    n_text_tokens: usize,
}

impl FieldsMachine {
    pub(super) fn next(&mut self) -> Step {
        if self.compiled.shape.automaton().is_complete(self.state) {
            return Step::Done;
        }
        let forced = self.forced();
        if !forced.is_empty() {
            forced.iter().for_each(|&token| self.accept(token));
            return Step::Forced(forced);
        }
        let legal = self.compiled.legal(self.state);
        if let &[only] = &*legal {
            self.accept(only);
            return Step::Forced(vec![only]);
        }
        Step::Choose(legal)
    }

    /// The tokens of the bytes that alone are legal; not the last ones, if a
    /// token could be chosen that holds them and goes on.
    fn forced(&self) -> Vec<TokenId> {
        let automaton = self.compiled.shape.automaton();
        let mut state = self.state;
        let mut bytes = Vec::new();
        while let Some((byte, next)) = automaton.forced(state) {
            bytes.push(byte);
            state = next;
        }
        let tokenizer = &self.compiled.tokenizer;
        let (vocabulary, trie) = (tokenizer.vocabulary(), tokenizer.trie());
        let mut rest = &*bytes;
        let tokens = tokenizer.encode_exactly(&bytes).into_iter();
        tokens
            .take_while(|&token| {
                let step = |state, byte| automaton.step(state, byte);
                let is_last_word = !trie.has_extension(vocabulary, rest, state, step);
                rest = &rest[tokenizer.token_bytes(token).len()..];
                is_last_word
            })
            .collect()
    }

    /// `token` is legal.
    pub(super) fn accept(&mut self, token: TokenId) {
        let CompiledShape {
            tokenizer, shape, ..
        } = &self.compiled;
        let automaton = shape.automaton();
        let before = self.state;
        let mut bytes = tokenizer.token_bytes(token).iter();
        self.state = bytes
            .try_fold(before, |state, &byte| automaton.step(state, byte))
            .expect("only legal tokens are accepted");
        let Some(field_idx) = automaton.text_field(self.state) else {
            return;
        };
        let is_new = automaton.text_field(before) != Some(field_idx);
        self.n_text_tokens = if is_new { 1 } else { self.n_text_tokens + 1 };
        let max = shape.max_text_tokens(field_idx);
        if max.is_some_and(|max| self.n_text_tokens >= max.get()) {
            self.state = automaton.closing(self.state);
        }
    }
}
