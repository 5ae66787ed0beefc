//! Matrix products: every weight matrix of the models is behind [`Linear`].
//!
//! The one place that knows how weights are resident: as f32, as int8 for our own
//! kernels, or packed as in the file. A new form is one more variant here.

use std::sync::Arc;

use candle_core::{
    Device, Module, Tensor,
    quantized::{GgmlDType, QMatMul, QStorage, QTensor},
};
use inwarden_kernels::{Int8Matrix, Int8Rows, PANEL_WIDTH as INT8_PANEL_WIDTH, Variant};
use rayon::prelude::*;

use crate::{
    config::WeightForm,
    error::InferenceError,
    quant::{BlockType, dequantize},
    rows::Rows,
    tensor_source::StoredTensor,
};

/// Output columns per panel: one panel of weights fits the second cache.
const PANEL_WIDTH: usize = 128;

/// `y = x W^T`, with `W` of shape `(n_out, n_in)`.
#[derive(Debug)]
pub(crate) enum Linear {
    /// Expanded to f32.
    F32(Panels),
    /// Quantised again, to int8.
    Int8(Int8Matrix),
    /// As in the file. These products run on the tensor library's own threads.
    Packed(Arc<QTensor>),
}

/// The columns of `W^T` in panels, so that a product reads the weights once and
/// in order, and need not pack them anew in each call.
///
/// Several panels share a tensor, one per worker thread: the tensor library
/// asks the system for the number of processors at every product.
#[derive(Debug)]
pub(crate) struct Panels {
    /// `(n_panels, n_in, PANEL_WIDTH)` each, the last one `(1, n_in, rest)` if
    /// `n_out` is no multiple of [`PANEL_WIDTH`]; row-major f32, CPU.
    groups: Vec<Tensor>,
    n_out: usize,
}

impl Linear {
    /// From row-major f32 weights of shape `(n_out, n_in)`.
    pub(crate) fn from_f32(weights: &[f32], n_in: usize) -> Result<Self, InferenceError> {
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        Panels::new(&bytes, BlockType::F32, n_in).map(Self::F32)
    }

    /// From a tensor of a file, whose shape is `(n_out, n_in)`.
    pub(crate) fn from_file(
        tensor: &StoredTensor,
        form: WeightForm,
    ) -> Result<Self, InferenceError> {
        let [n_out, n_in] = tensor.shape[..] else {
            return Err(InferenceError::Tensor(
                "a matrix needs two dimensions".into(),
            ));
        };
        let block_type = tensor.block_type;
        let mut bytes = vec![0; n_out * tensor.row_bytes()];
        tensor.read_rows(0..n_out, &mut bytes)?;
        let packed = match (form, block_type) {
            (WeightForm::Int8, _) => return Ok(Self::Int8(int8(&bytes, block_type, n_in))),
            (WeightForm::F32, _) | (_, BlockType::F32 | BlockType::F16 | BlockType::Bf16) => {
                return Panels::new(&bytes, block_type, n_in).map(Self::F32);
            }
            (_, BlockType::Q4_0) => GgmlDType::Q4_0,
            (_, BlockType::Q4_1) => GgmlDType::Q4_1,
            (_, BlockType::Q5_0) => GgmlDType::Q5_0,
            (_, BlockType::Q5_1) => GgmlDType::Q5_1,
            (_, BlockType::Q8_0) => GgmlDType::Q8_0,
            (_, BlockType::Q4K) => GgmlDType::Q4K,
            (_, BlockType::Q5K) => GgmlDType::Q5K,
            (_, BlockType::Q6K) => GgmlDType::Q6K,
        };
        let storage = QStorage::from_data(bytes.into(), &Device::Cpu, packed)?;
        let weights = QTensor::new(storage, (n_out, n_in))?;
        Ok(Self::Packed(Arc::new(weights)))
    }

    /// `x`: `(n_rows, n_in)`; returns `(n_rows, n_out)`.
    ///
    /// Runs on the rayon pool of the calling thread.
    pub(crate) fn forward(&self, x: &Rows) -> Result<Rows, InferenceError> {
        match self {
            Self::Int8(weights) => Ok(int8_product(weights, x)),
            Self::F32(panels) => panels.product(&tensor(x)?, x.n_rows()),
            Self::Packed(weights) => {
                let y = QMatMul::QTensor(Arc::clone(weights)).forward(&tensor(x)?)?;
                let (_, n_out) = y.dims2()?;
                Ok(Rows::new(y.flatten_all()?.to_vec1()?, n_out))
            }
        }
    }
}

