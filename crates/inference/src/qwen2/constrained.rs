//! Constrained generation: the loop between a [`Constraint`] and the model.

use std::time::Instant;

use super::{Decode, Prefix, Qwen2};
use crate::{
    constrain::{Constraint, Step},
    error::InferenceError,
    tokenizer::{TokenId, Tokenizer},
};

/// Where constrained generation stops at the latest.
#[derive(Clone, Copy, Debug)]
pub struct ConstrainedLimits {
    /// The most tokens to generate, forced ones counted.
    pub max_new_tokens: usize,
    /// No pass of the model begins after this.
    pub deadline: Option<Instant>,
}

/// What constrained generation wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct ConstrainedOutput {
    /// The text; complete only if `ended` says so.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<TokenId>,
    /// Why it ends there.
    pub ended: Ended,
    /// Passes of the model that it took: one for each choice.
    pub n_passes: usize,
}

/// Why constrained generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The output is complete.
    Complete,
    /// [`ConstrainedLimits::max_new_tokens`] was reached before.
    TokenLimit,
    /// [`ConstrainedLimits::deadline`] was reached before.
    Deadline,
}

impl Qwen2 {
    /// Writes what `constraint` allows after `prefix` and `tokens`, at each
    /// choice the most likely legal token, the lowest id among equals.
    ///
    /// Tokens that the constraint forces cost no pass of their own: they go into
    /// the next one. A limit that is reached is no error: the output then holds
    /// what was written so far.
    ///
    /// # Errors
    /// [`InferenceError::ContextOverflow`] if prefix, tokens and
    /// `max_new_tokens` do not fit together, [`InferenceError::Empty`] without
    /// tokens, [`InferenceError::UnknownToken`], [`InferenceError::ForeignPrefix`],
    /// [`InferenceError::NotFinite`], and what [`Constraint::next_step`] returns.
    pub fn generate_constrained(
        &self,
        prefix: Option<&Prefix>,
        tokens: &[TokenId],
        constraint: &mut Constraint,
        limits: &ConstrainedLimits,
    ) -> Result<ConstrainedOutput, InferenceError> {
        let room = tokens.len().saturating_add(limits.max_new_tokens);
        self.check_room(prefix, room)?;
        self.check_call(prefix, tokens)?;
        let mut session = self.session(prefix)?;
        write(&mut session, &self.tokenizer, tokens, (constraint, limits))
    }
}

/// Writes what a constraint allows after what `decoder` has and `tokens`; see
/// [`Qwen2::generate_constrained`].
pub(crate) fn write(
    decoder: &mut dyn Decode,
    tokenizer: &Tokenizer,
    tokens: &[TokenId],
    (constraint, limits): (&mut Constraint, &ConstrainedLimits),
) -> Result<ConstrainedOutput, InferenceError> {
    let mut written = Vec::new();
    let mut n_passes = 0;
    let mut pending = tokens.to_vec();
    let ended = loop {
        let left = limits.max_new_tokens - written.len();
        let next = match constraint.next_step()? {
            Step::Done => break Ended::Complete,
            Step::Forced(forced) if forced.len() > left => {
                written.extend(&forced[..left]);
                break Ended::TokenLimit;
            }
            Step::Forced(forced) => forced,
            Step::Choose(_) if left == 0 => break Ended::TokenLimit,
            Step::Choose(_) if limits.deadline.is_some_and(|end| Instant::now() >= end) => {
                break Ended::Deadline;
            }
            Step::Choose(legal) => {
                let logits = match decoder.advance(&pending) {
                    Err(InferenceError::DeadlinePassed) => break Ended::Deadline,
                    logits => logits?,
                };
                let chosen = most_likely(&legal, logits);
                constraint.accept(chosen)?;
                n_passes += 1;
                pending.clear();
                if tokenizer.is_added(chosen) {
                    // The end of the answer is no part of it.
                    continue;
                }
                vec![chosen]
            }
        };
        pending.extend(&next);
        written.extend(next);
    };
    Ok(ConstrainedOutput {
        text: tokenizer.decode(&written),
        tokens: written,
        ended,
        n_passes,
    })
}

/// `legal` holds at least one token; `logits`: `(vocab_size,)`.
fn most_likely(legal: &[TokenId], logits: &[f32]) -> TokenId {
    let logit = |token: TokenId| logits[token.0 as usize];
    let better = |best: TokenId, token| {
        if logit(token) > logit(best) {
            token
        } else {
            best
        }
    };
    let all = legal.iter().copied();
    all.reduce(better).expect("a choice is never empty")
}
