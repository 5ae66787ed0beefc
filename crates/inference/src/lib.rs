//! Qwen2.5 and MiniLM in process: weights, tokenizer, prefix cache, label scoring, embeddings.
//!
//! The work this crate is built for: a long prompt prefix that many texts
//! share, a short text, and a closed set of labels. [`Qwen2::prefix`] runs the
//! shared part once; [`Qwen2::score_labels`] then needs one forward pass over
//! the text alone.
//!
//! ```no_run
//! use inwarden_inference::{LoadOptions, Qwen2};
//!
//! # fn main() -> Result<(), inwarden_inference::InferenceError> {
//! let model = Qwen2::load(&["model.gguf".into()], &LoadOptions::default())?;
//! let tokenizer = model.tokenizer();
//! let prefix = model.prefix(&tokenizer.encode_prompt("<|im_start|>user\n")?)?;
//! let labels = [tokenizer.encode_text("yes")?, tokenizer.encode_text("no")?];
//! let scores = model.score_labels(&prefix, &tokenizer.encode_text("Is ice cold? ")?, &labels)?;
//! assert_eq!(scores.log_probabilities.len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! Everything read from a model file is treated as hostile: counts, lengths and
//! shapes are checked before they are used, and no two tensors share bytes.
//! Loading a file allocates at most a small constant times its size and, for
//! int8 weights, what padding takes: each matrix is filled up to 64 outputs and
//! 128 inputs, 9 KiB for the smallest. Calls allocate by the number of tokens
//! they are given, which is capped, and by the shape of the model.
//!
//! Results are a function of the inputs: the same calls on the same machine
//! give bitwise the same numbers in every run, alone or in a batch, on any number
//! of threads, and from any split of a sequence into prefix and suffix. No prompts, labels or security
//! words live here, and nothing here logs the text it is given.
//!
//! The feature `testing` adds what the fuzz targets call, and nothing else.

mod bytes;
mod chat;
mod checkpoint;
mod config;
mod constrain;
mod cuda;
mod error;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod fuzz;
mod gguf;
mod huggingface;
mod label_plan;
mod label_tree;
mod language_model;
mod linear;
mod math;
mod minilm;
mod model_file;
mod quant;
mod qwen2;
mod rows;
mod safetensors;
mod scheduler;
mod tensor_source;
mod tokenizer;

pub use chat::{ChatTurn, Role};
pub use config::{Fingerprint, KeyValueForm, LoadOptions, ModelConfig, WeightForm};
pub use constrain::{
    CompiledShape, Constraint, FieldKind, FieldValue, Grammar, GrammarCompiler, JsonShape, Step,
};
pub use cuda::{
    Accelerator, ComputeCapability, DeviceForm, DeviceLabelRequest, DeviceLabels, DeviceOptions,
    DevicePrefix, DeviceQwen2, Gpu, GpuError, LayerErrors, ProductChoice, ProductTime, Telemetry,
    gpus, layer_errors, product_times,
};
pub use error::{Corruption, InferenceError};
pub use label_plan::Normalization;
pub use language_model::{LanguageModel, ModelDevice, ModelLabels, ModelPrefix};
pub use minilm::Embedder;
pub use qwen2::{
    ConstrainedLimits, ConstrainedOutput, Ended, GenerateOptions, HiddenRequest, LabelRequest,
    LabelScores, Pooling, Prefix, PrefixCache, PrefixCacheCounters, PreparedLabels, Prior, Qwen2,
    Sampling, SavedPrefix, Session,
};
pub use scheduler::{
    CallerId, Handle, PendingScores, Scheduler, SchedulerConfig, SchedulerCounters, ScoreRequest,
};
pub use tokenizer::{TokenId, Tokenizer};
