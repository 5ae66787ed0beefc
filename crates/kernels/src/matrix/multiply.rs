//! Products on all threads of a pool.

#![expect(unsafe_code, reason = "threads write different columns of one matrix")]

use std::{marker::PhantomData, ops::Range};

use super::{
    PANEL_WIDTH, QuantizedMatrix, QuantizedRows, columns, kernel, kernel::Sums, rows::RowsView,
};
use crate::{Pool, Variant};

/// One product `y = x W^T`.
#[derive(Debug)]
pub struct Product<'a> {
    /// `W`, `(n_out, n_in)`.
    pub weights: &'a QuantizedMatrix,
    /// `x`, `(n_rows, n_in)`.
    pub rows: &'a QuantizedRows,
    /// `(n_out,)`, f32, added to each row of the product.
    pub bias: Option<&'a [f32]>,
    /// `(n_rows, n_out)`, f32, row-major.
    pub out: &'a mut [f32],
    /// What happens with what is in `out`.
    pub write: Write,
}

/// What a product does with the numbers that its output holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The product takes their place.
    Overwrite,
    /// The product is added to them.
    Add,
}

/// Products in one parallel region; further ones follow in the next.
const MAX_PRODUCTS: usize = 8;

/// Rows of a task.
const TASK_ROWS: usize = 192;

/// Weights times rows of a task; below it claiming tasks costs too much.
const TASK_WORK: usize = 96 * 1024;

/// The same where weights are asked for ahead and memory is all that counts. With
/// less the threads leave each other's weights so soon that much of what was asked
/// for is for another thread.
pub(super) const LONG_TASK_WORK: usize = 1024 * 1024;

