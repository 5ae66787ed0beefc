//! A process and the program it runs.

use std::fmt;

use crate::{BootTime, CgroupId, Gid, NamespaceInode, ProcessKey, Uid};

/// The arguments a program was started with.
///
/// Bytes that are not UTF-8 are replaced by U+FFFD. `Debug` shows the shape
/// only, since command lines hold secrets.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Argv {
    /// The arguments that were captured, `argv[0]` first.
    pub args: Vec<String>,
    /// Length in the process's memory, in bytes, the NUL after each included.
    pub true_bytes: u64,
    /// Whether the capture ended before the arguments did.
    pub truncated: bool,
}

impl Argv {
    /// Complete arguments, as a caller that has all of them knows them.
    #[must_use]
    pub fn complete(args: Vec<String>) -> Self {
        let true_bytes = args.iter().map(|arg| arg.len() as u64 + 1).sum();
        Self {
            args,
            true_bytes,
            truncated: false,
        }
    }
}

impl fmt::Debug for Argv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Argv")
            .field("args", &self.args.len())
            .field("true_bytes", &self.true_bytes)
            .field("truncated", &self.truncated)
            .finish()
    }
}

/// The program a process runs: replaced by `exec`, inherited by `fork`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Image {
    /// Absolute path of the executable in the mount namespace of the process;
    /// empty where unknown.
    pub exe: String,
    /// The kernel's task name, at most 15 bytes.
    pub comm: String,
    /// The arguments.
    pub argv: Argv,
    /// Working directory at the time of the exec; empty where unknown.
    pub cwd: String,
    /// When the exec happened; `None` for an image that was found running.
    pub exec_at: Option<BootTime>,
}

/// A process at the time of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Process {
    /// Its identity; `None` where the event's source does not give one. Such a
    /// process can be judged but not acted upon.
    pub key: Option<ProcessKey>,
    /// The identity of its parent.
    pub parent: Option<ProcessKey>,
    /// The program it runs.
    pub image: Image,
    /// Real user id.
    pub uid: Option<Uid>,
    /// Real group id.
    pub gid: Option<Gid>,
    /// cgroup v2 it belongs to.
    pub cgroup_id: Option<CgroupId>,
    /// Mount namespace.
    pub mount_ns: Option<NamespaceInode>,
    /// Pid namespace.
    pub pid_ns: Option<NamespaceInode>,
    /// Network namespace.
    pub net_ns: Option<NamespaceInode>,
}

/// One step up the tree from a process, nearest first in [`crate::Event::ancestors`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Ancestor {
    /// Its identity, where known.
    pub key: Option<ProcessKey>,
    /// The program it ran at the time of the event.
    pub image: Image,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_argv_shows_no_argument() {
        let argv = Argv::complete(vec!["mysql".into(), "-phunter2".into()]);
        let text = format!("{argv:?}");
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(argv.true_bytes, 16);
    }
}
