//! With the feature `cuda`: opens a card.

#![expect(
    unsafe_code,
    reason = "one call that tells the driver's wrapper of our single stream"
)]

use candle_core::Device;

use super::{
    error::GpuError,
    probe::{ComputeCapability, Gpu},
};
use crate::error::InferenceError;

/// What the build was told to compile the kernels for, without a dot.
///
/// Taken from the variable that also sets it for the kernels, so the two cannot
/// differ; a build without it could not refuse a wrong card and is none.
const COMPILED_FOR: &str = env!(
    "CUDA_COMPUTE_CAP",
    "set CUDA_COMPUTE_CAP, such as 89 for an L4: the kernels run on that card only"
);

/// That this build can open cards at all.
pub(super) fn check_built() -> Result<(), GpuError> {
    Ok(())
}

/// Opens the card `ordinal`, which the driver describes as `gpu`.
pub(super) fn open(ordinal: usize, gpu: &Gpu) -> Result<Device, InferenceError> {
    let number = COMPILED_FOR.parse();
    let number = number.expect("the build of the kernels has parsed it as a number");
    let compiled = ComputeCapability::from_number(number);
    let found = gpu.compute_capability;
    if compiled != found {
        return Err(GpuError::WrongCapability { compiled, found }.into());
    }
    // A stream of its own, not that of each calling thread: tensors may then be
    // used from any thread.
    let device = Device::new_cuda_with_stream(ordinal)?;
    let context = device.as_cuda_device()?;
    // SAFETY: events order work among several streams of a context. This one
    // has the stream made in the line above and no other: the tensor library
    // and all its kernels take theirs from the device, and nothing of ours
    // makes one. In one stream everything runs in the order it was launched.
    unsafe { context.disable_event_tracking() };
    Ok(device)
}
