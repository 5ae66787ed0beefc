//! Attention of query rows over cached keys and values.
//!
//! For each row and head, the softmax of the products with the keys the row sees
//! weighs the values. The slots are taken block by block, in order, with a
//! running maximum and sum (online softmax), so no row of scores is ever held.
//!
//! The heads that share keys and values are multiplied together, so that what is
//! loaded of a block serves all of them. A row's arithmetic depends on its query,
//! on the slots it sees and on their numbers alone, never on other rows, on
//! how the work is split, or on the number of threads; blocks of which
//! a row sees nothing are left out.
//!
//! With [`KvType::Bf16`] the variant with bf16 instructions rounds queries and
//! weights to bf16 as well and sums pairs of products without rounding in between;
//! the other variants widen keys and values to f32. These agree with each other
//! bitwise, and with the first within the rounding of bf16 (2^-9 of the largest
//! value). With [`KvType::F32`] all variants agree bitwise.
//!
//! With [`KvType::Int8`] the integers are multiplied as bf16, which they are exactly;
//! the scale of a slot's keys goes to its score, and that of its values to its weight.
//! Else it is as with bf16.
//!
//! Source: Milakov and Gimelshein 2018, arXiv:1805.02867 (online softmax); Dao et
//! al. 2022, arXiv:2205.14135 (by blocks).

mod bf16;
mod int8;
mod portable;
mod rows;
mod softmax;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::kv::{KV_BLOCK, KvBlock, KvShape, first_bits};
use crate::{Pool, Variant};
use rows::Group;

/// Most rows of a task: the keys and values of a block, once they are in the
/// nearest cache, serve this many rows.
const TASK_ROWS: usize = 8;

/// Tasks a thread should find, so that all end at about the same time.
const TASKS_PER_THREAD: usize = 4;

/// The slots that a row sees: all below `until`, and those in `beyond`.
#[derive(Clone, Copy, Debug)]
pub struct Visible<'a> {
    /// The first slot that the row does not see, unless it is in `beyond`.
    pub until: usize,
    /// Ascending, none below `until`: a branch of a tree of continuations.
    pub beyond: &'a [usize],
}

impl Visible<'_> {
    /// The slots it sees of a block, a bit each.
    fn slots_of_block(&self, block_idx: usize) -> u64 {
        let start = block_idx * KV_BLOCK;
        let mut slots = first_bits(self.until.saturating_sub(start).min(KV_BLOCK));
        let first = self.beyond.partition_point(|&slot| slot < start);
        for &slot in &self.beyond[first..] {
            if slot >= start + KV_BLOCK {
                break;
            }
            slots |= 1 << (slot - start);
        }
        slots
    }

    /// One more than the last slot it sees.
    fn end(&self) -> usize {
        self.beyond.last().map_or(self.until, |last| last + 1)
    }
}

/// Rows of a pass that see the same blocks.
#[derive(Clone, Debug)]
pub struct Sequence<'a> {
    /// Its rows among all rows of the pass.
    pub rows: Range<usize>,
    /// Slot `s` is slot `s % KV_BLOCK` of `blocks[s / KV_BLOCK]`.
    pub blocks: &'a [&'a KvBlock],
    /// What each of its rows sees.
    pub visible: &'a [Visible<'a>],
}

/// Writes each row's attention over the slots it sees.
///
/// `queries`: `(n_rows, n_heads, head_dim)`, f32, row-major, rotated, not scaled;
/// the products are divided by the square root of `head_dim` here. `n_heads` is a
/// multiple of `shape.n_kv_heads`; head `h` uses key/value head
/// `h / (n_heads / n_kv_heads)`. `sequences`: their rows follow each other and
/// are all rows there are. `out`: like `queries`, overwritten; zeros where a row
/// sees nothing, NaN where its query or a slot it sees is not finite.
///
/// Allocates only in a thread's first calls, or for more heads than before.
///
/// # Panics
/// If lengths, shapes or slots do not fit together as said above.
pub fn attend(
    pool: &Pool,
    variant: Variant,
    shape: &KvShape,
    queries: &[f32],
    sequences: &[Sequence<'_>],
    out: &mut [f32],
) {
    let n_rows = check_sequences(shape, sequences);
    assert_eq!(queries.len(), out.len());
    if n_rows == 0 {
        return assert_eq!(queries.len(), 0);
    }
    let row_len = queries.len() / n_rows;
    let group_len = row_len / shape.n_kv_heads;
    assert_eq!(n_rows * row_len, queries.len());
    assert_eq!(shape.n_kv_heads * group_len, row_len);
    assert!(group_len.is_multiple_of(shape.head_dim), "a part of a head");

    let n_tasks = pool.threads() * TASKS_PER_THREAD;
    let task_rows = (n_rows * shape.n_kv_heads / n_tasks).clamp(1, TASK_ROWS);
    let tile = (task_rows, group_len);
    pool.for_each_tile(out, row_len, tile, |task_idx, kv_head, mut out| {
        let first_row = task_idx * task_rows;
        let rows = first_row..first_row + out.n_rows();
        for sequence in sequences {
            let start = sequence.rows.start.max(rows.start);
            let end = sequence.rows.end.min(rows.end);
            if start < end {
                let group = Group {
                    variant,
                    shape,
                    kv_head,
                    n_heads: group_len / shape.head_dim,
                    blocks: sequence.blocks,
                    visible: &sequence.visible[start - sequence.rows.start..][..end - start],
                };
                let query = |row: usize| {
                    &queries[(start + row) * row_len + kv_head * group_len..][..group_len]
                };
                group.attend(query, |row, values| {
                    out.row_mut(start - first_row + row).copy_from_slice(values);
                });
            }
        }
    });
}

/// The number of rows of all `sequences`, which fit `shape`.
fn check_sequences(shape: &KvShape, sequences: &[Sequence<'_>]) -> usize {
    let mut n_rows = 0;
    for sequence in sequences {
        assert_eq!(sequence.rows.start, n_rows, "rows that follow each other");
        assert_eq!(sequence.rows.len(), sequence.visible.len());
        assert!(sequence.blocks.iter().all(|block| block.shape() == shape));
        for visible in sequence.visible {
            assert!(visible.end() <= sequence.blocks.len() * KV_BLOCK);
            assert!(visible.until <= visible.beyond.first().copied().unwrap_or(usize::MAX));
            debug_assert!(visible.beyond.is_sorted());
        }
        n_rows += sequence.rows.len();
    }
    n_rows
}
