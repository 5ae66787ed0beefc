//! Qwen2.5 on a device.

use std::{path::PathBuf, sync::Arc};

use super::{
    DeviceOptions,
    accelerator::Accelerator,
    blocks::BLOCK_SLOTS,
    buckets::MAX_ROWS,
    labels::{self, DeviceLabelRequest, DeviceLabels, Prepared},
    layers::Weights,
    matrix::{DeviceForm, Packed},
    model::{Model, Turn},
    prefix::DevicePrefix,
    random::RandomWeights,
};
use crate::{
    checkpoint::Checkpoint,
    config::ModelConfig,
    error::InferenceError,
    label_plan::{LabelPlan, Normalization},
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

    /// Positions that a prefix and what follows it may take together.
    #[must_use]
    pub fn max_context_tokens(&self) -> usize {
        self.model.max_context_tokens()
    }

    /// How the weights are kept.
    #[must_use]
    pub fn form(&self) -> DeviceForm {
        self.model.form()
    }

    /// Bytes of weights that a pass over labels reads: all layers. Of the head it
    /// reads a few rows; decoding, and labels among the whole vocabulary, all of it.
    #[must_use]
    pub fn pass_bytes(&self) -> usize {
        self.model.layer_bytes()
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

    /// Makes `labels` ready: each at least one token; they may share first tokens.
    ///
    /// Among legal tokens the head then computes these alone, in f32.
    ///
    /// # Errors
    /// As for [`Qwen2::prepare_labels`](crate::Qwen2::prepare_labels), and
    /// [`InferenceError::ForkedProcess`], [`InferenceError::Tensor`].
    pub fn prepare_labels(
        &self,
        labels: &[Vec<TokenId>],
        normalization: Normalization,
    ) -> Result<Arc<DeviceLabels>, InferenceError> {
        self.model.check_positions(0)?;
        let check = |tokens: &[TokenId]| self.model.check_tokens(tokens);
        let mut plan = LabelPlan::new(labels, normalization, check)?;
        let head = match plan.tokens.as_deref() {
            Some([]) | None => None,
            Some(tokens) => Some(self.model.head_rows(tokens)?),
        };
        if head.is_none() {
            plan.use_all_outputs();
        }
        Ok(Arc::new(DeviceLabels {
            plan,
            head,
            model: Arc::clone(self.model.identity()),
        }))
    }

    /// Scores each request's labels as continuations of its prefix and text.
    ///
    /// Texts of one size behind the same prefix share passes; company does not
    /// change a result.
    ///
    /// # Errors
    /// What [`Self::check_request`] gives for one of them, before anything is
    /// computed; [`InferenceError::InvalidOption`] for labels of more than 500
    /// rows and for hidden states of tokens that the pass does not hold,
    /// [`InferenceError::NotFinite`], [`InferenceError::Gpu`] as for
    /// [`Self::prefix`], for long texts.
    pub fn score_labels_batch(
        &self,
        requests: &[DeviceLabelRequest<'_>],
    ) -> Result<Vec<LabelScores>, InferenceError> {
        for request in requests {
            self.check_request(request)?;
        }
        let mut turn = self.model.turn();
        let begun = requests
            .iter()
            .map(|request| self.begin(&mut turn, request));
        let begun = begun.collect::<Result<Vec<_>, _>>()?;
        let prepared = requests.iter().zip(&begun).map(|(request, begun)| {
            let (prefix, n_done) = match begun {
                Some((prefix, n_done)) => (prefix, *n_done),
                None => (request.prefix, 0),
            };
            Prepared::new(&self.model, request, prefix, n_done)
        });
        let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
        labels::score(&self.model, &prepared)
    }

    /// Whether `request` can be answered; computes nothing.
    ///
    /// # Errors
    /// [`InferenceError::Empty`] without a text,
    /// [`InferenceError::ContextOverflow`], [`InferenceError::UnknownToken`],
    /// [`InferenceError::ForeignPrefix`] for a prefix or labels of another
    /// model, [`InferenceError::InvalidOption`],
    /// [`InferenceError::ForkedProcess`].
    pub fn check_request(&self, request: &DeviceLabelRequest<'_>) -> Result<(), InferenceError> {
        if !Arc::ptr_eq(&request.labels.model, self.model.identity()) {
            return Err(InferenceError::ForeignPrefix);
        }
        let n_tokens = request
            .suffix
            .len()
            .saturating_add(request.labels.plan.longest);
        self.model.check_room(request.prefix, n_tokens)?;
        self.model.check_tokens(request.suffix)?;
        if request.suffix.is_empty() {
            return Err(InferenceError::Empty { what: "tokens" });
        }
        let n_layers = self.config().num_hidden_layers;
        match request.hidden {
            Some(hidden) => hidden.check(n_layers, request.suffix.len()),
            None => Ok(()),
        }
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// Of a text too long for one pass, runs the beginning as a prefix; returns
    /// it and how many tokens of the text it has.
    fn begin(
        &self,
        turn: &mut Turn<'_>,
        request: &DeviceLabelRequest<'_>,
    ) -> Result<Option<(DevicePrefix, usize)>, InferenceError> {
        let room = MAX_ROWS.saturating_sub(request.labels.n_rows()).max(1);
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