fn tensor(x: &Rows) -> Result<Tensor, InferenceError> {
    let shape = (x.n_rows(), x.width());
    Ok(Tensor::from_slice(x.values(), shape, &Device::Cpu)?)
}

/// `bytes`: whole rows of `n_in` numbers each.
fn int8(bytes: &[u8], block_type: BlockType, n_in: usize) -> Int8Matrix {
    let row_bytes = n_in / block_type.block_len() * block_type.block_bytes();
    let mut matrix = Int8Matrix::zeros(bytes.len() / row_bytes, n_in, Variant::detect());
    matrix
        .panels_mut()
        .into_par_iter()
        .zip(bytes.par_chunks(INT8_PANEL_WIDTH * row_bytes))
        .for_each(|(mut panel, bytes)| {
            let mut rows = vec![0.0; bytes.len() / row_bytes * n_in];
            dequantize(block_type, bytes, &mut rows);
            panel.fill(&rows);
        });
    matrix
}

fn int8_product(weights: &Int8Matrix, x: &Rows) -> Rows {
    let n_rows = x.n_rows();
    let x = Int8Rows::from_f32(x.values(), x.width());
    let mut panels = vec![0.0; weights.n_panels() * n_rows * INT8_PANEL_WIDTH];
    panels
        .par_chunks_exact_mut(n_rows * INT8_PANEL_WIDTH)
        .enumerate()
        .for_each(|(panel_idx, out)| weights.product(panel_idx, &x, out));
    let mut y = vec![0.0; n_rows * weights.n_out()];
    for (panel_idx, panel) in panels.chunks_exact(n_rows * INT8_PANEL_WIDTH).enumerate() {
        let columns = weights.columns(panel_idx);
        let rows = panel.chunks_exact(INT8_PANEL_WIDTH);
        for (y, row) in y.chunks_exact_mut(weights.n_out()).zip(rows) {
            y[columns.clone()].copy_from_slice(&row[..columns.len()]);
        }
    }
    Rows::new(y, weights.n_out())
}

impl Panels {
    /// `bytes`: whole rows of `n_in` numbers each.
    fn new(bytes: &[u8], block_type: BlockType, n_in: usize) -> Result<Self, InferenceError> {
        let row_bytes = n_in / block_type.block_len() * block_type.block_bytes();
        let n_out = bytes.len() / row_bytes;
        let n_panels = n_out / PANEL_WIDTH;
        let per_group = n_panels.div_ceil(rayon::current_num_threads()).max(1);
        let whole = &bytes[..n_panels * PANEL_WIDTH * row_bytes];
        let rest = &bytes[whole.len()..];
        let mut groups = whole
            .chunks(per_group * PANEL_WIDTH * row_bytes)
            .map(|bytes| {
                let mut weights = vec![0.0; bytes.len() / row_bytes * n_in];
                bytes
                    .par_chunks(PANEL_WIDTH * row_bytes)
                    .zip(weights.par_chunks_mut(PANEL_WIDTH * n_in))
                    .for_each(|(bytes, panel)| transpose(bytes, block_type, n_in, panel));
                let shape = (weights.len() / (PANEL_WIDTH * n_in), n_in, PANEL_WIDTH);
                Ok(Tensor::from_vec(weights, shape, &Device::Cpu)?)
            })
            .collect::<Result<Vec<_>, InferenceError>>()?;
        if !rest.is_empty() {
            let width = rest.len() / row_bytes;
            let mut panel = vec![0.0; width * n_in];
            transpose(rest, block_type, n_in, &mut panel);
            groups.push(Tensor::from_vec(panel, (1, n_in, width), &Device::Cpu)?);
        }
        Ok(Self { groups, n_out })
    }

