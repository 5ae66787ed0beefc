//! The model's shape and how to load it.

use std::{num::NonZeroUsize, path::PathBuf};

use inwarden_kernels::{KvType, Variant};
use sha2::{Digest, Sha256};

use crate::{
    error::{Corruption, Fault, InferenceError},
    gguf::Metadata,
};

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Worker threads of this model.
    pub threads: NonZeroUsize,
    /// Positions that prefix and text may take together; the model's own
    /// context length is the limit where it is smaller.
    pub max_context_tokens: usize,
    /// How the weights are kept in memory.
    pub weight_form: WeightForm,
    /// How keys and values are kept. `None`: as bf16; as f32 with
    /// [`WeightForm::F32`].
    pub key_value_form: Option<KeyValueForm>,
    /// Which weights these are; needed to save and load prefixes, and not
    /// otherwise.
    pub fingerprint: Option<Fingerprint>,
    /// The instruction set of the kernels: `avx512-vnni-bf16`, `avx512-vnni`,
    /// `avx-vnni`, `avx2` or `scalar`. `None`: the fastest that the processor
    /// has, the first of [`Self::instruction_sets`].
    pub instruction_set: Option<String>,
}

impl LoadOptions {
    /// What [`Self::instruction_set`] may be on this processor, fastest first.
    #[must_use]
    pub fn instruction_sets() -> Vec<&'static str> {
        let variants = Variant::available();
        variants.into_iter().map(Variant::name).collect()
    }
}

/// How weights are kept in memory, once and for all products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightForm {
    /// What is 4 bits in the file (Q4_K) stays so, exactly, with about 0.59 bytes
    /// a weight; all else as [`Self::Int8`]. Models with a hidden size below
    /// 1,024 are kept as [`Self::Int8`] altogether: they have little memory to
    /// save and much accuracy to lose.
    Compact,
    /// Quantised again, to int8 with a scale per 128 inputs, about 1.03 bytes a
    /// weight. Activations are quantised likewise in each product, here and in
    /// [`Self::Compact`].
    Int8,
    /// Expanded to f32, keys and values too unless the caller wants these
    /// otherwise: exact, for tests and comparisons.
    /// 4 bytes a weight. Its products run on the tensor library.
    F32,
}

/// How keys and values are kept, in prefixes and in whatever goes behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyValueForm {
    /// As computed: 4 bytes a number.
    F32,
    /// Rounded to 8 significant bits: 2 bytes a number.
    Bf16,
    /// Rounded to a byte, with a scale for each position, layer and head: 53 % of
    /// the memory of [`Self::Bf16`] with 64 dimensions a head, 52 % with 128. Costs
    /// some accuracy, and time where few rows are computed at once.
    Int8,
}

impl KeyValueForm {
    pub(crate) fn kv_type(self) -> KvType {
        match self {
            Self::F32 => KvType::F32,
            Self::Bf16 => KvType::Bf16,
            Self::Int8 => KvType::Int8,
        }
    }
}

/// Stands for the weights of a model: equal ones have the same, others not.
///
/// Usually the SHA-256 of the model file, which the caller knows anyway.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The SHA-256 of the contents of `files` one behind the other. Reads all of
    /// them, half a second for each gigabyte.
    ///
    /// # Errors
    /// [`InferenceError::Io`].
    pub fn of_files(files: &[PathBuf]) -> Result<Self, InferenceError> {
        let mut hash = Sha256::new();
        for path in files {
            std::fs::File::open(path)
                .and_then(|mut file| std::io::copy(&mut file, &mut hash))
                .map_err(|source| InferenceError::Io {
                    path: path.clone(),
                    source,
                })?;
        }
        Ok(Self(hash.finalize().into()))
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Default for LoadOptions {
    /// All processors, 4,096 positions, compact weights, bf16 keys and values, the
    /// fastest kernels.
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            max_context_tokens: 4096,
            weight_form: WeightForm::Compact,
            key_value_form: None,
            fingerprint: None,
            instruction_set: None,
        }
    }
}

