//! The prefixes that a process keeps, within a budget.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    prefix::{Identity, Prefix},
    tree::Tree,
};
use crate::{error::InferenceError, qwen2::Qwen2, tokenizer::TokenId};

/// Prefixes of one model, found again by their tokens.
///
/// Those that begin alike share memory, so several prompts with a common start
/// cost that start once. Prefixes that are not pinned are dropped when the
/// budget is exceeded, the least recently used first. It never changes what is
/// computed: a prefix is bitwise the same wherever it comes from, with weights
/// of any form but [`WeightForm::F32`](crate::WeightForm::F32).
///
/// May be used from many threads at once.
pub struct PrefixCache {
    model: Identity,
    budget_bytes: usize,
    state: Mutex<State>,
}

struct State {
    tree: Tree,
    hits: u64,
    misses: u64,
    reused_tokens: u64,
    computed_tokens: u64,
}

/// What a [`PrefixCache`] has done so far, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixCacheCounters {
    /// Lookups of which every token was there.
    pub hits: u64,
    /// Lookups of which at least one token had to be computed.
    pub misses: u64,
    /// Blocks of 64 positions that were dropped to keep within the budget.
    pub evictions: u64,
    /// Tokens of all lookups that were there.
    pub reused_tokens: u64,
    /// Tokens of all lookups that had to be computed.
    pub computed_tokens: u64,
    /// Memory of the keys and values it holds, in bytes.
    pub size_bytes: usize,
    /// Pins that are held.
    pub pins: usize,
}

impl PrefixCache {
    /// Empty, for the prefixes of `model`.
    ///
    /// `budget_bytes`: of keys and values. What is pinned, or held outside of
    /// the cache, may exceed it.
    #[must_use]
    pub fn new(model: &Qwen2, budget_bytes: usize) -> Self {
        let state = State {
            tree: Tree::new(),
            hits: 0,
            misses: 0,
            reused_tokens: 0,
            computed_tokens: 0,
        };
        Self {
            model: model.identity().clone(),
            budget_bytes,
            state: Mutex::new(state),
        }
    }

    /// The prefix of `tokens`: as much as there is, the rest computed and kept.
    ///
    /// # Errors
    /// As for [`Qwen2::prefix`], and [`InferenceError::ForeignPrefix`] if this
    /// is the cache of another model.
    pub fn prefix(&self, model: &Qwen2, tokens: &[TokenId]) -> Result<Prefix, InferenceError> {
        if !std::sync::Arc::ptr_eq(&self.model, model.identity()) {
            return Err(InferenceError::ForeignPrefix);
        }
        model.check_process()?;
        let found = {
            let mut state = self.lock();
            let (n_found, blocks) = state.tree.longest_match(tokens);
            state.reused_tokens += n_found as u64;
            if n_found == tokens.len() {
                state.hits += 1;
            } else {
                state.misses += 1;
                state.computed_tokens += (tokens.len() - n_found) as u64;
            }
            Prefix::new(tokens[..n_found].to_vec(), blocks, &self.model)
        };
        if found.len() == tokens.len() {
            return Ok(found);
        }
        let prefix = model.extend(&found, &tokens[found.len()..])?;
        drop(found);
        self.insert(&prefix)?;
        Ok(prefix)
    }

    /// Keeps `prefix`, for example one loaded from disk.
    ///
    /// # Errors
    /// [`InferenceError::ForeignPrefix`].
    pub fn insert(&self, prefix: &Prefix) -> Result<(), InferenceError> {
        self.check(prefix)?;
        let mut state = self.lock();
        state.tree.insert(prefix.tokens(), prefix.blocks());
        state.tree.evict(self.budget_bytes);
        Ok(())
    }

    /// Keeps `prefix` until [`Self::unpin`], whatever the budget says.
    ///
    /// # Errors
    /// [`InferenceError::ForeignPrefix`].
    pub fn pin(&self, prefix: &Prefix) -> Result<(), InferenceError> {
        self.check(prefix)?;
        let mut state = self.lock();
        state.tree.pin(prefix.tokens(), prefix.blocks());
        state.tree.evict(self.budget_bytes);
        Ok(())
    }

    /// Takes back one [`Self::pin`] of the same tokens, if there was one.
    pub fn unpin(&self, prefix: &Prefix) {
        let mut state = self.lock();
        state.tree.unpin(prefix.tokens());
        state.tree.evict(self.budget_bytes);
    }

    /// What it has done so far, and what it holds.
    #[must_use]
    pub fn counters(&self) -> PrefixCacheCounters {
        let state = self.lock();
        PrefixCacheCounters {
            hits: state.hits,
            misses: state.misses,
            evictions: state.tree.n_evicted(),
            reused_tokens: state.reused_tokens,
            computed_tokens: state.computed_tokens,
            size_bytes: state.tree.size_bytes(),
            pins: state.tree.n_pins(),
        }
    }

    fn check(&self, prefix: &Prefix) -> Result<(), InferenceError> {
        if !prefix.belongs_to(&self.model) {
            return Err(InferenceError::ForeignPrefix);
        }
        Ok(())
    }

    /// Every change of the state is complete before anything can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for PrefixCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrefixCache")
            .field("budget_bytes", &self.budget_bytes)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}
