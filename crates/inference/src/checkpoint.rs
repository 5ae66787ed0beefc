//! A Qwen2 model as it lies on disk: its shape, its tokenizer and its tensors.

use std::path::{Path, PathBuf};

use crate::{
    config::ModelConfig,
    error::{Fault, InferenceError},
    gguf::Weights,
    huggingface::Directory,
    tensor_source::{EMBEDDINGS, HEAD, TensorSource},
    tokenizer::Tokenizer,
};

/// An open model, of which nothing large has been read yet.
pub(crate) enum Checkpoint {
    Gguf {
        weights: Weights,
        config: ModelConfig,
    },
    Directory(Directory),
}

impl Checkpoint {
    /// Opens GGUF files, one or the parts of a split one in their order, or a
    /// single directory in the layout of `transformers`.
    pub(crate) fn open(files: &[PathBuf]) -> Result<Self, InferenceError> {
        if let [dir] = files
            && dir.is_dir()
        {
            return Directory::open(dir).map(Self::Directory);
        }
        let weights = Weights::open(files)?;
        let embeddings = weights
            .find(EMBEDDINGS)?
            .ok_or_else(|| Fault::missing(EMBEDDINGS).in_file(weights.path()))?;
        let tied = weights.find(HEAD)?.is_none();
        let config = ModelConfig::from_metadata(&weights.metadata(), embeddings.n_rows(), tied)
            .map_err(|fault| fault.in_file(weights.path()))?;
        Ok(Self::Gguf { weights, config })
    }

    pub(crate) fn config(&self) -> &ModelConfig {
        match self {
            Self::Gguf { config, .. } => config,
            Self::Directory(dir) => dir.config(),
        }
    }

    /// The tensors under the names that GGUF gives them.
    pub(crate) fn tensors(&self) -> &dyn TensorSource {
        match self {
            Self::Gguf { weights, .. } => weights,
            Self::Directory(dir) => dir,
        }
    }

    /// Builds the tokenizer; takes long, and needs no weights.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, InferenceError> {
        let (tokenizer, path) = match self {
            Self::Gguf { weights, .. } => {
                let tokenizer = Tokenizer::from_metadata(&weights.metadata());
                let in_file = |fault: Fault| fault.in_file(weights.path());
                (tokenizer.map_err(in_file)?, weights.path())
            }
            Self::Directory(dir) => (dir.tokenizer()?, dir.tokenizer_path()),
        };
        self.check(&tokenizer, path)?;
        Ok(tokenizer)
    }

    fn check(&self, tokenizer: &Tokenizer, path: &Path) -> Result<(), InferenceError> {
        let (vocab_size, n_tokens) = (self.config().vocab_size, tokenizer.n_tokens());
        if n_tokens > vocab_size {
            let expected = format!("at most {vocab_size} tokens, the rows of the embeddings");
            return Err(Fault::unexpected("vocabulary", expected, n_tokens).in_file(path));
        }
        Ok(())
    }
}
