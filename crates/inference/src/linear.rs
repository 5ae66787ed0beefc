//! Matrix products: every weight matrix of the models is behind [`Linear`].
//!
//! The one place that knows how weights are resident: quantised for our own
//! kernels, or as f32 for the tensor library. A new form is one more variant here.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use candle_core::{Device, Tensor};
use inwarden_kernels::{
    Gated, Int4Matrix, Int8Matrix, PANEL_WIDTH, Pool, Product, QuantizedMatrix, QuantizedRows,
    RmsNorm, SUPER_BLOCK, Variant, Write, multiply, multiply_gated, rms_norm, swiglu,
};
use rayon::prelude::*;

use crate::{
    config::WeightForm, error::InferenceError, quant::BlockType, rows::Rows,
    tensor_source::StoredTensor,
};

/// Output columns per panel of f32: one panel of weights fits the second cache.
const F32_PANEL_WIDTH: usize = 128;

/// Where products run.
pub(crate) struct Workers {
    pub(crate) pool: Pool,
    pub(crate) variant: Variant,
    /// The tensor library's, for weights as f32.
    pub(crate) f32_pool: Option<rayon::ThreadPool>,
}

impl Workers {
    /// Runs `work` where the tensor library finds its threads.
    fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.f32_pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}

/// `y = x W^T`, with `W` of shape `(n_out, n_in)`.
///
/// All matrices of a model are of one variant, which [`Input`] then has too.
pub(crate) enum Linear {
    /// Expanded to f32: exact, on the tensor library.
    F32(F32Panels),
    /// On our own kernels.
    Quantized(QuantizedMatrix),
}

/// The columns of `W^T` in panels, so that a product reads the weights once and
/// in order, and need not pack them anew in each call.
///
/// Several panels share a tensor, one tensor for each thread: the tensor library
/// asks the system for the number of processors at every product.
#[derive(Debug)]
pub(crate) struct F32Panels {
    /// `(n_panels, n_in, F32_PANEL_WIDTH)` each, the last one `(1, n_in, rest)`
    /// if `n_out` is no multiple of [`F32_PANEL_WIDTH`]; row-major f32, CPU.
    groups: Vec<Tensor>,
    n_out: usize,
    n_in: usize,
}

/// Rows on their way into products, in the form that the weights take.
pub(crate) enum Input {
    F32 { values: Vec<f32>, n_in: usize },
    Quantized(QuantizedRows),
}

/// One product of an [`Input`], of which several run at once.
pub(crate) struct Projection<'a> {
    pub(crate) weights: &'a Linear,
    /// `(n_out,)`.
    pub(crate) bias: Option<&'a [f32]>,
    /// `(n_rows, n_out)`, row-major.
    pub(crate) out: &'a mut [f32],
    pub(crate) write: Write,
}

impl Linear {
    /// Reads a tensor of shape `(n_out, n_in)`, panel by panel.
    ///
    /// `order`: the inputs in the order in which they will come, see [`RmsNorm`];
    /// for [`WeightForm::Int8`] alone.
    pub(crate) fn load(
        tensor: &StoredTensor,
        form: WeightForm,
        order: Option<&[u32]>,
        workers: &Workers,
    ) -> Result<Self, InferenceError> {
        let (n_out, n_in) = (tensor.n_rows(), tensor.width());
        match form {
            WeightForm::F32 => workers.install(|| F32Panels::load(tensor)).map(Self::F32),
            WeightForm::Compact if is_kept_in_4_bits(tensor.block_type, n_in) => {
                let mut matrix = Int4Matrix::zeros(n_out, n_in);
                fill(
                    tensor,
                    workers,
                    &mut matrix.panels_mut(),
                    |panel, bytes, _| {
                        panel.fill(bytes);
                    },
                )?;
                Ok(Self::Quantized(matrix.into()))
            }
            WeightForm::Compact | WeightForm::Int8 => {
                let mut matrix = Int8Matrix::zeros(n_out, n_in, workers.variant);
                fill(
                    tensor,
                    workers,
                    &mut matrix.panels_mut(),
                    |panel, bytes, rows| {
                        rows.resize(bytes.len() / tensor.row_bytes() * n_in, 0.0);
                        tensor.block_type.unpack(workers.variant, bytes, rows);
                        if let Some(order) = order {
                            reorder(rows, order);
                        }
                        panel.fill(rows);
                    },
                )?;
                Ok(Self::Quantized(matrix.into()))
            }
        }
    }

