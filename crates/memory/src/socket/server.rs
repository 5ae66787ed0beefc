//! The owner's side: who may connect, and the answers.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::{
    Address, Missing, PROTOCOL, SOCKET,
    messages::{Answer, Hello, Request},
    receive, send,
};
use crate::{
    MemoryError, MemoryOptions,
    counters::Counters,
    directory::io_error,
    record::check_vector,
    store::{Change, Store},
};

/// A running socket. Dropping it ends every connection and waits for the answers
/// that are being given.
pub(crate) struct SocketServer {
    shared: Arc<Shared>,
    dir: PathBuf,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    store: Arc<Store>,
    hello: Hello,
    dimension: usize,
    stop: AtomicBool,
    next_client: AtomicU64,
    clients: Mutex<HashMap<u64, (UnixStream, JoinHandle<()>)>>,
}

impl SocketServer {
    /// Serves `store`, whose directory the caller owns, to processes of this user.
    pub(crate) fn start(
        dir: &Path,
        store: &Arc<Store>,
        embedder: String,
        dimension: usize,
    ) -> Result<Self, MemoryError> {
        let path = dir.join(SOCKET);
        // The lock is ours, so whoever made this one is gone.
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(io_error("remove", &path)(source)),
        }
        let listener = Address::of(dir)
            .and_then(|address| UnixListener::bind(&address.path))
            .map_err(io_error("bind", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .map_err(io_error("set the mode of", &path))?;
        let shared = Arc::new(Shared {
            store: Arc::clone(store),
            hello: Hello {
                protocol: PROTOCOL,
                embedder,
                dimension: dimension as u64,
            },
            dimension,
            stop: AtomicBool::new(false),
            next_client: AtomicU64::new(0),
            clients: Mutex::new(HashMap::new()),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("memory-socket".to_owned())
            .spawn(move || accept(&accepting, &listener))
            .map_err(io_error("start a thread for", &path))?;
        Ok(Self {
            shared,
            dir: dir.to_owned(),
            acceptor: Some(acceptor),
        })
    }
}

impl Drop for SocketServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Wakes the acceptor. If the socket was taken away, it never wakes, and is
        // left to itself: it holds no lock.
        let woken = Address::of(&self.dir).and_then(|it| UnixStream::connect(&it.path));
        if let Some(acceptor) = self.acceptor.take()
            && woken.is_ok()
            && acceptor.join().is_err()
        {
            tracing::warn!("the thread that accepts connections had panicked");
        }
        if let Err(error) = fs::remove_file(self.dir.join(SOCKET)) {
            tracing::debug!(%error, "the socket was gone already");
        }
        let clients = std::mem::take(&mut *self.shared.lock());
        for (stream, _) in clients.values() {
            // It may have closed by itself.
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
        for (_, thread) in clients.into_values() {
            if thread.join().is_err() {
                tracing::warn!("a thread that answers a client had panicked");
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (UnixStream, JoinHandle<()>)>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn options(&self) -> &MemoryOptions {
        self.store.options()
    }

    fn counters(&self) -> &Counters {
        self.store.counters()
    }
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        match stream {
            Ok(stream) => admit(shared, stream),
            Err(error) => {
                // Out of descriptors: the next may be served when one is given back.
                tracing::warn!(%error, "a client could not be accepted");
                Counters::count(&shared.counters().refused_clients);
                thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }
}

/// Starts a thread for a client of this user if there is room.
fn admit(shared: &Arc<Shared>, stream: UnixStream) {
    if !is_own(&stream) {
        Counters::count(&shared.counters().foreign_clients);
        return;
    }
    let mut clients = shared.lock();
    clients.retain(|_, (_, thread)| !thread.is_finished());
    if clients.len() >= shared.options().max_clients {
        Counters::count(&shared.counters().refused_clients);
        return;
    }
    let id = shared.next_client.fetch_add(1, Ordering::Relaxed);
    let serving = Arc::clone(shared);
    let started = stream.try_clone().and_then(|closer| {
        let thread = thread::Builder::new()
            .name("memory-client".to_owned())
            .spawn(move || serve(&serving, &stream))?;
        Ok((closer, thread))
    });
    match started {
        Ok(client) => drop(clients.insert(id, client)),
        Err(error) => {
            tracing::warn!(%error, "a client could not be served");
            Counters::count(&shared.counters().refused_clients);
        }
    }
}

/// Whether the other side runs as the user of this process.
fn is_own(stream: &UnixStream) -> bool {
    match rustix::net::sockopt::socket_peercred(stream) {
        Ok(peer) => peer.uid == rustix::process::geteuid(),
        Err(error) => {
            tracing::warn!(%error, "the kernel does not say who connects; refused");
            false
        }
    }
}

fn serve(shared: &Shared, stream: &UnixStream) {
    let counters = shared.counters();
    counters.clients.fetch_add(1, Ordering::Relaxed);
    if !converse(shared, stream) {
        Counters::count(&counters.broken_clients);
    }
    counters.clients.fetch_sub(1, Ordering::Relaxed);
}

/// Answers until the client is done; false if it broke the protocol.
fn converse(shared: &Shared, stream: &UnixStream) -> bool {
    let (idle, deadline) = (
        shared.options().client_idle,
        shared.options().message_deadline,
    );
    let hello = match receive(stream, deadline, deadline) {
        Ok(bytes) => Hello::decode(&bytes),
        // A connection that only wakes the acceptor, or a look whether one is here.
        Err(Missing::Closed) => return true,
        Err(Missing::Broken) => return false,
    };
    let refusal = match &hello {
        Ok(hello) if *hello == shared.hello => None,
        Ok(hello) if hello.protocol != PROTOCOL => Some("another version of the protocol"),
        Ok(_) => Some("another embedder"),
        Err(_) => return false,
    };
    let answer = match refusal {
        None => Answer::Len(0),
        Some(reason) => Answer::Refused(reason.to_owned()),
    };
    if !reply(stream, &answer, shared) || refusal.is_some() {
        return refusal.is_some();
    }
    loop {
        let bytes = match receive(stream, idle, deadline) {
            Ok(bytes) => bytes,
            Err(Missing::Closed) => return true,
            Err(Missing::Broken) => return false,
        };
        let Ok(request) = Request::decode(&bytes) else {
            return false;
        };
        let answer =
            respond(shared, request).unwrap_or_else(|error| Answer::Refused(error.to_string()));
        if !reply(stream, &answer, shared) {
            return false;
        }
    }
}

fn reply(stream: &UnixStream, answer: &Answer, shared: &Shared) -> bool {
    match answer.encode() {
        Ok(bytes) => send(stream, &bytes, shared.options().message_deadline).is_ok(),
        Err(_) => false,
    }
}

/// Checks what came as if a caller in this process had brought it, and does it.
fn respond(shared: &Shared, request: Request) -> Result<Answer, MemoryError> {
    let (store, options) = (&shared.store, shared.options());
    let check_batch = |records: usize| {
        let max = options.max_batch_records;
        if records > max {
            return Err(MemoryError::BatchTooLarge { records, max });
        }
        Ok(())
    };
    Ok(match request {
        Request::Differing(collection, contents) => {
            check_batch(contents.len())?;
            Answer::Differing(store.differing(collection, &contents))
        }
        Request::Change(change) => {
            match &change {
                Change::Put { records, .. } => {
                    check_batch(records.len())?;
                    for (record, vector) in records {
                        record.check(options)?;
                        check_vector(vector, shared.dimension)?;
                    }
                }
                Change::Remove { points, .. } => check_batch(points.len())?,
            }
            Answer::Changed(store.change(change)?)
        }
        Request::Search(question) => {
            check_limit(question.limit, options)?;
            check_vector(&question.vector, shared.dimension)?;
            question.filter.check(options.max_filter_values)?;
            Answer::Found(store.search(&question)?)
        }
        Request::List {
            collection,
            filter,
            after,
            limit,
        } => {
            check_batch(limit)?;
            filter.check(options.max_filter_values)?;
            let (records, next) = store.list(collection, &filter, (after, limit))?;
            Answer::Listed(records, next)
        }
        Request::Len(collection) => Answer::Len(store.len(collection) as u64),
        Request::Digest => Answer::Digest(store.digest()),
        Request::Stats => Answer::Stats(Box::new(store.stats())),
    })
}

pub(crate) fn check_limit(given: usize, options: &MemoryOptions) -> Result<(), MemoryError> {
    let max = options.max_top_k_retrieval;
    if (1..=max).contains(&given) {
        return Ok(());
    }
    Err(MemoryError::TopKRetrieval { given, max })
}
