//! Qwen2.5 on whichever device it was loaded for.
//!
//! What callers need of a model, the same for the processor ([`Qwen2`]) and a
//! card ([`DeviceQwen2`]). Nothing is computed here.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use crate::{
    config::{LoadOptions, ModelConfig},
    cuda::{
        Accelerator, DeviceLabelRequest, DeviceLabels, DeviceOptions, DevicePrefix, DeviceQwen2,
        DeviceSequence, GpuError,
    },
    error::InferenceError,
    label_plan::Normalization,
    qwen2::{LabelRequest, LabelScores, Prefix, PreparedLabels, Qwen2, Sequence},
    scheduler::ScoreRequest,
    tokenizer::{TokenId, Tokenizer},
};

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModelDevice {
    /// On the processor, by our own kernels.
    #[default]
    Processor,
    /// On the NVIDIA card of this number, from 0 in the driver's order. Needs a
    /// build with the feature `cuda`.
    Cuda {
        /// The card's number.
        ordinal: usize,
    },
}

impl ModelDevice {
    /// That this build can run a model there; looks at no card.
    ///
    /// # Errors
    /// [`GpuError::NotBuilt`].
    pub fn check(self) -> Result<(), GpuError> {
        match self {
            Self::Processor => Ok(()),
            Self::Cuda { .. } => Accelerator::check_built(),
        }
    }
}

impl FromStr for ModelDevice {
    type Err = InferenceError;

    /// `cpu`, or `cuda:0` for the first card.
    fn from_str(text: &str) -> Result<Self, InferenceError> {
        let ordinal = text.strip_prefix("cuda:").map(str::parse);
        match (text, ordinal) {
            ("cpu", _) => Ok(Self::Processor),
            (_, Some(Ok(ordinal))) => Ok(Self::Cuda { ordinal }),
            _ => Err(InferenceError::InvalidOption {
                name: "device",
                allowed: "cpu, or cuda:0 for the first card",
                value: text.chars().take(80).collect(),
            }),
        }
    }
}

impl fmt::Display for ModelDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Processor => f.write_str("cpu"),
            Self::Cuda { ordinal } => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// A model that knows text, on its device; cheap to clone.
#[derive(Clone)]
pub struct LanguageModel(Kind);

#[derive(Clone)]
enum Kind {
    Processor(Arc<Qwen2>),
    /// One with a tokenizer.
    Device(Arc<DeviceQwen2>),
}

/// A prefix of a [`LanguageModel`]; cheap to clone.
#[derive(Clone, Debug)]
pub enum ModelPrefix {
    /// In the processor's memory.
    Processor(Prefix),
    /// In a device's.
    Device(DevicePrefix),
}

/// Labels that a [`LanguageModel`] has made ready; cheap to clone.
#[derive(Clone, Debug)]
pub enum ModelLabels {
    /// For the processor.
    Processor(Arc<PreparedLabels>),
    /// For a device.
    Device(Arc<DeviceLabels>),
}

impl From<Arc<Qwen2>> for LanguageModel {
    fn from(model: Arc<Qwen2>) -> Self {
        Self(Kind::Processor(model))
    }
}

impl TryFrom<Arc<DeviceQwen2>> for LanguageModel {
    type Error = InferenceError;

    /// [`InferenceError::NoTokenizer`] if it has random weights.
    fn try_from(model: Arc<DeviceQwen2>) -> Result<Self, InferenceError> {
        match model.tokenizer() {
            Some(_) => Ok(Self(Kind::Device(model))),
            None => Err(InferenceError::NoTokenizer),
        }
    }
}

impl From<Prefix> for ModelPrefix {
    fn from(prefix: Prefix) -> Self {
        Self::Processor(prefix)
    }
}

impl From<DevicePrefix> for ModelPrefix {
    fn from(prefix: DevicePrefix) -> Self {
        Self::Device(prefix)
    }
}

impl From<Arc<PreparedLabels>> for ModelLabels {
    fn from(labels: Arc<PreparedLabels>) -> Self {
        Self::Processor(labels)
    }
}

impl From<Arc<DeviceLabels>> for ModelLabels {
    fn from(labels: Arc<DeviceLabels>) -> Self {
        Self::Device(labels)
    }
}

impl ModelPrefix {
    /// The prefix, if it is the processor's.
    #[must_use]
    pub fn processor(&self) -> Option<&Prefix> {
        match self {
            Self::Processor(prefix) => Some(prefix),
            Self::Device(_) => None,
        }
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Processor(prefix) => prefix.len(),
            Self::Device(prefix) => prefix.len(),
        }
    }

    /// Whether it has no tokens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ModelLabels {
    /// Rows that they add to a pass, behind each text.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        match self {
            Self::Processor(labels) => labels.n_rows(),
            Self::Device(labels) => labels.n_rows(),
        }
    }
}

