//! `hf-hub` against a server of our own on loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::Sha256;
use crate::cache::fakes::model;

const CONTENT: &[u8] = b"some weights";

#[derive(Clone, Copy)]
enum Behaviour {
    Serve(&'static [u8]),
    /// Accepts and says nothing.
    Silent,
    /// Sends half of the file and then nothing.
    Stall,
    /// Answers without the headers the client expects.
    NotAHub,
}

struct Server {
    endpoint: String,
    requests: Arc<AtomicUsize>,
}

fn serve(behaviour: Behaviour) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let count = Arc::clone(&count);
            thread::spawn(move || {
                // A client that hangs up ends its own thread only.
                let _closed = answer(&stream.unwrap(), behaviour, &count);
            });
        }
    });
    Server { endpoint, requests }
}

fn answer(stream: &TcpStream, behaviour: Behaviour, count: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut first, mut offset, mut line) = (None, 0, String::new());
        while {
            line.clear();
            reader.read_line(&mut line)?
        } > 2
        {
            first.get_or_insert_with(|| line.clone());
            if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                let (start, end) = range.trim().split_once('-').unwrap();
                offset = if end == "0" {
                    usize::MAX
                } else {
                    start.parse().unwrap()
                };
            }
        }
        if first.is_none() {
            return Ok(());
        }
        count.fetch_add(1, Ordering::Relaxed);
        let mut out = stream;
        let content = match behaviour {
            Behaviour::Serve(content) => content,
            Behaviour::Stall => CONTENT,
            Behaviour::Silent => {
                thread::sleep(Duration::from_secs(60));
                return Ok(());
            }
            Behaviour::NotAHub => {
                write!(out, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")?;
                continue;
            }
        };
        let body = if offset == usize::MAX {
            &content[..1]
        } else {
            &content[offset..]
        };
        write!(
            out,
            "HTTP/1.1 206 Partial Content\r\netag: \"tag\"\r\nx-repo-commit: {}\r\n\
             Content-Range: bytes 0-0/{}\r\nContent-Length: {}\r\n\r\n",
            "0".repeat(40),
            content.len(),
            body.len()
        )?;
        if offset != usize::MAX && matches!(behaviour, Behaviour::Stall) {
            out.write_all(&body[..body.len() / 2])?;
            thread::sleep(Duration::from_secs(60));
        }
        out.write_all(body)?;
    }
}

fn fetch(endpoint: String, work: &Path) -> Result<PathBuf, ModelError> {
    let hub = Hub {
        endpoint: Some(endpoint),
        connect_timeout: Duration::from_secs(1),
        stall_timeout: Duration::from_secs(1),
    };
    let model = model(CONTENT, Vec::new());
    let job = Job {
        model: &model,
        file: &model.files[0],
        work,
    };
    hub.fetch(&job, &mut |_, _| ())
}

#[test]
fn a_file_is_fetched_into_the_work_directory_and_can_be_fetched_again() {
    let server = serve(Behaviour::Serve(CONTENT));
    let work = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let path = fetch(server.endpoint.clone(), work.path()).unwrap();
        assert!(path.starts_with(work.path().canonicalize().unwrap()));
        assert_eq!(Sha256::of(&fs::read(&path).unwrap()), Sha256::of(CONTENT));
        // As the cache does: the link in the client's cache now dangles.
        fs::rename(&path, work.path().join("taken")).unwrap();
    }
    assert!(server.requests.load(Ordering::Relaxed) >= 4);
}

#[test]
fn a_file_of_another_size_is_refused_before_it_is_downloaded() {
    let server = serve(Behaviour::Serve(b"much longer than some weights"));
    let work = tempfile::tempdir().unwrap();
    let error = fetch(server.endpoint, work.path()).unwrap_err();
    let ModelError::WrongSize {
        expected_bytes: 12,
        got_bytes: 29,
        ..
    } = error
    else {
        panic!("{error}")
    };
}

#[test]
fn nobody_there_silence_and_nonsense_are_unreachable() {
    let work = tempfile::tempdir().unwrap();
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for endpoint in [
        closed,
        serve(Behaviour::Silent).endpoint,
        serve(Behaviour::NotAHub).endpoint,
    ] {
        let start = Instant::now();
        let error = fetch(endpoint, work.path()).unwrap_err();
        assert!(matches!(error, ModelError::Unreachable { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn a_download_that_stops_is_given_up() {
    let server = serve(Behaviour::Stall);
    let work = tempfile::tempdir().unwrap();
    let error = fetch(server.endpoint, work.path()).unwrap_err();
    assert!(matches!(error, ModelError::Stalled { .. }), "{error}");
}
