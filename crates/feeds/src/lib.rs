//! Event formats: event JSON and recordings, in both directions.
//!
//! One event is one line of JSON, `"schema":"inwarden.event/1"`. The smallest
//! legal event is `{"id":"a","argv":["id"]}`; every field of
//! [`inwarden_types::Event`] has a place, and what [`encode_event`] writes
//! [`decode_event`] reads back without loss. [`decode_event`] documents the
//! fields. A recording is a header line, then event lines, see
//! [`RecordingReader`] and [`RecordingWriter`].
//!
//! It also reads what others write down about attacks: techniques out of a STIX
//! bundle ([`read_stix_bundle`]) and runbooks in Markdown ([`split_runbook`]).
//!
//! This crate has no sockets, no files and no logs: it works on bytes and on
//! `BufRead` and `Write`. Every byte is taken to be chosen by an attacker: lines
//! are capped before they are parsed, nesting and counts while they are, and
//! errors name field, place and limit but never repeat a value, since command
//! lines hold secrets.
//!
//! The JSON reader is our own (`json.rs`), for three reasons a general one does
//! not serve: a lone surrogate in an argument must not make the event vanish (it
//! becomes U+FFFD, like any byte that is not UTF-8), the arguments of a tool
//! call must come out byte for byte with doubled keys refused, and fields that
//! are not ours are to be counted without being built.
//!
//! # Examples
//! ```
//! use inwarden_feeds::{decode_event, encode_event};
//!
//! let decoded = decode_event(br#"{"id":1,"argv":["cat","/etc/hosts"],"parent":"bash","x":0}"#)?;
//! assert_eq!(decoded.event.process.image.argv.args, ["cat", "/etc/hosts"]);
//! assert_eq!(decoded.event.ancestors[0].image.comm, "bash");
//! assert_eq!(decoded.ignored_fields, 1);
//!
//! let line = encode_event(&decoded.event);
//! assert_eq!(decode_event(line.as_bytes())?.event, decoded.event);
//! # Ok::<(), inwarden_feeds::FeedError>(())
//! ```

mod activity;
mod agent;
mod decode;
mod encode;
mod error;
mod json;
mod lines;
mod recording;
mod runbook;
mod stix;
mod values;

pub use decode::{
    DecodedEvent, EVENT_SCHEMA, MAX_ANCESTORS, MAX_ARGS, MAX_DEPTH, MAX_HOST_BYTES, MAX_ID_BYTES,
    MAX_LINE_BYTES, MAX_PAST_CALLS, MAX_PATH_BYTES, decode_event,
};
pub use encode::encode_event;
pub use error::FeedError;
pub use lines::{EventReader, NumberedLine};
pub use recording::{RECORDING_SCHEMA, RecordingHeader, RecordingReader, RecordingWriter};
pub use runbook::{MAX_PART_BYTES, MAX_RUNBOOK_PARTS, RunbookPart, split_runbook};
pub use stix::{AttackPattern, MAX_STIX_DEPTH, MAX_STIX_OBJECTS, StixBundle, read_stix_bundle};