impl LanguageModel {
    /// Loads a model for `device`; the parts of a split file in their order. On a
    /// card, of `options` only the context applies, and the weights stay as in
    /// the file.
    ///
    /// # Errors
    /// As for [`Qwen2::load`], or [`Accelerator::cuda`] and [`DeviceQwen2::load`].
    pub fn load(
        files: &[PathBuf],
        device: ModelDevice,
        options: &LoadOptions,
    ) -> Result<Self, InferenceError> {
        match device {
            ModelDevice::Processor => Ok(Arc::new(Qwen2::load(files, options)?).into()),
            ModelDevice::Cuda { ordinal } => {
                let accelerator = Accelerator::cuda(ordinal)?;
                let device_options = DeviceOptions {
                    max_context_tokens: options.max_context_tokens,
                    ..DeviceOptions::default()
                };
                let model = DeviceQwen2::load(files, &accelerator, &device_options)?;
                Arc::new(model).try_into()
            }
        }
    }

    /// The model, if it runs on the processor.
    #[must_use]
    pub fn processor(&self) -> Option<&Arc<Qwen2>> {
        match &self.0 {
            Kind::Processor(model) => Some(model),
            Kind::Device(_) => None,
        }
    }

    /// The tokenizer that the model file carries.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        match &self.0 {
            Kind::Processor(model) => model.tokenizer(),
            Kind::Device(model) => model.tokenizer().expect("one without it is not taken"),
        }
    }

    /// The model's shape.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        match &self.0 {
            Kind::Processor(model) => model.config(),
            Kind::Device(model) => model.config(),
        }
    }

    /// Positions that a prefix and what follows it may take together.
    #[must_use]
    pub fn max_context_tokens(&self) -> usize {
        match &self.0 {
            Kind::Processor(model) => model.max_context_tokens(),
            Kind::Device(model) => model.max_context_tokens(),
        }
    }

    /// Names the arithmetic, for example `Int8`: between two names, the same
    /// weights give numbers that differ a little.
    #[must_use]
    pub fn arithmetic(&self) -> String {
        match &self.0 {
            Kind::Processor(model) => format!("{:?}", model.weight_form()),
            Kind::Device(model) => format!("{:?} on a device", model.form()),
        }
    }

    /// Runs `tokens` through all layers and keeps their keys and values.
    ///
    /// # Errors
    /// As for [`Qwen2::prefix`] or [`DeviceQwen2::prefix`].
    pub fn prefix(&self, tokens: &[TokenId]) -> Result<ModelPrefix, InferenceError> {
        match &self.0 {
            Kind::Processor(model) => Ok(model.prefix(tokens)?.into()),
            Kind::Device(model) => Ok(model.prefix(tokens)?.into()),
        }
    }

    /// Makes `labels` ready: each at least one token; they may share first tokens.
    ///
    /// # Errors
    /// As for [`Qwen2::prepare_labels`] or [`DeviceQwen2::prepare_labels`].
    pub fn prepare_labels(
        &self,
        labels: &[Vec<TokenId>],
        normalization: Normalization,
    ) -> Result<ModelLabels, InferenceError> {
        match &self.0 {
            Kind::Processor(model) => Ok(model.prepare_labels(labels, normalization)?.into()),
            Kind::Device(model) => Ok(model.prepare_labels(labels, normalization)?.into()),
        }
    }

    /// Scores each of `requests`, together where they can be; one that cannot be
    /// answered fails alone.
    ///
    /// # Errors
    /// Of each, as for [`Qwen2::score_labels_batch`] or
    /// [`DeviceQwen2::score_labels_batch`].
    #[must_use]
    pub fn score(&self, requests: &[&ScoreRequest]) -> Vec<Result<LabelScores, InferenceError>> {
        match &self.0 {
            Kind::Processor(model) => {
                let check = |request| {
                    let borrowed = on_processor(request)?;
                    model.check_request(&borrowed).map(|()| borrowed)
                };
                score(requests, check, |batch| model.score_labels_batch(batch))
            }
            Kind::Device(model) => {
                let check = |request| {
                    let borrowed = on_device(request)?;
                    model.check_request(&borrowed).map(|()| borrowed)
                };
                score(requests, check, |batch| model.score_labels_batch(batch))
            }
        }
    }

    /// A sequence that begins with `prefix`, with room for `n_tokens` behind it.
    pub(crate) fn sequence(
        &self,
        prefix: &ModelPrefix,
        n_tokens: usize,
    ) -> Result<ModelSequence, InferenceError> {
        match (&self.0, prefix) {
            (Kind::Processor(model), ModelPrefix::Processor(prefix)) => {
                let sequence = model.sequence(prefix.clone(), n_tokens)?;
                Ok(ModelSequence::Processor(sequence))
            }
            (Kind::Device(model), ModelPrefix::Device(prefix)) => {
                let sequence = model.sequence(prefix, n_tokens)?;
                Ok(ModelSequence::Device(sequence))
            }
            _ => Err(InferenceError::ForeignPrefix),
        }
    }

    /// Runs `tokens` behind the others of `sequence`.
    pub(crate) fn advance(
        &self,
        sequence: &mut ModelSequence,
        tokens: &[TokenId],
    ) -> Result<(), InferenceError> {
        match (&self.0, sequence) {
            (Kind::Processor(model), ModelSequence::Processor(sequence)) => {
                model.advance(sequence, tokens)
            }
            (Kind::Device(model), ModelSequence::Device(sequence)) => {
                model.advance(sequence, tokens)
            }
            _ => Err(InferenceError::ForeignPrefix),
        }
    }
}

