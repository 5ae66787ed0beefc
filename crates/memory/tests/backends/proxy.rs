//! Stands between a store and its server, and can be cut.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Wire {
    Whole = 0,
    /// Connections are closed at once.
    Cut = 1,
    /// Connections stay, and nothing passes.
    Silent = 2,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    wire: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// Passes on to `target`, host and port.
    pub(crate) fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let proxy = Self {
            address: listener.local_addr().expect("it is bound"),
            wire: Arc::default(),
            open: Arc::default(),
        };
        let (wire, open) = (Arc::clone(&proxy.wire), Arc::clone(&proxy.open));
        let target = target.to_owned();
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a connection comes");
                if wire.load(Ordering::SeqCst) == Wire::Cut as u8 {
                    continue;
                }
                let server = TcpStream::connect(&target).expect("the server is there");
                let ends = [(&client, &server), (&server, &client)];
                for (from, to) in ends {
                    let copy = |end: &TcpStream| end.try_clone().expect("a handle is free");
                    let (from, to, wire) = (copy(from), copy(to), Arc::clone(&wire));
                    thread::spawn(move || pass(from, to, &wire));
                }
                let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                open.extend([client, server]);
            }
        });
        proxy
    }

    pub(crate) fn set(&self, wire: Wire) {
        self.wire.store(wire as u8, Ordering::SeqCst);
        if wire == Wire::Cut {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            for end in open.drain(..) {
                // It may have been closed by the other side.
                drop(end.shutdown(Shutdown::Both));
            }
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, wire: &AtomicU8) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(n_bytes @ 1..) = from.read(&mut bytes) {
        while wire.load(Ordering::SeqCst) == Wire::Silent as u8 {
            thread::sleep(Duration::from_millis(5));
        }
        if to.write_all(&bytes[..n_bytes]).is_err() {
            break;
        }
    }
    // The other thread ends too then.
    drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
}
