//! What can go wrong, arranged by who must act.

use std::io;

/// Why the sensor could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SensorError {
    // The caller.
    /// A field of [`crate::SensorConfig`] is out of range.
    #[error("{field} is {value}, allowed: {allowed}")]
    InvalidConfig {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        allowed: &'static str,
    },

    // The operator.
    /// The process lacks capabilities.
    #[error(
        "missing {}: run as root, or grant it with `setcap cap_bpf,cap_perfmon,cap_dac_read_search,cap_sys_ptrace+ep BINARY` or, in a container, `securityContext.capabilities.add`",
        missing.join(" and ")
    )]
    MissingCapability {
        /// Their names, such as `CAP_BPF`.
        missing: Vec<&'static str>,
    },
    /// The kernel describes no types.
    #[error("{path} cannot be read: use a kernel built with CONFIG_DEBUG_INFO_BTF=y")]
    MissingBtf {
        /// Where it should be.
        path: &'static str,
        /// What reading it said.
        source: io::Error,
    },
    /// The kernel has no such hook.
    #[error("kernel {kernel} has no hook {hook}: use Linux 6.1 or later")]
    MissingHook {
        /// The tracepoint or iterator.
        hook: &'static str,
        /// The running kernel's release.
        kernel: String,
    },
    /// The kernel is too old.
    #[error("kernel {kernel} is too old: {feature} needs Linux {needed} or later")]
    KernelTooOld {
        /// The running kernel's release.
        kernel: String,
        /// What is needed of it.
        feature: &'static str,
        /// The first release that has it.
        needed: &'static str,
    },
    /// The kernel is locked down too far for any tracing.
    #[error(
        "kernel lockdown is `{level}`, which forbids reading kernel memory: boot with `lockdown=integrity` or less"
    )]
    Lockdown {
        /// The level in force.
        level: String,
    },
    /// The process does not see the machine's process ids.
    #[error(
        "not in the initial pid namespace: process ids would not match; in a container set hostPID or `--pid=host`"
    )]
    PidNamespace,
    /// The kernel refused although the capabilities are there.
    #[error(
        "the kernel refused to {operation}: check seccomp filters and security modules of this service or container"
    )]
    Refused {
        /// What was attempted.
        operation: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file the sensor reads at start is missing or not as the kernel writes it.
    #[error("{path} cannot be read: is /proc mounted?")]
    ProcFile {
        /// Which file.
        path: &'static str,
        /// What reading it said.
        source: io::Error,
    },

    // Us.
    /// The kernel did not accept one of our programs or maps.
    #[error("kernel {kernel} rejects our {part}, please report: {message}")]
    Rejected {
        /// The program or map.
        part: String,
        /// The running kernel's release.
        kernel: String,
        /// The end of what the kernel or the loader said.
        message: String,
    },
    /// A map of a running sensor could not be read.
    #[error("map {map} cannot be read, please report: {message}")]
    Map {
        /// Which map.
        map: &'static str,
        /// What was said.
        message: String,
    },
    /// Waiting for events failed.
    #[error("waiting for events failed, please report")]
    Wait {
        /// What the kernel said.
        source: io::Error,
    },
}