    /// The outputs with these indices, in this order: the same numbers for them.
    ///
    /// `None` for f32, where the whole product is taken instead.
    pub(crate) fn select_outputs(&self, outputs: &[usize]) -> Option<Self> {
        match self {
            Self::F32(_) => None,
            Self::Quantized(weights) => Some(Self::Quantized(weights.select_outputs(outputs))),
        }
    }

    pub(crate) fn n_out(&self) -> usize {
        match self {
            Self::F32(panels) => panels.n_out,
            Self::Quantized(weights) => weights.n_out(),
        }
    }

    /// Memory of the weights, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::F32(panels) => panels.n_out * panels.n_in * size_of::<f32>(),
            Self::Quantized(weights) => weights.size_bytes(),
        }
    }
}

/// Puts the columns of `rows`, `(n_rows, order.len())`, into `order`.
fn reorder(rows: &mut [f32], order: &[u32]) {
    let mut before = vec![0.0; order.len()];
    for row in rows.chunks_exact_mut(order.len()) {
        before.copy_from_slice(row);
        for (to, &idx) in row.iter_mut().zip(order) {
            *to = before[idx as usize];
        }
    }
}

/// Other widths would end inside a super-block.
fn is_kept_in_4_bits(block_type: BlockType, n_in: usize) -> bool {
    block_type == BlockType::Q4K && n_in.is_multiple_of(SUPER_BLOCK)
}

/// Fills `panels`, each from the packed bytes of its rows, on all threads.
///
/// `fill` also gets a buffer to unpack into, which keeps its memory.
fn fill<P: Send>(
    tensor: &StoredTensor,
    workers: &Workers,
    panels: &mut [P],
    fill: impl Fn(&mut P, &[u8], &mut Vec<f32>) + Sync,
) -> Result<(), InferenceError> {
    let n_rows = tensor.n_rows();
    let failure = Mutex::new(None);
    let per_task = panels.len().div_ceil(4 * workers.pool.threads()).max(1);
    workers
        .pool
        .for_each_chunk(panels, per_task, |chunk_idx, panels| {
            let (mut bytes, mut values) = (Vec::new(), Vec::new());
            for (idx, panel) in panels.iter_mut().enumerate() {
                let start = (chunk_idx * per_task + idx) * PANEL_WIDTH;
                let rows = start..(start + PANEL_WIDTH).min(n_rows);
                bytes.resize(rows.len() * tensor.row_bytes(), 0);
                match tensor.read_rows(rows, &mut bytes) {
                    Ok(()) => fill(panel, &bytes, &mut values),
                    Err(error) => {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        return;
                    }
                }
            }
        });
    let failure = failure.into_inner();
    failure
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}

impl Input {
    pub(crate) fn new(form: WeightForm) -> Self {
        match form {
            WeightForm::F32 => Self::F32 {
                values: Vec::new(),
                n_in: 1,
            },
            WeightForm::Compact | WeightForm::Int8 => Self::Quantized(QuantizedRows::new()),
        }
    }

    /// Takes `rows`, `(n_rows, norm.weight.len())`, after `RMSNorm`.
    ///
    /// Weights as f32 have no order of their own: it is `None` for them.
    pub(crate) fn rms_norm(&mut self, workers: &Workers, rows: &[f32], norm: &RmsNorm<'_>) {
        let Workers { pool, variant, .. } = workers;
        match self {
            Self::F32 { values, n_in } => {
                *n_in = norm.weight.len();
                values.resize(rows.len(), 0.0);
                rms_norm(pool, *variant, rows, norm.weight, norm.eps, values);
            }
            Self::Quantized(quantized) => quantized.rms_norm(pool, *variant, rows, norm),
        }
    }

