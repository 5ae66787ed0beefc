//! One pass through the layers on a device, readable from top to bottom.
//!
//! The same code runs on the tensor library's processor back end, which is how
//! it is tested: a card changes the device and the kernels behind each call.

use candle_core::{Device, Tensor};
use candle_nn::{ops, rotary_emb};

use super::{
    kv::KvLayer,
    layers::Layer,
    slab::{Shape, Slab},
    taps::Taps,
};
use crate::{config::ModelConfig, error::InferenceError};

/// The cosines and sines of rotary positions, `(n_positions, head_dim / 2)`.
///
/// Source: Su et al. 2021, arXiv:2104.09864, half-split layout of GPT-NeoX.
pub(super) struct RotaryTables {
    key: Turn,
    /// Those of the keys times one over the square root of `head_dim`, which
    /// saves the scaling of scores.
    query: Turn,
}

/// Cosines and sines, of the same shape.
struct Turn {
    cos: Tensor,
    sin: Tensor,
}

/// The tables of a slab on the device.
pub(super) struct Tables {
    shape: Shape,
    /// The first slot that the rows are written to.
    first_own: usize,
    /// `(n_sequences * n_rows,)`, u32.
    pub(super) tokens: Tensor,
    /// `(n_sequences * n_slots,)`, u32.
    slots: Tensor,
    /// `(1, n_sequences, 1, n_rows, n_slots)`, f32.
    mask: Tensor,
    /// `(n_sequences * n_wanted,)`, u32; `None` if none is.
    wanted: Option<Tensor>,
    query: Turn,
    key: Turn,
}

/// What all layers of one pass share.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) tables: &'a Tables,
}

impl RotaryTables {
    pub(super) fn new(
        config: &ModelConfig,
        n_positions: usize,
        device: &Device,
    ) -> Result<Self, InferenceError> {
        let half_dim = config.head_dim() / 2;
        let angles = (0..n_positions).flat_map(|position| {
            (0..half_dim).map(move |i| {
                let exponent = -(i as f64) / half_dim as f64;
                position as f64 * f64::from(config.rope_theta).powf(exponent)
            })
        });
        #[expect(clippy::cast_possible_truncation, reason = "rounded once, at the end")]
        let (sin, cos): (Vec<f32>, Vec<f32>) = angles
            .map(|angle| (angle.sin() as f32, angle.cos() as f32))
            .unzip();
        let shape = (n_positions, half_dim);
        let key = Turn {
            cos: Tensor::from_vec(cos, shape, device)?,
            sin: Tensor::from_vec(sin, shape, device)?,
        };
        let scale = 1.0 / (config.head_dim() as f64).sqrt();
        let query = Turn {
            cos: key.cos.affine(scale, 0.0)?,
            sin: key.sin.affine(scale, 0.0)?,
        };
        Ok(Self { key, query })
    }
}

impl Turn {
    /// The rows of `positions`, `(n_sequences, n_rows, head_dim / 2)` each.
    fn at(&self, positions: &Tensor, shape: &Shape) -> Result<Self, InferenceError> {
        let select = |table: &Tensor| {
            let rows = table.index_select(positions, 0)?;
            rows.reshape((shape.n_sequences, shape.n_rows, ()))
        };
        Ok(Self {
            cos: select(&self.cos)?,
            sin: select(&self.sin)?,
        })
    }

    /// `heads`: `(n_sequences, n_rows, n_heads, head_dim)`.
    fn turn(&self, heads: &Tensor) -> Result<Tensor, InferenceError> {
        Ok(rotary_emb::rope_thd(heads, &self.cos, &self.sin)?)
    }
}

impl Tables {
    /// Puts the tables on the device: five small copies for a whole pass.
    pub(super) fn new(
        slab: Slab,
        rotary: &RotaryTables,
        device: &Device,
    ) -> Result<Self, InferenceError> {
        let shape = slab.shape;
        let upload = |values: Vec<u32>| {
            let len = values.len();
            Tensor::from_vec(values, len, device)
        };
        let positions = upload(slab.positions)?;
        let own = (1, shape.n_sequences, 1, shape.n_rows, shape.own_slots());
        let mask = Tensor::from_vec(slab.mask, own, device)?;
        Ok(Self {
            shape,
            first_own: slab.first_own as usize,
            tokens: upload(slab.tokens)?,
            slots: upload(slab.slots)?,
            mask: mask.pad_with_zeros(4, shape.n_prefix, 0)?.contiguous()?,
            wanted: match shape.n_wanted {
                0 => None,
                _ => Some(upload(slab.wanted)?),
            },
            query: rotary.query.at(&positions, &shape)?,
            key: rotary.key.at(&positions, &shape)?,
        })
    }
}

