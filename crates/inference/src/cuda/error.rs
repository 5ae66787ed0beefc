//! Why no card could be used.

use super::probe::ComputeCapability;

/// Why a card could not be described, opened or trusted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    // The operator must act.
    /// The NVIDIA driver is not installed, or not visible to this process.
    #[error("no NVIDIA driver: {detail}")]
    NoDriver {
        /// The library that was asked for.
        library: &'static str,
        /// What the loader said; names the library.
        detail: String,
    },
    /// A call into the driver failed; -1 means that it has no such function.
    #[error("the NVIDIA driver answered {call} with code {code}")]
    Driver {
        /// The function.
        call: &'static str,
        /// What it returned.
        code: i32,
    },
    /// The host has no card of this number.
    #[error("there is no card {ordinal}: the driver lists {count}")]
    NoSuchCard {
        /// The number asked for, from 0.
        ordinal: usize,
        /// Cards that there are.
        count: usize,
    },
    /// This program was built without the feature `cuda`.
    #[error(
        "this build has no CUDA support: take the program or wheel that was built with the \
         feature `cuda` for the card"
    )]
    NotBuilt,
    /// The kernels were compiled for another instruction set than the card's.
    ///
    /// They hold machine code for one compute capability only, and their
    /// launches report nothing: on another card they would answer garbage.
    #[error("the kernels were compiled for compute capability {compiled}, the card has {found}")]
    WrongCapability {
        /// What the build was made for.
        compiled: ComputeCapability,
        /// What the card has.
        found: ComputeCapability,
    },
    /// A product whose answer is known came out wrong.
    #[error(
        "{product} of {format} weights is wrong by {relative_error:.4}, more than {limit}: \
         the card or its kernels cannot be trusted"
    )]
    WrongAnswer {
        /// What was computed.
        product: String,
        /// The format of the weights.
        format: &'static str,
        /// Root mean square of the error over that of the answer.
        relative_error: f64,
        /// The largest that is accepted.
        limit: f64,
    },

    // The caller must act.
    /// All blocks of keys and values are held by prefixes.
    #[error("{needed} blocks of keys and values are needed, {free} are free")]
    OutOfBlocks {
        /// Blocks that the call needs.
        needed: usize,
        /// Blocks that nothing holds.
        free: usize,
    },
}
