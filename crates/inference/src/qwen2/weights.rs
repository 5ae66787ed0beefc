//! Loads the layers from a GGUF file.

use std::path::PathBuf;

use inwarden_kernels::{KvType, Pool, RmsNorm, RotaryTable, Variant};

use super::{Qwen2, embeddings::Embeddings, key_frame::KeyFrame};
use crate::{
    checkpoint::Checkpoint,
    config::{Fingerprint, KeyValueForm, LoadOptions, ModelConfig, WeightForm},
    error::InferenceError,
    linear::{Linear, Workers},
    tensor_source::{EMBEDDINGS, HEAD, TensorSource},
};

pub(super) struct Layers {
    pub(super) embeddings: Embeddings,
    pub(super) rotary: RotaryTable,
    pub(super) decoder: Vec<DecoderLayer>,
    pub(super) final_norm: Norm,
    /// `(vocab_size, hidden_size)`.
    pub(super) head: Linear,
}

/// One decoder layer; shapes are `(n_out, n_in)`.
pub(super) struct DecoderLayer {
    pub(super) attention_norm: Norm,
    /// `(hidden_size, hidden_size)`, with bias.
    pub(super) query: Biased,
    /// `(key_value_width, hidden_size)`, with bias.
    pub(super) key: Biased,
    /// How keys are kept after they have been turned.
    pub(super) key_frame: KeyFrame,
    /// `(key_value_width, hidden_size)`, with bias.
    pub(super) value: Biased,
    /// `(hidden_size, hidden_size)`.
    pub(super) output: Linear,
    pub(super) mlp_norm: Norm,
    /// `(intermediate_size, hidden_size)`.
    pub(super) gate: Linear,
    /// `(intermediate_size, hidden_size)`.
    pub(super) up: Linear,
    /// `(hidden_size, intermediate_size)`.
    pub(super) down: Linear,
}

/// What comes before some products.
pub(super) struct Norm {
    /// `(hidden_size,)`.
    pub(super) weight: Vec<f32>,
    eps: f32,
    /// The order of the inputs of the products, see [`RmsNorm`].
    order: Option<Vec<u32>>,
}

impl Norm {
    pub(super) fn view(&self) -> RmsNorm<'_> {
        RmsNorm {
            weight: &self.weight,
            eps: self.eps,
            order: self.order.as_deref(),
        }
    }
}

pub(super) struct Biased {
    pub(super) weights: Linear,
    pub(super) bias: Vec<f32>,
}

/// Models narrower than this are kept in 8 bits: they have little to lose in
/// memory and much in accuracy.
const MIN_COMPACT_HIDDEN_SIZE: usize = 1024;

impl Layers {
    /// Memory of all weights, in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        let layers = self.decoder.iter().map(|layer| {
            [
                &layer.query.weights,
                &layer.key.weights,
                &layer.value.weights,
                &layer.output,
                &layer.gate,
                &layer.up,
                &layer.down,
            ]
            .map(Linear::size_bytes)
            .iter()
            .sum::<usize>()
        });
        layers.sum::<usize>() + self.head.size_bytes()
    }
}

pub(super) fn load(files: &[PathBuf], options: &LoadOptions) -> Result<Qwen2, InferenceError> {
    let workers = workers(options)?;
    let checkpoint = Checkpoint::open(files)?;
    let config = checkpoint.config();
    let max_context_tokens = options
        .max_context_tokens
        .min(config.max_position_embeddings);
    let loader = Loader {
        weights: checkpoint.tensors(),
        config,
        form: effective_form(options.weight_form, config),
        kv_type: key_value_form(options).kv_type(),
        workers: &workers,
    };
    // Reading the vocabulary takes one thread long enough to be worth another.
    let (layers, tokenizer) = std::thread::scope(|scope| {
        let tokenizer = scope.spawn(|| checkpoint.tokenizer());
        let layers = loader.layers(max_context_tokens);
        (layers, tokenizer.join())
    });
    let loaded = Loaded {
        form: loader.form,
        kv_type: loader.kv_type,
        max_context_tokens,
        fingerprint: options.fingerprint,
        layers: layers?,
    };
    let tokenizer = tokenizer.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(Qwen2::new(loaded, config.clone(), tokenizer, workers))
}

/// What [`Qwen2::new`] is made of, besides what describes the model.
pub(super) struct Loaded {
    pub(super) form: WeightForm,
    pub(super) kv_type: KvType,
    pub(super) max_context_tokens: usize,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) layers: Layers,
}

fn workers(options: &LoadOptions) -> Result<Workers, InferenceError> {
    let variant = match &options.instruction_set {
        None => Variant::detect(),
        Some(name) => Variant::named(name).ok_or_else(|| InferenceError::InvalidOption {
            name: "instruction_set",
            allowed: "one that this processor has",
            value: name.clone(),
        })?,
    };
    let threads = options.threads;
    let pool = Pool::new(threads, "inference");
    let pool = pool.map_err(|error| no_threads(options, &error))?;
    let f32_pool = match options.weight_form {
        WeightForm::F32 => Some(f32_pool(options)?),
        WeightForm::Compact | WeightForm::Int8 => None,
    };
    Ok(Workers {
        pool,
        variant,
        f32_pool,
    })
}

fn f32_pool(options: &LoadOptions) -> Result<rayon::ThreadPool, InferenceError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads.get())
        .thread_name(|thread_idx| format!("inference-f32-{thread_idx}"))
        .build()
        .map_err(|error| no_threads(options, &error))
}

