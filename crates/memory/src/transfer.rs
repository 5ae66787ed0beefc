//! What goes through a whole store: export, import, retention.
//!
//! An export is text, one JSON object a line:
//!
//! ```text
//! {"format":"inwarden memory export","version":1,"embedder":"...","dimension":384}
//! {"collection":"precedents","record":{...},"vector":"base64 of f32, little-endian"}
//! ...
//! {"records":2,"sha256":"of all bytes before this line"}
//! ```
//!
//! An import checks the last line before it stores anything. The vectors are taken
//! over if the embedder is the same, and computed again from the texts otherwise.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use inwarden_types::WallTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    Memory, MemoryError,
    directory::io_error,
    journal::CollectionId,
    query::Filter,
    record::{Record, check_vector},
    store::Change,
};

const FORMAT: &str = "inwarden memory export";
const VERSION: u32 = 1;

/// The longest line of an export: a text of the largest size with its vector.
const MAX_LINE_BYTES: u64 = 32 * 1024 * 1024;

/// How many records a page or a batch has.
const PAGE_RECORDS: usize = 512;

/// How many records went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Records that were exported or read.
    pub records: u64,
}

/// What is kept of a collection. A record without a time is never removed: it was
/// written by hand or shipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Only records of these tenants are looked at; none means all.
    pub tenants: Option<Vec<String>>,
    /// Records observed before this time are removed.
    pub observed_from: Option<WallTime>,
    /// Of those looked at that have a time, the oldest beyond this many are removed.
    pub max_records: Option<usize>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u32,
    embedder: String,
    dimension: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    collection: String,
    record: Record,
    vector: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    records: u64,
    sha256: String,
}

impl Memory {
    /// Writes all records to the new file `path` (mode 0600), which is whole or
    /// absent. A change meanwhile is in it or not.
    ///
    /// # Errors
    /// [`MemoryError::Io`], also if the file is there; [`MemoryError::JournalDamaged`].
    pub fn export(&self, path: &Path) -> Result<Transferred, MemoryError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = Path::new(&partial);
        let refuse = |action| io_error(action, path);
        if path.exists() {
            return Err(refuse("export to")(
                std::io::ErrorKind::AlreadyExists.into(),
            ));
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(partial)
            .map_err(refuse("write"))?;
        let mut out = Hashing {
            out: BufWriter::new(&file),
            hasher: Sha256::new(),
        };
        let mut records = 0;
        out.line(&Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            embedder: self.embedder_identity(),
            dimension: self.dimension(),
        })
        .map_err(refuse("write"))?;
        for collection in CollectionId::ALL {
            let mut after = None;
            loop {
                let page = (after, PAGE_RECORDS);
                let (page, next) = self.link().list(collection, &Filter::default(), page)?;
                for (record, vector) in page {
                    records += 1;
                    out.line(&Line {
                        collection: collection.name().to_owned(),
                        record,
                        vector: STANDARD.encode(vector_bytes(&vector)),
                    })
                    .map_err(refuse("write"))?;
                }
                match next {
                    Some(_) => after = next,
                    None => break,
                }
            }
        }
        let sha256 = hex(&out.hasher.clone().finalize());
        out.line(&Footer { records, sha256 })
            .and_then(|()| out.out.flush())
            .map_err(refuse("write"))?;
        drop(out);
        file.sync_all().map_err(refuse("sync"))?;
        fs::rename(partial, path).map_err(refuse("rename"))?;
        Ok(Transferred { records })
    }

    /// Stores every record of an export, replacing those with the same tenant and
    /// id.
    ///
    /// # Errors
    /// [`MemoryError::Import`] if the file is not whole or of a newer version:
    /// nothing was stored. Otherwise as [`Memory::upsert_precedents`]; what was
    /// stored before the error stays.
    pub fn import(&self, path: &Path) -> Result<Transferred, MemoryError> {
        self.check_batch(0)?;
        let expected = checked_records(path)?;
        let mut lines = Lines::open(path)?;
        let header: Header = lines.parse_next()?;
        let same_embedder =
            header.embedder == self.embedder_identity() && header.dimension == self.dimension();
        let batch = PAGE_RECORDS.min(self.options().max_batch_records.max(1));
        let mut waiting: Vec<(CollectionId, Record, Vec<f32>)> = Vec::new();
        for _ in 0..expected {
            let line: Line = lines.parse_next()?;
            let collection = CollectionId::from_name(&line.collection)
                .ok_or_else(|| lines.error("an unknown collection".to_owned()))?;
            line.record.check(self.options())?;
            let vector = if same_embedder {
                lines.vector(&line.vector, self.dimension())?
            } else {
                Vec::new()
            };
            let full = waiting.len() >= batch || waiting.last().is_some_and(|w| w.0 != collection);
            if full {
                self.take_in(std::mem::take(&mut waiting), same_embedder)?;
            }
            waiting.push((collection, line.record, vector));
        }
        self.take_in(waiting, same_embedder)?;
        Ok(Transferred { records: expected })
    }

    /// Removes precedents that `retention` does not keep; returns how many.
    ///
    /// # Errors
    /// As [`Memory::remove_precedents`]; what was removed before the error is gone.
    pub fn retain_precedents(&self, retention: &Retention) -> Result<usize, MemoryError> {
        self.retain(CollectionId::Precedents, retention)
    }

    /// Removes baselines that `retention` does not keep; returns how many.
    ///
    /// # Errors
    /// As [`Memory::remove_precedents`]; what was removed before the error is gone.
    pub fn retain_baselines(&self, retention: &Retention) -> Result<usize, MemoryError> {
        self.retain(CollectionId::Baselines, retention)
    }

    fn retain(
        &self,
        collection: CollectionId,
        retention: &Retention,
    ) -> Result<usize, MemoryError> {
        self.check_batch(0)?;
        let filter = Filter {
            tenants: retention.tenants.clone(),
            ..Filter::default()
        };
        filter.check(self.options().max_filter_values)?;
        let mut timed = Vec::new();
        let mut after = None;
        loop {
            let page = (after, PAGE_RECORDS);
            let (records, next) = self.link().list(collection, &filter, page)?;
            let times = records
                .iter()
                .filter_map(|(record, _)| Some((record.observed_unix_ns?, record.point())));
            timed.extend(times);
            match next {
                Some(_) => after = next,
                None => break,
            }
        }
        timed.sort_unstable();
        let too_old = retention.observed_from.map_or(0, |from| {
            timed.partition_point(|(observed, _)| *observed < from.0)
        });
        let too_many = retention
            .max_records
            .map_or(0, |max| timed.len().saturating_sub(max));
        let mut removed = 0;
        let points: Vec<_> = timed[..too_old.max(too_many)]
            .iter()
            .map(|(_, point)| *point)
            .collect();
        for points in points.chunks(self.options().max_batch_records.max(1)) {
            let points = points.to_vec();
            removed += self.link().change(&Change::Remove { collection, points })?;
        }
        Ok(usize::try_from(removed).unwrap_or(usize::MAX))
    }

    fn take_in(
        &self,
        batch: Vec<(CollectionId, Record, Vec<f32>)>,
        same_embedder: bool,
    ) -> Result<(), MemoryError> {
        let Some(collection) = batch.first().map(|first| first.0) else {
            return Ok(());
        };
        if !same_embedder {
            let records = batch.into_iter().map(|(_, record, _)| record).collect();
            return self.upsert(collection, records);
        }
        let records = batch
            .into_iter()
            .map(|(_, record, vector)| (record, vector))
            .collect();
        let change = Change::Put {
            collection,
            records,
        };
        self.link().change(&change).map(drop)
    }
}

