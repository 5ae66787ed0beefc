//! A model on a device: its layers, its keys and values, and who may use them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Tensor};

use super::{
    DeviceOptions,
    accelerator::Accelerator,
    blocks::{BLOCK_SLOTS, Blocks},
    buckets::MAX_ROWS,
    forward::{Pass, RotaryTables, Tables},
    kv::{KvLayer, slot_bytes},
    layers::{Ends, Layer, Loader, Weights},
    matrix::{DeviceForm, Matrix},
    prefix::{DevicePrefix, slots},
    slab::{NewRows, Places, Shape, Slab, index},
    taps::Taps,
};
use crate::{config::ModelConfig, error::InferenceError, tokenizer::TokenId};

/// Everything but the tokenizer.
pub(super) struct Model {
    config: ModelConfig,
    accelerator: Accelerator,
    layers: Vec<Layer>,
    ends: Ends,
    rotary: RotaryTables,
    kv: Vec<KvLayer>,
    /// Slots of all blocks; behind them those that passes write to, and zeros.
    n_block_slots: usize,
    form: DeviceForm,
    slab_rows: usize,
    max_context_tokens: usize,
    /// Marks which model a prefix came from.
    identity: Arc<()>,
    blocks: Mutex<Blocks>,
    /// The process that opened the device; a forked child cannot use it.
    process: u32,
}

/// Whoever has it is alone on the device: passes share the slots they write to.
pub(super) type Turn<'a> = MutexGuard<'a, Blocks>;

impl Model {
    pub(super) fn load(
        config: ModelConfig,
        weights: &dyn Weights,
        accelerator: &Accelerator,
        options: &DeviceOptions,
    ) -> Result<Self, InferenceError> {
        options.check()?;
        let device = accelerator.device();
        let loader = Loader {
            weights,
            config: &config,
            device,
            form: options.form,
            choice: options.product_choice,
        };
        let layers = (0..config.num_hidden_layers).map(|layer_idx| loader.layer(layer_idx));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let ends = loader.ends()?;

        let dtype = match options.form {
            DeviceForm::AsInFile => DType::BF16,
            DeviceForm::F32 => DType::F32,
        };
        let block_bytes = slot_bytes(&config, dtype) * BLOCK_SLOTS;
        let n_blocks = options.kv_bytes / block_bytes as u64;
        // More would not be addressed by 32 bits.
        let n_blocks = usize::try_from(n_blocks).map_or(1 << 24, |n| n.min(1 << 24));
        let n_block_slots = n_blocks * BLOCK_SLOTS;
        let n_slots = n_block_slots + MAX_ROWS.max(options.slab_rows) + 1;
        let kv = layers
            .iter()
            .map(|_| KvLayer::new(&config, n_slots, dtype, device))
            .collect::<Result<Vec<_>, _>>()?;
        let max_context_tokens = options
            .max_context_tokens
            .min(config.max_position_embeddings);
        Ok(Self {
            rotary: RotaryTables::new(&config, max_context_tokens, device)?,
            config,
            accelerator: accelerator.clone(),
            layers,
            ends,
            kv,
            n_block_slots,
            form: options.form,
            slab_rows: options.slab_rows,
            max_context_tokens,
            identity: Arc::new(()),
            blocks: Mutex::new(Blocks::new(n_blocks)),
            process: std::process::id(),
        })
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn max_context_tokens(&self) -> usize {
        self.max_context_tokens
    }

    pub(super) fn form(&self) -> DeviceForm {
        self.form
    }

    pub(super) fn identity(&self) -> &Arc<()> {
        &self.identity
    }

    pub(super) fn slab_rows(&self) -> usize {
        self.slab_rows
    }

    /// Bytes of the layers' weights, embeddings and head not counted.
    pub(super) fn layer_bytes(&self) -> usize {
        self.layers.iter().map(Layer::size_bytes).sum()
    }

    /// Waits until the device is free.
    pub(super) fn turn(&self) -> Turn<'_> {
        // Whoever panicked left blocks that are either free or held.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where passes without a prefix find their slots.
    pub(super) fn places(&self) -> Places<'static> {
        let n_scratch = MAX_ROWS.max(self.slab_rows);
        Places {
            prefix: &[],
            first_own: index(self.n_block_slots),
            zeros: index(self.n_block_slots + n_scratch),
        }
    }

