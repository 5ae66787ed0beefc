//! The embedder as this crate needs it; the adapter lives with a caller.

/// Turns texts into vectors whose cosine similarity is nearness of meaning.
pub trait Embed: Send + Sync {
    /// The length of every vector, at least 1.
    fn dimension(&self) -> usize;

    /// Names the embedder so precisely that equal names give equal vectors
    /// (model id, revision, pooling). A store remembers it and refuses another.
    fn identity(&self) -> String;

    /// Embeds `texts` in order.
    ///
    /// Returns one vector of [`Embed::dimension`] finite values a text, not all
    /// zero; their length does not matter, since the score is the cosine.
    ///
    /// # Errors
    /// [`EmbedError`] if the texts cannot be embedded.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError>;
}

/// An embedder could not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("embedder {embedder} failed: {reason}")]
pub struct EmbedError {
    /// The identity of the embedder.
    pub embedder: String,
    /// What it said; never a text it was given.
    pub reason: String,
}
