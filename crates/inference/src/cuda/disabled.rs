//! Without the feature `cuda`: no card can be opened.

use candle_core::Device;

use super::{error::GpuError, probe::Gpu};
use crate::error::InferenceError;

/// That this build can open cards at all: it cannot.
pub(super) fn check_built() -> Result<(), GpuError> {
    Err(GpuError::NotBuilt)
}

/// Answers that this build cannot.
pub(super) fn open(_ordinal: usize, _gpu: &Gpu) -> Result<Device, InferenceError> {
    Err(GpuError::NotBuilt.into())
}
