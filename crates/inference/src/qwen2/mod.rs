//! Qwen2 and Qwen2.5: our own forward pass over blocks of keys and values.
//!
//! `weights.rs` loads, `forward.rs` runs the layers over what `plan.rs` says, in
//! the memory of `arena.rs`. `kv/` holds what positions share: blocks, prefixes,
//! the tree that shares them, and their files. `labels/`, `session.rs`,
//! `generate.rs` and `constrained.rs` are the uses.
//!
//! Every row's arithmetic depends on its token, its position and the slots it
//! sees alone. So results are bitwise the same alone or in any batch, on any
//! number of threads, and from any split of a sequence into prefix and suffix.
//! The exception is [`WeightForm::F32`](crate::WeightForm::F32), whose products
//! are those of a library.
//!
//! Source: Qwen2.5 Technical Report, arXiv:2412.15115, and
//! `modeling_qwen2.py` of `transformers`.

mod arena;
mod constrained;
mod embeddings;
mod forward;
mod generate;
mod hidden;
mod key_frame;
mod kv;
mod labels;
mod plan;
mod session;
mod weights;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use inwarden_kernels::{KvShape, KvType};

use self::{
    arena::Arena,
    forward::Network,
    kv::{BlockShape, Identity, ModelIdentity},
    plan::Chain,
    weights::{Layers, Loaded},
};
use crate::{
    config::{KeyValueForm, LoadOptions, ModelConfig, WeightForm},
    error::InferenceError,
    linear::Workers,
    tokenizer::{TokenId, Tokenizer},
};

pub(crate) use self::{
    constrained::write,
    generate::generate,
    session::{Decode, Sequence},
};
pub use self::{
    constrained::{ConstrainedLimits, ConstrainedOutput, Ended},
    generate::{GenerateOptions, Sampling},
    hidden::{HiddenRequest, Pooling},
    kv::{Prefix, PrefixCache, PrefixCacheCounters, Prior, SavedPrefix},
    labels::{LabelRequest, LabelScores, PreparedLabels},
    session::Session,
};

/// Rows that go through the layers at once where a pass may be split.
///
/// More would take memory and gain no speed: with so many, reading the weights
/// costs a few percent of the products.
const MAX_PASS_ROWS: usize = 512;

/// A loaded Qwen2 model; the weights are shared by all calls on it.
///
/// Calls may come from many threads at once; they take turns on the model's own
/// worker threads. In a forked child, which has none of these, calls that compute
/// give [`InferenceError::ForkedProcess`].
pub struct Qwen2 {
    config: ModelConfig,
    tokenizer: Tokenizer,
    layers: Layers,
    workers: Workers,
    form: WeightForm,
    max_context_tokens: usize,
    kv: BlockShape,
    identity: Identity,
    arena: Mutex<Arena>,
    /// The process that has the workers.
    process: u32,
}

impl Qwen2 {
    /// Loads GGUF files, one or the parts of a split one in their order, or a
    /// single directory with `config.json`, `tokenizer.json` and safetensors.
    ///
    /// The files are read, never mapped: a file that shrinks meanwhile is an error.
    ///
    /// # Errors
    /// [`InferenceError::Io`], [`InferenceError::Corrupt`] for a file that is
    /// not a Qwen2 model in every detail, [`InferenceError::Threads`],
    /// [`InferenceError::InvalidOption`].
    pub fn load(files: &[PathBuf], options: &LoadOptions) -> Result<Self, InferenceError> {
        weights::load(files, options)
    }

    fn new(loaded: Loaded, config: ModelConfig, tokenizer: Tokenizer, workers: Workers) -> Self {
        let kv_type = loaded.kv_type;
        let kv = BlockShape {
            layer: KvShape {
                n_kv_heads: config.num_key_value_heads,
                head_dim: config.head_dim(),
                kv_type,
            },
            n_layers: config.num_hidden_layers,
        };
        let identity = ModelIdentity {
            fingerprint: loaded.fingerprint,
            format: format!(
                "weights {:?}, inputs by size, kernels {}, keys and values {kv_type:?}, \
                 {} layers of {} heads of {}, rotary base {}",
                loaded.form,
                workers.variant.name(),
                kv.n_layers,
                kv.layer.n_kv_heads,
                kv.layer.head_dim,
                config.rope_theta,
            ),
        };
        Self {
            arena: Mutex::new(Arena::new(loaded.form, kv.clone())),
            process: std::process::id(),
            identity: Arc::new(identity),
            form: loaded.form,
            max_context_tokens: loaded.max_context_tokens,
            layers: loaded.layers,
            config,
            tokenizer,
            workers,
            kv,
        }
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

    /// How the weights are kept; what [`WeightForm::Compact`] came to.
    #[must_use]
    pub fn weight_form(&self) -> WeightForm {
        self.form
    }

    /// How keys and values are kept.
    #[must_use]
    pub fn key_value_form(&self) -> KeyValueForm {
        match self.kv.layer.kv_type {
            KvType::F32 => KeyValueForm::F32,
            KvType::Bf16 => KeyValueForm::Bf16,
            KvType::Int8 => KeyValueForm::Int8,
        }
    }

    /// The instruction set that its kernels use, for example `avx2`.
    #[must_use]
    pub fn instruction_set(&self) -> &'static str {
        self.workers.variant.name()
    }

