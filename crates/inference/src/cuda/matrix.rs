//! Weight matrices on a device, and the products with them.

use std::sync::Arc;

use candle_core::{
    DType, Device, Module, Tensor,
    quantized::{GgmlDType, QMatMul, QStorage, QTensor},
};

use crate::{
    error::InferenceError,
    quant::{BlockType, dequantize},
};

/// How weights are kept on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceForm {
    /// As in the file: quantised blocks stay packed, bf16 stays bf16. Products
    /// of packed blocks quantise their activations to int8 in groups of 32.
    AsInFile,
    /// Expanded to f32: exact, for tests and comparisons. 4 bytes a weight.
    F32,
}

/// Which way packed matrices are multiplied, by the number of rows.
///
/// The quantised kernels read the weights as they are; the other way unpacks
/// them to bf16 for each product and leaves the rest to the vendor's library,
/// which pays only when many rows share the unpacking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProductChoice {
    /// Products of at least this many rows unpack the weights; `None` for none.
    pub unpack_from_rows: Option<usize>,
}

impl Default for ProductChoice {
    /// The quantised kernels for every number of rows. Unmeasured: no card was
    /// at hand; `make test-cuda` times both ways and prints what to set.
    fn default() -> Self {
        Self {
            unpack_from_rows: None,
        }
    }
}

/// A matrix as it comes from a file: `(n_out, n_in)`, row-major, packed.
pub(super) struct Packed {
    pub(super) block_type: BlockType,
    pub(super) bytes: Vec<u8>,
    pub(super) shape: [usize; 2],
}

impl Packed {
    pub(super) fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.shape[0] * self.shape[1]];
        dequantize(self.block_type, &self.bytes, &mut values);
        values
    }
}

/// `(n_out, n_in)` on a device.
pub(super) enum Matrix {
    Packed {
        weights: Arc<QTensor>,
        choice: ProductChoice,
    },
    /// f32 or bf16.
    Dense(Tensor),
}

impl Matrix {
    pub(super) fn new(
        packed: &Packed,
        device: &Device,
        form: DeviceForm,
        choice: ProductChoice,
    ) -> Result<Self, InferenceError> {
        let shape = (packed.shape[0], packed.shape[1]);
        let dense = || {
            Ok(Self::Dense(Tensor::from_vec(
                packed.to_f32(),
                shape,
                device,
            )?))
        };
        let Some(format) = quantised(packed.block_type) else {
            return match (form, packed.block_type) {
                (DeviceForm::AsInFile, BlockType::Bf16) => {
                    let bytes = &packed.bytes;
                    let weights =
                        Tensor::from_raw_buffer(bytes, DType::BF16, &packed.shape, device);
                    Ok(Self::Dense(weights?))
                }
                // f16 becomes f32: activations may exceed what f16 can hold.
                _ => dense(),
            };
        };
        if form == DeviceForm::F32 {
            return dense();
        }
        // This way of loading puts zeros behind the weights. The kernels read
        // there when a row is no multiple of 256, and multiply by zero: were it
        // not for the zeros, by zero times what is no number.
        let storage = QStorage::from_data(packed.bytes.as_slice().into(), device, format)?;
        let weights = Arc::new(QTensor::new(storage, shape)?);
        Ok(Self::Packed { weights, choice })
    }

    /// `x`: `(n_rows, n_in)`, f32, contiguous; returns `(n_rows, n_out)`, f32.
    pub(super) fn product(&self, x: &Tensor) -> Result<Tensor, InferenceError> {
        let (n_rows, _) = x.dims2()?;
        match self {
            Self::Packed { weights, choice } => match choice.unpack_from_rows {
                Some(from_rows) if n_rows >= from_rows => {
                    let dense = weights.dequantize(x.device())?.to_dtype(DType::BF16)?;
                    dense_product(&dense, x)
                }
                _ => Ok(QMatMul::QTensor(Arc::clone(weights)).forward(x)?),
            },
            Self::Dense(weights) => dense_product(weights, x),
        }
    }

