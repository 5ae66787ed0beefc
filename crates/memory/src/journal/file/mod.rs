//! The journal's file: appended to by one thread, read by many.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    CollectionId, Entry,
    frame::{self, HEAD_BYTES, HEADER_BYTES, HeaderError, MAX_ENTRY_BYTES, Place},
};
use crate::{
    MemoryError,
    directory::{io_error, rename},
};

const FILE: &str = "journal";
const FILE_NEW: &str = "journal.new";
const FILE_DAMAGED: &str = "journal.damaged";

/// How much may be checksummed while looking for a frame behind damage. A stored
/// text can look like the head of many long frames; past this, the rest counts as
/// damage.
const SEARCH_BUDGET_BYTES: u64 = 4 << 30;

/// Where a frame lies, head included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// An open journal for reading; stays readable after the file was replaced.
pub(crate) struct JournalFile {
    file: File,
    path: PathBuf,
    salt: u64,
}

/// The journal as its one writer holds it.
pub(crate) struct Journal {
    shared: Arc<JournalFile>,
    dir: PathBuf,
    /// The length of what is valid, in bytes.
    end: u64,
    /// The last group written.
    group: u64,
    /// Set when it is not known what the disk holds.
    failed: bool,
}

/// What opening a journal found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Bytes of an unfinished write that were cut off.
    pub(crate) torn_bytes: u64,
}

/// What a repair kept and lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RepairedJournal {
    pub(crate) kept_entries: u64,
    pub(crate) damaged_regions: u64,
    pub(crate) lost_bytes: u64,
}

impl JournalFile {
    /// Reads the entry at `at` and checks it.
    pub(crate) fn read(&self, at: Location) -> Result<(CollectionId, Entry), MemoryError> {
        let bytes = self.read_frame(at)?;
        let (_, entry) =
            frame::parse(&bytes, self.salt).ok_or_else(|| self.damaged(at.offset, "checksum"))?;
        Entry::decode(entry).map_err(|part| self.damaged(at.offset, part.0))
    }

    /// A random number that names the store: the same however often the journal is
    /// compacted.
    pub(crate) fn salt(&self) -> u64 {
        self.salt
    }

    /// The length of the file in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read_frame(&self, at: Location) -> Result<Vec<u8>, MemoryError> {
        let mut bytes = vec![0; at.len as usize];
        self.file
            .read_exact_at(&mut bytes, at.offset)
            .map_err(io_error("read", &self.path))?;
        Ok(bytes)
    }

    pub(crate) fn damaged(&self, offset: u64, reason: &'static str) -> MemoryError {
        MemoryError::JournalDamaged {
            path: self.path.clone(),
            offset,
            reason,
        }
    }
}

impl Journal {
    /// Whether there is a journal in `dir`.
    pub(crate) fn exists(dir: &Path) -> bool {
        dir.join(FILE).is_file()
    }

    /// Whether there is a journal in `dir` that is more than a header.
    pub(crate) fn has_entries(dir: &Path) -> bool {
        fs::metadata(dir.join(FILE)).is_ok_and(|file| file.len() > HEADER_BYTES as u64)
    }

    /// Makes an empty journal; an existing one is replaced.
    pub(crate) fn create(dir: &Path, salt: u64) -> Result<Self, MemoryError> {
        let new = dir.join(FILE_NEW);
        let file = open_new(&new)?;
        file.write_all_at(&frame::header(salt), 0)
            .and_then(|()| file.sync_all())
            .map_err(io_error("write", &new))?;
        let path = dir.join(FILE);
        rename(&new, &path)?;
        Ok(Self {
            shared: Arc::new(JournalFile { file, path, salt }),
            dir: dir.to_owned(),
            end: HEADER_BYTES as u64,
            group: 0,
            failed: false,
        })
    }