    /// Takes `silu(x G^T) * (x U^T)`, with `x` what `input` holds, `G` and `U` of one
    /// shape.
    ///
    /// Allocates nothing with quantised weights, once so much was in it before.
    pub(crate) fn gate(
        &mut self,
        workers: &Workers,
        input: &Self,
        (gate, up): (&Linear, &Linear),
    ) -> Result<(), InferenceError> {
        let Workers { pool, variant, .. } = workers;
        match (self, input, gate, up) {
            (
                Self::F32 {
                    values: out,
                    n_in: width,
                },
                Self::F32 { values, n_in },
                Linear::F32(gate),
                Linear::F32(up),
            ) => {
                let gates = workers.install(|| gate.product(values, *n_in))?;
                let ups = workers.install(|| up.product(values, *n_in))?;
                *width = gate.n_out;
                out.resize(gates.len(), 0.0);
                swiglu(pool, *variant, &gates, &ups, out);
            }
            (
                Self::Quantized(out),
                Self::Quantized(rows),
                Linear::Quantized(gate),
                Linear::Quantized(up),
            ) => multiply_gated(pool, *variant, Gated { gate, up, rows }, out),
            _ => unreachable!("all matrices and inputs of a model are of one form"),
        }
        Ok(())
    }

    /// Takes `rows`, `(n_rows, width)`, as they are.
    pub(crate) fn set(&mut self, workers: &Workers, rows: &[f32], width: usize) {
        let Workers { pool, variant, .. } = workers;
        match self {
            Self::F32 { values, n_in } => {
                *n_in = width;
                values.clear();
                values.extend_from_slice(rows);
            }
            Self::Quantized(quantized) => quantized.quantize(pool, *variant, rows, width),
        }
    }

    /// Multiplies with all `projections`, in one parallel region.
    ///
    /// Allocates nothing with quantised weights.
    pub(crate) fn multiply<const N: usize>(
        &self,
        workers: &Workers,
        projections: [Projection<'_>; N],
    ) -> Result<(), InferenceError> {
        let Workers { pool, variant, .. } = workers;
        match self {
            Self::F32 { values, n_in } => {
                for projection in projections {
                    let Linear::F32(panels) = projection.weights else {
                        unreachable!("all matrices of a model are of one form");
                    };
                    let product = workers.install(|| panels.product(values, *n_in))?;
                    write(&product, projection);
                }
            }
            Self::Quantized(rows) => {
                let mut products = projections.map(|projection| {
                    let Linear::Quantized(weights) = projection.weights else {
                        unreachable!("all matrices of a model are of one form");
                    };
                    Product {
                        weights,
                        rows,
                        bias: projection.bias,
                        out: projection.out,
                        write: projection.write,
                    }
                });
                multiply(pool, *variant, &mut products);
            }
        }
        Ok(())
    }
}

/// Writes a finished product as a [`Projection`] wants it.
fn write(product: &[f32], projection: Projection<'_>) {
    let n_out = projection.weights.n_out();
    let rows = product.chunks_exact(n_out);
    for (out, row) in projection.out.chunks_exact_mut(n_out).zip(rows) {
        if matches!(projection.write, Write::Overwrite) {
            out.copy_from_slice(row);
        } else {
            add(out, row);
        }
        if let Some(bias) = projection.bias {
            add(out, bias);
        }
    }
}

fn add(to: &mut [f32], other: &[f32]) {
    for (to, other) in to.iter_mut().zip(other) {
        *to += other;
    }
}

impl F32Panels {
    /// From row-major f32 weights of shape `(n_out, n_in)`.
    pub(crate) fn new(weights: &[f32], n_in: usize) -> Result<Self, InferenceError> {
        let n_out = weights.len() / n_in;
        let rows = |rows: Range<usize>| Ok(weights[rows.start * n_in..rows.end * n_in].to_vec());
        Self::from_rows(n_out, n_in, rows)
    }

    /// Reads a tensor of shape `(n_out, n_in)`, a group of panels at a time.
    fn load(tensor: &StoredTensor) -> Result<Self, InferenceError> {
        let (n_out, n_in) = (tensor.n_rows(), tensor.width());
        Self::from_rows(n_out, n_in, |rows| {
            let mut values = vec![0.0; rows.len() * n_in];
            tensor.read_rows_f32(rows, &mut Vec::new(), &mut values)?;
            Ok(values)
        })
    }

