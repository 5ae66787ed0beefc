//! Activations, quantised.

use std::ops::Range;

use super::{GROUP, QUAD, blocks::QUADS, quantize};
use crate::{Pool, Variant};

/// One group of inputs of one row.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct RowGroup {
    /// Four integers in `-127..=127` each, the first in the lowest byte.
    pub(super) quads: [i32; QUADS],
    pub(super) scale: f32,
    /// -128 times the sum of the integers: what makes up for the 128 that is
    /// added to each weight of 8 bits.
    pub(super) offset: i32,
    /// The sum of the integers of each sub-block is 256 times the byte here plus
    /// the byte in `sums_low`, both signed.
    pub(super) sums_high: i32,
    pub(super) sums_low: i32,
}

impl RowGroup {
    const ZERO: Self = Self {
        quads: [0; QUADS],
        scale: 0.0,
        offset: 0,
        sums_high: 0,
        sums_low: 0,
    };

    /// The integers of quad `quad_idx`.
    pub(super) fn quad(&self, quad_idx: usize) -> [i8; QUAD] {
        self.quads[quad_idx].to_le_bytes().map(u8::cast_signed)
    }
}

/// Some rows of a [`QuantizedRows`], from some group on.
#[derive(Clone, Copy)]
pub(super) struct RowsView<'a> {
    /// Row after row, `stride` groups each.
    groups: &'a [RowGroup],
    stride: usize,
    n_rows: usize,
}

impl<'a> RowsView<'a> {
    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    #[inline]
    pub(super) fn group(&self, row_idx: usize, group_idx: usize) -> &'a RowGroup {
        &self.groups[row_idx * self.stride + group_idx]
    }

    /// Rows `start..start + n_rows` of these, from group `first_group` on.
    pub(super) fn part(&self, start: usize, n_rows: usize, first_group: usize) -> Self {
        assert!(start + n_rows <= self.n_rows && first_group < self.stride);
        Self {
            groups: &self.groups[start * self.stride + first_group..],
            stride: self.stride,
            n_rows,
        }
    }
}

/// Scales a row to root mean square 1, then by weights.
///
/// Source: Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm<'a> {
    /// `(n_in,)`, f32.
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
    /// Each index below `n_in` once: input `i` becomes what was at `order[i]`.
    /// `None` leaves the inputs where they are.
    ///
    /// Inputs of about one size share a scale better than a large one and many
    /// small ones; the columns of the weights must be in this order, too.
    pub order: Option<&'a [u32]>,
}

/// Activations of shape `(n_rows, n_in)`, quantised in groups of [`GROUP`].
///
/// Made to be kept and used again: filling it allocates only if there was never
/// so much in it before. Each row is quantised by itself. A group that holds a
/// number that is not finite gives outputs that are not finite.
///
/// # Examples
/// ```
/// use std::num::NonZeroUsize;
///
/// use inwarden_kernels::{
///     Int8Matrix, Pool, Product, QuantizedMatrix, QuantizedRows, Variant, Write, multiply,
/// };
///
/// let pool = Pool::new(NonZeroUsize::MIN, "example")?;
/// let variant = Variant::detect();
/// let weights = Int8Matrix::from_f32(&[1.0, 2.0, 3.0, 4.0], 2, variant);
/// let weights = QuantizedMatrix::Int8(weights);
/// let mut rows = QuantizedRows::new();
/// rows.quantize(&pool, variant, &[1.0, -1.0], 2);
/// let mut out = [0.0; 2];
/// let product = Product {
///     weights: &weights,
///     rows: &rows,
///     bias: Some(&[0.0, 10.0]),
///     out: &mut out,
///     write: Write::Overwrite,
/// };
/// multiply(&pool, variant, &mut [product]);
/// assert!((out[0] + 1.0).abs() < 0.05 && (out[1] - 9.0).abs() < 0.05);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct QuantizedRows {
    /// `(n_rows, n_groups)`.
    groups: Vec<RowGroup>,
    n_rows: usize,
    n_in: usize,
}

