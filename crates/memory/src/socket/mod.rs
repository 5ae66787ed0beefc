//! How other processes use a store: a Unix socket in its directory, answered by the
//! process that owns it.
//!
//! A message is a length (u32, little-endian, at most [`MAX_MESSAGE_BYTES`]) and
//! that many bytes. A connection starts with `messages::Hello`; after it the client asks
//! and the owner answers, one by one. Who may connect is decided by the directory's
//! mode (0700), the socket's (0600), and the user id that the kernel names for the
//! other side (`SO_PEERCRED`, Linux 2.5): it must be the owner's.
//!
//! Both sides run the same release or refuse each other: [`PROTOCOL`] changes with
//! every message that changes.

mod client;
mod messages;
mod server;

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub(crate) use client::Client;
pub(crate) use server::SocketServer;

/// The version of the messages.
const PROTOCOL: u32 = 1;

/// The longest message.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

const SOCKET: &str = "socket";

/// The longest path that a socket's address holds, with its final zero.
const MAX_ADDRESS_BYTES: usize = 108;

/// The address of the socket in a directory. A path that is too long for an address
/// goes through the directory's descriptor, which the value keeps open.
struct Address {
    path: PathBuf,
    _dir: Option<File>,
}

impl Address {
    fn of(dir: &Path) -> io::Result<Self> {
        let path = dir.join(SOCKET);
        if path.as_os_str().len() < MAX_ADDRESS_BYTES {
            return Ok(Self { path, _dir: None });
        }
        let dir = File::open(dir)?;
        Ok(Self {
            path: PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd())),
            _dir: Some(dir),
        })
    }
}

/// Why no message came.
enum Missing {
    /// The other side closed the connection, or was silent too long before one.
    Closed,
    /// It stopped within one, or sent what is none.
    Broken,
}

/// Waits up to `idle` for a message to begin and up to `deadline` for the rest.
fn receive(stream: &UnixStream, idle: Duration, deadline: Duration) -> Result<Vec<u8>, Missing> {
    let mut first = [0; 1];
    match read_until(stream, &mut first, Instant::now() + idle) {
        Ok(()) => {}
        Err(_) => return Err(Missing::Closed),
    }
    let until = Instant::now() + deadline;
    let mut rest = [0; 3];
    read_until(stream, &mut rest, until).map_err(|_| Missing::Broken)?;
    let len = u32::from_le_bytes([first[0], rest[0], rest[1], rest[2]]) as usize;
    if len > MAX_MESSAGE_BYTES {
        return Err(Missing::Broken);
    }
    // Grows with what has come, not with what is promised.
    let mut message = Vec::new();
    let mut block = [0; 16 * 1024];
    while message.len() < len {
        let part = block.len().min(len - message.len());
        read_until(stream, &mut block[..part], until).map_err(|_| Missing::Broken)?;
        message.extend_from_slice(&block[..part]);
    }
    Ok(message)
}

fn read_until(mut stream: &UnixStream, buffer: &mut [u8], until: Instant) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn send(mut stream: &UnixStream, message: &[u8], deadline: Duration) -> io::Result<()> {
    let len = u32::try_from(message.len())
        .ok()
        .filter(|_| message.len() <= MAX_MESSAGE_BYTES)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let until = Instant::now() + deadline;
    for mut part in [len.to_le_bytes().as_slice(), message] {
        while !part.is_empty() {
            stream.set_write_timeout(Some(left(until)?))?;
            match stream.write(part) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => part = &part[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}
