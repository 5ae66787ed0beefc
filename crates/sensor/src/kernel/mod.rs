//! The boundary to the kernel: everything above it is tested with a fake.

mod bpf;
#[cfg(test)]
pub(crate) mod fake;

use std::time::Duration;

use inwarden_types::BootTime;

use crate::{SensorError, counters::AllCounters};

pub(crate) use bpf::Bpf;
#[cfg(test)]
pub(crate) use bpf::OBJECT;

/// Loaded and attached programs with their ring.
pub(crate) trait Kernel: Send {
    /// The records of the processes that run already, one after the other.
    fn seeds(&mut self) -> Result<Vec<u8>, SensorError>;

    /// Hands out at most `limit` records of the ring; returns how many.
    fn drain(&mut self, limit: usize, each: &mut dyn FnMut(&[u8])) -> usize;

    /// Waits until the programs say that much is in the ring, or for `timeout`.
    fn wait(&mut self, timeout: Duration) -> Result<(), SensorError>;

    /// The counters of all programs on all CPUs.
    fn counters(&self) -> Result<AllCounters, SensorError>;

    /// Now, on the clock of the records.
    fn now(&self) -> BootTime;

    /// Detaches the programs; the ring and the counters stay readable.
    fn detach(&mut self) -> Result<(), SensorError>;
}