/// Numbers of one task: with fewer a second thread is not worth waking.
const TASK: usize = 4096;

impl QuantizedRows {
    /// No rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Allocates for `n_rows` rows of `n_in` inputs.
    pub fn reserve(&mut self, n_rows: usize, n_in: usize) {
        let len = n_rows * n_in.div_ceil(GROUP);
        self.groups.reserve(len.saturating_sub(self.groups.len()));
    }

    /// How many rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// How many inputs a row has.
    #[must_use]
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Becomes `rows`, `(n_rows, n_in)`, f32, row-major.
    ///
    /// # Panics
    /// If the rows are not whole, or `n_in` is 0.
    pub fn quantize(&mut self, pool: &Pool, variant: Variant, rows: &[f32], n_in: usize) {
        self.resize(rows.len(), n_in);
        self.for_each_group(pool, |inputs, group| {
            quantize::plain(variant, &rows[inputs], group);
        });
    }

    /// Becomes `rows`, `(n_rows, n_in)`, f32, row-major, after `norm`.
    ///
    /// # Panics
    /// If the rows are not whole, `n_in` is 0, or `norm` is for another width.
    pub fn rms_norm(&mut self, pool: &Pool, variant: Variant, rows: &[f32], norm: &RmsNorm<'_>) {
        let n_in = norm.weight.len();
        assert!(norm.order.is_none_or(|order| order.len() == n_in));
        self.resize(rows.len(), n_in);
        let n_groups = self.n_groups();
        let rows_per_chunk = self.per_chunk(n_in);
        pool.for_each_chunk(
            &mut self.groups,
            rows_per_chunk * n_groups,
            |chunk_idx, groups| {
                let rows = rows[chunk_idx * rows_per_chunk * n_in..].chunks_exact(n_in);
                for (row, groups) in rows.zip(groups.chunks_exact_mut(n_groups)) {
                    quantize::rms_norm(variant, row, norm, groups);
                }
            },
        );
    }

    pub(super) fn view(&self) -> RowsView<'_> {
        RowsView {
            groups: &self.groups,
            stride: self.n_groups(),
            n_rows: self.n_rows,
        }
    }

    /// Makes room for `len` numbers in rows of `n_in`; gives the groups to fill,
    /// `(n_rows, n_groups)`.
    pub(super) fn resize(&mut self, len: usize, n_in: usize) -> &mut [RowGroup] {
        assert!(n_in > 0 && len.is_multiple_of(n_in), "rows are whole");
        self.n_rows = len / n_in;
        self.n_in = n_in;
        self.groups
            .resize(self.n_rows * self.n_groups(), RowGroup::ZERO);
        &mut self.groups
    }

    /// Calls `f` with each group and the numbers of the rows that it holds.
    fn for_each_group(&mut self, pool: &Pool, f: impl Fn(Range<usize>, &mut RowGroup) + Sync) {
        let (n_in, n_groups) = (self.n_in, self.n_groups());
        let groups_per_chunk = self.per_chunk(GROUP);
        pool.for_each_chunk(&mut self.groups, groups_per_chunk, |chunk_idx, groups| {
            for (idx, group) in groups.iter_mut().enumerate() {
                let idx = chunk_idx * groups_per_chunk + idx;
                let start = idx % n_groups * GROUP;
                let row_start = idx / n_groups * n_in;
                f(
                    row_start + start..row_start + (start + GROUP).min(n_in),
                    group,
                );
            }
        });
    }

    /// How many pieces of `len` numbers are one task.
    fn per_chunk(&self, len: usize) -> usize {
        if self.n_rows * self.n_in < 2 * TASK {
            (2 * TASK).div_ceil(len)
        } else {
            TASK.div_ceil(len)
        }
    }

    fn n_groups(&self) -> usize {
        self.n_in.div_ceil(GROUP)
    }
}