impl Pass<'_> {
    /// Runs `hidden`, `(total_rows, hidden_size)`, through `layers` and leaves
    /// keys and values in their slots of `kv`.
    ///
    /// Returns the wanted rows, `(n_sequences * n_wanted, hidden_size)`, before
    /// the final norm; `None` if none is wanted. In the last layer only they go
    /// on after the attention. `taps` get what they want before the last layer.
    pub(super) fn run(
        &self,
        layers: &[Layer],
        kv: &[KvLayer],
        mut hidden: Tensor,
        taps: &mut Taps,
    ) -> Result<Option<Tensor>, InferenceError> {
        for (layer_idx, (layer, kv)) in layers.iter().zip(kv).enumerate() {
            taps.take(layer_idx, &hidden)?;
            let is_last = layer_idx + 1 == layers.len();
            let normed = self.normalised(&hidden, &layer.attention_norm)?;
            self.store(layer, kv, &normed)?;
            if is_last && self.tables.wanted.is_none() {
                return Ok(None);
            }
            let mixed = self.attend(layer, kv, &normed)?;
            hidden = match self.tables.wanted.as_ref().filter(|_| is_last) {
                Some(wanted) => {
                    let mixed = mixed.index_select(wanted, 0)?;
                    self.finish(layer, &hidden.index_select(wanted, 0)?, &mixed)?
                }
                None => self.finish(layer, &hidden, &mixed)?,
            };
        }
        Ok(Some(hidden))
    }

    /// One layer for all rows: `(total_rows, hidden_size)` in and out.
    pub(super) fn layer(
        &self,
        layer: &Layer,
        kv: &KvLayer,
        hidden: &Tensor,
    ) -> Result<Tensor, InferenceError> {
        let normed = self.normalised(hidden, &layer.attention_norm)?;
        self.store(layer, kv, &normed)?;
        let mixed = self.attend(layer, kv, &normed)?;
        self.finish(layer, hidden, &mixed)
    }

    pub(super) fn normalised(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
    ) -> Result<Tensor, InferenceError> {
        Ok(ops::rms_norm(hidden, weight, self.config.rms_norm_eps)?)
    }

    fn store(&self, layer: &Layer, kv: &KvLayer, normed: &Tensor) -> Result<(), InferenceError> {
        let keys = self.by_head(&layer.key.product(normed)?)?;
        let values = self.by_head(&layer.value.product(normed)?)?;
        let keys = self.tables.key.turn(&keys)?;
        kv.store(&keys, &values, self.tables.first_own)
    }

    /// Softmax attention over prefix and own rows: `(total_rows, hidden_size)`.
    ///
    /// In f32: scores of this model reach values at which bf16 is too coarse.
    fn attend(
        &self,
        layer: &Layer,
        kv: &KvLayer,
        normed: &Tensor,
    ) -> Result<Tensor, InferenceError> {
        let shape = &self.tables.shape;
        let (head_dim, n_kv_heads) = (self.config.head_dim(), self.config.num_key_value_heads);
        let group = self.config.num_attention_heads / n_kv_heads;
        let queries = self.by_head(&layer.query.product(normed)?)?;
        let queries = self.tables.query.turn(&queries)?;
        // All query heads that share a key head become the rows of one matrix.
        let by_group = (shape.n_sequences, shape.n_rows, n_kv_heads, group, head_dim);
        let rows = (
            n_kv_heads,
            shape.n_sequences,
            group * shape.n_rows,
            head_dim,
        );
        let queries = queries
            .reshape(by_group)?
            .permute((2, 0, 3, 1, 4))?
            .contiguous()?
            .reshape(rows)?;

        let (keys, values) = kv.gather(&self.tables.slots, shape)?;
        let scores = queries.matmul(&keys.t()?)?;
        let by_row = (
            n_kv_heads,
            shape.n_sequences,
            group,
            shape.n_rows,
            shape.n_slots,
        );
        let scores = scores.reshape(by_row)?.broadcast_add(&self.tables.mask)?;
        let weights = ops::softmax_last_dim(&scores)?;
        let by_head = (
            n_kv_heads,
            shape.n_sequences,
            group * shape.n_rows,
            shape.n_slots,
        );
        let mixed = weights.reshape(by_head)?.matmul(&values)?;

        let mixed = mixed
            .reshape((n_kv_heads, shape.n_sequences, group, shape.n_rows, head_dim))?
            .permute((1, 3, 0, 2, 4))?
            .contiguous()?;
        Ok(mixed.reshape((shape.total_rows(), self.config.hidden_size))?)
    }

    /// What follows the attention: its projection and the MLP, both added.
    fn finish(
        &self,
        layer: &Layer,
        hidden: &Tensor,
        mixed: &Tensor,
    ) -> Result<Tensor, InferenceError> {
        let hidden = (hidden + layer.output.product(mixed)?)?;
        let normed = self.normalised(&hidden, &layer.mlp_norm)?;
        let gate = layer.gate.product(&normed)?.silu()?;
        let gated = (gate * layer.up.product(&normed)?)?;
        Ok((hidden + layer.down.product(&gated)?)?)
    }

    /// `(total_rows, n_heads * head_dim)` to
    /// `(n_sequences, n_rows, n_heads, head_dim)`; nothing moves.
    fn by_head(&self, rows: &Tensor) -> Result<Tensor, InferenceError> {
        let shape = &self.tables.shape;
        let head_dim = self.config.head_dim();
        Ok(rows.reshape((shape.n_sequences, shape.n_rows, (), head_dim))?)
    }
}
