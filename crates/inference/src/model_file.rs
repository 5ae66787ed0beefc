//! A model file, read at positions.
//!
//! Nothing is mapped: a file that shrinks while it is read is an error and not
//! a signal, and no page of the file counts as memory of this process.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::error::{Corruption, Fault, InferenceError};

/// An open regular file and the length it had when it was opened.
#[derive(Debug)]
pub(crate) struct ModelFile {
    file: File,
    path: PathBuf,
    len: u64,
}

impl ModelFile {
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>, InferenceError> {
        let io = |source| InferenceError::Io {
            path: path.to_owned(),
            source,
        };
        let regular = |metadata: std::fs::Metadata| match metadata.is_file() {
            true => Ok(metadata.len()),
            false => Err(io(std::io::Error::other("not a regular file"))),
        };
        // Asked before opening too: to open a named pipe would wait for a writer.
        regular(std::fs::metadata(path).map_err(io)?)?;
        let file = File::open(path).map_err(io)?;
        let len = regular(file.metadata().map_err(io)?)?;
        Ok(Arc::new(Self {
            file,
            path: path.to_owned(),
            len,
        }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// In bytes, when it was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `bytes` from byte `at` on; `what` names them in an error.
    pub(crate) fn read(&self, what: &str, at: u64, bytes: &mut [u8]) -> Result<(), InferenceError> {
        let Err(source) = self.file.read_exact_at(bytes, at) else {
            return Ok(());
        };
        if source.kind() == std::io::ErrorKind::UnexpectedEof {
            let len = self.file.metadata().map_or(0, |metadata| metadata.len());
            let truncated = Corruption::Truncated {
                needed: bytes.len() as u64,
                available: len.saturating_sub(at),
            };
            let fault = Fault {
                what: what.to_owned(),
                at,
                corruption: truncated,
            };
            return Err(fault.in_file(&self.path));
        }
        Err(InferenceError::Io {
            path: self.path.clone(),
            source,
        })
    }

    /// Makes `bytes`, which hold the start of the file, hold its first `n_bytes`.
    pub(crate) fn read_start(
        &self,
        what: &str,
        n_bytes: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<(), InferenceError> {
        let held = bytes.len();
        bytes.reserve_exact(n_bytes.saturating_sub(held));
        bytes.resize(n_bytes.max(held), 0);
        self.read(what, held as u64, &mut bytes[held..])
    }
}

/// A whole small file.
pub(crate) fn read_whole(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, InferenceError> {
    let file = ModelFile::open(path)?;
    if file.len > limit_bytes {
        let (value, limit) = (file.len, limit_bytes);
        let too_long = Corruption::OverLimit { value, limit };
        return Err(Fault::new("file", 0, too_long).in_file(path));
    }
    let mut bytes = Vec::new();
    let n_bytes = usize::try_from(file.len).unwrap_or(usize::MAX);
    file.read_start("file", n_bytes, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_shrinks_while_read_is_an_error_with_its_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 100]).unwrap();
        let model = ModelFile::open(file.path()).unwrap();
        let mut bytes = [0; 60];
        model.read("tensor", 40, &mut bytes).unwrap();
        assert_eq!(bytes, [7; 60]);

        file.as_file().set_len(50).unwrap();
        let error = model.read("tensor", 40, &mut bytes).unwrap_err();
        let InferenceError::Corrupt {
            what,
            at,
            corruption,
            ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((&*what, at), ("tensor", 40));
        let truncated = Corruption::Truncated {
            needed: 60,
            available: 10,
        };
        assert_eq!(corruption, truncated);
    }

    #[test]
    fn a_directory_and_a_pipe_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for path in [dir.path(), &pipe, &dir.path().join("absent")] {
            let opened = ModelFile::open(path);
            assert!(matches!(opened, Err(InferenceError::Io { .. })));
        }
    }
}