fn no_threads(options: &LoadOptions, error: &impl std::fmt::Display) -> InferenceError {
    InferenceError::Threads {
        threads: options.threads.get(),
        detail: error.to_string(),
    }
}

fn effective_form(form: WeightForm, config: &ModelConfig) -> WeightForm {
    match form {
        WeightForm::Compact if config.hidden_size < MIN_COMPACT_HIDDEN_SIZE => WeightForm::Int8,
        form => form,
    }
}

fn key_value_form(options: &LoadOptions) -> KeyValueForm {
    options.key_value_form.unwrap_or(match options.weight_form {
        WeightForm::F32 => KeyValueForm::F32,
        WeightForm::Compact | WeightForm::Int8 => KeyValueForm::Bf16,
    })
}

struct Loader<'a> {
    weights: &'a dyn TensorSource,
    config: &'a ModelConfig,
    form: WeightForm,
    kv_type: KvType,
    workers: &'a Workers,
}

impl Loader<'_> {
    fn layers(&self, max_context_tokens: usize) -> Result<Layers, InferenceError> {
        let config = self.config;
        let table_shape = [config.vocab_size, config.hidden_size];
        let embeddings = self.weights.tensor(EMBEDDINGS, &table_shape)?;
        let head_name = match config.tie_word_embeddings {
            true => EMBEDDINGS,
            false => HEAD,
        };
        let decoder = (0..config.num_hidden_layers).map(|layer_idx| self.decoder_layer(layer_idx));
        let final_norm = self.norm("output_norm.weight")?;
        Ok(Layers {
            decoder: decoder.collect::<Result<_, _>>()?,
            head: self.linear(head_name, table_shape, Some(&final_norm))?,
            final_norm,
            embeddings: Embeddings::new(embeddings),
            rotary: RotaryTable::new(
                config.head_dim(),
                f64::from(config.rope_theta),
                max_context_tokens,
            ),
        })
    }

    fn decoder_layer(&self, layer_idx: usize) -> Result<DecoderLayer, InferenceError> {
        let name = |part: &str| format!("blk.{layer_idx}.{part}");
        let hidden = self.config.hidden_size;
        let key_value = self.config.key_value_width();
        let intermediate = self.config.intermediate_size;
        let attention_norm = self.norm(&name("attn_norm.weight"))?;
        let mlp_norm = self.norm(&name("ffn_norm.weight"))?;
        let key = self.biased(&name("attn_k"), [key_value, hidden], &attention_norm)?;
        Ok(DecoderLayer {
            query: self.biased(&name("attn_q"), [hidden, hidden], &attention_norm)?,
            key_frame: self.key_frame(&name("attn_k.weight"), &key.bias, &attention_norm)?,
            key,
            value: self.biased(&name("attn_v"), [key_value, hidden], &attention_norm)?,
            output: self.linear(&name("attn_output.weight"), [hidden, hidden], None)?,
            gate: self.linear(
                &name("ffn_gate.weight"),
                [intermediate, hidden],
                Some(&mlp_norm),
            )?,
            up: self.linear(
                &name("ffn_up.weight"),
                [intermediate, hidden],
                Some(&mlp_norm),
            )?,
            down: self.linear(&name("ffn_down.weight"), [hidden, intermediate], None)?,
            attention_norm,
            mlp_norm,
        })
    }

    /// `name`: of the keys' weights, which come after `norm`.
    fn key_frame(&self, name: &str, bias: &[f32], norm: &Norm) -> Result<KeyFrame, InferenceError> {
        let frame = KeyFrame::new(bias, self.config);
        match self.kv_type {
            KvType::Bf16 | KvType::F32 => Ok(frame),
            KvType::Int8 => {
                let shape = [bias.len(), self.config.hidden_size];
                let weights = self.weights.tensor(name, &shape)?.to_f32()?;
                Ok(frame.with_sizes(bias, &weights, &norm.weight, self.config))
            }
        }
    }

    fn norm(&self, name: &str) -> Result<Norm, InferenceError> {
        let weight = self.weights.vector(name, self.config.hidden_size)?;
        Ok(Norm {
            order: match self.form {
                WeightForm::Int8 => Some(by_size(&weight)),
                // Q4_K stays as it is in the file, and f32 shares no scales.
                WeightForm::Compact | WeightForm::F32 => None,
            },
            weight,
            eps: self.config.rms_norm_eps,
        })
    }

    /// `after`: the norm that makes the inputs.
    fn linear(
        &self,
        name: &str,
        shape: [usize; 2],
        after: Option<&Norm>,
    ) -> Result<Linear, InferenceError> {
        let tensor = self.weights.tensor(name, &shape)?;
        let order = after.and_then(|norm| norm.order.as_deref());
        Linear::load(&tensor, self.form, order, self.workers)
    }

    fn biased(
        &self,
        name: &str,
        shape: [usize; 2],
        after: &Norm,
    ) -> Result<Biased, InferenceError> {
        Ok(Biased {
            weights: self.linear(&format!("{name}.weight"), shape, Some(after))?,
            bias: self.weights.vector(&format!("{name}.bias"), shape[0])?,
        })
    }
}

/// The inputs by the size of their weights.
///
/// A norm is trained to scale the few inputs that are always large down, so that
/// this brings them into one group, and the groups' scales are near to what is
/// in them: the error of the log-odds of labels halves.
fn by_size(weight: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..).take(weight.len()).collect();
    order.sort_by(|&a, &b| {
        let [a, b] = [a, b].map(|idx| weight[idx as usize].abs());
        a.total_cmp(&b)
    });
    order
}
