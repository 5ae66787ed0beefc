//! Qwen2.5 on an NVIDIA card, and what can be known about cards without one.
//!
//! Tensors, memory and kernels are the tensor library's; the pass, its tables, the
//! tree of prefixes, batching, labels, hidden states and decoding are ours and
//! know no card: they run
//! on the processor too, which is how they are tested. The feature `cuda` adds
//! the one function that opens a card (`enabled.rs`, else `disabled.rs`).
//!
//! This has not been run on a card: it compiles and links for one
//! (`make check-cuda`), and `make test-cuda` is for whoever has one.
//!
//! Unsafe code is in two files: `probe.rs`, which asks the driver's libraries,
//! and `enabled.rs`, for one call.

mod accelerator;
#[cfg_attr(feature = "cuda", path = "enabled.rs")]
#[cfg_attr(not(feature = "cuda"), path = "disabled.rs")]
mod backend;
mod blocks;
mod buckets;
mod check;
mod error;
mod forward;
mod kv;
mod labels;
mod layers;
mod matrix;
mod model;
mod prefix;
mod probe;
mod qwen2;
mod random;
mod report;
mod sequence;
mod slab;
mod taps;

pub use accelerator::Accelerator;
pub use error::GpuError;
pub use labels::{DeviceLabelRequest, DeviceLabels};
pub use matrix::{DeviceForm, ProductChoice};
pub use prefix::DevicePrefix;
pub use probe::{ComputeCapability, Gpu, Telemetry, gpus};
pub use qwen2::DeviceQwen2;
pub use report::{LayerErrors, ProductTime, layer_errors, product_times};
pub(crate) use sequence::DeviceSequence;

use crate::error::InferenceError;

/// How a model is kept and run on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceOptions {
    /// The most positions a prefix and what follows it take together; also
    /// limited by the model.
    pub max_context_tokens: usize,
    /// How weights are kept. Keys and values are bf16, or f32 with
    /// [`DeviceForm::F32`].
    pub form: DeviceForm,
    /// Memory for the keys and values of prefixes, in bytes.
    pub kv_bytes: u64,
    /// Rows of a pass that texts of up to that size share: 1, 8, 16, 32, 64 or
    /// 128. The most batch best; fewer make a single short text faster.
    pub slab_rows: usize,
    /// When products unpack their weights.
    pub product_choice: ProductChoice,
}

impl Default for DeviceOptions {
    /// 4,096 positions, weights as in the file, 1 GiB of keys and values, passes
    /// of 128 rows.
    fn default() -> Self {
        Self {
            max_context_tokens: 4096,
            form: DeviceForm::AsInFile,
            kv_bytes: 1 << 30,
            slab_rows: 128,
            product_choice: ProductChoice::default(),
        }
    }
}

impl DeviceOptions {
    fn check(&self) -> Result<(), InferenceError> {
        if self.slab_rows > 128 || buckets::rows(self.slab_rows) != self.slab_rows {
            return Err(InferenceError::InvalidOption {
                name: "slab_rows",
                allowed: "1, 8, 16, 32, 64 or 128",
                value: self.slab_rows.to_string(),
            });
        }
        if self.max_context_tokens == 0 {
            return Err(InferenceError::InvalidOption {
                name: "max_context_tokens",
                allowed: "at least 1",
                value: "0".into(),
            });
        }
        Ok(())
    }
}

fn finite(values: &[f32], what: &'static str) -> Result<(), InferenceError> {
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(()),
        false => Err(InferenceError::NotFinite { what }),
    }
}
