//! A cache in front of the parser: what was started in exactly these words before is
//! not read again.

use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::{Features, Reading, Surroundings};
use crate::cache::RecentCache;

/// Longer command lines are read each time, so that the cache stays small.
const MAX_KEPT_BYTES: usize = 16 * 1024;

/// A reading with what it shows.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) reading: Reading,
    pub(crate) features: Features,
}

impl Read {
    fn of(reading: Reading, surroundings: &Surroundings) -> Self {
        let features = reading.features(surroundings);
        Self { reading, features }
    }
}

/// Reads command lines, and keeps of each its reading or what somebody makes of it.
/// The cache holds these in memory as they were given, bounded in number and size,
/// and never writes them anywhere.
#[derive(Debug)]
pub(crate) struct Reader<T = Read> {
    cache: Mutex<RecentCache<Arc<T>>>,
}

impl Reader {
    /// Reads the arguments of a program; `also` as in [`Reading::of_program`].
    pub(crate) fn argv(
        &self,
        args: &[String],
        also: Option<&str>,
        surroundings: &Surroundings,
    ) -> Arc<Read> {
        self.argv_or(args, also, surroundings, || {
            Read::of(Reading::of_program(args, also), surroundings)
        })
    }

    /// Reads a command line that is one text.
    pub(crate) fn line(&self, line: &str, surroundings: &Surroundings) -> Arc<Read> {
        let mut hasher = Hasher::new(1, surroundings);
        hasher.text(line);
        self.find_or(hasher, line.len(), || {
            Read::of(Reading::of_line(line), surroundings)
        })
    }
}

impl<T> Reader<T> {
    /// A reader that remembers about `max_entries` command lines; 0 remembers none.
    pub(crate) fn new(max_entries: usize) -> Self {
        Self {
            cache: Mutex::new(RecentCache::new(max_entries)),
        }
    }

    /// What `make` makes of the reading of a program's arguments; always the same.
    pub(crate) fn of_argv(
        &self,
        args: &[String],
        surroundings: &Surroundings,
        make: impl FnOnce(&Reading, &Features) -> T,
    ) -> Arc<T> {
        self.argv_or(args, None, surroundings, || {
            let read = Read::of(Reading::of_program(args, None), surroundings);
            make(&read.reading, &read.features)
        })
    }

    fn argv_or(
        &self,
        args: &[String],
        also: Option<&str>,
        surroundings: &Surroundings,
        read: impl FnOnce() -> T,
    ) -> Arc<T> {
        let mut hasher = Hasher::new(0, surroundings);
        let mut n_bytes = 0;
        for arg in args {
            n_bytes += arg.len();
            hasher.text(arg);
        }
        hasher.text(also.unwrap_or(""));
        self.find_or(hasher, n_bytes, read)
    }

    fn find_or(&self, hasher: Hasher, n_bytes: usize, read: impl FnOnce() -> T) -> Arc<T> {
        if n_bytes > MAX_KEPT_BYTES {
            return Arc::new(read());
        }
        let key = hasher.0.finalize().into();
        // The cache is whole after any panic: each change is one insertion.
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().find(&key) {
            return known;
        }
        let fresh = Arc::new(read());
        lock().insert(key, Arc::clone(&fresh));
        fresh
    }
}

struct Hasher(Sha256);

impl Hasher {
    fn new(kind: u8, surroundings: &Surroundings) -> Self {
        let mut hasher = Sha256::new();
        hasher.update([kind, u8::from(surroundings.under_service)]);
        Self(hasher)
    }

    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_same_words_are_read_once_and_others_anew() {
        let reader: Reader = Reader::new(64);
        let around = Surroundings::default();
        let first = reader.argv(&args("curl -s https://a.example"), None, &around);
        assert!(Arc::ptr_eq(
            &first,
            &reader.argv(&args("curl -s https://a.example"), None, &around)
        ));
        assert!(!Arc::ptr_eq(
            &first,
            &reader.argv(&args("curl -s https://b.example"), None, &around)
        ));
        assert!(!Arc::ptr_eq(
            &first,
            &reader.line("curl -s https://a.example", &around)
        ));
        let service = Surroundings {
            under_service: true,
            ..around
        };
        assert!(!Arc::ptr_eq(
            &first,
            &reader.argv(&args("curl -s https://a.example"), None, &service)
        ));
        // Borders between arguments count.
        let joined = vec!["curl".to_owned(), "-s https://a.example".to_owned()];
        assert!(!Arc::ptr_eq(&first, &reader.argv(&joined, None, &around)));
    }
}
