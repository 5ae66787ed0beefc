//! Qwen2 and Qwen2.5: our own forward pass over a key-value cache.
//!
//! `weights.rs` loads, `forward.rs` runs the layers, `attention.rs` and
//! `cache.rs` hold what positions share, `labels.rs` and `generate.rs` are the
//! two uses. Matrix products go through `Linear`, everything else is plain
//! slices; a faster product changes `linear.rs` alone.
//!
//! Source: Qwen2.5 Technical Report, arXiv:2412.15115, and
//! `modeling_qwen2.py` of `transformers`.

mod attention;
mod cache;
mod constrained;
mod forward;
mod generate;
mod labels;
mod weights;

use std::{path::PathBuf, sync::Arc};

use self::{
    cache::Cache,
    forward::{Pass, Reach},
    weights::Layers,
};
use crate::{
    config::{LoadOptions, ModelConfig},
    error::InferenceError,
    rows::Rows,
    tokenizer::{TokenId, Tokenizer},
};

pub use self::{
    cache::Prefix,
    constrained::{ConstrainedLimits, ConstrainedOutput, Ended},
    generate::{GenerateOptions, Sampling},
    labels::LabelScores,
};

/// A loaded Qwen2 model; the weights are shared by all calls on it.
///
/// Calls may come from many threads at once; each computes on the model's own
/// worker threads.
pub struct Qwen2 {
    config: ModelConfig,
    tokenizer: Tokenizer,
    layers: Layers,
    workers: rayon::ThreadPool,
    max_context_tokens: usize,
}

impl Qwen2 {
    /// Loads GGUF files, one or the parts of a split one in their order, or a
    /// single directory with `config.json`, `tokenizer.json` and safetensors.
    ///
    /// The files are read, never mapped: a file that shrinks meanwhile is an error.
    ///
    /// # Errors
    /// [`InferenceError::Io`], [`InferenceError::Corrupt`] for a file that is
    /// not a Qwen2 model in every detail, [`InferenceError::Threads`].
    pub fn load(files: &[PathBuf], options: &LoadOptions) -> Result<Self, InferenceError> {
        let threads = options.threads.get();
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|thread_idx| format!("inference-{thread_idx}"))
            .build()
            .map_err(|error| InferenceError::Threads {
                threads,
                detail: error.to_string(),
            })?;
        weights::load(files, options, workers)
    }

    /// The tokenizer that the model file carries.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The model's shape.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Positions that a prefix and what follows it may take together.
    #[must_use]
    pub fn max_context_tokens(&self) -> usize {
        self.max_context_tokens
    }

    /// Runs `tokens` through all layers and keeps their keys and values (prefill).
    ///
    /// # Errors
    /// [`InferenceError::ContextOverflow`], [`InferenceError::UnknownToken`].
    pub fn prefix(&self, tokens: &[TokenId]) -> Result<Prefix, InferenceError> {
        let cache = Cache::new(&self.config, tokens.len())?;
        self.grow(cache, tokens)
    }

    /// A longer prefix; `prefix` itself stays as it is.
    ///
    /// # Errors
    /// [`InferenceError::ContextOverflow`], [`InferenceError::UnknownToken`],
    /// [`InferenceError::ForeignPrefix`].
    pub fn extend(&self, prefix: &Prefix, tokens: &[TokenId]) -> Result<Prefix, InferenceError> {
        self.check_room(Some(prefix), tokens.len())?;
        let cache = self.cache_after(Some(prefix), tokens.len())?;
        self.grow(cache, tokens)
    }

    fn grow(&self, mut cache: Cache, tokens: &[TokenId]) -> Result<Prefix, InferenceError> {
        self.check_positions(cache.len() + tokens.len())?;
        self.check_tokens(tokens)?;
        if !tokens.is_empty() {
            let pass = Pass::sequence(tokens, cache.len(), Vec::new());
            self.run(&mut cache, &pass)?;
        }
        Ok(Prefix::new(cache, self.layers.identity()))
    }

    /// The logits after the last token: `(vocab_size,)`, f32, not normalised.
    ///
    /// # Errors
    /// [`InferenceError::Empty`] without tokens,
    /// [`InferenceError::ContextOverflow`], [`InferenceError::UnknownToken`],
    /// [`InferenceError::ForeignPrefix`], [`InferenceError::NotFinite`].
    pub fn logits(
        &self,
        prefix: Option<&Prefix>,
        tokens: &[TokenId],
    ) -> Result<Vec<f32>, InferenceError> {
        let last = self.check_call(prefix, tokens)?;
        let mut cache = self.cache_after(prefix, tokens.len())?;
        let pass = Pass::sequence(tokens, cache.len(), vec![last]);
        let hidden = self.run(&mut cache, &pass)?;
        self.head(&hidden).map(Rows::into_values)
    }

    /// Checks the arguments of a call that needs a last token; returns its index.
    fn check_call(
        &self,
        prefix: Option<&Prefix>,
        tokens: &[TokenId],
    ) -> Result<usize, InferenceError> {
        self.check_room(prefix, tokens.len())?;
        self.check_tokens(tokens)?;
        tokens
            .len()
            .checked_sub(1)
            .ok_or(InferenceError::Empty { what: "tokens" })
    }

    fn check_room(&self, prefix: Option<&Prefix>, n_tokens: usize) -> Result<(), InferenceError> {
        if let Some(prefix) = prefix
            && !prefix.belongs_to(self.layers.identity())
        {
            return Err(InferenceError::ForeignPrefix);
        }
        self.check_positions(prefix.map_or(0, Prefix::len).saturating_add(n_tokens))
    }

    fn check_positions(&self, positions: usize) -> Result<(), InferenceError> {
        let limit = self.max_context_tokens;
        if positions > limit {
            return Err(InferenceError::ContextOverflow { positions, limit });
        }
        Ok(())
    }

    fn check_tokens(&self, tokens: &[TokenId]) -> Result<(), InferenceError> {
        let vocab_size = self.config.vocab_size;
        match tokens.iter().find(|token| token.0 as usize >= vocab_size) {
            Some(&TokenId(id)) => Err(InferenceError::UnknownToken { id, vocab_size }),
            None => Ok(()),
        }
    }

    /// A cache of our own that begins with `prefix` and has room for `n_tokens` more.
    fn cache_after(
        &self,
        prefix: Option<&Prefix>,
        n_tokens: usize,
    ) -> Result<Cache, InferenceError> {
        match prefix {
            Some(prefix) => prefix.cache().with_room(n_tokens),
            None => Cache::new(&self.config, n_tokens),
        }
    }

    /// Runs one pass on the worker threads; see [`forward::run`]. What it
    /// returns is finite.
    fn run(&self, cache: &mut Cache, pass: &Pass) -> Result<Rows, InferenceError> {
        // Checked before the head too: its packed form takes NaN for a number.
        self.workers
            .install(|| forward::run(&self.config, &self.layers, cache, pass))?
            .finite("hidden states")
    }

    /// Logits of normalised hidden states: `(n_rows, vocab_size)`, all finite.
    fn head(&self, hidden: &Rows) -> Result<Rows, InferenceError> {
        let logits = self.workers.install(|| self.layers.head.forward(hidden))?;
        logits.finite("logits")
    }
}

/// Marks which model a prefix came from.
type Identity = Arc<()>;
