//! Why nothing can be carried out on this host. The operator must act.

use std::path::PathBuf;

use inwarden_types::BootId;

/// The host cannot carry actions out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// The kernel has no `pidfd_open`, or refuses it to us.
    #[error(
        "pidfd_open does not work: Linux 5.3 or newer is needed, and a seccomp filter may forbid it"
    )]
    NoPidfd {
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A file of `/proc` cannot be read.
    #[error("cannot read {}: /proc must be mounted and readable", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of `/proc` does not say what it should.
    #[error("{} does not hold {expected}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
    },
    /// The events come from another boot, so none of their processes lives.
    #[error("events are of boot {events}, this machine runs boot {running}")]
    WrongBoot {
        /// The boot the caller named.
        events: BootId,
        /// The boot that runs.
        running: BootId,
    },
}
