//! MiniLM as the memory's embedder.

use inwarden_inference::Embedder;
use inwarden_memory::{Embed, EmbedError};

/// Adapts [`Embedder`] to [`Embed`].
pub struct MiniLmEmbed {
    embedder: Embedder,
    identity: String,
}

impl MiniLmEmbed {
    /// `model_id` names the weights in [`Embed::identity`].
    #[must_use]
    pub fn new(embedder: Embedder, model_id: &str) -> Self {
        Self {
            embedder,
            identity: format!("{model_id} mean-pooled"),
        }
    }
}

impl Embed for MiniLmEmbed {
    fn dimension(&self) -> usize {
        self.embedder.dimension()
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embedder.embed(texts).map_err(|error| EmbedError {
            embedder: self.identity.clone(),
            reason: error.to_string(),
        })
    }
}
