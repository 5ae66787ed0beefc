//! Which blocks of slots hold which tokens: a tree of shared prefixes.
//!
//! A block is 64 slots at fixed positions. Blocks are found by the exact tokens
//! up to their end, counted by whoever holds them, and reused when they are
//! needed and nobody does, the one looked for longest ago first.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::error::GpuError;
use crate::tokenizer::TokenId;

/// Slots of a block.
pub(super) const BLOCK_SLOTS: usize = 64;

/// One block; free again when the last holder drops it.
#[derive(Debug)]
pub(super) struct Block {
    number: u32,
    free: Arc<Mutex<Vec<u32>>>,
    /// The process that took it.
    process: u32,
}

impl Block {
    /// The first of its slots.
    pub(super) fn first_slot(&self) -> usize {
        self.number as usize * BLOCK_SLOTS
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // In a forked child another thread may hold the list for ever.
        if std::process::id() == self.process {
            lock(&self.free).push(self.number);
        }
    }
}

/// All blocks of a device.
pub(super) struct Blocks {
    free: Arc<Mutex<Vec<u32>>>,
    /// Full blocks by the tokens up to their end.
    known: HashMap<Vec<TokenId>, Known>,
    clock: u64,
}

struct Known {
    block: Arc<Block>,
    used_at: u64,
}

impl Blocks {
    pub(super) fn new(n_blocks: usize) -> Self {
        let n_blocks = u32::try_from(n_blocks).unwrap_or(u32::MAX);
        Self {
            free: Arc::new(Mutex::new((0..n_blocks).rev().collect())),
            known: HashMap::new(),
            clock: 0,
        }
    }

    /// The blocks that hold the beginning of `tokens`, as many as are known in
    /// one run; each is full.
    pub(super) fn find(&mut self, tokens: &[TokenId]) -> Vec<Arc<Block>> {
        self.clock += 1;
        let mut found = Vec::new();
        for end in (BLOCK_SLOTS..=tokens.len()).step_by(BLOCK_SLOTS) {
            let Some(known) = self.known.get_mut(&tokens[..end]) else {
                break;
            };
            known.used_at = self.clock;
            found.push(Arc::clone(&known.block));
        }
        found
    }

    /// Keeps a full block findable; `tokens` end where it ends.
    pub(super) fn remember(&mut self, tokens: &[TokenId], block: &Arc<Block>) {
        let known = Known {
            block: Arc::clone(block),
            used_at: self.clock,
        };
        self.known.insert(tokens.to_vec(), known);
    }

    /// Takes `n_blocks` that nothing holds.
    ///
    /// # Errors
    /// [`GpuError::OutOfBlocks`]; then none was taken and none forgotten.
    pub(super) fn take(&mut self, n_blocks: usize) -> Result<Vec<Arc<Block>>, GpuError> {
        let free = lock(&self.free).len();
        let idle = self.idle();
        if free + idle.len() < n_blocks {
            return Err(GpuError::OutOfBlocks {
                needed: n_blocks,
                free: free + idle.len(),
            });
        }
        for tokens in idle.into_iter().take(n_blocks.saturating_sub(free)) {
            self.known.remove(&tokens);
        }
        let mut free = lock(&self.free);
        let from = free.len() - n_blocks;
        let taken: Vec<u32> = free.drain(from..).rev().collect();
        drop(free);
        let block = |number| {
            let free = Arc::clone(&self.free);
            Arc::new(Block {
                number,
                free,
                process: std::process::id(),
            })
        };
        Ok(taken.into_iter().map(block).collect())
    }

    /// The known blocks that nobody else holds: longest unused first, and of
    /// one prefix the last first, so that no middle goes missing.
    fn idle(&self) -> Vec<Vec<TokenId>> {
        let is_idle = |known: &Known| Arc::strong_count(&known.block) == 1;
        let idle = self.known.iter().filter(|(_, known)| is_idle(known));
        let mut idle: Vec<_> = idle.collect();
        idle.sort_by_key(|&(tokens, known)| (known.used_at, Reverse(tokens.len()), tokens));
        idle.into_iter().map(|(tokens, _)| tokens.clone()).collect()
    }
}

/// A list of numbers is whole whoever panicked while holding it.
fn lock(free: &Mutex<Vec<u32>>) -> MutexGuard<'_, Vec<u32>> {
    free.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(seed: u32, n_blocks: usize) -> Vec<TokenId> {
        let len = u32::try_from(n_blocks * BLOCK_SLOTS).unwrap();
        (0..len).map(|idx| TokenId(seed + idx)).collect()
    }

    /// Takes and remembers the blocks of `tokens`.
    fn fill(blocks: &mut Blocks, tokens: &[TokenId]) -> Vec<Arc<Block>> {
        let taken = blocks.take(tokens.len() / BLOCK_SLOTS).unwrap();
        for (idx, block) in taken.iter().enumerate() {
            blocks.remember(&tokens[..(idx + 1) * BLOCK_SLOTS], block);
        }
        taken
    }

    fn slots(blocks: &[Arc<Block>]) -> Vec<usize> {
        blocks.iter().map(|block| block.first_slot()).collect()
    }

    #[test]
    fn a_prefix_is_found_by_its_exact_tokens() {
        let mut blocks = Blocks::new(4);
        let trunk = tokens(0, 3);
        let taken = slots(&fill(&mut blocks, &trunk));
        assert_eq!(slots(&blocks.find(&trunk)), taken);
        assert_eq!(slots(&blocks.find(&trunk[..130])), taken[..2]);
        let mut other = trunk.clone();
        other[70] = TokenId(9999);
        assert_eq!(slots(&blocks.find(&other)), taken[..1]);
    }

    #[test]
    fn blocks_are_reused_when_nobody_holds_them_the_oldest_from_its_end() {
        let mut blocks = Blocks::new(4);
        let (old, new) = (tokens(0, 2), tokens(1000, 2));
        fill(&mut blocks, &old);
        blocks.find(&old);
        fill(&mut blocks, &new);
        blocks.find(&new);
        let held = blocks.take(1).unwrap();
        assert_eq!(blocks.find(&old).len(), 1, "its end went first");
        assert_eq!(blocks.find(&new).len(), 2);
        drop(held);
    }

    #[test]
    fn held_blocks_are_never_taken_and_a_refusal_takes_none() {
        let mut blocks = Blocks::new(3);
        let trunk = tokens(0, 2);
        let held = fill(&mut blocks, &trunk);
        let refused = GpuError::OutOfBlocks { needed: 2, free: 1 };
        assert_eq!(blocks.take(2).unwrap_err(), refused);
        assert_eq!(blocks.find(&trunk).len(), 2);
        assert_eq!(blocks.take(1).unwrap().len(), 1);
        drop(held);
        assert_eq!(blocks.take(3).unwrap().len(), 3);
        assert!(blocks.find(&trunk).is_empty());
    }
}
