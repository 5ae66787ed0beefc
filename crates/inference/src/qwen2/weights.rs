//! Loads the layers from a GGUF file.

use std::{path::PathBuf, sync::Arc};

use rayon::prelude::*;

use super::{Identity, Qwen2, attention::RotaryTable};
use crate::{
    checkpoint::Checkpoint,
    config::{LoadOptions, ModelConfig, WeightForm},
    error::InferenceError,
    linear::Linear,
    tensor_source::{EMBEDDINGS, HEAD, StoredTensor, TensorSource},
};

pub(super) struct Layers {
    identity: Identity,
    pub(super) embeddings: StoredTensor,
    pub(super) rotary: RotaryTable,
    pub(super) decoder: Vec<DecoderLayer>,
    /// `(hidden_size,)`.
    pub(super) final_norm: Vec<f32>,
    /// `(vocab_size, hidden_size)`.
    pub(super) head: Linear,
}

/// One decoder layer; shapes are `(n_out, n_in)`.
pub(super) struct DecoderLayer {
    /// `(hidden_size,)`.
    pub(super) attention_norm: Vec<f32>,
    /// `(hidden_size, hidden_size)`, with bias.
    pub(super) query: Biased,
    /// `(key_value_width, hidden_size)`, with bias.
    pub(super) key: Biased,
    /// `(key_value_width, hidden_size)`, with bias.
    pub(super) value: Biased,
    /// `(hidden_size, hidden_size)`.
    pub(super) output: Linear,
    /// `(hidden_size,)`.
    pub(super) mlp_norm: Vec<f32>,
    /// `(intermediate_size, hidden_size)`.
    pub(super) gate: Linear,
    /// `(intermediate_size, hidden_size)`.
    pub(super) up: Linear,
    /// `(hidden_size, intermediate_size)`.
    pub(super) down: Linear,
}

pub(super) struct Biased {
    pub(super) weights: Linear,
    pub(super) bias: Vec<f32>,
}

impl Layers {
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }
}

pub(super) fn load(
    files: &[PathBuf],
    options: &LoadOptions,
    workers: rayon::ThreadPool,
) -> Result<Qwen2, InferenceError> {
    let checkpoint = Checkpoint::open(files)?;
    let (weights, config) = (checkpoint.tensors(), checkpoint.config());
    let max_context_tokens = options
        .max_context_tokens
        .min(config.max_position_embeddings);
    let loader = Loader {
        weights,
        config,
        form: options.weight_form,
    };
    let head_name = if config.tie_word_embeddings {
        EMBEDDINGS
    } else {
        HEAD
    };
    let table_shape = [config.vocab_size, config.hidden_size];
    let embeddings = weights.tensor(EMBEDDINGS, &table_shape)?;
    // Reading the vocabulary takes one thread long enough to be worth a task.
    let (tokenizer, (decoder, head)) = workers.install(|| {
        let decoder = || {
            (0..config.num_hidden_layers)
                .into_par_iter()
                .map(|layer_idx| loader.decoder_layer(layer_idx))
                .collect::<Result<Vec<_>, _>>()
        };
        let head = || loader.linear(head_name, table_shape);
        rayon::join(|| checkpoint.tokenizer(), || rayon::join(decoder, head))
    });
    let (tokenizer, decoder, head) = (tokenizer?, decoder?, head?);
    let final_norm = weights.vector("output_norm.weight", config.hidden_size)?;
    let layers = Layers {
        identity: Arc::new(()),
        embeddings,
        rotary: RotaryTable::new(config.head_dim(), config.rope_theta, max_context_tokens),
        decoder,
        final_norm,
        head,
    };
    Ok(Qwen2 {
        config: config.clone(),
        tokenizer,
        layers,
        workers,
        max_context_tokens,
    })
}

struct Loader<'a> {
    weights: &'a dyn TensorSource,
    config: &'a ModelConfig,
    form: WeightForm,
}

impl Loader<'_> {
    fn decoder_layer(&self, layer_idx: usize) -> Result<DecoderLayer, InferenceError> {
        let name = |part: &str| format!("blk.{layer_idx}.{part}");
        let hidden = self.config.hidden_size;
        let key_value = self.config.key_value_width();
        let intermediate = self.config.intermediate_size;
        Ok(DecoderLayer {
            attention_norm: self.weights.vector(&name("attn_norm.weight"), hidden)?,
            query: self.biased(&name("attn_q"), [hidden, hidden])?,
            key: self.biased(&name("attn_k"), [key_value, hidden])?,
            value: self.biased(&name("attn_v"), [key_value, hidden])?,
            output: self.linear(&name("attn_output.weight"), [hidden, hidden])?,
            mlp_norm: self.weights.vector(&name("ffn_norm.weight"), hidden)?,
            gate: self.linear(&name("ffn_gate.weight"), [intermediate, hidden])?,
            up: self.linear(&name("ffn_up.weight"), [intermediate, hidden])?,
            down: self.linear(&name("ffn_down.weight"), [hidden, intermediate])?,
        })
    }

    fn linear(&self, name: &str, shape: [usize; 2]) -> Result<Linear, InferenceError> {
        let tensor = self.weights.tensor(name, &shape)?;
        Linear::from_file(&tensor, self.form)
    }

    fn biased(&self, name: &str, shape: [usize; 2]) -> Result<Biased, InferenceError> {
        Ok(Biased {
            weights: self.linear(&format!("{name}.weight"), shape)?,
            bias: self.weights.vector(&format!("{name}.bias"), shape[0])?,
        })
    }
}
