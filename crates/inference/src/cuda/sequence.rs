//! A sequence that grows on a device, for decoding.

use std::sync::Arc;

use super::{
    DevicePrefix, DeviceQwen2,
    blocks::{BLOCK_SLOTS, Block},
    finite,
    model::{Model, Turn},
    prefix::slots,
    slab::{NewRows, Places, Shape, Slab, index},
    taps::Taps,
};
use crate::{
    error::InferenceError,
    qwen2::{self, ConstrainedLimits, ConstrainedOutput, Decode, GenerateOptions},
    tokenizer::TokenId,
};

/// Tokens behind a prefix, and their keys and values.
pub(crate) struct DeviceSequence {
    /// Those of the prefix first.
    tokens: Vec<TokenId>,
    /// Position `i` is slot `i % 64` of block `i / 64`.
    blocks: Vec<Arc<Block>>,
    /// Whether nobody else reads or writes the last block.
    is_tail_own: bool,
    /// `(vocab_size,)` after a step.
    logits: Vec<f32>,
}

impl DeviceSequence {
    /// All tokens so far.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The logits after the last token, not normalised.
    pub(crate) fn logits(&mut self) -> &mut Vec<f32> {
        &mut self.logits
    }
}

impl Model {
    /// Runs `tokens`, not empty, behind `sequence`; after an error it is as before.
    ///
    /// A token alone is a pass of one row. Several are computed like a prefix,
    /// block by block, the last block from its start in one pass: so whole blocks
    /// are shared and found again, and no pass writes to a block of others.
    fn append(
        &self,
        turn: &mut Turn<'_>,
        sequence: &mut DeviceSequence,
        tokens: &[TokenId],
    ) -> Result<(), InferenceError> {
        let done = sequence.tokens.len();
        let all = [&sequence.tokens, tokens].concat();
        let is_step = tokens.len() == 1 && sequence.is_tail_own;
        let first = match is_step {
            true => done,
            false => (all.len() - 1) / BLOCK_SLOTS * BLOCK_SLOTS,
        };
        let mut blocks = match is_step {
            true => sequence.blocks.clone(),
            false => self.prefix(turn, &[], &all[..first])?.blocks().to_vec(),
        };
        if blocks.len() * BLOCK_SLOTS == first {
            blocks.extend(turn.take(1)?);
        }
        let tail = blocks.last().expect("one holds the last token");
        let rows = NewRows::run(&all[first..], first, vec![all.len() - 1 - first]);
        let places = Places {
            prefix: &slots(&blocks, first),
            first_own: index(tail.first_slot() + first % BLOCK_SLOTS),
            ..self.places()
        };
        // At most a block from its start, or one row: padding stays within it.
        let slab = Slab::new(Shape::of(&rows, first, 1), &[&rows], places);
        let hidden = self.run(slab, &mut Taps::default())?;
        let logits = self.head(&hidden)?.flatten_all()?.to_vec1::<f32>()?;
        finite(&logits, "logits")?;
        *sequence = DeviceSequence {
            tokens: all,
            blocks,
            is_tail_own: true,
            logits,
        };
        Ok(())
    }
}

impl DeviceQwen2 {
    /// A sequence that begins with `prefix`, with room for `n_tokens` behind it.
    pub(crate) fn sequence(
        &self,
        prefix: &DevicePrefix,
        n_tokens: usize,
    ) -> Result<DeviceSequence, InferenceError> {
        self.model().check_room(prefix, n_tokens)?;
        Ok(DeviceSequence {
            tokens: prefix.tokens().to_vec(),
            blocks: prefix.blocks().to_vec(),
            is_tail_own: false,
            logits: Vec::new(),
        })
    }

    /// Runs `tokens` behind the others of `sequence`; after an error it is as
    /// before.
    pub(crate) fn advance(
        &self,
        sequence: &mut DeviceSequence,
        tokens: &[TokenId],
    ) -> Result<(), InferenceError> {
        let model = self.model();
        model.check_positions(sequence.len().saturating_add(tokens.len()))?;
        model.check_tokens(tokens)?;
        if tokens.is_empty() {
            return Err(InferenceError::Empty { what: "tokens" });
        }
        model.append(&mut model.turn(), sequence, tokens)
    }

    /// The logits after the last token: `(vocab_size,)`, f32, not normalised.
    ///
    /// # Errors
    /// [`InferenceError::Empty`] without tokens,
    /// [`InferenceError::ContextOverflow`], [`InferenceError::UnknownToken`],
    /// [`InferenceError::ForeignPrefix`], [`InferenceError::NotFinite`],
    /// [`InferenceError::ForkedProcess`], [`InferenceError::Gpu`] if all blocks
    /// are held.
    pub fn logits(
        &self,
        prefix: &DevicePrefix,
        tokens: &[TokenId],
    ) -> Result<Vec<f32>, InferenceError> {
        let mut sequence = self.sequence(prefix, tokens.len())?;
        self.advance(&mut sequence, tokens)?;
        Ok(sequence.logits)
    }

    /// Generates tokens after `prefix` and `tokens`, as
    /// [`Qwen2::generate`](crate::Qwen2::generate) does, until `on_token` breaks.
    ///
    /// # Errors
    /// As for [`Self::logits`], and [`InferenceError::InvalidOption`].
    pub fn generate(
        &self,
        prefix: &DevicePrefix,
        tokens: &[TokenId],
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(TokenId) -> std::ops::ControlFlow<()>,
    ) -> Result<Vec<TokenId>, InferenceError> {
        let room = tokens.len().saturating_add(options.max_new_tokens);
        let mut session = self.session(prefix, room)?;
        qwen2::generate(&mut session, tokens, options, on_token)
    }

    /// Writes what `constraint` allows after `prefix` and `tokens`, as
    /// [`Qwen2::generate_constrained`](crate::Qwen2::generate_constrained) does.
    ///
    /// # Errors
    /// As for [`Self::logits`], [`InferenceError::NoTokenizer`] for random
    /// weights, and what
    /// [`Constraint::next_step`](crate::Constraint::next_step) returns.
    pub fn generate_constrained(
        &self,
        prefix: &DevicePrefix,
        tokens: &[TokenId],
        constraint: &mut crate::Constraint,
        limits: &ConstrainedLimits,
    ) -> Result<ConstrainedOutput, InferenceError> {
        let tokenizer = self.tokenizer().ok_or(InferenceError::NoTokenizer)?;
        let room = tokens.len().saturating_add(limits.max_new_tokens);
        let mut session = self.session(prefix, room)?;
        qwen2::write(&mut session, tokenizer, tokens, (constraint, limits))
    }

    fn session(
        &self,
        prefix: &DevicePrefix,
        n_tokens: usize,
    ) -> Result<Session<'_>, InferenceError> {
        Ok(Session {
            model: self,
            sequence: self.sequence(prefix, n_tokens)?,
        })
    }
}

/// A sequence and its model.
struct Session<'a> {
    model: &'a DeviceQwen2,
    sequence: DeviceSequence,
}

impl Decode for Session<'_> {
    fn advance(&mut self, tokens: &[TokenId]) -> Result<&[f32], InferenceError> {
        self.model.advance(&mut self.sequence, tokens)?;
        Ok(&self.sequence.logits)
    }
}
