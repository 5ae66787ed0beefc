//! Qwen2.5 on a device.

use std::path::PathBuf;

use super::{
    DeviceOptions,
    accelerator::Accelerator,
    blocks::BLOCK_SLOTS,
    buckets::MAX_ROWS,
    labels::{self, DeviceLabelRequest, Prepared},
    layers::Weights,
    matrix::Packed,
    model::{Model, Turn},
    prefix::DevicePrefix,
    random::RandomWeights,
};
use crate::{
    checkpoint::Checkpoint,
    config::ModelConfig,
    error::InferenceError,
    qwen2::LabelScores,
    tensor_source::TensorSource,
    tokenizer::{TokenId, Tokenizer},
};

/// A Qwen2 model whose weights, keys and values are on a device.
///
/// Calls from several threads take turns; each runs one pass or a few, and all
/// passes are padded to shapes that depend on each text alone.
pub struct DeviceQwen2 {
    model: Model,
    /// Absent for random weights, which know no text.
    tokenizer: Option<Tokenizer>,
}

impl DeviceQwen2 {
    /// Loads a model; the parts of a split file in their order.
    ///
    /// # Errors
    /// [`InferenceError::Io`], [`InferenceError::Corrupt`],
    /// [`InferenceError::InvalidOption`], [`InferenceError::Tensor`] if the
    /// device's memory does not suffice.
    pub fn load(
        files: &[PathBuf],
        accelerator: &Accelerator,
        options: &DeviceOptions,
    ) -> Result<Self, InferenceError> {
        let checkpoint = Checkpoint::open(files)?;
        let weights = FileWeights(checkpoint.tensors());
        let config = checkpoint.config().clone();
        Ok(Self {
            model: Model::load(config, &weights, accelerator, options)?,
            tokenizer: Some(checkpoint.tokenizer()?),
        })
    }

    /// A model of this shape with random weights, in the formats of a "Q4_K_M"
    /// file; for measuring, without any file.
    ///
    /// # Errors
    /// [`InferenceError::InvalidOption`], [`InferenceError::Tensor`].
    pub fn random(
        config: &ModelConfig,
        accelerator: &Accelerator,
        options: &DeviceOptions,
    ) -> Result<Self, InferenceError> {
        let weights = RandomWeights { seed: 1 };
        Ok(Self {
            model: Model::load(config.clone(), &weights, accelerator, options)?,
            tokenizer: None,
        })
    }

    /// The tokenizer that the model file carries; `None` for random weights.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// The model's shape.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    /// Bytes of weights that a pass reads: all layers and the head.
    #[must_use]
    pub fn pass_bytes(&self) -> usize {
        self.model.layer_bytes() + self.model.head_bytes()
    }

    /// Runs `tokens` through all layers and keeps their keys and values.
    ///
    /// What an earlier prefix holds of them is not computed again.
    ///
    /// # Errors
    /// [`InferenceError::ContextOverflow`], [`InferenceError::UnknownToken`],
    /// [`InferenceError::Gpu`] if all blocks are held by prefixes.
    pub fn prefix(&self, tokens: &[TokenId]) -> Result<DevicePrefix, InferenceError> {
        self.model.check_positions(tokens.len())?;
        self.model.check_tokens(tokens)?;
        self.model.prefix(&mut self.model.turn(), &[], tokens)
    }

    /// A longer prefix; `prefix` itself stays as it is.
    ///
    /// # Errors
    /// As for [`Self::prefix`], and [`InferenceError::ForeignPrefix`].
    pub fn extend(
        &self,
        prefix: &DevicePrefix,
        tokens: &[TokenId],
    ) -> Result<DevicePrefix, InferenceError> {
        self.model.check_room(prefix, tokens.len())?;
        self.model.check_tokens(tokens)?;
        self.model
            .prefix(&mut self.model.turn(), prefix.tokens(), tokens)
    }

    /// Scores each request's labels as continuations of its prefix and text.
    ///
    /// The normaliser is the whole vocabulary's. Texts of one size behind the
    /// same prefix share passes; company does not change a result.
    ///
    /// # Errors
    /// [`InferenceError::Empty`] without a text, a label or a label's tokens,
    /// [`InferenceError::ContextOverflow`], [`InferenceError::UnknownToken`],
    /// [`InferenceError::ForeignPrefix`], [`InferenceError::InvalidOption`] for
    /// labels of more than 500 inner nodes, [`InferenceError::NotFinite`],
    /// [`InferenceError::Gpu`] as for [`Self::prefix`], for long texts.
    pub fn score_labels_batch(
        &self,
        requests: &[DeviceLabelRequest<'_>],
    ) -> Result<Vec<LabelScores>, InferenceError> {
        for request in requests {
            self.check(request)?;
        }
        let mut turn = self.model.turn();
        let begun = requests
            .iter()
            .map(|request| self.begin(&mut turn, request));
        let begun = begun.collect::<Result<Vec<_>, _>>()?;
        let prepared = requests.iter().zip(&begun).map(|(request, begun)| {
            let (prefix, suffix) = match begun {
                Some((prefix, n_done)) => (prefix, &request.suffix[*n_done..]),
                None => (request.prefix, request.suffix),
            };
            Prepared::new(request.labels, prefix, suffix, self.model.slab_rows())
        });
        let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
        labels::score(&self.model, &prepared)
    }

    fn check(&self, request: &DeviceLabelRequest<'_>) -> Result<(), InferenceError> {
        let labels = request.labels;
        if labels.is_empty() || labels.iter().any(Vec::is_empty) {
            return Err(InferenceError::Empty { what: "labels" });
        }
        if request.suffix.is_empty() {
            return Err(InferenceError::Empty { what: "tokens" });
        }
        let longest = labels.iter().map(Vec::len).max().unwrap_or_default();
        let n_tokens = request.suffix.len().saturating_add(longest);
        self.model.check_room(request.prefix, n_tokens)?;
        for tokens in labels.iter().map(Vec::as_slice).chain([request.suffix]) {
            self.model.check_tokens(tokens)?;
        }
        Ok(())
    }

    /// Of a text too long for one pass, runs the beginning as a prefix; returns
    /// it and how many tokens of the text it has.
    fn begin(
        &self,
        turn: &mut Turn<'_>,
        request: &DeviceLabelRequest<'_>,
    ) -> Result<Option<(DevicePrefix, usize)>, InferenceError> {
        let n_nodes: usize = request.labels.iter().map(|label| label.len() - 1).sum();
        let room = MAX_ROWS.saturating_sub(n_nodes).max(1);
        let n_text = request.suffix.len();
        if n_text <= room {
            return Ok(None);
        }
        let n_done = (n_text - room)
            .next_multiple_of(BLOCK_SLOTS)
            .min(n_text - 1);
        let base = request.prefix.tokens();
        let prefix = self.model.prefix(turn, base, &request.suffix[..n_done])?;
        Ok(Some((prefix, n_done)))
    }
}

/// The tensors of a file.
struct FileWeights<'a>(&'a dyn TensorSource);

impl Weights for FileWeights<'_> {
    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Packed, InferenceError> {
        let tensor = self.0.tensor(name, &shape)?;
        let n_rows = tensor.n_rows();
        let mut bytes = vec![0; n_rows * tensor.row_bytes()];
        tensor.read_rows(0..n_rows, &mut bytes)?;
        Ok(Packed {
            block_type: tensor.block_type,
            bytes,
            shape,
        })
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, InferenceError> {
        self.0.vector(name, len)
    }
}
