//! Watches processes through eBPF: loads and attaches the programs of `ebpf/`,
//! reads their ring, counts what is lost, keeps the process tree and decodes
//! records into [`inwarden_types::Event`].
//!
//! What is here: [`Sensor`] and its [`SensorConfig`], and [`probe`], which says
//! what the machine allows. What is not: any opinion about an event, and any
//! event format but the wire format between the programs and this crate.
//!
//! # What it needs
//!
//! Linux 6.1 or later with BTF, `CAP_BPF` and `CAP_PERFMON` (or root), and the
//! initial pid namespace. Kernel lockdown up to `integrity` is fine. It is tested
//! on 6.18. Kernels from 5.17, where `bpf_loop` came, to 6.0 are not refused, but
//! not supported.
//!
//! # What it sees, and what it cannot
//!
//! Births, execs and ends of processes. It does not see what a process does
//! between them: shell builtins (`read <file`, redirections to `/dev/tcp`,
//! `eval`) and code that a running interpreter loads leave no exec.
//!
//! # Logging
//!
//! Through `tracing`: counts, sizes, program names and kernel releases. Never
//! a command line, a path of an observed process, or an environment.

mod assemble;
mod clock;
mod config;
mod counters;
mod error;
mod kernel;
mod path;
mod probe;
mod procfs;
mod reorder;
mod sensor;
mod tree;
mod trim;
mod wire;

pub use clock::read_boot_id;
pub use config::SensorConfig;
pub use counters::ProgramCounters;
pub use error::SensorError;
pub use probe::{Capabilities, Check, CheckState, probe};
pub use sensor::Sensor;
pub use tree::TreeUsage;
