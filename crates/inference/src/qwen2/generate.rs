//! Greedy and seeded generation.

use std::ops::ControlFlow;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Decode, Prefix, Qwen2};
use crate::{error::InferenceError, tokenizer::TokenId};

/// How to generate.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// The most tokens to generate.
    pub max_new_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Tokens that end generation; they are not part of the result.
    pub stop: Vec<TokenId>,
}

/// How a token is chosen from the logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The most likely token; the lowest id among equals.
    Greedy,
    /// Drawn at random; the same seed gives the same tokens.
    Seeded {
        /// Seed of the generator (`ChaCha8`).
        seed: u64,
        /// Divides the logits; above 0. 1 leaves them as they are.
        temperature: f64,
        /// Draws among the most likely tokens that together reach this
        /// probability, `0.0..=1.0` without 0. 1 means among all.
        ///
        /// Source: Holtzman et al. 2019, arXiv:1904.09751, nucleus sampling.
        top_p: f64,
    },
}

impl Qwen2 {
    /// Generates tokens after `prefix` and `tokens`.
    ///
    /// Calls `on_token` after each; [`ControlFlow::Break`] ends it there.
    ///
    /// # Errors
    /// [`InferenceError::ContextOverflow`] if prefix, tokens and
    /// `max_new_tokens` do not fit together, [`InferenceError::Empty`] without
    /// tokens, [`InferenceError::InvalidOption`],
    /// [`InferenceError::UnknownToken`], [`InferenceError::ForeignPrefix`],
    /// [`InferenceError::NotFinite`].
    pub fn generate(
        &self,
        prefix: Option<&Prefix>,
        tokens: &[TokenId],
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(TokenId) -> ControlFlow<()>,
    ) -> Result<Vec<TokenId>, InferenceError> {
        let room = tokens.len().saturating_add(options.max_new_tokens);
        self.check_room(prefix, room)?;
        self.check_call(prefix, tokens)?;
        let mut session = self.session(prefix)?;
        session.reserve(room);
        generate(&mut session, tokens, options, on_token)
    }
}

/// Generates after what `decoder` has and `tokens`; see [`Qwen2::generate`].
pub(crate) fn generate(
    decoder: &mut dyn Decode,
    tokens: &[TokenId],
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(TokenId) -> ControlFlow<()>,
) -> Result<Vec<TokenId>, InferenceError> {
    let mut sampler = Sampler::new(options.sampling)?;
    let mut generated = Vec::with_capacity(options.max_new_tokens);
    while generated.len() < options.max_new_tokens {
        let logits = match generated.last() {
            None => decoder.advance(tokens),
            Some(&token) => decoder.advance(&[token]),
        };
        let token = match logits {
            Err(InferenceError::DeadlinePassed) => break,
            logits => sampler.choose(logits?),
        };
        if options.stop.contains(&token) {
            break;
        }
        generated.push(token);
        if on_token(token).is_break() {
            break;
        }
    }
    Ok(generated)
}

enum Sampler {
    Greedy,
    Seeded {
        random: Box<ChaCha8Rng>,
        temperature: f64,
        top_p: f64,
        /// Keeps its memory from token to token.
        candidates: Vec<(u32, f64)>,
    },
}

impl Sampler {
    fn new(sampling: Sampling) -> Result<Self, InferenceError> {
        let Sampling::Seeded {
            seed,
            temperature,
            top_p,
        } = sampling
        else {
            return Ok(Self::Greedy);
        };
        let invalid = |name, allowed, value: f64| InferenceError::InvalidOption {
            name,
            allowed,
            value: value.to_string(),
        };
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(invalid("temperature", "above 0 and finite", temperature));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(invalid("top_p", "above 0 and at most 1", top_p));
        }
        Ok(Self::Seeded {
            random: Box::new(ChaCha8Rng::seed_from_u64(seed)),
            temperature,
            top_p,
            candidates: Vec::new(),
        })
    }

    fn choose(&mut self, logits: &[f32]) -> TokenId {
        match self {
            Self::Greedy => most_likely(logits),
            Self::Seeded {
                random,
                temperature,
                top_p,
                candidates,
            } => {
                weigh(logits, *temperature, candidates);
                nucleus(candidates, *top_p, random.random())
            }
        }
    }
}

fn most_likely(logits: &[f32]) -> TokenId {
    let mut best = (TokenId(0), f32::NEG_INFINITY);
    for (id, &logit) in (0..).zip(logits) {
        if logit > best.1 {
            best = (TokenId(id), logit);
        }
    }
    best.0
}

/// All tokens with `e^(logit / temperature)`, scaled; the most likely first.
fn weigh(logits: &[f32], temperature: f64, candidates: &mut Vec<(u32, f64)>) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| (f64::from(logit - largest) / temperature).exp();
    candidates.clear();
    candidates.extend((0..).zip(logits).map(|(id, &logit)| (id, weight(logit))));
    candidates.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
}

/// `uniform`: a number drawn from `0.0..1.0`.
fn nucleus(candidates: &[(u32, f64)], top_p: f64, uniform: f64) -> TokenId {
    let total: f64 = candidates.iter().map(|&(_, weight)| weight).sum();
    let mut kept = 0.0;
    let n_kept = candidates
        .iter()
        .position(|&(_, weight)| {
            kept += weight;
            kept >= top_p * total
        })
        .map_or(candidates.len(), |idx| idx + 1);
    let mut left = uniform * kept;
    for &(id, weight) in &candidates[..n_kept] {
        left -= weight;
        if left < 0.0 {
            return TokenId(id);
        }
    }
    TokenId(candidates[n_kept - 1].0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_lowest_id_among_equals() {
        assert_eq!(most_likely(&[1.0, 3.0, 3.0, 2.0]), TokenId(1));
        assert_eq!(most_likely(&[f32::NAN, f32::NAN]), TokenId(0));
    }

    #[test]
    fn a_small_top_p_leaves_only_the_most_likely() {
        let mut candidates = Vec::new();
        weigh(&[0.0, 1.0, 0.5], 1.0, &mut candidates);
        for uniform in [0.0, 0.5, 0.999] {
            assert_eq!(nucleus(&candidates, 0.1, uniform), TokenId(1));
        }
        assert_eq!(nucleus(&candidates, 1.0, 0.999), TokenId(0));
    }

    #[test]
    fn a_high_temperature_approaches_equal_chances() {
        let mut candidates = Vec::new();
        weigh(&[0.0, 1.0, 2.0], 1e9, &mut candidates);
        let drawn = [0.1, 0.4, 0.7].map(|uniform| nucleus(&candidates, 1.0, uniform));
        assert_eq!(drawn, [TokenId(2), TokenId(1), TokenId(0)]);
    }
}