    /// Runs a slab; returns its wanted rows after the final norm,
    /// `(n_sequences * n_wanted, hidden_size)`, and leaves in `taps` what they
    /// want. It wants at least one row.
    pub(super) fn run(&self, slab: Slab, taps: &mut Taps) -> Result<Tensor, InferenceError> {
        let nothing = || InferenceError::Tensor("no row was wanted".into());
        let hidden = self.pass(slab, taps)?.ok_or_else(nothing)?;
        let eps = self.config.rms_norm_eps;
        let hidden = candle_nn::ops::rms_norm(&hidden, &self.ends.final_norm, eps)?;
        taps.take(self.layers.len(), &hidden)?;
        Ok(hidden)
    }

    /// Logits of normalised hidden states: `(n_rows, vocab_size)`, f32.
    pub(super) fn head(&self, hidden: &Tensor) -> Result<Tensor, InferenceError> {
        self.ends.head.product(hidden)
    }

    /// The rows of the head for `tokens`, as f32: `(tokens, hidden_size)`.
    pub(super) fn head_rows(&self, tokens: &[usize]) -> Result<Matrix, InferenceError> {
        let ids: Vec<u32> = tokens.iter().map(|&token| index(token)).collect();
        let n_ids = ids.len();
        let ids = Tensor::from_vec(ids, n_ids, self.accelerator.device())?;
        Ok(Matrix::Dense(self.ends.head.rows(&ids)?))
    }

    fn pass(&self, slab: Slab, taps: &mut Taps) -> Result<Option<Tensor>, InferenceError> {
        let tables = Tables::new(slab, &self.rotary, self.accelerator.device())?;
        let hidden = self.ends.embeddings.rows(&tables.tokens)?;
        let pass = Pass {
            config: &self.config,
            tables: &tables,
        };
        pass.run(&self.layers, &self.kv, hidden, taps)
    }

    /// `base` and `tokens` behind it as one prefix.
    ///
    /// Computes what no known block holds, one block a pass: a block is then the
    /// same whatever was known, asked for before, or evicted. One that `base`
    /// does not fill is computed again.
    pub(super) fn prefix(
        &self,
        turn: &mut Turn<'_>,
        base: &[TokenId],
        tokens: &[TokenId],
    ) -> Result<DevicePrefix, InferenceError> {
        let all = [base, tokens].concat();
        let mut blocks = turn.find(&all);
        let fresh = turn.take(all.len().div_ceil(BLOCK_SLOTS) - blocks.len())?;
        for block in fresh {
            let done = blocks.len() * BLOCK_SLOTS;
            let end = all.len().min(done + BLOCK_SLOTS);
            let rows = NewRows::run(&all[done..end], done, Vec::new());
            let places = Places {
                prefix: &slots(&blocks, done),
                first_own: index(block.first_slot()),
                ..self.places()
            };
            // A slab of this block alone, whose rows are its slots.
            let slab = Slab::new(Shape::of(&rows, done, 1), &[&rows], places);
            self.pass(slab, &mut Taps::default())?;
            if end == done + BLOCK_SLOTS {
                turn.remember(&all[..end], &block);
            }
            blocks.push(block);
        }
        Ok(DevicePrefix::new(all, blocks, &self.identity))
    }

    /// That `n_tokens` behind `prefix` fit the context, and it is of this model.
    pub(super) fn check_room(
        &self,
        prefix: &DevicePrefix,
        n_tokens: usize,
    ) -> Result<(), InferenceError> {
        if !prefix.belongs_to(&self.identity) {
            return Err(InferenceError::ForeignPrefix);
        }
        self.check_positions(prefix.len().saturating_add(n_tokens))
    }

    /// That this process opened the device: a forked child has no way to it, and
    /// another thread may have held [`Self::turn`] when the process forked.
    fn check_process(&self) -> Result<(), InferenceError> {
        let (started, process) = (self.process, std::process::id());
        match process == started {
            true => Ok(()),
            false => Err(InferenceError::ForkedProcess { started, process }),
        }
    }

    pub(super) fn check_positions(&self, positions: usize) -> Result<(), InferenceError> {
        self.check_process()?;
        let limit = self.max_context_tokens;
        match positions > limit {
            true => Err(InferenceError::ContextOverflow { positions, limit }),
            false => Ok(()),
        }
    }

    pub(super) fn check_tokens(&self, tokens: &[TokenId]) -> Result<(), InferenceError> {
        let vocab_size = self.config.vocab_size;
        match tokens.iter().find(|token| token.0 as usize >= vocab_size) {
            Some(&TokenId(id)) => Err(InferenceError::UnknownToken { id, vocab_size }),
            None => Ok(()),
        }
    }
}
