//! Keys and values of one layer on a device, in numbered slots.

use candle_core::{DType, Device, Tensor};

use super::slab::Shape;
use crate::{config::ModelConfig, error::InferenceError};

/// `(num_key_value_heads, n_slots, head_dim)` each.
pub(super) struct KvLayer {
    keys: Tensor,
    values: Tensor,
}

impl KvLayer {
    /// All slots hold zeros.
    pub(super) fn new(
        config: &ModelConfig,
        n_slots: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, InferenceError> {
        let shape = (config.num_key_value_heads, n_slots, config.head_dim());
        Ok(Self {
            keys: Tensor::zeros(shape, dtype, device)?,
            values: Tensor::zeros(shape, dtype, device)?,
        })
    }

    /// Writes the rows of a slab to the slots from `first` on.
    ///
    /// `keys`, `values`: `(n_sequences, n_rows, num_key_value_heads, head_dim)`.
    pub(super) fn store(
        &self,
        keys: &Tensor,
        values: &Tensor,
        first: usize,
    ) -> Result<(), InferenceError> {
        for (rows, slots) in [(keys, &self.keys), (values, &self.values)] {
            let (n_sequences, n_rows, n_heads, head_dim) = rows.dims4()?;
            let rows = rows
                .reshape((n_sequences * n_rows, n_heads, head_dim))?
                .to_dtype(slots.dtype())?
                .transpose(0, 1)?
                .contiguous()?;
            slots.slice_set(&rows, 1, first)?;
        }
        Ok(())
    }

    /// The keys and values of `slots`, `(n_sequences * n_slots,)` u32, as f32:
    /// `(num_key_value_heads, n_sequences, n_slots, head_dim)` each.
    pub(super) fn gather(
        &self,
        slots: &Tensor,
        shape: &Shape,
    ) -> Result<(Tensor, Tensor), InferenceError> {
        let gather = |from: &Tensor| {
            let (n_heads, _, head_dim) = from.dims3()?;
            let by_sequence = (n_heads, shape.n_sequences, shape.n_slots, head_dim);
            from.index_select(slots, 1)?
                .to_dtype(DType::F32)?
                .reshape(by_sequence)
        };
        Ok((gather(&self.keys)?, gather(&self.values)?))
    }
}

/// Bytes that one slot takes over all layers.
pub(super) fn slot_bytes(config: &ModelConfig, dtype: DType) -> usize {
    2 * config.num_hidden_layers * config.key_value_width() * dtype.size_in_bytes()
}
