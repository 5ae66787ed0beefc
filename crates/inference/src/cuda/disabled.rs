//! Without the feature `cuda`: no card can be opened.

use candle_core::Device;

use super::{error::GpuError, probe::Gpu};
use crate::error::InferenceError;

/// Answers that this build cannot.
pub(super) fn open(_ordinal: usize, _gpu: &Gpu) -> Result<Device, InferenceError> {
    Err(GpuError::NotBuilt.into())
}
