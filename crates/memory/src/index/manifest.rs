//! What a shard was made of and which files it consists of, so that an opener can
//! tell a whole shard from anything else.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::{
    MemoryError,
    directory::io_error,
    record::ContentHash,
    wire::{Malformed, Reader, Writer},
};

const FILE: &str = "manifest";
const MAGIC: &[u8; 8] = b"INWSHRD\n";
const VERSION: u32 = 1;
/// Where the engine keeps what it does not change while a shard is only read.
const CHECKED: &str = "segments";

/// Which content of which records a shard holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) members: Vec<(Uuid, ContentHash)>,
}

impl Manifest {
    /// Writes the manifest of the finished shard in `dir`.
    pub(super) fn write(&self, dir: &Path, dimension: usize) -> Result<(), MemoryError> {
        let mut writer = Writer::default();
        writer.raw(MAGIC);
        writer.u32(VERSION);
        writer.u64(dimension as u64);
        writer.count(self.members.len());
        for (point, hash) in &self.members {
            writer.uuid(*point);
            writer.raw(hash);
        }
        let files = files_of(dir)?;
        writer.count(files.len());
        for (path, len, crc) in &files {
            writer.bytes(path.to_string_lossy().as_bytes());
            writer.u64(*len);
            writer.u32(*crc);
        }
        let crc = crc32c::crc32c(&writer.bytes);
        writer.u32(crc);
        let path = dir.join(FILE);
        fs::write(&path, &writer.bytes).map_err(io_error("write", &path))
    }

    /// Reads the manifest in `dir` and checks every file it names; says what is
    /// wrong otherwise.
    pub(super) fn read(dir: &Path, dimension: usize) -> Result<Self, String> {
        let bytes = fs::read(dir.join(FILE)).map_err(|error| error.to_string())?;
        let (members, files) =
            parse(&bytes, dimension).map_err(|part| format!("the manifest's {}", part.0))?;
        let found = files_of(dir).map_err(|error| error.to_string())?;
        let found = found
            .into_iter()
            .map(|(path, len, crc)| (path.to_string_lossy().into_owned(), len, crc))
            .collect::<Vec<_>>();
        if found != files {
            return Err("a file is not as it was written".to_owned());
        }
        Ok(Self { members })
    }
}

type Members = Vec<(Uuid, ContentHash)>;
type Files = Vec<(String, u64, u32)>;

fn parse(bytes: &[u8], dimension: usize) -> Result<(Members, Files), Malformed> {
    let body = bytes.len().checked_sub(4).ok_or(Malformed("length"))?;
    let crc = Reader::new(&bytes[body..]).u32("checksum")?;
    if crc32c::crc32c(&bytes[..body]) != crc {
        return Err(Malformed("checksum"));
    }
    let mut reader = Reader::new(&bytes[..body]);
    if reader.take(MAGIC.len(), "magic")? != MAGIC || reader.u32("version")? != VERSION {
        return Err(Malformed("version"));
    }
    if reader.u64("dimension")? != dimension as u64 {
        return Err(Malformed("dimension"));
    }
    let members = (0..reader.count(48, "members")?)
        .map(|_| Ok((reader.uuid("member")?, reader.hash("member")?)))
        .collect::<Result<_, Malformed>>()?;
    let files = (0..reader.count(16, "files")?)
        .map(|_| {
            let path = reader.text("path")?.to_owned();
            Ok((path, reader.u64("file")?, reader.u32("file")?))
        })
        .collect::<Result<_, Malformed>>()?;
    reader.end("end")?;
    Ok((members, files))
}

/// Path below `dir`, length and CRC-32C of every file that must not change.
fn files_of(dir: &Path) -> Result<Vec<(PathBuf, u64, u32)>, MemoryError> {
    let mut files = Vec::new();
    collect(dir, Path::new(CHECKED), &mut files)?;
    files.sort();
    Ok(files)
}

fn collect(
    dir: &Path,
    below: &Path,
    files: &mut Vec<(PathBuf, u64, u32)>,
) -> Result<(), MemoryError> {
    let here = dir.join(below);
    for entry in fs::read_dir(&here).map_err(io_error("read", &here))? {
        let entry = entry.map_err(io_error("read", &here))?;
        let path = below.join(entry.file_name());
        let kind = entry.file_type().map_err(io_error("read", &here))?;
        if kind.is_dir() {
            collect(dir, &path, files)?;
        } else {
            let (len, crc) = checksum(&entry.path()).map_err(io_error("read", &here))?;
            files.push((path, len, crc));
        }
    }
    Ok(())
}

fn checksum(path: &Path) -> std::io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let mut block = vec![0; 1 << 18];
    let (mut len, mut crc) = (0, 0);
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok((len, crc));
        }
        crc = crc32c::crc32c_append(crc, &block[..read]);
        len += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_missing_or_additional_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let segment = dir.path().join("segments").join("one");
        fs::create_dir_all(&segment).unwrap();
        fs::write(segment.join("vectors"), [7; 100]).unwrap();
        let manifest = Manifest {
            members: vec![(Uuid::from_u128(1), [2; 32])],
        };
        manifest.write(dir.path(), 3).unwrap();
        assert_eq!(Manifest::read(dir.path(), 3), Ok(manifest));
        assert!(Manifest::read(dir.path(), 4).is_err());
        fs::write(segment.join("more"), "").unwrap();
        assert!(Manifest::read(dir.path(), 3).is_err());
        fs::remove_file(segment.join("more")).unwrap();
        fs::write(segment.join("vectors"), [8; 100]).unwrap();
        assert!(Manifest::read(dir.path(), 3).is_err());
        fs::write(segment.join("vectors"), [7; 100]).unwrap();
        assert!(Manifest::read(dir.path(), 3).is_ok());
        let path = dir.path().join(FILE);
        let bytes = fs::read(&path).unwrap();
        for byte in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[byte] ^= 1;
            fs::write(&path, flipped).unwrap();
            assert!(Manifest::read(dir.path(), 3).is_err(), "byte {byte}");
        }
    }
}