    /// The rows of `ids`, `(n_ids,)` u32, as f32: `(n_ids, n_in)`.
    pub(super) fn rows(&self, ids: &Tensor) -> Result<Tensor, InferenceError> {
        match self {
            Self::Packed { weights, .. } => Ok(weights.embedding(ids)?),
            Self::Dense(weights) => Ok(weights.index_select(ids, 0)?.to_dtype(DType::F32)?),
        }
    }

    /// Bytes that the weights take on the device.
    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Self::Packed { weights, .. } => weights.storage_size_in_bytes(),
            Self::Dense(weights) => weights.elem_count() * weights.dtype().size_in_bytes(),
        }
    }
}

fn dense_product(weights: &Tensor, x: &Tensor) -> Result<Tensor, InferenceError> {
    let product = x.to_dtype(weights.dtype())?.matmul(&weights.t()?)?;
    Ok(product.to_dtype(DType::F32)?)
}

/// The tensor library's name of a packed format; `None` for plain numbers.
pub(super) fn quantised(block_type: BlockType) -> Option<GgmlDType> {
    match block_type {
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => None,
        BlockType::Q4_0 => Some(GgmlDType::Q4_0),
        BlockType::Q4_1 => Some(GgmlDType::Q4_1),
        BlockType::Q5_0 => Some(GgmlDType::Q5_0),
        BlockType::Q5_1 => Some(GgmlDType::Q5_1),
        BlockType::Q8_0 => Some(GgmlDType::Q8_0),
        BlockType::Q4K => Some(GgmlDType::Q4K),
        BlockType::Q5K => Some(GgmlDType::Q5K),
        BlockType::Q6K => Some(GgmlDType::Q6K),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::{check::relative_error, random};

    /// The error of a product and of unpacked rows against the same in f32.
    fn errors(
        block_type: BlockType,
        form: DeviceForm,
        unpack_from_rows: Option<usize>,
    ) -> [f64; 2] {
        let (n_rows, n_in, n_out) = (16, 512, 80);
        let packed = random::matrix(block_type, [n_out, n_in], 5);
        let x = Tensor::from_vec(
            random::normal(n_rows * n_in, 6),
            (n_rows, n_in),
            &Device::Cpu,
        );
        let (x, ids) = (x.unwrap(), Tensor::new(&[79_u32, 0], &Device::Cpu).unwrap());
        let run = |form, unpack_from_rows| {
            let choice = ProductChoice { unpack_from_rows };
            let matrix = Matrix::new(&packed, &Device::Cpu, form, choice).unwrap();
            [matrix.product(&x).unwrap(), matrix.rows(&ids).unwrap()]
                .map(|tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        };
        let (actual, exact) = (run(form, unpack_from_rows), run(DeviceForm::F32, None));
        [0, 1].map(|idx| relative_error(&actual[idx], &exact[idx]))
    }

    #[test]
    fn packed_weights_multiply_alike_as_they_are_and_unpacked() {
        use DeviceForm::AsInFile;
        let [as_they_are, rows] = errors(BlockType::Q4K, AsInFile, None);
        let [unpacked, _] = errors(BlockType::Q4K, AsInFile, Some(16));
        let [too_few_rows, _] = errors(BlockType::Q4K, AsInFile, Some(17));
        assert!((1e-4..0.02).contains(&as_they_are), "{as_they_are}");
        assert!((1e-4..0.01).contains(&unpacked), "{unpacked}");
        assert!(unpacked.total_cmp(&as_they_are).is_ne());
        assert!(too_few_rows.total_cmp(&as_they_are).is_eq());
        assert!(rows < 1e-4, "{rows}");
    }

    #[test]
    fn bf16_stays_bf16_and_f16_becomes_f32() {
        let [product, rows] = errors(BlockType::Bf16, DeviceForm::AsInFile, None);
        assert!((1e-4..0.01).contains(&product), "{product}");
        assert!(rows == 0.0, "{rows}");
        let exact = errors(BlockType::F16, DeviceForm::AsInFile, None);
        assert!(exact == [0.0, 0.0], "{exact:?}");
    }
}
