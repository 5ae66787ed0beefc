//! The embedding of a token, read when it is needed.

use crate::{error::InferenceError, tensor_source::StoredTensor, tokenizer::TokenId};

/// `(vocab_size, hidden_size)`, exactly as in the file, where it stays.
///
/// Of a tied model the head holds the same table, quantised again. The rows of
/// the file cost a read of a kilobyte each, and no accuracy.
pub(super) struct Embeddings {
    table: StoredTensor,
}

impl Embeddings {
    pub(super) fn new(table: StoredTensor) -> Self {
        Self { table }
    }

    /// Fills `rows`, `(tokens.len(), hidden_size)`; `scratch` keeps its memory.
    ///
    /// # Errors
    /// [`InferenceError::Io`]; [`InferenceError::Corrupt`] if the file has
    /// shrunk since it was opened.
    pub(super) fn read(
        &self,
        tokens: &[TokenId],
        scratch: &mut Vec<u8>,
        rows: &mut [f32],
    ) -> Result<(), InferenceError> {
        for (token, row) in tokens.iter().zip(rows.chunks_exact_mut(self.table.width())) {
            let row_idx = token.0 as usize;
            self.table
                .read_rows_f32(row_idx..row_idx + 1, scratch, row)?;
        }
        Ok(())
    }
}
