//! What a process does with files and the network.

use std::{fmt, net::IpAddr};

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FileOp {
    /// Opened to be read.
    Read,
    /// Opened to be written, or written.
    Write,
    /// Made anew.
    Create,
    /// Cut to a length.
    Truncate,
    /// Its name removed.
    Unlink,
    /// Its name changed; [`FileAccess::to`] is the new one.
    Rename,
    /// Given a second name, or named by a symbolic link; [`FileAccess::to`] is that.
    Link,
    /// Its mode bits changed.
    Chmod,
    /// Its owner changed.
    Chown,
    /// Mounted.
    Mount,
    /// A Unix socket connected to.
    Connect,
}

impl FileOp {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Read,
        Self::Write,
        Self::Create,
        Self::Truncate,
        Self::Unlink,
        Self::Rename,
        Self::Link,
        Self::Chmod,
        Self::Chown,
        Self::Mount,
        Self::Connect,
    ];

    /// The name in files: the variant's, in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
            Self::Truncate => "truncate",
            Self::Unlink => "unlink",
            Self::Rename => "rename",
            Self::Link => "link",
            Self::Chmod => "chmod",
            Self::Chown => "chown",
            Self::Mount => "mount",
            Self::Connect => "connect",
        }
    }

    /// The operation with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }
}

/// An operation on a file. `Debug` shows no path: its parts can be secrets.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FileAccess {
    /// What is done.
    pub op: FileOp,
    /// The file's path as the process named it, untrusted.
    pub path: String,
    /// The other path, where the operation has two.
    pub to: Option<String>,
}

impl fmt::Debug for FileAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileAccess")
            .field("op", &self.op)
            .field("path_bytes", &self.path.len())
            .finish_non_exhaustive()
    }
}

/// Whom a process connects to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A numeric address.
    Address(IpAddr),
    /// A name, where the source has not resolved it; untrusted.
    Name(String),
}

impl Peer {
    /// The address if `text` is one, else a name.
    #[must_use]
    pub fn of(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Name(text.to_owned()), Self::Address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The protocol above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, version 4 or 6.
    Icmp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The name in files: `tcp`, `udp`, `icmp`, `sctp`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Sctp => "sctp",
        }
    }

    /// The protocol with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Icmp, Self::Sctp]
            .into_iter()
            .find(|protocol| protocol.name() == name)
    }
}

/// An outgoing connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Whom to.
    pub peer: Peer,
    /// The port there, where there is one and it is known.
    pub port: Option<u16>,
    /// By which protocol.
    pub protocol: Protocol,
}

/// A name that a process asked to be resolved. `Debug` shows its length alone, since
/// names carry data out.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DnsQuery {
    /// The name, untrusted.
    pub name: String,
}

impl fmt::Debug for DnsQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsQuery")
            .field("name_bytes", &self.name.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_what_they_name() {
        for op in FileOp::ALL {
            assert_eq!(FileOp::from_name(op.name()), Some(op));
        }
        assert_eq!(FileOp::from_name("Read"), None);
        assert_eq!(Protocol::from_name("udp"), Some(Protocol::Udp));
        assert_eq!(Protocol::from_name("http"), None);
    }

    #[test]
    fn a_peer_is_an_address_where_it_can_be() {
        assert!(matches!(Peer::of("2001:db8::1"), Peer::Address(_)));
        assert_eq!(Peer::of("192.0.2.1").to_string(), "192.0.2.1");
        assert_eq!(Peer::of("db.test"), Peer::Name("db.test".into()));
    }

    #[test]
    fn debug_shows_no_path_and_no_name() {
        let access = FileAccess {
            op: FileOp::Read,
            path: "/secret".into(),
            to: Some("/secret".into()),
        };
        let query = DnsQuery {
            name: "secret.test".into(),
        };
        assert!(!format!("{access:?}{query:?}").contains("secret"));
    }
}
