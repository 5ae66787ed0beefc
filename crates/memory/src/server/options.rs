//! Which server, and how long it is waited for.

use std::{fmt, time::Duration};

use crate::MemoryError;

/// The longest address, in bytes.
const MAX_URL_BYTES: usize = 512;
/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 4096;
/// The longest prefix of collection names, in bytes.
const MAX_PREFIX_BYTES: usize = 64;

/// A Qdrant server that indexes the records of a store.
///
/// Several stores may use one server and one prefix: each finds its own records
/// alone. A directory that was copied is the same store to a server; give the copy
/// another prefix.
///
/// # Examples
/// ```
/// use inwarden_memory::{ServerKey, ServerOptions};
///
/// # fn main() -> Result<(), inwarden_memory::MemoryError> {
/// let mut server = ServerOptions::new("https://qdrant.example:6334")?;
/// server.api_key = Some(ServerKey::new("secret\n")?);
/// assert!(!format!("{server:?}").contains("secret"));
/// assert!(ServerOptions::new("qdrant.example:6334").is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Scheme, host and port, checked.
    url: String,
    /// The start of the names of the collections, checked.
    collection_prefix: String,
    /// The key that the server asks for.
    pub api_key: Option<ServerKey>,
    /// How long connecting may take.
    pub connect_deadline: Duration,
    /// How long a search may take, connecting included; the embedded index answers
    /// afterwards.
    pub search_deadline: Duration,
    /// How long any other call may take, connecting included.
    pub call_deadline: Duration,
    /// How long the server is left alone after it failed; doubled with each failure
    /// in a row, up to sixty-four times.
    pub retry_after: Duration,
    /// How often it is asked whether it holds as many records as it should.
    pub check_every: Duration,
    /// How many records are sent, or asked for, in one call.
    pub batch_records: usize,
    /// How many searches may wait for the server at once; the embedded index answers
    /// those beyond.
    pub max_searches: usize,
}

impl ServerOptions {
    /// The server whose gRPC interface is at `url`, such as
    /// `https://qdrant.example:6334`, with collections whose names begin with
    /// `inwarden`.
    ///
    /// # Errors
    /// [`MemoryError::ServerOption`] unless it is `http://` or `https://` with a host,
    /// without user, path or query, of at most 512 bytes.
    pub fn new(url: &str) -> Result<Self, MemoryError> {
        Ok(Self {
            url: check_url(url)?,
            collection_prefix: "inwarden".to_owned(),
            api_key: None,
            connect_deadline: Duration::from_secs(2),
            search_deadline: Duration::from_millis(500),
            call_deadline: Duration::from_secs(30),
            retry_after: Duration::from_secs(1),
            check_every: Duration::from_secs(60),
            batch_records: 256,
            max_searches: 64,
        })
    }

    /// The same server with collections whose names begin with `prefix`.
    ///
    /// # Errors
    /// [`MemoryError::ServerOption`] unless it is of 1 to 64 letters, digits, `-` and
    /// `_`.
    pub fn with_collection_prefix(mut self, prefix: &str) -> Result<Self, MemoryError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES || !prefix.bytes().all(allowed) {
            return Err(MemoryError::ServerOption {
                option: "collection prefix",
                reason: "is not of 1 to 64 letters, digits, - and _",
            });
        }
        prefix.clone_into(&mut self.collection_prefix);
        Ok(self)
    }

    /// Scheme, host and port.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The start of the names of the collections.
    #[must_use]
    pub fn collection_prefix(&self) -> &str {
        &self.collection_prefix
    }
}

/// The key of a server. Neither its `Debug` output nor an error shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerKey(String);

impl ServerKey {
    /// A key as a file holds it: white space around it does not count.
    ///
    /// # Errors
    /// [`MemoryError::ServerOption`] unless it is of 1 to 4096 visible ASCII
    /// characters.
    pub fn new(key: &str) -> Result<Self, MemoryError> {
        let key = key.trim();
        let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
        if key.is_empty() || key.len() > MAX_KEY_BYTES || !visible {
            return Err(MemoryError::ServerOption {
                option: "key",
                reason: "is not of 1 to 4096 visible ASCII characters",
            });
        }
        Ok(Self(key.to_owned()))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerKey(..)")
    }
}

fn check_url(url: &str) -> Result<String, MemoryError> {
    let refuse = |reason| MemoryError::ServerOption {
        option: "address",
        reason,
    };
    if url.len() > MAX_URL_BYTES || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refuse("is not of at most 512 visible ASCII characters"));
    }
    let authority = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .ok_or_else(|| refuse("does not begin with http:// or https://"))?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.is_empty() {
        return Err(refuse("names no host"));
    }
    if authority.contains('@') {
        // It would appear in errors and logs.
        return Err(refuse("holds a user or password; give a key instead"));
    }
    if authority.contains(['/', '?', '#']) {
        return Err(refuse("has a path or query; only host and port count"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_prefixes_and_keys_are_checked_and_keys_never_shown() {
        for (url, good) in [
            ("http://127.0.0.1:6334", true),
            ("https://qdrant.example:6334/", true),
            ("http://[::1]:6334", true),
            ("qdrant.example:6334", false),
            ("ftp://qdrant.example", false),
            ("http://", false),
            ("http://user:word@host", false),
            ("http://host/path", false),
            ("http://ho st", false),
        ] {
            assert_eq!(ServerOptions::new(url).is_ok(), good, "{url}");
        }
        let mut options = ServerOptions::new("http://host:1/").unwrap();
        assert_eq!(options.url(), "http://host:1");
        for (prefix, good) in [("a-B_9", true), ("", false), ("a/b", false)] {
            let named = options.clone().with_collection_prefix(prefix);
            assert_eq!(named.is_ok(), good, "{prefix}");
        }
        for key in ["", " \n", "a b", "a\u{e9}", &"x".repeat(4097)] {
            let refused = ServerKey::new(key).unwrap_err();
            assert!(!format!("{refused:?}{refused}").contains("a b"));
        }
        options.api_key = Some(ServerKey::new(" hush-hush\n").unwrap());
        assert!(!format!("{options:?}").contains("hush"), "{options:?}");
    }
}
