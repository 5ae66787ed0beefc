//! The weights of a Qwen2 model on a device, and where they come from.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::matrix::{DeviceForm, Matrix, Packed, ProductChoice};
use crate::{config::ModelConfig, error::InferenceError};

/// Where the weights of a model come from, under the names of a GGUF file.
pub(super) trait Weights {
    /// The matrix `name`, `(n_out, n_in)`.
    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Packed, InferenceError>;

    /// The vector `name`, `(len,)`.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, InferenceError>;
}

/// How weights become tensors of a device.
#[derive(Clone, Copy)]
pub(super) struct Loader<'a> {
    pub(super) weights: &'a dyn Weights,
    pub(super) config: &'a ModelConfig,
    pub(super) device: &'a Device,
    pub(super) form: DeviceForm,
    pub(super) choice: ProductChoice,
}

/// One decoder layer; the shapes are those of `qwen2/weights.rs`.
pub(super) struct Layer {
    pub(super) attention_norm: Tensor,
    pub(super) query: Biased,
    pub(super) key: Biased,
    pub(super) value: Biased,
    pub(super) output: Matrix,
    pub(super) mlp_norm: Tensor,
    pub(super) gate: Matrix,
    pub(super) up: Matrix,
    pub(super) down: Matrix,
}

/// A matrix with a bias, `(n_out,)`.
pub(super) struct Biased {
    weights: Matrix,
    bias: Tensor,
}

/// What lies before and behind the layers.
pub(super) struct Ends {
    /// `(vocab_size, hidden_size)`.
    pub(super) embeddings: Arc<Matrix>,
    /// `(hidden_size,)`.
    pub(super) final_norm: Tensor,
    /// `(vocab_size, hidden_size)`; the embeddings if they are tied.
    pub(super) head: Arc<Matrix>,
}

impl Biased {
    /// `x`: `(n_rows, n_in)`; returns `(n_rows, n_out)`, f32.
    pub(super) fn product(&self, x: &Tensor) -> Result<Tensor, InferenceError> {
        Ok(self.weights.product(x)?.broadcast_add(&self.bias)?)
    }
}

impl Layer {
    pub(super) fn size_bytes(&self) -> usize {
        let biased = [&self.query, &self.key, &self.value].map(|biased| &biased.weights);
        let plain = [&self.output, &self.gate, &self.up, &self.down];
        biased
            .into_iter()
            .chain(plain)
            .map(Matrix::size_bytes)
            .sum()
    }
}

impl Loader<'_> {
    pub(super) fn layer(&self, layer_idx: usize) -> Result<Layer, InferenceError> {
        let name = |part: &str| format!("blk.{layer_idx}.{part}");
        let hidden = self.config.hidden_size;
        let key_value = self.config.key_value_width();
        let intermediate = self.config.intermediate_size;
        Ok(Layer {
            attention_norm: self.vector(&name("attn_norm.weight"), hidden)?,
            query: self.biased(&name("attn_q"), [hidden, hidden])?,
            key: self.biased(&name("attn_k"), [key_value, hidden])?,
            value: self.biased(&name("attn_v"), [key_value, hidden])?,
            output: self.matrix(&name("attn_output.weight"), [hidden, hidden])?,
            mlp_norm: self.vector(&name("ffn_norm.weight"), hidden)?,
            gate: self.matrix(&name("ffn_gate.weight"), [intermediate, hidden])?,
            up: self.matrix(&name("ffn_up.weight"), [intermediate, hidden])?,
            down: self.matrix(&name("ffn_down.weight"), [hidden, intermediate])?,
        })
    }

    pub(super) fn ends(&self) -> Result<Ends, InferenceError> {
        let shape = [self.config.vocab_size, self.config.hidden_size];
        let embeddings = Arc::new(self.matrix("token_embd.weight", shape)?);
        let head = match self.config.tie_word_embeddings {
            true => Arc::clone(&embeddings),
            false => Arc::new(self.matrix("output.weight", shape)?),
        };
        Ok(Ends {
            embeddings,
            final_norm: self.vector("output_norm.weight", self.config.hidden_size)?,
            head,
        })
    }

    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Matrix, InferenceError> {
        let packed = self.weights.matrix(name, shape)?;
        Matrix::new(&packed, self.device, self.form, self.choice)
    }

    fn vector(&self, name: &str, len: usize) -> Result<Tensor, InferenceError> {
        let values = self.weights.vector(name, len)?;
        Ok(Tensor::from_vec(values, len, self.device)?)
    }

    fn biased(&self, name: &str, shape: [usize; 2]) -> Result<Biased, InferenceError> {
        Ok(Biased {
            weights: self.matrix(&format!("{name}.weight"), shape)?,
            bias: self.vector(&format!("{name}.bias"), shape[0])?,
        })
    }
}