    /// Memory of the weights, in bytes.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.layers.size_bytes()
    }

    /// Runs `tokens` through all layers and keeps their keys and values (prefill).
    ///
    /// # Errors
    /// [`InferenceError::ContextOverflow`], [`InferenceError::UnknownToken`],
    /// [`InferenceError::NotFinite`].
    pub fn prefix(&self, tokens: &[TokenId]) -> Result<Prefix, InferenceError> {
        let nothing = Prefix::new(Vec::new(), Vec::new(), &self.identity);
        self.extend(&nothing, tokens)
    }

    /// A longer prefix; `prefix` itself stays as it is.
    ///
    /// # Errors
    /// [`InferenceError::ContextOverflow`], [`InferenceError::UnknownToken`],
    /// [`InferenceError::ForeignPrefix`], [`InferenceError::NotFinite`].
    pub fn extend(&self, prefix: &Prefix, tokens: &[TokenId]) -> Result<Prefix, InferenceError> {
        self.check_room(Some(prefix), tokens.len())?;
        self.check_tokens(tokens)?;
        if tokens.is_empty() {
            return Ok(prefix.clone());
        }
        let mut chain = Chain::default();
        chain.begin(prefix.blocks(), prefix.len(), &mut self.arena().spare);
        for tokens in tokens.chunks(MAX_PASS_ROWS) {
            self.append(&mut self.arena(), &mut chain, tokens, Append::Silent)?;
        }
        let tokens = [prefix.tokens(), tokens].concat();
        Ok(Prefix::new(tokens, chain.into_blocks(), &self.identity))
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
        let mut session = self.session(prefix)?;
        session.advance(tokens)?;
        Ok(session.into_logits())
    }

    /// Keeps `prefix`, and `prior` with it, in a file that only its owner may
    /// read; it takes the place of an older one at once or not at all.
    ///
    /// # Errors
    /// [`InferenceError::NoFingerprint`] if the model was loaded without one,
    /// [`InferenceError::ForeignPrefix`], [`InferenceError::Io`].
    pub fn save_prefix(
        &self,
        prefix: &Prefix,
        prior: Option<&Prior>,
        path: &Path,
    ) -> Result<(), InferenceError> {
        self.check_room(Some(prefix), 0)?;
        kv::save(&self.identity, prefix, prior, path)
    }

    /// Reads what [`Self::save_prefix`] has kept.
    ///
    /// # Errors
    /// [`InferenceError::OtherPrefixFormat`] if the file is of another model,
    /// another form of its weights, another instruction set or another version;
    /// [`InferenceError::Corrupt`] if it is damaged,
    /// [`InferenceError::ContextOverflow`] if the prefix is too long for this
    /// load, [`InferenceError::NoFingerprint`], [`InferenceError::Io`].
    pub fn load_prefix(&self, path: &Path) -> Result<SavedPrefix, InferenceError> {
        let saved = kv::load(&self.identity, &self.kv, self.max_context_tokens, path)?;
        self.check_tokens(saved.prefix.tokens())?;
        Ok(saved)
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Checks the arguments of a call that needs a last token.
    fn check_call(
        &self,
        prefix: Option<&Prefix>,
        tokens: &[TokenId],
    ) -> Result<(), InferenceError> {
        self.check_room(prefix, tokens.len())?;
        self.check_tokens(tokens)?;
        if tokens.is_empty() {
            return Err(InferenceError::Empty { what: "tokens" });
        }
        Ok(())
    }

    fn check_room(&self, prefix: Option<&Prefix>, n_tokens: usize) -> Result<(), InferenceError> {
        if let Some(prefix) = prefix
            && !prefix.belongs_to(&self.identity)
        {
            return Err(InferenceError::ForeignPrefix);
        }
        self.check_positions(prefix.map_or(0, Prefix::len).saturating_add(n_tokens))
    }

    /// That this process loaded the model: in a forked child another thread may
    /// hold [`Self::arena`] for ever.
    fn check_process(&self) -> Result<(), InferenceError> {
        let (started, process) = (self.process, std::process::id());
        if process == started {
            return Ok(());
        }
        Err(InferenceError::ForkedProcess { started, process })
    }

    fn check_positions(&self, positions: usize) -> Result<(), InferenceError> {
        self.check_process()?;
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

    /// The memory of passes; whoever holds it computes.
    ///
    /// A pass that panicked leaves nothing that the next one reads.
    fn arena(&self) -> MutexGuard<'_, Arena> {
        self.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn network(&self) -> Network<'_> {
        Network {
            config: &self.config,
            layers: &self.layers,
            workers: &self.workers,
            kv: &self.kv.layer,
        }
    }

    /// Runs `tokens`, not empty, behind `chain`.
    ///
    /// # Errors
    /// As for [`Network::run`]; `chain` is empty then.
    fn append(
        &self,
        arena: &mut Arena,
        chain: &mut Chain,
        tokens: &[TokenId],
        append: Append<'_>,
    ) -> Result<(), InferenceError> {
        arena.plan.clear();
        arena
            .plan
            .begin_sequence(chain, tokens.len(), &mut arena.spare);
        arena.plan.push_run(tokens);
        if matches!(append, Append::Logits(_)) {
            arena.plan.wanted.push(tokens.len() - 1);
        }
        self.network().run(arena)?;
        arena.plan.end_sequence(chain, tokens.len());
        if let Append::Logits(logits) = append {
            let network = self.network();
            let hidden = &arena.activations.hidden;
            network.head(
                &mut arena.activations.input,
                hidden,
                &self.layers.head,
                logits,
            )?;
            forward::finite(logits, "logits")?;
        }
        Ok(())
    }
}

/// What is wanted of tokens that go behind others.
enum Append<'a> {
    /// Their keys and values alone.
    Silent,
    /// The logits after the last one, `(vocab_size,)`, too.
    Logits(&'a mut Vec<f32>),
}