    /// Opens the journal, hands every entry to `visit` in order, and cuts off
    /// what an interrupted write left.
    pub(crate) fn open(
        dir: &Path,
        visit: impl FnMut(CollectionId, Entry, Location) -> Result<(), MemoryError>,
    ) -> Result<(Self, Recovered), MemoryError> {
        let (shared, scan) = scan(dir, OpenOptions::new().read(true).write(true), visit)?;
        let torn_bytes = scan.file_bytes - scan.valid_bytes;
        if torn_bytes > 0 {
            shared
                .file
                .set_len(scan.valid_bytes)
                .and_then(|()| shared.file.sync_all())
                .map_err(io_error("cut the torn end of", &shared.path))?;
        }
        let journal = Self {
            shared: Arc::new(shared),
            dir: dir.to_owned(),
            end: scan.valid_bytes,
            group: scan.group,
            failed: false,
        };
        Ok((journal, Recovered { torn_bytes }))
    }

    /// Reads a journal without changing it; a torn end is passed over.
    pub(crate) fn read_all(
        dir: &Path,
        visit: impl FnMut(CollectionId, Entry, Location) -> Result<(), MemoryError>,
    ) -> Result<Arc<JournalFile>, MemoryError> {
        scan(dir, OpenOptions::new().read(true), visit).map(|(shared, _)| Arc::new(shared))
    }

    /// The file to read from.
    pub(crate) fn file(&self) -> Arc<JournalFile> {
        Arc::clone(&self.shared)
    }

    /// The length of the file in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }

    /// Whether nothing can be written any more.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Writes `entries` as one group and waits until they are on the disk.
    ///
    /// After an error none of them is there, or the journal has failed.
    pub(crate) fn append(&mut self, entries: &[Vec<u8>]) -> Result<Vec<Location>, MemoryError> {
        let mut bytes = Vec::new();
        let mut locations = Vec::with_capacity(entries.len());
        for (idx, entry) in entries.iter().enumerate() {
            let start = bytes.len();
            let after = u32::try_from(entries.len() - idx - 1).unwrap_or(u32::MAX);
            let place = Place {
                group: self.group + 1,
                after,
            };
            frame::push(&mut bytes, self.shared.salt, place, entry);
            locations.push(self.location(start, bytes.len() - start)?);
        }
        self.write(&bytes)?;
        self.group += 1;
        Ok(locations)
    }

    /// Marks the end as whole, so that later damage to it is not taken for an
    /// interrupted write.
    pub(crate) fn seal(&mut self) -> Result<(), MemoryError> {
        if self.group == 0 || self.failed {
            return Ok(());
        }
        self.append(&[Vec::new()]).map(drop)
    }

