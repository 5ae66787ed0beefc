//! The index: what makes search fast, made from the journal and never trusted
//! beyond what it was made of.
//!
//! A *shard* is a directory of the storage engine that is built whole, checked when
//! it is opened, and never written again: an insertion never touches it, so the
//! engine's log is not needed and its update path is never in a reader's way. What
//! is newer than every shard is searched in memory (`tail.rs`); `indexer.rs` builds
//! the next shard beside the old ones and swaps them.

mod engine;
mod indexer;
mod manifest;
mod shard;

pub(crate) use engine::read_format_1;
pub(crate) use indexer::Indexer;
pub(crate) use shard::{Member, Shard, ShardOptions, remove_leftovers, stored_shards};
