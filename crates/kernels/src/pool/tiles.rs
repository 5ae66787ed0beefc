//! A row-major matrix whose tiles threads write.

use std::marker::PhantomData;

use super::Pool;

/// Some columns of some rows of a matrix.
pub(crate) struct Tile<'a, T> {
    /// The first element of the first row.
    first: *mut T,
    n_rows: usize,
    n_columns: usize,
    row_len: usize,
    matrix: PhantomData<&'a mut [T]>,
}

impl<T> Tile<'_, T> {
    /// Its rows; of the last tiles, as many as there are.
    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// How many columns.
    pub(crate) fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// The tile's columns of one of its rows.
    ///
    /// # Panics
    /// If the tile has no such row.
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.n_rows);
        let first = self.first.wrapping_add(row * self.row_len);
        // SAFETY: `Pool::for_each_tile` made the tile of rows and columns that the
        // matrix has, which stays borrowed, and made no other of them; the borrow of
        // `self` keeps the rows of this one apart.
        unsafe { std::slice::from_raw_parts_mut(first, self.n_columns) }
    }
}

impl Pool {
    /// Calls `f` once with each tile of `matrix`, on all threads, and with the index
    /// of the tile among those above and among those to the left.
    ///
    /// `matrix`: rows of `row_len`, row-major. `tile`: rows and columns of a tile; the
    /// last ones may be smaller.
    ///
    /// # Panics
    /// If `matrix` is no whole number of rows, a tile's side is 0, and like
    /// [`Pool::run`].
    pub(crate) fn for_each_tile<T: Send>(
        &self,
        matrix: &mut [T],
        row_len: usize,
        tile: (usize, usize),
        f: impl Fn(usize, usize, Tile<'_, T>) + Sync,
    ) {
        if matrix.is_empty() {
            return;
        }
        assert!(matrix.len().is_multiple_of(row_len));
        let n_rows = matrix.len() / row_len;
        let n_across = row_len.div_ceil(tile.1);
        let start = Start(matrix.as_mut_ptr());
        self.run(n_rows.div_ceil(tile.0) * n_across, &|task_idx| {
            let (down, across) = (task_idx / n_across, task_idx % n_across);
            let (row, column) = (down * tile.0, across * tile.1);
            let tile = Tile {
                first: start.element(row * row_len + column),
                n_rows: tile.0.min(n_rows - row),
                n_columns: tile.1.min(row_len - column),
                row_len,
                matrix: PhantomData,
            };
            f(down, across, tile);
        });
    }
}

/// The first element of a matrix.
struct Start<T>(*mut T);

impl<T> Start<T> {
    fn element(&self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

// SAFETY: it is used to make tiles that do not overlap, and `T: Send` lets each be
// mutated on the thread that made it.
unsafe impl<T: Send> Sync for Start<T> {}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use crate::Pool;

    #[test]
    fn tiles_cover_the_matrix() {
        let pool = Pool::new(NonZeroUsize::new(3).unwrap(), "test").unwrap();
        for (n_rows, row_len, tile) in [(6, 10, (2, 5)), (7, 11, (3, 4)), (1, 1, (9, 9))] {
            let mut matrix = vec![0; n_rows * row_len];
            pool.for_each_tile(&mut matrix, row_len, tile, |down, across, mut tile| {
                for row in 0..tile.n_rows() {
                    for value in tile.row_mut(row) {
                        *value += 100 * down + across + 1;
                    }
                }
            });
            for (i, value) in matrix.into_iter().enumerate() {
                let (row, column) = (i / row_len, i % row_len);
                assert_eq!(value, 100 * (row / tile.0) + column / tile.1 + 1);
            }
        }
        pool.for_each_tile(&mut [0; 0], 4, (1, 1), |_, _, _| unreachable!());
    }

    #[test]
    #[should_panic(expected = "row < self.n_rows")]
    fn a_row_outside_is_refused() {
        let pool = Pool::new(NonZeroUsize::MIN, "test").unwrap();
        pool.for_each_tile(&mut [0; 6], 3, (3, 3), |_, _, mut tile| {
            tile.row_mut(2)[0] = 1;
        });
    }
}
