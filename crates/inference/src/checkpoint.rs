//! A Qwen2 model as it lies on disk: its shape, its tokenizer and its tensors.

use std::path::PathBuf;

use crate::{
    config::ModelConfig,
    error::{Fault, InferenceError},
    gguf::Weights,
    tensor_source::{EMBEDDINGS, HEAD, TensorSource},
    tokenizer::Tokenizer,
};

/// An open model, of which nothing large has been read yet.
pub(crate) struct Checkpoint {
    weights: Weights,
    config: ModelConfig,
}

impl Checkpoint {
    /// Opens GGUF files: one, or the parts of a split one in their order.
    pub(crate) fn open(files: &[PathBuf]) -> Result<Self, InferenceError> {
        let weights = Weights::open(files)?;
        let embeddings = weights
            .find(EMBEDDINGS)?
            .ok_or_else(|| Fault::missing(EMBEDDINGS).in_file(weights.path()))?;
        let tied = weights.find(HEAD)?.is_none();
        let config = ModelConfig::from_metadata(&weights.metadata(), embeddings.n_rows(), tied)
            .map_err(|fault| fault.in_file(weights.path()))?;
        Ok(Self { weights, config })
    }

    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The tensors under the names that GGUF gives them.
    pub(crate) fn tensors(&self) -> &dyn TensorSource {
        &self.weights
    }

    /// Builds the tokenizer; takes long, and needs no weights.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, InferenceError> {
        let tokenizer = Tokenizer::from_metadata(&self.weights.metadata());
        tokenizer
            .and_then(|tokenizer| self.check(tokenizer))
            .map_err(|fault| fault.in_file(self.weights.path()))
    }

    fn check(&self, tokenizer: Tokenizer) -> Result<Tokenizer, Fault> {
        let vocab_size = self.config.vocab_size;
        if tokenizer.n_tokens() > vocab_size {
            let expected = format!("at most {vocab_size} tokens, the rows of {EMBEDDINGS}");
            let found = tokenizer.n_tokens();
            return Err(Fault::unexpected("tokenizer.ggml.tokens", expected, found));
        }
        Ok(tokenizer)
    }
}
