//! The device that a model runs on.

use candle_core::Device;

use super::{backend, check, error::GpuError};
use crate::error::InferenceError;

/// A device that tensors live on, found fit for use.
///
/// Everything that is not a kernel is the same code on each of them.
#[derive(Clone, Debug)]
pub struct Accelerator {
    device: Device,
    name: String,
}

impl Accelerator {
    /// That this build can open cards at all.
    pub(crate) fn check_built() -> Result<(), GpuError> {
        backend::check_built()
    }

    /// The NVIDIA card `ordinal`, from 0 in the driver's order.
    ///
    /// Compares the card with what the kernels were compiled for, then computes
    /// products of every weight format whose answers are known: launches report
    /// no error, so a card that does not match would answer garbage.
    ///
    /// # Errors
    /// [`InferenceError::Gpu`]: [`GpuError::NotBuilt`] without the feature
    /// `cuda`, [`GpuError::NoDriver`], [`GpuError::NoSuchCard`],
    /// [`GpuError::WrongCapability`], [`GpuError::WrongAnswer`].
    pub fn cuda(ordinal: usize) -> Result<Self, InferenceError> {
        backend::check_built()?;
        let gpus = super::probe::gpus()?;
        let count = gpus.len();
        let gpu = gpus
            .into_iter()
            .nth(ordinal)
            .ok_or(GpuError::NoSuchCard { ordinal, count })?;
        let device = backend::open(ordinal, &gpu)?;
        let name = gpu.name;
        check::known_answers(&device)?;
        Ok(Self { device, name })
    }

    /// The processor, through the tensor library.
    ///
    /// For tests and comparisons: [`crate::Qwen2`] is many times faster there.
    ///
    /// # Errors
    /// [`InferenceError::Gpu`] with [`GpuError::WrongAnswer`].
    pub fn processor() -> Result<Self, InferenceError> {
        let device = Device::Cpu;
        check::known_answers(&device)?;
        Ok(Self {
            device,
            name: "processor".into(),
        })
    }

    /// The product's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }
}
