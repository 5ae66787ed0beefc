//! The memory of passes: taken once, grown only by a larger pass.

use inwarden_kernels::{KvBlock, Sequence, Visible};

use super::{
    kv::{BlockShape, SpareBlocks},
    plan::{Chain, Plan},
};
use crate::{config::WeightForm, linear::Input};

/// Buffers of one pass at a time.
pub(super) struct Arena {
    pub(super) plan: Plan,
    pub(super) spare: SpareBlocks,
    /// Of the sequence that is being planned.
    pub(super) chain: Chain,
    pub(super) activations: Activations,
    pub(super) lists: Lists,
}

/// All row-major f32 with one row per row of the pass, from the start.
pub(super) struct Activations {
    /// The residual stream, `hidden_size` wide. In the end the wanted rows.
    pub(super) hidden: Vec<f32>,
    pub(super) queries: Vec<f32>,
    pub(super) keys: Vec<f32>,
    pub(super) values: Vec<f32>,
    /// What attention gives, before the output projection.
    pub(super) mixed: Vec<f32>,
    pub(super) input: Input,
    /// What the MLP's gated unit gives.
    pub(super) gated: Input,
    /// One row of `hidden_size` per tap.
    pub(super) taps: Vec<f32>,
    /// Packed embeddings on their way.
    pub(super) packed: Vec<u8>,
    /// Positions of the wanted rows.
    pub(super) positions: Vec<usize>,
    /// The rows that go through the head, before and after it.
    pub(super) head_rows: Vec<f32>,
    pub(super) logits: Vec<f32>,
    pub(super) normalisers: Vec<f64>,
}

/// Lists of references, which are empty between passes and keep their memory.
#[derive(Default)]
pub(super) struct Lists {
    blocks: Vec<&'static KvBlock>,
    visible: Vec<Visible<'static>>,
    sequences: Vec<Sequence<'static>>,
}

impl Arena {
    pub(super) fn new(form: WeightForm, shape: BlockShape) -> Self {
        Self {
            plan: Plan::default(),
            spare: SpareBlocks::new(shape),
            chain: Chain::default(),
            activations: Activations {
                hidden: Vec::new(),
                queries: Vec::new(),
                keys: Vec::new(),
                values: Vec::new(),
                mixed: Vec::new(),
                input: Input::new(form),
                gated: Input::new(form),
                taps: Vec::new(),
                packed: Vec::new(),
                positions: Vec::new(),
                head_rows: Vec::new(),
                logits: Vec::new(),
                normalisers: Vec::new(),
            },
            lists: Lists::default(),
        }
    }
}

impl Lists {
    pub(super) fn take_blocks<'a>(&mut self) -> Vec<&'a KvBlock> {
        recycled(std::mem::take(&mut self.blocks))
    }

    pub(super) fn take_visible<'a>(&mut self) -> Vec<Visible<'a>> {
        recycled(std::mem::take(&mut self.visible))
    }

    pub(super) fn take_sequences<'a>(&mut self) -> Vec<Sequence<'a>> {
        recycled(std::mem::take(&mut self.sequences))
    }

    pub(super) fn give_back_blocks(&mut self, blocks: Vec<&KvBlock>) {
        self.blocks = recycled(blocks);
    }

    pub(super) fn give_back_visible(&mut self, visible: Vec<Visible<'_>>) {
        self.visible = recycled(visible);
    }

    pub(super) fn give_back_sequences(&mut self, sequences: Vec<Sequence<'_>>) {
        self.sequences = recycled(sequences);
    }
}

/// An empty list in the memory of another one, whose elements differ in their
/// lifetime alone: collecting in place keeps the memory.
fn recycled<From, To>(mut list: Vec<From>) -> Vec<To> {
    list.clear();
    let nothing = list.into_iter().map(|_| unreachable!("it was cleared"));
    nothing.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_list_keeps_its_memory() {
        let mut lists = Lists::default();
        let beyond = [3];
        let mut visible = lists.take_visible();
        visible.reserve(100);
        visible.push(Visible {
            until: 2,
            beyond: &beyond,
        });
        let (place, capacity) = (visible.as_ptr().addr(), visible.capacity());
        lists.give_back_visible(visible);
        let visible = lists.take_visible();
        assert_eq!((visible.len(), visible.capacity()), (0, capacity));
        assert_eq!(visible.as_ptr().addr(), place);
    }
}
