//! Keys and values: blocks of positions, the prefixes made of them, a tree that
//! shares prefixes, and prefixes on disk.
//!
//! Position `p` of a sequence is slot `p % 64` of its block `p / 64`, in every
//! layer. What a slot holds depends on the tokens up to it alone, so a block
//! serves every sequence that begins with the same tokens, and the first slots
//! of a block serve one that ends or branches off inside of it.

mod block;
mod cache;
mod file;
mod prefix;
mod tree;

pub(super) use block::{Block, BlockShape, SpareBlocks};
pub(super) use file::{load, save};
pub(super) use prefix::{Identity, ModelIdentity};

pub use cache::{PrefixCache, PrefixCacheCounters};
pub use file::{Prior, SavedPrefix};
pub use prefix::Prefix;