/// Reads an export once, without storing anything, and returns how many records it
/// has.
fn checked_records(path: &Path) -> Result<u64, MemoryError> {
    let mut lines = Lines::open(path)?;
    let mut hasher = Sha256::new();
    let mut last = Vec::new();
    let mut count = 0_u64;
    while lines.next()? {
        hasher.update(&last);
        std::mem::swap(&mut last, &mut lines.line);
        count += 1;
        if count == 1 {
            let header: Header = lines.parse(&last)?;
            if header.format != FORMAT {
                return Err(lines.error("not an export".to_owned()));
            }
            if header.version != VERSION {
                let version = header.version;
                let reason = format!("version {version}; this release reads {VERSION}");
                return Err(lines.error(reason));
            }
        }
    }
    let footer: Footer = lines.parse(&last)?;
    if footer.sha256 != hex(&hasher.finalize()) || footer.records + 2 != count {
        return Err(lines.error("the checksum of the file does not fit".to_owned()));
    }
    Ok(footer.records)
}

/// The lines of an export, with their numbers.
struct Lines<'a> {
    path: &'a Path,
    input: BufReader<File>,
    line: Vec<u8>,
    number: u64,
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<Self, MemoryError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        Ok(Self {
            path,
            input: BufReader::new(file),
            line: Vec::new(),
            number: 0,
        })
    }

    /// Reads the next line with its end into `line`; false at the end of the file.
    fn next(&mut self) -> Result<bool, MemoryError> {
        self.line.clear();
        let mut limited = self.input.by_ref().take(MAX_LINE_BYTES);
        let read = limited
            .read_until(b'\n', &mut self.line)
            .map_err(io_error("read", self.path))?;
        self.number += u64::from(read > 0);
        if read as u64 == MAX_LINE_BYTES {
            return Err(self.error("the line is too long".to_owned()));
        }
        Ok(read > 0)
    }

    fn parse_next<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, MemoryError> {
        if !self.next()? {
            return Err(self.error("the file ends early".to_owned()));
        }
        self.parse(&self.line)
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self, line: &[u8]) -> Result<T, MemoryError> {
        // The error is not quoted: it can hold the text.
        serde_json::from_slice(line).map_err(|_| self.error("it does not parse".to_owned()))
    }

    fn vector(&self, text: &str, dimension: usize) -> Result<Vec<f32>, MemoryError> {
        let bytes = STANDARD
            .decode(text)
            .map_err(|_| self.error("the vector is not base64".to_owned()))?;
        let (components, rest) = bytes.as_chunks::<4>();
        let vector: Vec<f32> = components.iter().map(|x| f32::from_le_bytes(*x)).collect();
        if !rest.is_empty() {
            return Err(self.error("the vector ends early".to_owned()));
        }
        check_vector(&vector, dimension)?;
        Ok(vector)
    }

    fn error(&self, reason: String) -> MemoryError {
        MemoryError::Import {
            path: self.path.to_owned(),
            line: self.number,
            reason,
        }
    }
}

/// Writes lines and hashes them.
struct Hashing<W> {
    out: W,
    hasher: Sha256,
}

impl<W: std::io::Write> Hashing<W> {
    fn line(&mut self, line: &impl Serialize) -> std::io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.hasher.update(&bytes);
        self.out.write_all(&bytes)
    }
}

fn vector_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
