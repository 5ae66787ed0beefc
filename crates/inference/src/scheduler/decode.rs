//! Decoding through a scheduler: a step at a time, between the passes of others.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex},
    time::Instant,
};

use super::{Handle, Request};
use crate::{
    constrain::Constraint,
    error::InferenceError,
    language_model::{LanguageModel, ModelPrefix, ModelSequence},
    qwen2::{self, ConstrainedLimits, ConstrainedOutput, Decode, GenerateOptions},
    tokenizer::TokenId,
};

/// One step of a sequence.
pub(crate) struct Step {
    sequence: Arc<Mutex<ModelSequence>>,
    /// Tokens of the sequence before this step.
    at: usize,
    tokens: Vec<TokenId>,
}

impl Step {
    pub(super) fn n_rows(&self) -> usize {
        self.tokens.len()
    }

    /// Does nothing if it has been done: another request of its pass may have
    /// panicked, and all are then asked for again.
    pub(super) fn run(&self, model: &LanguageModel) -> Result<(), InferenceError> {
        let lost = |_| InferenceError::PassPanicked;
        let mut sequence = self.sequence.lock().map_err(lost)?;
        match sequence.len() {
            len if len == self.at => model.advance(&mut sequence, &self.tokens),
            len if len == self.at + self.tokens.len() => Ok(()),
            _ => Err(InferenceError::PassPanicked),
        }
    }
}

impl Handle {
    /// Generates tokens after `prefix` and `tokens`, each in a pass of its own,
    /// between those of other callers. What there is at `deadline` is the result.
    ///
    /// # Errors
    /// As for [`Qwen2::generate`](crate::Qwen2::generate) or
    /// [`DeviceQwen2::generate`](crate::DeviceQwen2::generate), and as for
    /// [`Handle::score`] but [`InferenceError::DeadlinePassed`].
    pub fn generate(
        &self,
        (prefix, tokens): (&ModelPrefix, &[TokenId]),
        options: &GenerateOptions,
        deadline: Option<Instant>,
    ) -> Result<Vec<TokenId>, InferenceError> {
        let n_tokens = tokens.len().saturating_add(options.max_new_tokens);
        let mut decoder = self.decoder(prefix, n_tokens, deadline)?;
        let keep_going = &mut |_| ControlFlow::Continue(());
        qwen2::generate(&mut decoder, tokens, options, keep_going)
    }

    /// Writes what `constraint` allows after `prefix` and `tokens`, each choice in
    /// a pass of its own, between those of other callers.
    ///
    /// # Errors
    /// As for [`Qwen2::generate_constrained`](crate::Qwen2::generate_constrained)
    /// or [`DeviceQwen2::generate_constrained`](crate::DeviceQwen2::generate_constrained),
    /// and as for [`Handle::score`] but [`InferenceError::DeadlinePassed`].
    pub fn generate_constrained(
        &self,
        (prefix, tokens): (&ModelPrefix, &[TokenId]),
        constraint: &mut Constraint,
        limits: &ConstrainedLimits,
    ) -> Result<ConstrainedOutput, InferenceError> {
        let n_tokens = tokens.len().saturating_add(limits.max_new_tokens);
        let mut decoder = self.decoder(prefix, n_tokens, limits.deadline)?;
        let tokenizer = self.core.backend().tokenizer();
        qwen2::write(&mut decoder, tokenizer, tokens, (constraint, limits))
    }

    fn decoder(
        &self,
        prefix: &ModelPrefix,
        n_tokens: usize,
        deadline: Option<Instant>,
    ) -> Result<Decoder<'_>, InferenceError> {
        self.core.check_process()?;
        let sequence = self.core.backend().sequence(prefix, n_tokens)?;
        Ok(Decoder {
            handle: self,
            at: sequence.len(),
            sequence: Arc::new(Mutex::new(sequence)),
            logits: Vec::new(),
            deadline,
        })
    }
}

/// A sequence whose steps go through a scheduler.
struct Decoder<'a> {
    handle: &'a Handle,
    sequence: Arc<Mutex<ModelSequence>>,
    /// Tokens of the sequence.
    at: usize,
    /// After the last of them.
    logits: Vec<f32>,
    deadline: Option<Instant>,
}

impl Decode for Decoder<'_> {
    fn advance(&mut self, tokens: &[TokenId]) -> Result<&[f32], InferenceError> {
        let step = Request::Step(Step {
            sequence: Arc::clone(&self.sequence),
            at: self.at,
            tokens: tokens.to_vec(),
        });
        let Handle { core, caller } = self.handle;
        let pending = core.submit(*caller, step, self.deadline)?;
        pending.wait(self.deadline)?;
        let lost = |_| InferenceError::PassPanicked;
        let mut sequence = self.sequence.lock().map_err(lost)?;
        self.at = sequence.len();
        std::mem::swap(sequence.logits(), &mut self.logits);
        Ok(&self.logits)
    }
}
