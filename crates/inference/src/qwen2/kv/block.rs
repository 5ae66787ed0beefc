//! Blocks: the keys and values of 64 positions in all layers.

use inwarden_kernels::{KvBlock, KvShape};

/// What all blocks of a model have in common.
#[derive(Clone, Debug)]
pub(in crate::qwen2) struct BlockShape {
    pub(in crate::qwen2) layer: KvShape,
    pub(in crate::qwen2) n_layers: usize,
}

/// Keys and values of [`inwarden_kernels::KV_BLOCK`] positions in every layer.
#[derive(Debug)]
pub(in crate::qwen2) struct Block {
    layers: Vec<KvBlock>,
}

impl Block {
    /// All zeros.
    pub(in crate::qwen2) fn new(shape: &BlockShape) -> Self {
        let layers = (0..shape.n_layers).map(|_| KvBlock::new(&shape.layer));
        Self {
            layers: layers.collect(),
        }
    }

    pub(super) fn from_layers(layers: Vec<KvBlock>) -> Self {
        Self { layers }
    }

    pub(in crate::qwen2) fn layer(&self, layer_idx: usize) -> &KvBlock {
        &self.layers[layer_idx]
    }

    pub(in crate::qwen2) fn layer_mut(&mut self, layer_idx: usize) -> &mut KvBlock {
        &mut self.layers[layer_idx]
    }

    pub(super) fn layers(&self) -> &[KvBlock] {
        &self.layers
    }

    /// Makes the first `n_slots` slots those of `other`.
    pub(in crate::qwen2) fn copy_slots_from(&mut self, other: &Self, n_slots: usize) {
        for (layer, other) in self.layers.iter_mut().zip(&other.layers) {
            layer.copy_slots_from(other, n_slots);
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.layers.iter().map(KvBlock::size_bytes).sum()
    }
}

/// Blocks that no sequence uses, kept for the next one.
///
/// Their slots hold what the last user stored; whoever takes one stores a slot
/// before it is read.
#[derive(Debug)]
pub(in crate::qwen2) struct SpareBlocks {
    shape: BlockShape,
    spare: Vec<Block>,
}

impl SpareBlocks {
    pub(in crate::qwen2) fn new(shape: BlockShape) -> Self {
        Self {
            shape,
            spare: Vec::new(),
        }
    }

    /// A spare block; a new one if there is none.
    pub(in crate::qwen2) fn take(&mut self) -> Block {
        self.spare.pop().unwrap_or_else(|| Block::new(&self.shape))
    }

    pub(in crate::qwen2) fn give_back(&mut self, blocks: impl IntoIterator<Item = Block>) {
        self.spare.extend(blocks);
    }
}
