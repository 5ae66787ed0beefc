//! The side of a process that does not own the store.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use uuid::Uuid;

use super::{
    Address, PROTOCOL,
    messages::{Answer, Hello, Request},
    receive, send,
};
use crate::{
    MemoryError, MemoryOptions, MemoryStats,
    journal::CollectionId,
    query::Filter,
    record::ContentHash,
    store::{Change, Found, Page, Question},
};

/// How many connections are kept for the next calls.
const KEPT_CONNECTIONS: usize = 4;

/// A connection to the owner of a store, or several when several threads ask.
pub(crate) struct Client {
    dir: PathBuf,
    hello: Hello,
    message_deadline: Duration,
    answer_deadline: Duration,
    kept: Mutex<Vec<UnixStream>>,
}

impl Client {
    /// Connects to the process that owns the store in `dir`.
    pub(crate) fn connect(
        dir: &Path,
        embedder: String,
        dimension: usize,
        options: &MemoryOptions,
    ) -> Result<Self, MemoryError> {
        let client = Self {
            dir: dir.to_owned(),
            hello: Hello {
                protocol: PROTOCOL,
                embedder,
                dimension: dimension as u64,
            },
            message_deadline: options.message_deadline,
            // The owner may wait for its disk that long before it answers.
            answer_deadline: options.write_deadline + options.message_deadline,
            kept: Mutex::new(Vec::new()),
        };
        let connected = client.connection()?;
        client.keep(connected);
        Ok(client)
    }

    pub(crate) fn differing(
        &self,
        collection: CollectionId,
        contents: &[(Uuid, ContentHash)],
    ) -> Result<Vec<bool>, MemoryError> {
        match self.ask(&Request::Differing(collection, contents.to_vec()))? {
            Answer::Differing(flags) if flags.len() == contents.len() => Ok(flags),
            _ => Err(self.wrong_answer()),
        }
    }

    pub(crate) fn change(&self, change: Change) -> Result<u64, MemoryError> {
        match self.ask(&Request::Change(change))? {
            Answer::Changed(count) => Ok(count),
            _ => Err(self.wrong_answer()),
        }
    }

    pub(crate) fn search(&self, question: Question) -> Result<Vec<Found>, MemoryError> {
        match self.ask(&Request::Search(question))? {
            Answer::Found(found) => Ok(found),
            _ => Err(self.wrong_answer()),
        }
    }

    pub(crate) fn list(
        &self,
        collection: CollectionId,
        filter: &Filter,
        (after, limit): (Option<Uuid>, usize),
    ) -> Result<Page, MemoryError> {
        let request = Request::List {
            collection,
            filter: filter.clone(),
            after,
            limit,
        };
        match self.ask(&request)? {
            Answer::Listed(records, next) => Ok((records, next)),
            _ => Err(self.wrong_answer()),
        }
    }

    pub(crate) fn len(&self, collection: CollectionId) -> Result<usize, MemoryError> {
        match self.ask(&Request::Len(collection))? {
            Answer::Len(len) => usize::try_from(len).map_err(|_| self.wrong_answer()),
            _ => Err(self.wrong_answer()),
        }
    }

    pub(crate) fn digest(&self) -> Result<[u8; 32], MemoryError> {
        match self.ask(&Request::Digest)? {
            Answer::Digest(digest) => Ok(digest),
            _ => Err(self.wrong_answer()),
        }
    }

    pub(crate) fn stats(&self) -> Result<MemoryStats, MemoryError> {
        match self.ask(&Request::Stats)? {
            Answer::Stats(stats) => Ok(*stats),
            _ => Err(self.wrong_answer()),
        }
    }

    fn ask(&self, request: &Request) -> Result<Answer, MemoryError> {
        let bytes = request.encode().map_err(|part| MemoryError::Corrupt {
            path: self.dir.clone(),
            reason: part.0.to_owned(),
        })?;
        let kept = self.lock().pop();
        // A kept connection may have been closed for its silence: one new try.
        if let Some(stream) = kept
            && let Ok(answer) = self.exchange(&stream, &bytes)
        {
            self.keep(stream);
            return self.unless_refused(answer);
        }
        let stream = self.connection()?;
        let answer = self
            .exchange(&stream, &bytes)
            .map_err(|step| self.gone(step))?;
        self.keep(stream);
        self.unless_refused(answer)
    }

    fn exchange(&self, stream: &UnixStream, bytes: &[u8]) -> Result<Answer, &'static str> {
        send(stream, bytes, self.message_deadline).map_err(|_| "asking")?;
        let answer = receive(stream, self.answer_deadline, self.message_deadline)
            .map_err(|_| "waiting for the answer")?;
        Answer::decode(&answer).map_err(|part| part.0)
    }

    fn connection(&self) -> Result<UnixStream, MemoryError> {
        let stream = Address::of(&self.dir)
            .and_then(|address| UnixStream::connect(&address.path))
            .map_err(|_| self.gone("connecting"))?;
        let answer = self
            .exchange(&stream, &self.hello.encode())
            .map_err(|step| self.gone(step))?;
        self.unless_refused(answer)?;
        Ok(stream)
    }

    fn keep(&self, stream: UnixStream) {
        let mut kept = self.lock();
        if kept.len() < KEPT_CONNECTIONS {
            kept.push(stream);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<UnixStream>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unless_refused(&self, answer: Answer) -> Result<Answer, MemoryError> {
        match answer {
            Answer::Refused(reason) => Err(MemoryError::OwnerRefused {
                path: self.dir.clone(),
                reason,
            }),
            other => Ok(other),
        }
    }

    fn gone(&self, step: &'static str) -> MemoryError {
        MemoryError::OwnerGone {
            path: self.dir.clone(),
            step,
        }
    }

    fn wrong_answer(&self) -> MemoryError {
        self.gone("an answer to another question")
    }
}