    /// Replaces the file by one that holds the frames at `live` alone, in that
    /// order, and returns where they lie now. On an error the old file stays.
    pub(crate) fn compact(&mut self, live: &[Location]) -> Result<Vec<Location>, MemoryError> {
        let old = Arc::clone(&self.shared);
        let entries = live.iter().map(|at| {
            let bytes = old.read_frame(*at)?;
            frame::parse(&bytes, old.salt)
                .map(|(_, entry)| entry.to_vec())
                .ok_or_else(|| old.damaged(at.offset, "checksum"))
        });
        let (journal, locations) = write_whole(&self.dir, old.salt, live.len(), entries)?;
        // The old file has lost its name; it needs no seal.
        self.failed = true;
        *self = journal;
        Ok(locations)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), MemoryError> {
        let file = &self.shared.file;
        if let Err(source) = file.write_all_at(bytes, self.end) {
            // The disk may be full. What was written of it must go, or the next
            // group would lie behind a torn one.
            self.failed = file.set_len(self.end).is_err();
            return Err(io_error("write", &self.shared.path)(source));
        }
        if let Err(source) = file.sync_data() {
            // The kernel may have dropped the pages: what is on the disk is not
            // known, and a second try would report a success that is none.
            self.failed = true;
            return Err(io_error("sync", &self.shared.path)(source));
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn location(&self, start: usize, len: usize) -> Result<Location, MemoryError> {
        let too_long = || self.shared.damaged(self.end, "an entry that is too long");
        if len > MAX_ENTRY_BYTES {
            return Err(too_long());
        }
        Ok(Location {
            offset: self.end + start as u64,
            len: u32::try_from(len).map_err(|_| too_long())?,
        })
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Only tells later damage from a crash; nothing is lost without it.
        if let Err(error) = self.seal() {
            tracing::warn!(%error, "cannot seal the journal");
        }
    }
}

/// Makes a new journal of everything in the damaged one that checks, and keeps
/// the damaged file beside it.
pub(crate) fn repair(dir: &Path, salt: u64) -> Result<RepairedJournal, MemoryError> {
    let path = dir.join(FILE);
    let bytes = fs::read(&path).map_err(io_error("read", &path))?;
    let mut report = RepairedJournal::default();
    let mut kept = Vec::new();
    let mut offset = HEADER_BYTES.min(bytes.len());
    let mut budget = SEARCH_BUDGET_BYTES;
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        match frame::parse(rest, salt) {
            Some((_, [])) => offset += HEAD_BYTES,
            Some((_, entry)) if Entry::decode(entry).is_ok() => {
                kept.push(entry.to_vec());
                offset += HEAD_BYTES + entry.len();
            }
            _ => {
                let next = next_frame(rest, salt, 0, &mut budget).unwrap_or(rest.len());
                report.damaged_regions += 1;
                report.lost_bytes += next as u64;
                offset += next;
            }
        }
    }
    report.kept_entries = kept.len() as u64;
    let damaged = dir.join(FILE_DAMAGED);
    fs::copy(&path, &damaged).map_err(io_error("copy", &path))?;
    let n_kept = kept.len();
    write_whole(dir, salt, n_kept, kept.into_iter().map(Ok))?;
    Ok(report)
}

/// Writes a journal of `entries` under another name, syncs it, and renames it.
fn write_whole(
    dir: &Path,
    salt: u64,
    n_entries: usize,
    entries: impl Iterator<Item = Result<Vec<u8>, MemoryError>>,
) -> Result<(Journal, Vec<Location>), MemoryError> {
    let new = dir.join(FILE_NEW);
    let file = open_new(&new)?;
    let mut out = BufWriter::with_capacity(1 << 20, &file);
    let mut end = HEADER_BYTES as u64;
    let mut locations = Vec::with_capacity(n_entries);
    out.write_all(&frame::header(salt))
        .map_err(io_error("write", &new))?;
    let mut framed = Vec::new();
    for (idx, entry) in entries.enumerate() {
        let entry = entry?;
        framed.clear();
        let after = u32::try_from(n_entries.saturating_sub(idx + 1)).unwrap_or(u32::MAX);
        frame::push(&mut framed, salt, Place { group: 1, after }, &entry);
        out.write_all(&framed).map_err(io_error("write", &new))?;
        locations.push(Location {
            offset: end,
            len: u32::try_from(framed.len()).unwrap_or(u32::MAX),
        });
        end += framed.len() as u64;
    }
    out.flush().map_err(io_error("write", &new))?;
    drop(out);
    let mut journal = Journal {
        shared: Arc::new(JournalFile {
            file,
            path: dir.join(FILE),
            salt,
        }),
        dir: dir.to_owned(),
        end,
        group: u64::from(n_entries > 0),
        failed: false,
    };
    // The seal makes damage to what was just written damage, not a torn write.
    journal.seal()?;
    journal
        .shared
        .file
        .sync_all()
        .map_err(io_error("sync", &new))?;
    rename(&new, &dir.join(FILE))?;
    Ok((journal, locations))
}

struct Scan {
    file_bytes: u64,
    valid_bytes: u64,
    group: u64,
}

/// Reads all frames; stops at an unfinished last group, fails at damage.
fn scan(
    dir: &Path,
    options: &OpenOptions,
    mut visit: impl FnMut(CollectionId, Entry, Location) -> Result<(), MemoryError>,
) -> Result<(JournalFile, Scan), MemoryError> {
    let path = dir.join(FILE);
    let file = options.open(&path).map_err(io_error("open", &path))?;
    let file_bytes = file.metadata().map_err(io_error("read", &path))?.len();
    let mut input = std::io::BufReader::with_capacity(1 << 20, &file);
    let mut head = Vec::new();
    input
        .by_ref()
        .take(HEADER_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(io_error("read", &path))?;
    let salt = parse_header(&head, &path)?;

    let mut shared = JournalFile {
        file: file.try_clone().map_err(io_error("open", &path))?,
        path: path.clone(),
        salt,
    };
    let mut offset = HEADER_BYTES as u64;
    let mut last = Place { group: 0, after: 0 };
    // Of the group that is being read: visited only once it is whole.
    let mut pending: Vec<(CollectionId, Entry, Location)> = Vec::new();
    let mut valid_bytes = offset;
    let mut bytes = Vec::new();
    while offset < file_bytes {
        read_frame_into(&mut input, &mut bytes).map_err(io_error("read", &path))?;
        let Some((place, entry)) = frame::parse(&bytes, salt) else {
            break;
        };
        let follows = if last.after > 0 {
            place.group == last.group && place.after == last.after - 1
        } else {
            place.group == last.group + 1
        };
        if !follows {
            return Err(shared.damaged(offset, "a frame out of order"));
        }
        let len = bytes.len();
        if !entry.is_empty() {
            let (collection, entry) =
                Entry::decode(entry).map_err(|part| shared.damaged(offset, part.0))?;
            let at = Location {
                offset,
                len: u32::try_from(len).unwrap_or(u32::MAX),
            };
            pending.push((collection, entry, at));
        }
        offset += len as u64;
        last = place;
        if place.after == 0 {
            valid_bytes = offset;
            for (collection, entry, at) in pending.drain(..) {
                visit(collection, entry, at)?;
            }
        }
    }
    drop(input);
    let group = if last.after > 0 {
        last.group - 1
    } else {
        last.group
    };
    if offset < file_bytes {
        refuse_damage(&mut shared, offset, group + 1)?;
    }
    Ok((
        shared,
        Scan {
            file_bytes,
            valid_bytes,
            group,
        },
    ))
}

fn parse_header(head: &[u8], path: &Path) -> Result<u64, MemoryError> {
    frame::parse_header(head).map_err(|error| match error {
        HeaderError::Damaged => MemoryError::JournalDamaged {
            path: path.to_owned(),
            offset: 0,
            reason: "the header",
        },
        HeaderError::Version(found) => MemoryError::NewerFormat {
            path: path.to_owned(),
            found: u64::from(found),
            supported: u64::from(frame::VERSION),
        },
    })
}

/// Reads the bytes that the next head asks for, or what there is.
fn read_frame_into(input: &mut impl std::io::Read, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    bytes.clear();
    input.by_ref().take(HEAD_BYTES as u64).read_to_end(bytes)?;
    let Some(len) = bytes.first_chunk::<4>() else {
        return Ok(());
    };
    let len = u64::from(u32::from_le_bytes(*len));
    if len <= MAX_ENTRY_BYTES as u64 {
        input.by_ref().take(len).read_to_end(bytes)?;
    }
    Ok(())
}

/// Fails if a frame of a later group than `unfinished` lies behind `offset`: that
/// group was on the disk before the later one was written.
fn refuse_damage(
    shared: &mut JournalFile,
    offset: u64,
    unfinished: u64,
) -> Result<(), MemoryError> {
    let mut rest = Vec::new();
    shared
        .file
        .seek(SeekFrom::Start(offset))
        .and_then(|_| shared.file.read_to_end(&mut rest))
        .map_err(io_error("read", &shared.path))?;
    let mut budget = SEARCH_BUDGET_BYTES;
    match next_frame(&rest, shared.salt, unfinished, &mut budget) {
        None if budget > 0 => Ok(()),
        _ => Err(shared.damaged(offset, "checksum")),
    }
}

/// Where in `rest`, past its start, the next whole frame of a group later than
/// `group` begins. Stops when `budget` bytes were checksummed.
fn next_frame(rest: &[u8], salt: u64, group: u64, budget: &mut u64) -> Option<usize> {
    for start in 1..rest.len().saturating_sub(HEAD_BYTES - 1) {
        let candidate = &rest[start..];
        let len = u32::from_le_bytes(*candidate.first_chunk::<4>()?) as usize;
        if len > MAX_ENTRY_BYTES || len > candidate.len() - HEAD_BYTES {
            continue;
        }
        let found_group = u64::from_le_bytes(*candidate[8..].first_chunk::<8>()?);
        if found_group <= group || found_group > group.saturating_add(1 << 40) {
            continue;
        }
        *budget = budget.saturating_sub(len as u64 + 1);
        if *budget == 0 {
            return None;
        }
        if frame::parse(candidate, salt).is_some() {
            return Some(start);
        }
    }
    None
}

fn open_new(path: &Path) -> Result<File, MemoryError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(io_error("make", path))
}

#[cfg(test)]
mod tests;