impl fmt::Debug for LanguageModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LanguageModel")
            .field("arithmetic", &self.arithmetic())
            .finish_non_exhaustive()
    }
}

/// A sequence that grows, of a [`LanguageModel`].
pub(crate) enum ModelSequence {
    Processor(Sequence),
    Device(DeviceSequence),
}

impl ModelSequence {
    /// Number of tokens so far, those of the prefix counted.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Processor(sequence) => sequence.len(),
            Self::Device(sequence) => sequence.len(),
        }
    }

    /// The logits after the last token, not normalised.
    pub(crate) fn logits(&mut self) -> &mut Vec<f32> {
        match self {
            Self::Processor(sequence) => sequence.logits(),
            Self::Device(sequence) => sequence.logits(),
        }
    }
}

fn on_processor(request: &ScoreRequest) -> Result<LabelRequest<'_>, InferenceError> {
    match (&request.prefix, &request.labels) {
        (ModelPrefix::Processor(prefix), ModelLabels::Processor(labels)) => Ok(LabelRequest {
            prefix,
            suffix: &request.suffix,
            labels,
            hidden: request.hidden.as_deref(),
        }),
        _ => Err(InferenceError::ForeignPrefix),
    }
}

fn on_device(request: &ScoreRequest) -> Result<DeviceLabelRequest<'_>, InferenceError> {
    match (&request.prefix, &request.labels) {
        (ModelPrefix::Device(prefix), ModelLabels::Device(labels)) => Ok(DeviceLabelRequest {
            prefix,
            suffix: &request.suffix,
            labels,
            hidden: request.hidden.as_deref(),
        }),
        _ => Err(InferenceError::ForeignPrefix),
    }
}

/// `borrow` also checks. Those that pass are scored together, or where that fails
/// each by itself, so that it fails alone.
fn score<'a, R: Copy>(
    requests: &[&'a ScoreRequest],
    borrow: impl Fn(&'a ScoreRequest) -> Result<R, InferenceError>,
    run: impl Fn(&[R]) -> Result<Vec<LabelScores>, InferenceError>,
) -> Vec<Result<LabelScores, InferenceError>> {
    let borrowed: Vec<_> = requests.iter().map(|&request| borrow(request)).collect();
    let legal: Vec<R> = borrowed.iter().flatten().copied().collect();
    let alone = |request: &R| {
        let mut scores = run(std::slice::from_ref(request))?;
        scores.pop().ok_or(InferenceError::PassPanicked)
    };
    let scores: Vec<_> = match run(&legal) {
        Ok(scores) => scores.into_iter().map(Ok).collect(),
        Err(_) if legal.len() > 1 => legal.iter().map(alone).collect(),
        Err(error) => vec![Err(error)],
    };
    let mut scores = scores.into_iter();
    // As many as there are requests that passed their check.
    let mut next = || scores.next().unwrap_or(Err(InferenceError::PassPanicked));
    let answers = borrowed.into_iter();
    answers
        .map(|borrowed| borrowed.and_then(|_| next()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_as_it_is_written() {
        for device in [
            ModelDevice::Processor,
            ModelDevice::Cuda { ordinal: 0 },
            ModelDevice::Cuda { ordinal: 12 },
        ] {
            assert_eq!(device.to_string().parse::<ModelDevice>().unwrap(), device);
        }
        for wrong in ["", "cuda", "cuda:", "cuda:-1", "CPU", "gpu", "cuda:0 "] {
            let error = wrong.parse::<ModelDevice>().unwrap_err();
            assert!(matches!(
                error,
                InferenceError::InvalidOption { name: "device", .. }
            ));
        }
    }
}