    /// `rows`: gives the weights of these outputs.
    fn from_rows(
        n_out: usize,
        n_in: usize,
        rows: impl Fn(Range<usize>) -> Result<Vec<f32>, InferenceError> + Sync,
    ) -> Result<Self, InferenceError> {
        let n_panels = n_out / F32_PANEL_WIDTH;
        let whole = n_panels * F32_PANEL_WIDTH;
        let per_group = n_panels.div_ceil(rayon::current_num_threads()).max(1) * F32_PANEL_WIDTH;
        let starts = (0..whole).step_by(per_group);
        let mut ranges: Vec<Range<usize>> = starts
            .map(|start| start..(start + per_group).min(whole))
            .collect();
        if whole < n_out {
            ranges.push(whole..n_out);
        }
        let groups = ranges.into_par_iter().map(|range| {
            let width = range.len().min(F32_PANEL_WIDTH);
            let n_panels = range.len() / width;
            let rows = rows(range)?;
            let mut panels = vec![0.0; rows.len()];
            panels
                .par_chunks_mut(width * n_in)
                .zip(rows.par_chunks(width * n_in))
                .for_each(|(panel, rows)| transpose(rows, n_in, panel));
            let shape = (n_panels, n_in, width);
            Ok(Tensor::from_vec(panels, shape, &Device::Cpu)?)
        });
        Ok(Self {
            groups: groups.collect::<Result<_, InferenceError>>()?,
            n_out,
            n_in,
        })
    }

    /// `x`: `(n_rows, n_in)`; returns `(n_rows, n_out)`.
    ///
    /// Runs on the rayon pool of the calling thread.
    pub(crate) fn forward(&self, x: &Rows) -> Result<Rows, InferenceError> {
        let y = self.product(x.values(), x.width())?;
        Ok(Rows::new(y, self.n_out))
    }

    fn product(&self, x: &[f32], n_in: usize) -> Result<Vec<f32>, InferenceError> {
        let n_rows = x.len() / n_in;
        let rows = Tensor::from_slice(x, (n_rows, n_in), &Device::Cpu)?;
        let products = self.groups.par_iter().map(|group| times(&rows, group));
        self.joined(products.collect(), n_rows)
    }

    /// `products`: `(n_panels, n_rows, width)` of each group.
    fn joined(
        &self,
        products: Vec<Result<Vec<f32>, InferenceError>>,
        n_rows: usize,
    ) -> Result<Vec<f32>, InferenceError> {
        let mut y = vec![0.0; n_rows * self.n_out];
        let mut start = 0;
        for (product, group) in products.into_iter().zip(&self.groups) {
            let (_, _, width) = group.dims3()?;
            for panel in product?.chunks_exact(n_rows * width) {
                for (y, columns) in y.chunks_exact_mut(self.n_out).zip(panel.chunks(width)) {
                    y[start..start + width].copy_from_slice(columns);
                }
                start += width;
            }
        }
        Ok(y)
    }
}

fn times(rows: &Tensor, group: &Tensor) -> Result<Vec<f32>, InferenceError> {
    let (n_panels, n_in, _) = group.dims3()?;
    let (n_rows, _) = rows.dims2()?;
    let rows = rows.broadcast_as((n_panels, n_rows, n_in))?;
    Ok(rows.matmul(group)?.flatten_all()?.to_vec1()?)
}

/// Writes rows of weights as the columns of `panel`.
fn transpose(rows: &[f32], n_in: usize, panel: &mut [f32]) {
    let width = panel.len() / n_in;
    for (column, row) in rows.chunks_exact(n_in).enumerate() {
        for (to, weight) in panel[column..].iter_mut().step_by(width).zip(row) {
            *to = *weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_applied_row_by_row() {
        let linear = F32Panels::new(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2).unwrap();
        let y = linear
            .forward(&Rows::new(vec![1.0, 0.0, 1.0, -1.0], 2))
            .unwrap();
        assert_eq!(y.values(), [1.0, 3.0, 5.0, -1.0, -1.0, -1.0]);
    }

    #[test]
    fn a_last_narrow_panel_is_joined_in_its_place() {
        let n_in = 5;
        for n_out in [2 * F32_PANEL_WIDTH + 3, 9 * F32_PANEL_WIDTH, 7] {
            let weights: Vec<f32> = (0..n_out * n_in).map(|i| (i % 97) as f32 - 48.0).collect();
            let x: Vec<f32> = (0..3 * n_in).map(|i| (i % 7) as f32 - 3.0).collect();
            let linear = F32Panels::new(&weights, n_in).unwrap();
            let y = linear.forward(&Rows::new(x.clone(), n_in)).unwrap();
            for (row, x) in y.iter().zip(x.chunks_exact(n_in)) {
                for (y, weights) in row.iter().zip(weights.chunks_exact(n_in)) {
                    let expected: f32 = x.iter().zip(weights).map(|(x, w)| x * w).sum();
                    assert_eq!(*y, expected);
                }
            }
        }
    }
}
