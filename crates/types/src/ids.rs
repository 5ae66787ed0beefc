//! Identities: of the boot, of processes, events and cases.
//!
//! A TGID alone identifies nothing: the kernel reuses it. A process is
//! (boot, TGID, start of the leader), see [`ProcessKey`].

use std::{fmt, str::FromStr};

use crate::{BootTime, EventKind};

/// The random id the kernel draws at each boot (`/proc/sys/kernel/random/boot_id`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub [u8; 16]);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A boot id that is not 32 hexadecimal digits (hyphens ignored).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("boot id must be 32 hexadecimal digits, got {digits} digits or another character")]
pub struct ParseBootIdError {
    /// How many characters other than hyphens were given.
    pub digits: usize,
}

impl FromStr for BootId {
    type Err = ParseBootIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: Vec<char> = text.chars().filter(|c| *c != '-').collect();
        let error = ParseBootIdError {
            digits: digits.len(),
        };
        if digits.len() != 32 {
            return Err(error);
        }
        let mut bytes = [0u8; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let (Some(high), Some(low)) = (pair[0].to_digit(16), pair[1].to_digit(16)) else {
                return Err(error);
            };
            *byte = u8::try_from(high * 16 + low).map_err(|_| error.clone())?;
        }
        Ok(Self(bytes))
    }
}

macro_rules! number_newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_newtype! {
    /// Thread group id: what user space calls pid.
    #[doc(alias = "pid")]
    Tgid(u32)
}
number_newtype! {
    /// Thread id: what the kernel calls pid.
    Tid(u32)
}
number_newtype! {
    /// User id in the initial user namespace.
    Uid(u32)
}
number_newtype! {
    /// Group id in the initial user namespace.
    Gid(u32)
}
number_newtype! {
    /// cgroup v2 id: the inode number of the cgroup's directory; 1 is the root.
    CgroupId(u64)
}
number_newtype! {
    /// Inode number of a namespace, as in `/proc/PID/ns/*`.
    NamespaceInode(u32)
}

/// One process for the whole life of the machine: boot, TGID, start of its leader.
///
/// `exec` keeps the key: the program changes, the process does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// The boot the process lives in.
    pub boot_id: BootId,
    /// Thread group id in the initial pid namespace.
    pub tgid: Tgid,
    /// `start_boottime` of the thread group leader.
    pub start: BootTime,
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.boot_id, self.tgid, self.start.0)
    }
}

/// What names one event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventId {
    /// Observed by a sensor: unique across reboots and pid reuse.
    Observed {
        /// The process it happened to.
        process: ProcessKey,
        /// What happened.
        kind: EventKind,
        /// When it happened.
        at: BootTime,
        /// Per-CPU sequence number of the kernel program that saw it.
        sequence: u64,
    },
    /// Named by whoever handed the event in.
    External(String),
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Observed {
                process,
                kind,
                at,
                sequence,
            } => write!(f, "{process}:{}:{}:{sequence}", kind.name(), at.0),
            Self::External(id) => f.write_str(id),
        }
    }
}

/// Names one case; equal to the display form of the id of its first event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaseId(pub String);

impl fmt::Display for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_id_survives_display_and_parse() {
        let id: BootId = "01234567-89ab-cdef-0123-456789abcdef".parse().unwrap();
        assert_eq!(id.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(id.to_string().parse::<BootId>(), Ok(id));
    }

    #[test]
    fn boot_id_with_a_wrong_digit_is_an_error() {
        assert!(
            "01234567-89ab-cdef-0123-456789abcdeg"
                .parse::<BootId>()
                .is_err()
        );
        assert!("0123".parse::<BootId>().is_err());
        assert!("é".repeat(32).parse::<BootId>().is_err());
    }
}
