//! A run of tokens with its keys and values, shared and unchanging.

use std::sync::Arc;

use inwarden_kernels::KV_BLOCK;

use super::block::Block;
use crate::{config::Fingerprint, tokenizer::TokenId};

/// Which model computed something, and in which form.
///
/// Two loads of the same file are two identities in memory; on disk
/// `fingerprint` and the rest stand for the model.
#[derive(Debug)]
pub(in crate::qwen2) struct ModelIdentity {
    /// Of the weights, if the caller has given it.
    pub(in crate::qwen2) fingerprint: Option<Fingerprint>,
    /// Weight form, kernel variant, type of the keys and values, and shape: all
    /// that decides the numbers besides the weights.
    pub(in crate::qwen2) format: String,
}

pub(in crate::qwen2) type Identity = Arc<ModelIdentity>;

/// The keys and values of a run of tokens, to put other tokens behind it.
///
/// Cheap to clone; never changes. Prefixes that begin alike may share memory:
/// those that one is extended from, and those out of a
/// [`PrefixCache`](super::PrefixCache).
#[derive(Clone)]
pub struct Prefix {
    content: Arc<Content>,
}

struct Content {
    tokens: Vec<TokenId>,
    /// As many as `tokens` need. Of the last one, only the slots of `tokens`
    /// count; others may hold the continuation of another sequence.
    blocks: Vec<Arc<Block>>,
    model: Identity,
}

impl Prefix {
    pub(in crate::qwen2) fn new(
        tokens: Vec<TokenId>,
        blocks: Vec<Arc<Block>>,
        model: &Identity,
    ) -> Self {
        debug_assert_eq!(blocks.len(), tokens.len().div_ceil(KV_BLOCK));
        let content = Content {
            tokens,
            blocks,
            model: Arc::clone(model),
        };
        Self {
            content: Arc::new(content),
        }
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.content.tokens.len()
    }

    /// Whether it holds no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.content.tokens.is_empty()
    }

    /// The tokens, in their order.
    #[must_use]
    pub fn tokens(&self) -> &[TokenId] {
        &self.content.tokens
    }

    /// Memory of its keys and values, in bytes, whether shared or not.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let blocks = self.content.blocks.iter();
        blocks.map(|block| block.size_bytes()).sum()
    }

    pub(in crate::qwen2) fn belongs_to(&self, model: &Identity) -> bool {
        Arc::ptr_eq(&self.content.model, model)
    }

    pub(in crate::qwen2) fn blocks(&self) -> &[Arc<Block>] {
        &self.content.blocks
    }
}

impl std::fmt::Debug for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prefix")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
