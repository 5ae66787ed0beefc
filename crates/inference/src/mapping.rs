//! A model file mapped read-only; the only unsafe code of this crate (products
//! of int8 weights have theirs in `inwarden-kernels`).
//!
//! The mapping lives while a model is loaded and is dropped when loading ends,
//! so a file truncated later cannot kill a running process.

#![expect(
    unsafe_code,
    reason = "mapping a file is unsafe; one call in this file"
)]

use std::{
    fs::File,
    ops::Deref,
    path::{Path, PathBuf},
};

use crate::error::InferenceError;

pub(crate) struct Mapping {
    map: memmap2::Mmap,
    file: File,
    path: PathBuf,
}

impl Mapping {
    pub(crate) fn open(path: &Path) -> Result<Self, InferenceError> {
        let io = |source| InferenceError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(io(std::io::Error::other("not a regular file")));
        }
        // SAFETY: the mapping is read-only and gone when loading ends. That
        // nobody truncates or writes to the file until then is guaranteed by the
        // caller of `Qwen2::load` or `Embedder::load`, as their documentation
        // demands; the model cache keeps to it, which renames complete files
        // into place and never writes to them again.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Ok(Self {
            map,
            file,
            path: path.to_owned(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, to go on reading when the mapping is gone.
    pub(crate) fn into_file(self) -> (File, PathBuf) {
        (self.file, self.path)
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
