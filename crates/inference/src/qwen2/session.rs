//! A sequence that grows step by step, for decoding.

use super::{Append, MAX_PASS_ROWS, Prefix, Qwen2, plan::Chain};
use crate::{error::InferenceError, tokenizer::TokenId};

/// What decoding needs of a sequence, whatever computes it.
pub(crate) trait Decode {
    /// Runs `tokens` behind the others; the logits after the last one.
    ///
    /// # Errors
    /// [`InferenceError::DeadlinePassed`] where there is one, before it runs.
    fn advance(&mut self, tokens: &[TokenId]) -> Result<&[f32], InferenceError>;
}

/// A sequence of tokens behind a prefix, which grows and may be cut.
///
/// Many may exist at once; each step takes its turn on the model's threads.
/// Once its memory is warm, a step allocates nothing.
pub struct Session<'a> {
    model: &'a Qwen2,
    sequence: Sequence,
}

/// What a [`Session`] has computed, without its model.
pub(crate) struct Sequence {
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
        let nothing = || Prefix::new(Vec::new(), Vec::new(), &self.identity);
        let sequence = self.sequence(prefix.cloned().unwrap_or_else(nothing), 0)?;
        Ok(Session {
            model: self,
            sequence,
        })
    }

    /// A sequence that begins with `start`, with room for `n_tokens` behind it.
    pub(crate) fn sequence(
        &self,
        start: Prefix,
        n_tokens: usize,
    ) -> Result<Sequence, InferenceError> {
        self.check_room(Some(&start), n_tokens)?;
        let mut sequence = Sequence {
            chain: Chain::default(),
            tokens: Vec::new(),
            logits: Vec::new(),
            start,
        };
        self.begin(&mut sequence);
        Ok(sequence)
    }

    fn begin(&self, sequence: &mut Sequence) {
        let mut arena = self.arena();
        sequence.chain.clear(&mut arena.spare);
        sequence.tokens.clear();
        sequence.tokens.extend_from_slice(sequence.start.tokens());
        let (blocks, len) = (sequence.start.blocks(), sequence.start.len());
        sequence.chain.begin(blocks, len, &mut arena.spare);
    }

    /// Runs `tokens` behind the others of `sequence`, as [`Session::advance`].
    pub(crate) fn advance(
        &self,
        sequence: &mut Sequence,
        tokens: &[TokenId],
    ) -> Result<(), InferenceError> {
        self.check_positions(sequence.tokens.len().saturating_add(tokens.len()))?;
        self.check_tokens(tokens)?;
        if tokens.is_empty() {
            return Err(InferenceError::Empty { what: "tokens" });
        }
        sequence.tokens.extend_from_slice(tokens);
        self.run(sequence, tokens)
            .inspect_err(|_| self.begin(sequence))
    }

    fn run(&self, sequence: &mut Sequence, tokens: &[TokenId]) -> Result<(), InferenceError> {
        let mut rest = tokens;
        while rest.len() > MAX_PASS_ROWS {
            let (first, others) = rest.split_at(MAX_PASS_ROWS);
            let chain = &mut sequence.chain;
            self.append(&mut self.arena(), chain, first, Append::Silent)?;
            rest = others;
        }
        let logits = Append::Logits(&mut sequence.logits);
        self.append(&mut self.arena(), &mut sequence.chain, rest, logits)
    }
}

impl Sequence {
    /// Number of tokens so far, those of the prefix counted.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The logits after the last token, not normalised.
    pub(crate) fn logits(&mut self) -> &mut Vec<f32> {
        &mut self.logits
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
        self.model.advance(&mut self.sequence, tokens)?;
        Ok(&self.sequence.logits)
    }

    /// Forgets all tokens but the first `n_tokens`; those of the prefix stay.
    pub fn truncate(&mut self, n_tokens: usize) {
        let Sequence {
            start,
            chain,
            tokens,
            ..
        } = &mut self.sequence;
        let n_tokens = n_tokens.clamp(start.len().min(tokens.len()), tokens.len());
        tokens.truncate(n_tokens);
        chain.truncate(n_tokens, &mut self.model.arena().spare);
    }

    /// All tokens so far, those of the prefix first.
    #[must_use]
    pub fn tokens(&self) -> &[TokenId] {
        &self.sequence.tokens
    }

    /// Number of tokens so far, those of the prefix counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sequence.len()
    }

    /// Whether there is no token yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sequence.tokens.is_empty()
    }

    /// All tokens so far as a prefix; the session goes on.
    #[must_use]
    pub fn to_prefix(&self) -> Prefix {
        let Sequence { chain, tokens, .. } = &self.sequence;
        let blocks = chain.to_blocks(&mut self.model.arena().spare);
        Prefix::new(tokens.clone(), blocks, &self.model.identity)
    }

    pub(super) fn reserve(&mut self, n_tokens: usize) {
        self.sequence.tokens.reserve(n_tokens);
    }

    pub(super) fn into_logits(mut self) -> Vec<f32> {
        std::mem::take(&mut self.sequence.logits)
    }
}

impl Decode for Session<'_> {
    fn advance(&mut self, tokens: &[TokenId]) -> Result<&[f32], InferenceError> {
        Session::advance(self, tokens)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if self.model.check_process().is_ok() {
            let mut arena = self.model.arena();
            self.sequence.chain.clear(&mut arena.spare);
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
