//! The journal: what was acknowledged, in one file, whatever else is lost.
//!
//! `frame.rs` cuts the file into checked frames, `entry.rs` says what is in a
//! frame, `file/` appends, reads back and compacts. Everything else in the
//! store's directory can be made again from this file.

mod entry;
mod file;
mod frame;

pub(crate) use entry::{CollectionId, Entry, EntryRef};
pub(crate) use file::{Journal, JournalFile, Location, repair};
