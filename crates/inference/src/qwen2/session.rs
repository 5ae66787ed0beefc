//! A sequence that grows step by step, for decoding.

use super::{Append, MAX_PASS_ROWS, Prefix, Qwen2, plan::Chain};
use crate::{error::InferenceError, tokenizer::TokenId};

/// A sequence of tokens behind a prefix, which grows and may be cut.
///
/// Many may exist at once; each step takes its turn on the model's threads.
/// Once its memory is warm, a step allocates nothing.
pub struct Session<'a> {
    model: &'a Qwen2,
    /// Where it began, and begins again after an error.
    start: Prefix,
    chain: Chain,
    /// Those of the prefix counted.
    tokens: Vec<TokenId>,
    /// `(vocab_size,)` after a step.
    logits: Vec<f32>,
}

impl Qwen2 {
    /// A sequence that begins with `prefix`, or with nothing.
    ///
    /// # Errors
    /// [`InferenceError::ForeignPrefix`], [`InferenceError::ContextOverflow`].
    pub fn session(&self, prefix: Option<&Prefix>) -> Result<Session<'_>, InferenceError> {
        self.check_room(prefix, 0)?;
        let nothing = || Prefix::new(Vec::new(), Vec::new(), &self.identity);
        let start = prefix.cloned().unwrap_or_else(nothing);
        let mut session = Session {
            model: self,
            chain: Chain::default(),
            tokens: Vec::new(),
            logits: Vec::new(),
            start,
        };
        session.begin();
        Ok(session)
    }
}

impl Session<'_> {
    /// Runs `tokens` behind the others, in one pass.
    ///
    /// Returns the logits after the last one: `(vocab_size,)`, f32, not
    /// normalised.
    ///
    /// # Errors
    /// [`InferenceError::Empty`] without tokens,
    /// [`InferenceError::ContextOverflow`], [`InferenceError::UnknownToken`]:
    /// the session is as before. [`InferenceError::NotFinite`] and errors of
    /// reading the file: it is at its start again.
    pub fn advance(&mut self, tokens: &[TokenId]) -> Result<&[f32], InferenceError> {
        let model = self.model;
        model.check_positions(self.tokens.len().saturating_add(tokens.len()))?;
        model.check_tokens(tokens)?;
        if tokens.is_empty() {
            return Err(InferenceError::Empty { what: "tokens" });
        }
        self.tokens.extend_from_slice(tokens);
        self.run(tokens).inspect_err(|_| self.begin())?;
        Ok(&self.logits)
    }

    fn run(&mut self, tokens: &[TokenId]) -> Result<(), InferenceError> {
        let model = self.model;
        let mut rest = tokens;
        while rest.len() > MAX_PASS_ROWS {
            let (first, others) = rest.split_at(MAX_PASS_ROWS);
            model.append(&mut model.arena(), &mut self.chain, first, Append::Silent)?;
            rest = others;
        }
        let logits = Append::Logits(&mut self.logits);
        model.append(&mut model.arena(), &mut self.chain, rest, logits)
    }

    /// Forgets all tokens but the first `n_tokens`; those of the prefix stay.
    pub fn truncate(&mut self, n_tokens: usize) {
        let n_tokens = n_tokens.clamp(self.start.len().min(self.tokens.len()), self.tokens.len());
        self.tokens.truncate(n_tokens);
        self.chain.truncate(n_tokens, &mut self.model.arena().spare);
    }

    /// All tokens so far, those of the prefix first.
    #[must_use]
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Number of tokens so far, those of the prefix counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// All tokens so far as a prefix; the session goes on.
    #[must_use]
    pub fn to_prefix(&self) -> Prefix {
        let blocks = self.chain.to_blocks(&mut self.model.arena().spare);
        Prefix::new(self.tokens.clone(), blocks, &self.model.identity)
    }

    pub(super) fn reserve(&mut self, n_tokens: usize) {
        self.tokens.reserve(n_tokens);
    }

    pub(super) fn into_logits(mut self) -> Vec<f32> {
        std::mem::take(&mut self.logits)
    }

    fn begin(&mut self) {
        let mut arena = self.model.arena();
        self.chain.clear(&mut arena.spare);
        self.tokens.clear();
        self.tokens.extend_from_slice(self.start.tokens());
        let (blocks, len) = (self.start.blocks(), self.start.len());
        self.chain.begin(blocks, len, &mut arena.spare);
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if self.model.check_process().is_ok() {
            self.chain.clear(&mut self.model.arena().spare);
        }
    }
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
