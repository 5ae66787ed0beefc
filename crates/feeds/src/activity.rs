//! The fields of what a process does with files and the network.

use inwarden_types::{Connection, DnsQuery, FileAccess, FileOp, Peer, Protocol};

use crate::FeedError;
use crate::decode::{MAX_HOST_BYTES, MAX_PATH_BYTES};
use crate::json::Cursor;
use crate::values::{need, text, u64_number};

/// Fields of files, connections and queries as they come, before it is known which
/// it is.
#[derive(Default)]
pub(crate) struct ActivityFields {
    op: Option<FileOp>,
    path: Option<String>,
    to: Option<String>,
    dst: Option<String>,
    port: Option<u16>,
    protocol: Option<Protocol>,
    query: Option<String>,
}

impl ActivityFields {
    /// Reads the field if it is one of these.
    pub(crate) fn read(&mut self, cursor: &mut Cursor<'_>, name: &str) -> Result<bool, FeedError> {
        match name {
            "op" => self.op = file_op(cursor)?,
            "path" => self.path = short_text(cursor, "path", MAX_PATH_BYTES)?,
            "to" => self.to = short_text(cursor, "to", MAX_PATH_BYTES)?,
            "dst" => self.dst = short_text(cursor, "dst", MAX_HOST_BYTES)?,
            "port" => self.port = port(cursor)?,
            "proto" => self.protocol = protocol(cursor)?,
            "query" => self.query = short_text(cursor, "query", MAX_HOST_BYTES)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(crate) fn take_file(&mut self) -> Result<FileAccess, FeedError> {
        Ok(FileAccess {
            op: need(self.op.take(), "op")?,
            path: need(self.path.take(), "path")?,
            to: self.to.take(),
        })
    }

    pub(crate) fn take_connection(&mut self) -> Result<Connection, FeedError> {
        let dst = need(self.dst.take(), "dst")?;
        Ok(Connection {
            peer: Peer::of(&dst),
            port: self.port.take(),
            protocol: self.protocol.take().unwrap_or_default(),
        })
    }

    pub(crate) fn take_query(&mut self) -> Result<DnsQuery, FeedError> {
        let name = need(self.query.take(), "query")?;
        Ok(DnsQuery { name })
    }

    /// How many fields were not taken.
    pub(crate) fn leftovers(&self) -> u64 {
        let left = [
            self.op.is_some(),
            self.path.is_some(),
            self.to.is_some(),
            self.dst.is_some(),
            self.port.is_some(),
            self.protocol.is_some(),
            self.query.is_some(),
        ];
        left.into_iter().map(u64::from).sum()
    }
}

fn short_text(
    cursor: &mut Cursor<'_>,
    field: &'static str,
    limit_bytes: usize,
) -> Result<Option<String>, FeedError> {
    let offset = cursor.offset();
    let value = text(cursor, field)?;
    if value
        .as_ref()
        .is_some_and(|value| value.len() > limit_bytes)
    {
        return Err(FeedError::TooLong {
            field,
            limit_bytes,
            offset,
        });
    }
    Ok(value)
}

fn file_op(cursor: &mut Cursor<'_>) -> Result<Option<FileOp>, FeedError> {
    named(
        cursor,
        "op",
        "the name of an operation on files",
        FileOp::from_name,
    )
}

fn protocol(cursor: &mut Cursor<'_>) -> Result<Option<Protocol>, FeedError> {
    named(
        cursor,
        "proto",
        "tcp, udp, icmp or sctp",
        Protocol::from_name,
    )
}

fn named<T>(
    cursor: &mut Cursor<'_>,
    field: &'static str,
    expected: &'static str,
    of: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, FeedError> {
    let offset = cursor.offset();
    let Some(name) = text(cursor, field)? else {
        return Ok(None);
    };
    match of(&name) {
        Some(value) => Ok(Some(value)),
        None => Err(FeedError::WrongType {
            field,
            expected,
            offset,
        }),
    }
}

fn port(cursor: &mut Cursor<'_>) -> Result<Option<u16>, FeedError> {
    let offset = cursor.offset();
    let Some(number) = u64_number(cursor, "port")? else {
        return Ok(None);
    };
    match u16::try_from(number) {
        Ok(port) => Ok(Some(port)),
        Err(_) => Err(FeedError::OutOfRange {
            field: "port",
            max: u64::from(u16::MAX),
            offset,
        }),
    }
}
