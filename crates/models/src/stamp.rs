//! Remembers which files were hashed, so that a start need not hash again.
//!
//! A stamp says "this file, with this size, these times and this inode, hashed
//! to that". The change time is the kernel's and cannot be set, so a file that
//! was written to is hashed again even if its size and modification time were
//! restored. The file is looked at before it is hashed: what changes it in
//! between leaves a stamp that does not vouch for it.
//!
//! The limits: a stamp guards against damage and half-finished copies, not
//! against someone who can write to the cache's directory, since such a one can
//! write the stamp as well; damage below the file system, which changes no time,
//! shows only when all is verified; and of two writes within one tick of the
//! kernel's clock (4 ms or less) with a hash in between, the second goes unseen.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{ModelError, Sha256};

const FILE_NAME: &str = ".stamp.json";
const SCHEMA: &str = "inwarden.stamp/1";
const MAX_BYTES: u64 = 64 * 1024;

/// The stamps of one model's directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamps {
    files: BTreeMap<String, FileStamp>,
}

#[derive(Serialize, Deserialize)]
struct StampFile {
    schema: String,
    files: BTreeMap<String, FileStamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FileStamp {
    size: u64,
    mtime_s: i64,
    mtime_ns: i64,
    ctime_s: i64,
    ctime_ns: i64,
    inode: u64,
    sha256: String,
}

impl FileStamp {
    fn new(metadata: &Metadata, sha256: &Sha256) -> Self {
        Self {
            size: metadata.size(),
            mtime_s: metadata.mtime(),
            mtime_ns: metadata.mtime_nsec(),
            ctime_s: metadata.ctime(),
            ctime_ns: metadata.ctime_nsec(),
            inode: metadata.ino(),
            sha256: sha256.to_string(),
        }
    }
}

impl Stamps {
    /// Reads the stamps; absent, unreadable or foreign ones count as none.
    pub(crate) fn read(dir: &Path) -> Self {
        let mut text = String::new();
        let read = File::open(dir.join(FILE_NAME))
            .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
        match read
            .ok()
            .and_then(|_| serde_json::from_str::<StampFile>(&text).ok())
        {
            Some(file) if file.schema == SCHEMA => Self { files: file.files },
            _ => Self::default(),
        }
    }

    /// Whether this very file has hashed to `expected` before.
    pub(crate) fn vouch(&self, name: &str, metadata: &Metadata, expected: &Sha256) -> bool {
        self.files
            .get(name)
            .is_some_and(|stamp| *stamp == FileStamp::new(metadata, expected))
    }

    /// Records that the file hashed to `sha256`.
    pub(crate) fn set(&mut self, name: &str, metadata: &Metadata, sha256: &Sha256) {
        self.files
            .insert(name.to_owned(), FileStamp::new(metadata, sha256));
    }

    /// Replaces the stamp file in one step.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), ModelError> {
        let path = dir.join(FILE_NAME);
        let file = StampFile {
            schema: SCHEMA.to_owned(),
            files: self.files.clone(),
        };
        let text = serde_json::to_vec_pretty(&file).expect("strings and integers serialise");
        let write = || {
            let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
            temporary.write_all(&text)?;
            temporary
                .persist(&path)
                .map(drop)
                .map_err(std::io::Error::from)
        };
        write().map_err(|error| ModelError::io("write", &path, error))
    }

    /// Removes the stamp file, so that the next start hashes again.
    pub(crate) fn forget(dir: &Path) {
        if let Err(error) = fs::remove_file(dir.join(FILE_NAME))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot remove a model's stamp");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_vouches_for_the_same_file_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "abc").unwrap();
        let hash = Sha256::of(b"abc");
        let mut stamps = Stamps::default();
        stamps.set("f", &fs::metadata(&path).unwrap(), &hash);
        stamps.write(dir.path()).unwrap();

        let stamps = Stamps::read(dir.path());
        assert!(stamps.vouch("f", &fs::metadata(&path).unwrap(), &hash));
        assert!(!stamps.vouch("g", &fs::metadata(&path).unwrap(), &hash));
        assert!(!stamps.vouch("f", &fs::metadata(&path).unwrap(), &Sha256::of(b"abd")));

        // Same size, another inode.
        let other = dir.path().join("other");
        fs::write(&other, "abd").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(!stamps.vouch("f", &fs::metadata(&path).unwrap(), &hash));
    }

    #[test]
    fn a_file_written_to_is_not_vouched_for_though_its_size_and_time_are_restored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "abc").unwrap();
        let before = fs::metadata(&path).unwrap();
        let hash = Sha256::of(b"abc");
        let mut stamps = Stamps::default();
        stamps.set("f", &before, &hash);

        std::thread::sleep(std::time::Duration::from_millis(20)); // ticks of the clock
        fs::write(&path, "abd").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(after.modified().unwrap(), before.modified().unwrap());
        assert_eq!((after.size(), after.ino()), (before.size(), before.ino()));
        assert!(!stamps.vouch("f", &after, &hash));
    }

    #[test]
    fn a_stamp_from_elsewhere_vouches_for_nothing() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let hash = Sha256::of(b"abc");
        let [here, there] = dirs.each_ref().map(|dir| {
            fs::write(dir.path().join("f"), "abc").unwrap();
            fs::metadata(dir.path().join("f")).unwrap()
        });
        let mut stamps = Stamps::default();
        stamps.set("f", &there, &hash);
        stamps.write(dirs[0].path()).unwrap();
        let stamps = Stamps::read(dirs[0].path());
        assert!(!stamps.vouch("f", &here, &hash));
        assert!(stamps.vouch("f", &there, &hash));
    }

    #[test]
    fn garbage_and_oversized_stamps_count_as_none() {
        let dir = tempfile::tempdir().unwrap();
        for text in [String::from("{"), String::from("{}"), " ".repeat(100_000)] {
            fs::write(dir.path().join(FILE_NAME), text).unwrap();
            assert_eq!(Stamps::read(dir.path()), Stamps::default());
        }
    }
}
