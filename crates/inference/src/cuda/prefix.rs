//! A prefix whose keys and values stay on a device.

use std::sync::Arc;

use super::{
    blocks::{BLOCK_SLOTS, Block},
    slab::index,
};
use crate::tokenizer::TokenId;

/// Tokens whose keys and values a device holds, for texts that begin with them.
///
/// Prefixes that begin alike share what they hold. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DevicePrefix {
    tokens: Arc<[TokenId]>,
    /// Position `i` is slot `i % 64` of block `i / 64`.
    blocks: Arc<[Arc<Block>]>,
    /// The model that computed it.
    model: Arc<()>,
}

impl DevicePrefix {
    /// `blocks` hold at least the positions of `tokens`.
    pub(super) fn new(tokens: Vec<TokenId>, blocks: Vec<Arc<Block>>, model: &Arc<()>) -> Self {
        debug_assert_eq!(tokens.len().div_ceil(BLOCK_SLOTS), blocks.len());
        Self {
            tokens: tokens.into(),
            blocks: blocks.into(),
            model: Arc::clone(model),
        }
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether it has no tokens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(super) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    pub(super) fn blocks(&self) -> &[Arc<Block>] {
        &self.blocks
    }

    pub(super) fn belongs_to(&self, model: &Arc<()>) -> bool {
        Arc::ptr_eq(&self.model, model)
    }

    /// The slot of each position.
    pub(super) fn slots(&self) -> Vec<u32> {
        slots(&self.blocks, self.len())
    }

    pub(super) fn same_slots(&self, other: &Self) -> bool {
        let blocks = self.blocks.iter().zip(other.blocks.iter());
        self.len() == other.len() && blocks.into_iter().all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

/// The slots of the first `n_positions` in `blocks`.
pub(super) fn slots(blocks: &[Arc<Block>], n_positions: usize) -> Vec<u32> {
    let slots = (0..n_positions).map(|position| {
        let block = &blocks[position / BLOCK_SLOTS];
        index(block.first_slot() + position % BLOCK_SLOTS)
    });
    slots.collect()
}
