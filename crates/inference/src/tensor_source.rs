//! Where tensors come from: one interface over all file formats.
//!
//! A format finds tensors by name; a [`StoredTensor`] then reads its rows into
//! the caller's buffers. Whoever reads decides how much is in memory at once.

use std::{ops::Range, path::Path, sync::Arc};

use crate::{
    error::{Corruption, Fault, InferenceError},
    model_file::ModelFile,
    quant::{BlockType, dequantize},
};

/// The embedding table: `(vocab_size, hidden_size)`.
pub(crate) const EMBEDDINGS: &str = "token_embd.weight";
/// The head: `(vocab_size, hidden_size)`; absent where it is the embedding table.
pub(crate) const HEAD: &str = "output.weight";

/// The tensors of one model, over one or several files.
pub(crate) trait TensorSource: Send + Sync {
    /// The tensor with this name, if there is one.
    ///
    /// # Errors
    /// [`InferenceError::Corrupt`] if its numbers are of a type we do not read.
    fn find(&self, name: &str) -> Result<Option<StoredTensor>, InferenceError>;

    /// The file to name when a tensor is missing.
    fn path(&self) -> &Path;

    /// What the files call the tensor of this name, for messages.
    fn name_in_file(&self, name: &str) -> String {
        name.to_owned()
    }

    /// The tensor with this name and shape, rows first.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<StoredTensor, InferenceError> {
        let tensor = self
            .find(name)?
            .ok_or_else(|| Fault::missing(self.name_in_file(name)).in_file(self.path()))?;
        if tensor.shape != shape {
            let wrong = Corruption::Shape {
                expected: shape.to_vec(),
                found: tensor.shape,
            };
            let fault = Fault::new(tensor.name, 0, wrong);
            return Err(fault.in_file(tensor.file.path()));
        }
        Ok(tensor)
    }

    /// A small tensor as f32 (norms and biases): `(len,)`.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, InferenceError> {
        self.tensor(name, &[len])?.to_f32()
    }
}

/// One tensor in an open file; cheap to clone, and keeps the file open.
#[derive(Clone, Debug)]
pub(crate) struct StoredTensor {
    pub(crate) name: String,
    /// Rows first, the width of a row last. A row is whole blocks, and all rows
    /// lay inside the file when it was opened.
    pub(crate) shape: Vec<usize>,
    pub(crate) block_type: BlockType,
    /// Byte at which the first row begins.
    pub(crate) start: u64,
    pub(crate) file: Arc<ModelFile>,
}

impl StoredTensor {
    /// Numbers in a row.
    pub(crate) fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows, all dimensions but the last taken together.
    pub(crate) fn n_rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// Bytes that a row takes in the file.
    pub(crate) fn row_bytes(&self) -> usize {
        self.width() / self.block_type.block_len() * self.block_type.block_bytes()
    }

    /// Reads `rows`, packed as in the file; `bytes` has their size.
    ///
    /// # Errors
    /// [`InferenceError::Io`]; [`InferenceError::Corrupt`] if the file has
    /// shrunk since it was opened. `bytes` then hold anything.
    pub(crate) fn read_rows(
        &self,
        rows: Range<usize>,
        bytes: &mut [u8],
    ) -> Result<(), InferenceError> {
        debug_assert!(rows.end <= self.n_rows() && rows.start <= rows.end);
        debug_assert_eq!(bytes.len(), rows.len() * self.row_bytes());
        let at = self.start + rows.start as u64 * self.row_bytes() as u64;
        self.file.read(&self.name, at, bytes)
    }

    /// Reads `rows` as f32: `values` is `(rows.len(), width)`, row-major.
    ///
    /// `scratch` holds the packed rows meanwhile; its content does not matter,
    /// and it grows only if it is too small.
    ///
    /// # Errors
    /// As for [`Self::read_rows`].
    pub(crate) fn read_rows_f32(
        &self,
        rows: Range<usize>,
        scratch: &mut Vec<u8>,
        values: &mut [f32],
    ) -> Result<(), InferenceError> {
        debug_assert_eq!(values.len(), rows.len() * self.width());
        let n_bytes = rows.len() * self.row_bytes();
        if scratch.len() < n_bytes {
            scratch.resize(n_bytes, 0);
        }
        let bytes = &mut scratch[..n_bytes];
        self.read_rows(rows, bytes)?;
        dequantize(self.block_type, bytes, values);
        Ok(())
    }

    /// The whole tensor as f32, row-major.
    ///
    /// # Errors
    /// As for [`Self::read_rows`].
    pub(crate) fn to_f32(&self) -> Result<Vec<f32>, InferenceError> {
        const CHUNK_BYTES: usize = 1 << 18;
        let (n_rows, width) = (self.n_rows(), self.width());
        let mut values = vec![0.0; n_rows * width];
        if values.is_empty() {
            return Ok(values);
        }
        let per_chunk = (CHUNK_BYTES / self.row_bytes()).max(1);
        let mut scratch = Vec::new();
        let mut first = 0;
        for values in values.chunks_mut(per_chunk * width) {
            let rows = first..first + values.len() / width;
            first = rows.end;
            self.read_rows_f32(rows, &mut scratch, values)?;
        }
        Ok(values)
    }
}
