//! Matrix products: every weight matrix of the models is behind [`Linear`].
//!
//! The one place that knows how weights are resident; a new form (our own int8
//! kernels) is one more variant here and nothing else.

use std::sync::Arc;

use candle_core::{
    Device, Module, Tensor,
    quantized::{GgmlDType, QMatMul, QStorage, QTensor},
};

use crate::{error::InferenceError, gguf::TensorBytes, quant::BlockType, rows::Rows};

/// How weights are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Residency {
    /// Expanded to f32 at load.
    F32,
    /// As in the file, unpacked in each product.
    AsInFile,
}

/// `y = x W^T`, with `W` of shape `(n_out, n_in)`.
#[derive(Clone, Debug)]
pub(crate) enum Linear {
    /// `(n_in, n_out)` view of row-major f32 weights, on the CPU.
    F32(Tensor),
    Packed(Arc<QTensor>),
}

impl Linear {
    /// From row-major f32 weights of shape `(n_out, n_in)`.
    pub(crate) fn from_f32(
        weights: Vec<f32>,
        n_out: usize,
        n_in: usize,
    ) -> Result<Self, InferenceError> {
        let weights = Tensor::from_vec(weights, (n_out, n_in), &Device::Cpu)?;
        Ok(Self::F32(weights.t()?))
    }

    /// From a tensor of a mapped file, whose shape is `(n_out, n_in)`.
    pub(crate) fn from_file(
        tensor: &TensorBytes<'_>,
        residency: Residency,
    ) -> Result<Self, InferenceError> {
        let [n_out, n_in] = tensor.entry.shape[..] else {
            return Err(InferenceError::Tensor(
                "a matrix needs two dimensions".into(),
            ));
        };
        let packed = match (residency, tensor.entry.block_type) {
            (Residency::F32, _) | (_, BlockType::F32 | BlockType::F16 | BlockType::Bf16) => {
                return Self::from_f32(tensor.to_f32(), n_out, n_in);
            }
            (_, BlockType::Q4_0) => GgmlDType::Q4_0,
            (_, BlockType::Q5_0) => GgmlDType::Q5_0,
            (_, BlockType::Q8_0) => GgmlDType::Q8_0,
            (_, BlockType::Q4K) => GgmlDType::Q4K,
            (_, BlockType::Q5K) => GgmlDType::Q5K,
            (_, BlockType::Q6K) => GgmlDType::Q6K,
        };
        let storage = QStorage::from_data(tensor.bytes.into(), &Device::Cpu, packed)?;
        Ok(Self::Packed(Arc::new(QTensor::new(
            storage,
            (n_out, n_in),
        )?)))
    }

    /// `x`: `(n_rows, n_in)`; returns `(n_rows, n_out)`.
    pub(crate) fn forward(&self, x: &Rows) -> Result<Rows, InferenceError> {
        let x = Tensor::from_slice(x.values(), (x.n_rows(), x.width()), &Device::Cpu)?;
        let y = match self {
            Self::F32(weights) => x.matmul(weights)?,
            Self::Packed(weights) => QMatMul::QTensor(Arc::clone(weights)).forward(&x)?,
        };
        let (_, n_out) = y.dims2()?;
        Ok(Rows::new(y.flatten_all()?.to_vec1()?, n_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_applied_row_by_row() {
        let linear = Linear::from_f32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2).unwrap();
        let y = linear
            .forward(&Rows::new(vec![1.0, 0.0, 1.0, -1.0], 2))
            .unwrap();
        assert_eq!(y.values(), [1.0, 3.0, 5.0, -1.0, -1.0, -1.0]);
    }
}
