//! Keys and values per layer, and the shared prefixes made of them.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::Identity;
use crate::{config::ModelConfig, error::InferenceError, rows::Rows};

/// Keys and values of the positions so far, with room for more.
pub(super) struct Cache {
    layers: Vec<LayerCache>,
    /// Positions filled in every layer.
    len: usize,
    capacity: usize,
}

/// `(num_key_value_heads, capacity, head_dim)` each, f32, CPU; keys are rotated.
struct LayerCache {
    keys: Tensor,
    values: Tensor,
}

impl Cache {
    pub(super) fn new(config: &ModelConfig, capacity: usize) -> Result<Self, InferenceError> {
        // A tensor without elements is legal and never read.
        let shape = (config.num_key_value_heads, capacity, config.head_dim());
        let layers = (0..config.num_hidden_layers).map(|_| {
            Ok(LayerCache {
                keys: Tensor::zeros(shape, DType::F32, &Device::Cpu)?,
                values: Tensor::zeros(shape, DType::F32, &Device::Cpu)?,
            })
        });
        Ok(Self {
            layers: layers.collect::<Result<_, InferenceError>>()?,
            len: 0,
            capacity,
        })
    }

    /// A copy with room for `n_tokens` more positions.
    pub(super) fn with_room(&self, n_tokens: usize) -> Result<Self, InferenceError> {
        let capacity = self.len + n_tokens;
        let layers = self.layers.iter().map(|layer| {
            Ok(LayerCache {
                keys: copied(&layer.keys, self.len, capacity)?,
                values: copied(&layer.values, self.len, capacity)?,
            })
        });
        Ok(Self {
            layers: layers.collect::<Result<_, InferenceError>>()?,
            len: self.len,
            capacity,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Counts positions that every layer has stored.
    pub(super) fn advance(&mut self, n_positions: usize) {
        debug_assert!(self.len + n_positions <= self.capacity);
        self.len += n_positions;
    }

    /// Stores one layer's keys and values behind the filled positions.
    ///
    /// `keys` and `values`: `(n_positions, key_value_width)`. Returns both with
    /// all positions up to the last new one, `(num_key_value_heads, n, head_dim)`.
    pub(super) fn store(
        &self,
        layer_idx: usize,
        keys: &Rows,
        values: &Rows,
    ) -> Result<(Tensor, Tensor), InferenceError> {
        let layer = &self.layers[layer_idx];
        let end = self.len + keys.n_rows();
        for (stored, rows) in [(&layer.keys, keys), (&layer.values, values)] {
            let (n_heads, _, head_dim) = stored.dims3()?;
            let shape = (rows.n_rows(), n_heads, head_dim);
            let rows = Tensor::from_slice(rows.values(), shape, &Device::Cpu)?;
            stored.slice_set(&rows.transpose(0, 1)?.contiguous()?, 1, self.len)?;
        }
        Ok((
            layer.keys.narrow(1, 0, end)?,
            layer.values.narrow(1, 0, end)?,
        ))
    }
}

fn copied(from: &Tensor, len: usize, capacity: usize) -> Result<Tensor, InferenceError> {
    let (n_heads, _, head_dim) = from.dims3()?;
    let copy = Tensor::zeros((n_heads, capacity, head_dim), DType::F32, &Device::Cpu)?;
    if len > 0 {
        copy.slice_set(&from.narrow(1, 0, len)?.contiguous()?, 1, 0)?;
    }
    Ok(copy)
}

/// The keys and values of a run of tokens, to put other tokens behind it.
///
/// Cheap to clone; never changes.
#[derive(Clone)]
pub struct Prefix {
    cache: Arc<Cache>,
    model: Identity,
}

impl Prefix {
    pub(super) fn new(cache: Cache, model: &Identity) -> Self {
        Self {
            cache: Arc::new(cache),
            model: Arc::clone(model),
        }
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.len
    }

    /// Whether it holds no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cache.len == 0
    }

    /// Memory of its keys and values, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let layers = self.cache.layers.iter();
        let elements = layers.map(|layer| layer.keys.elem_count() + layer.values.elem_count());
        elements.sum::<usize>() * size_of::<f32>()
    }

    pub(super) fn belongs_to(&self, model: &Identity) -> bool {
        Arc::ptr_eq(&self.model, model)
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }
}

impl std::fmt::Debug for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prefix").field("len", &self.len()).finish()
    }
}