/// Computes all products, together in one parallel region for up to 8 of them.
///
/// Allocates nothing. Each output is bitwise the same whatever the other rows, the
/// other products, the number of threads and the variant.
///
/// # Panics
/// If the shapes of a product do not fit.
pub fn multiply(pool: &Pool, variant: Variant, products: &mut [Product<'_>]) {
    for products in products.chunks_mut(MAX_PRODUCTS) {
        let mut tasks: [Option<Tasks<'_>>; MAX_PRODUCTS] = [const { None }; MAX_PRODUCTS];
        let mut n_tasks = 0;
        for (tasks, product) in tasks.iter_mut().zip(products) {
            let new = Tasks::new(product, pool.threads());
            n_tasks += new.len();
            *tasks = Some(new);
        }
        pool.run(n_tasks, &|mut task_idx| {
            for tasks in tasks.iter().flatten() {
                if task_idx < tasks.len() {
                    return tasks.run(variant, task_idx);
                }
                task_idx -= tasks.len();
            }
        });
    }
}

/// One product, cut into tasks: some panels for some rows each.
struct Tasks<'a> {
    weights: &'a QuantizedMatrix,
    rows: &'a QuantizedRows,
    bias: Option<&'a [f32]>,
    out: Columns<'a>,
    write: Write,
    panels_per_task: usize,
}

impl<'a> Tasks<'a> {
    fn new(product: &'a mut Product<'_>, threads: usize) -> Self {
        let (n_in, n_out) = (product.weights.n_in(), product.weights.n_out());
        let n_rows = product.rows.n_rows();
        assert_eq!(product.rows.n_in(), n_in, "the inputs of both sides");
        assert_eq!(product.out.len(), n_rows * n_out, "the shape of the output");
        if let Some(bias) = product.bias {
            assert_eq!(bias.len(), n_out, "the shape of the bias");
        }
        let work_per_panel = PANEL_WIDTH * n_in * n_rows.max(1);
        let work = match product.weights {
            QuantizedMatrix::Int4(_) if n_rows == 1 => LONG_TASK_WORK,
            _ => TASK_WORK,
        };
        let at_least = work.div_ceil(work_per_panel);
        let at_most = columns::n_panels(n_out).div_ceil(4 * threads);
        Self {
            weights: product.weights,
            rows: product.rows,
            bias: product.bias,
            out: Columns::new(product.out, n_out),
            write: product.write,
            panels_per_task: at_least.min(at_most).max(1),
        }
    }

    fn len(&self) -> usize {
        self.row_chunks() * self.panel_chunks()
    }

    fn row_chunks(&self) -> usize {
        self.rows.n_rows().div_ceil(TASK_ROWS)
    }

    fn panel_chunks(&self) -> usize {
        columns::n_panels(self.weights.n_out()).div_ceil(self.panels_per_task)
    }

    fn run(&self, variant: Variant, task_idx: usize) {
        let first_row = task_idx % self.row_chunks() * TASK_ROWS;
        let n_rows = (self.rows.n_rows() - first_row).min(TASK_ROWS);
        let first_panel = task_idx / self.row_chunks() * self.panels_per_task;
        let n_panels = columns::n_panels(self.weights.n_out());
        let panels = first_panel..(first_panel + self.panels_per_task).min(n_panels);
        let rows = first_row..first_row + n_rows;
        // Room for the sums on the stack, not much more than is used.
        match n_rows {
            0..=8 => self.run_panels(variant, rows, panels, &mut [Sums::ZERO; 8]),
            9..=64 => self.run_panels(variant, rows, panels, &mut [Sums::ZERO; 64]),
            _ => self.run_panels(variant, rows, panels, &mut [Sums::ZERO; TASK_ROWS]),
        }
    }

    fn run_panels(
        &self,
        variant: Variant,
        rows: Range<usize>,
        panels: Range<usize>,
        sums: &mut [Sums],
    ) {
        let sums = &mut sums[..rows.len()];
        let inputs = self.rows.view().part(rows.start, rows.len(), 0);
        for panel_idx in panels {
            sums.fill(Sums::ZERO);
            panel(variant, (self.weights, panel_idx), inputs, sums);
            let outputs = columns::of_panel(self.weights.n_out(), panel_idx);
            let bias = self.bias.map(|bias| &bias[outputs.clone()]);
            for (row_idx, sums) in rows.clone().zip(&mut *sums) {
                // SAFETY: no other task has this row and these outputs.
                let out = unsafe { self.out.segment(row_idx, outputs.clone()) };
                write(&sums.0[..outputs.len()], bias, self.write, out);
            }
        }
    }
}

/// Adds the products of `rows`, as many as `sums`, with one panel of a matrix.
pub(super) fn panel(
    variant: Variant,
    (weights, panel_idx): (&QuantizedMatrix, usize),
    rows: RowsView<'_>,
    sums: &mut [Sums],
) {
    /// Rows whose sums and integers stay in the first cache with a block.
    const ROWS: usize = 48;
    /// Weights of a panel that stay in the second cache for all rows.
    const INT8_BLOCKS: usize = 32;
    const INT4_BLOCKS: usize = 32;
    match weights {
        QuantizedMatrix::Int8(weights) => {
            let chunks = weights.panel(panel_idx).chunks(INT8_BLOCKS);
            for (idx, blocks) in chunks.enumerate() {
                for (part, sums) in sums.chunks_mut(ROWS).enumerate() {
                    let rows = rows.part(part * ROWS, sums.len(), idx * INT8_BLOCKS);
                    kernel::int8(variant, blocks, rows, sums);
                }
            }
        }
        QuantizedMatrix::Int4(weights) => {
            let chunks = weights.panel(panel_idx).chunks(INT4_BLOCKS);
            for (idx, blocks) in chunks.enumerate() {
                for (part, sums) in sums.chunks_mut(ROWS).enumerate() {
                    let rows = rows.part(part * ROWS, sums.len(), idx * INT4_BLOCKS * 2);
                    kernel::int4(variant, blocks, rows, sums);
                }
            }
        }
    }
}

/// Writes a piece of one row of the output.
fn write(sums: &[f32], bias: Option<&[f32]>, write: Write, out: &mut [f32]) {
    let outputs = out.iter_mut().zip(sums);
    match (write, bias) {
        (Write::Overwrite, None) => out.copy_from_slice(sums),
        (Write::Overwrite, Some(bias)) => {
            for ((out, sum), bias) in outputs.zip(bias) {
                *out = sum + bias;
            }
        }
        (Write::Add, None) => {
            for (out, sum) in outputs {
                *out += sum;
            }
        }
        (Write::Add, Some(bias)) => {
            for ((out, sum), bias) in outputs.zip(bias) {
                *out += sum + bias;
            }
        }
    }
}

/// A row-major matrix in which several threads write, each its own columns.
struct Columns<'a> {
    out: *mut f32,
    n_rows: usize,
    n_out: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: it gives access to numbers, which may be written on any thread, through
// `segment` alone, whose callers keep the threads apart.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    fn new(out: &'a mut [f32], n_out: usize) -> Self {
        Self {
            out: out.as_mut_ptr(),
            n_rows: out.len() / n_out.max(1),
            n_out,
            lifetime: PhantomData,
        }
    }

    /// Some outputs of one row.
    ///
    /// # Safety
    /// Nobody else may use these outputs of this row as long as the slice lives.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps the pieces apart")]
    unsafe fn segment(&self, row_idx: usize, outputs: Range<usize>) -> &mut [f32] {
        assert!(row_idx < self.n_rows && outputs.start <= outputs.end && outputs.end <= self.n_out);
        // SAFETY: within the matrix by the assertion.
        let start = unsafe { self.out.add(row_idx * self.n_out + outputs.start) };
        // SAFETY: as above; borrowed mutably for `'a`, and the caller says that
        // nobody else uses this piece.
        unsafe { std::slice::from_raw_parts_mut(start, outputs.len()) }
    }
}