/// The shape of a Qwen2 model, under the names of its `config.json`.
///
/// Source: `Qwen/Qwen2.5-0.5B-Instruct`, `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Rows of the embedding table, token ids from 0.
    pub vocab_size: usize,
    /// The most positions the model was trained for.
    pub max_position_embeddings: usize,
    /// Added to the mean square in `RMSNorm`.
    pub rms_norm_eps: f32,
    /// Base of the rotary angles.
    pub rope_theta: f32,
    /// Whether the head uses the embedding table.
    pub tie_word_embeddings: bool,
}

/// No Qwen2 comes near; keeps products of two sizes far from overflow.
const MAX_SIZE: u64 = 1 << 20;

impl ModelConfig {
    /// Width of one attention head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Width of all key heads together.
    pub(crate) fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim()
    }

    pub(crate) fn from_metadata(
        metadata: &Metadata<'_>,
        vocab_size: usize,
        tie_word_embeddings: bool,
    ) -> Result<Self, Fault> {
        let architecture = metadata.text("general.architecture")?;
        if architecture != "qwen2" {
            return Err(Fault::unexpected(
                "general.architecture",
                "qwen2",
                architecture,
            ));
        }
        if let Some(scaling) = metadata.optional_text("qwen2.rope.scaling.type")?
            && scaling != "none"
        {
            return Err(Fault::unexpected(
                "qwen2.rope.scaling.type",
                "none",
                scaling,
            ));
        }
        let config = Self {
            hidden_size: size(metadata, "qwen2.embedding_length")?,
            intermediate_size: size(metadata, "qwen2.feed_forward_length")?,
            num_hidden_layers: size(metadata, "qwen2.block_count")?,
            num_attention_heads: size(metadata, "qwen2.attention.head_count")?,
            num_key_value_heads: size(metadata, "qwen2.attention.head_count_kv")?,
            vocab_size,
            max_position_embeddings: size(metadata, "qwen2.context_length")?,
            rms_norm_eps: positive(metadata, "qwen2.attention.layer_norm_rms_epsilon")?,
            rope_theta: positive(metadata, "qwen2.rope.freq_base")?,
            tie_word_embeddings,
        };
        config.check_heads([
            "qwen2.attention.head_count",
            "qwen2.attention.head_count_kv",
        ])?;
        Ok(config)
    }

    /// The same, if its numbers can be those of a model.
    ///
    /// A fault names the field; [`Self::from_metadata`] names the key instead.
    pub(crate) fn checked(self) -> Result<Self, Fault> {
        for (name, value) in [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            checked_size(value as u64, name)?;
        }
        for (name, value) in [
            ("rms_norm_eps", self.rms_norm_eps),
            ("rope_theta", self.rope_theta),
        ] {
            checked_positive(value, name)?;
        }
        self.check_heads(["num_attention_heads", "num_key_value_heads"])?;
        Ok(self)
    }

    /// `keys` name the number of query and of key-value heads.
    fn check_heads(&self, keys: [&str; 2]) -> Result<(), Fault> {
        let heads = self.num_attention_heads;
        if !self.hidden_size.is_multiple_of(heads) || !self.head_dim().is_multiple_of(2) {
            return Err(Fault::unexpected(
                keys[0],
                format!("a divisor of {} with an even quotient", self.hidden_size),
                heads,
            ));
        }
        if !heads.is_multiple_of(self.num_key_value_heads) {
            return Err(Fault::unexpected(
                keys[1],
                format!("a divisor of {heads}"),
                self.num_key_value_heads,
            ));
        }
        Ok(())
    }
}

fn size(metadata: &Metadata<'_>, key: &str) -> Result<usize, Fault> {
    checked_size(metadata.unsigned(key)?, key)
}

fn checked_size(value: u64, key: &str) -> Result<usize, Fault> {
    if value == 0 {
        return Err(Fault::unexpected(key, "at least 1", 0));
    }
    usize::try_from(value)
        .ok()
        .filter(|_| value <= MAX_SIZE)
        .ok_or_else(|| {
            let limit = MAX_SIZE;
            Fault::new(key, 0, Corruption::OverLimit { value, limit })
        })
}

fn positive(metadata: &Metadata<'_>, key: &str) -> Result<f32, Fault> {
    checked_positive(metadata.float(key)?, key)
}

fn checked_positive(value: f32, key: &str) -> Result<f32, Fault> {
    if !(value.is_finite() && value > 0.0) {
        return Err(Fault::unexpected(key, "a positive number", value));
    }
    Ok(value)
}
