//! The few shapes that passes on a device have.
//!
//! Kernels of a device choose tiles and split sums by the number of rows, so a
//! row's numbers are bitwise the same only among passes of one shape. Every
//! pass is therefore padded to a shape that depends on each event by itself,
//! never on its company: a **slab** of a fixed number of rows, which several
//! events of the same size share.
//!
//! The quantised products of the tensor library put up to 128 rows into one
//! tile and split sums by weights alone, so where in a slab an event lies
//! changes nothing (`mmq_gguf.cuh`, `mul_mat_q`: with `ntx == 1` the split
//! depends on `nty`, `blocks_per_ne00` and the number of processors).

/// Rows that one pass may have: the most that [`rows`] returns.
pub(super) const MAX_ROWS: usize = 512;

/// Rows of one tile of the quantised products; larger sizes are multiples.
const TILE_ROWS: usize = 128;

/// Slots are padded to a multiple of this.
const SLOT_STEP: usize = 64;

/// The smallest bucket that holds `n_rows`: 1, 8, 16, 32, 64, then multiples
/// of 128.
pub(super) fn rows(n_rows: usize) -> usize {
    match n_rows {
        0 | 1 => 1,
        2..=8 => 8,
        9..=TILE_ROWS => n_rows.next_power_of_two(),
        _ => n_rows.next_multiple_of(TILE_ROWS),
    }
}

/// Slots that each sequence of a pass attends over, visible or not.
pub(super) fn slots(n_slots: usize) -> usize {
    n_slots.next_multiple_of(SLOT_STEP)
}

/// Sequences of `rows` rows in a slab of `slab_rows`; at least one.
pub(super) fn sequences_per_slab(rows: usize, slab_rows: usize) -> usize {
    (slab_rows / rows).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_is_put_into_them_and_are_few() {
        let mut sizes = Vec::new();
        for n_rows in 1..=MAX_ROWS {
            let bucket = rows(n_rows);
            assert!(bucket >= n_rows && rows(bucket) == bucket);
            sizes.push(bucket);
        }
        sizes.dedup();
        assert_eq!(sizes, [1, 8, 16, 32, 64, 128, 256, 384, 512]);
    }

    #[test]
    fn a_slab_is_filled_whatever_the_size_of_its_sequences() {
        for bucket in [1, 8, 16, 32, 64, 128] {
            assert_eq!(sequences_per_slab(bucket, 128) * bucket, 128);
        }
        assert_eq!(sequences_per_slab(512, 128), 1);
    }
}