    fn product(&self, x: &Tensor, n_rows: usize) -> Result<Rows, InferenceError> {
        let products = self.groups.par_iter().map(|group| {
            let (n_panels, n_in, width) = group.dims3()?;
            let x = x.broadcast_as((n_panels, n_rows, n_in))?;
            let product = x.matmul(group)?.flatten_all()?.to_vec1::<f32>()?;
            Ok((product, width))
        });
        let products = products.collect::<Result<Vec<_>, InferenceError>>()?;
        let mut y = vec![0.0; n_rows * self.n_out];
        let mut start = 0;
        for (product, width) in products {
            for panel in product.chunks_exact(n_rows * width) {
                for (y, columns) in y.chunks_exact_mut(self.n_out).zip(panel.chunks(width)) {
                    y[start..start + width].copy_from_slice(columns);
                }
                start += width;
            }
        }
        Ok(Rows::new(y, self.n_out))
    }
}

/// Unpacks rows of weights and writes them as the columns of `panel`.
fn transpose(bytes: &[u8], block_type: BlockType, n_in: usize, panel: &mut [f32]) {
    let mut rows = vec![0.0; panel.len()];
    dequantize(block_type, bytes, &mut rows);
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
        let linear = Linear::from_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2).unwrap();
        let y = linear
            .forward(&Rows::new(vec![1.0, 0.0, 1.0, -1.0], 2))
            .unwrap();
        assert_eq!(y.values(), [1.0, 3.0, 5.0, -1.0, -1.0, -1.0]);
    }

    /// Numbers in -1..1 without a pattern that a panel or a group could repeat.
    fn scrambled(len: usize, seed: u32) -> Vec<f32> {
        let number = |idx: u32| idx.wrapping_mul(2_654_435_769).wrapping_add(seed) >> 16;
        let len = u32::try_from(len).unwrap();
        (0..len)
            .map(|idx| number(number(idx) ^ idx) as f32 / 32_768.0 - 1.0)
            .collect()
    }

    #[test]
    fn int8_products_are_those_of_f32_in_their_places() {
        // The last panel and the last group are padded.
        let (n_rows, n_in, n_out) = (7, 2 * 128 + 44, 2 * INT8_PANEL_WIDTH + 37);
        let weights = scrambled(n_out * n_in, 1);
        let x = Rows::new(scrambled(n_rows * n_in, 2), n_in);
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        let exact = Linear::from_f32(&weights, n_in).unwrap().forward(&x);
        let exact = exact.unwrap();
        let y = Linear::Int8(int8(&bytes, BlockType::F32, n_in)).forward(&x);
        let y = y.unwrap();
        assert_eq!((y.n_rows(), y.width()), (n_rows, n_out));
        let square = |rows: &Rows| rows.values().iter().map(|v| v * v).sum::<f32>();
        let mut error = y.clone();
        for (error, exact) in error.values_mut().iter_mut().zip(exact.values()) {
            *error -= exact;
        }
        // Two outputs out of 165 in each other's place would make it 0.1.
        let relative = (square(&error) / square(&exact)).sqrt();
        assert!(relative < 0.01, "{relative}");
        for (row_idx, row) in y.iter().enumerate() {
            let alone = Rows::new(x.row(row_idx).to_vec(), n_in);
            let alone = Linear::Int8(int8(&bytes, BlockType::F32, n_in)).forward(&alone);
            assert_eq!(alone.unwrap().values(), row);
        }
    }

    #[test]
    fn a_last_narrow_panel_is_joined_in_its_place() {
        let (n_out, n_in) = (2 * PANEL_WIDTH + 3, 5);
        let weights: Vec<f32> = (0..n_out * n_in).map(|i| (i % 97) as f32 - 48.0).collect();
        let x: Vec<f32> = (0..3 * n_in).map(|i| (i % 7) as f32 - 3.0).collect();
        let linear = Linear::from_f32(&weights, n_in).unwrap();
        let y = linear.forward(&Rows::new(x.clone(), n_in)).unwrap();
        for (row, x) in y.iter().zip(x.chunks_exact(n_in)) {
            for (y, weights) in row.iter().zip(weights.chunks_exact(n_in)) {
                let expected: f32 = x.iter().zip(weights).map(|(x, w)| x * w).sum();
                assert_eq!(*y, expected);
            }
        }
    }
}
