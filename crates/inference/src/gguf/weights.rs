//! The tensors of one model, over one or several files.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
};

use super::header::{Header, Metadata, TensorEntry};
use crate::{
    error::{Corruption, Fault, InferenceError},
    mapping::Mapping,
    quant::BlockType,
};

/// All parts of a model, mapped.
pub(crate) struct Weights {
    parts: Vec<Part>,
    /// Name to (part, tensor) indices.
    index: HashMap<String, (usize, usize)>,
}

struct Part {
    mapping: Mapping,
    header: Header,
}

/// One tensor's bytes in the mapping.
pub(crate) struct TensorBytes<'a> {
    pub(crate) entry: &'a TensorEntry,
    pub(crate) bytes: &'a [u8],
    pub(crate) path: &'a Path,
}

impl Weights {
    /// Opens the parts of one model, given in their order.
    pub(crate) fn open(files: &[PathBuf]) -> Result<Self, InferenceError> {
        if files.is_empty() {
            return Err(InferenceError::Empty { what: "files" });
        }
        let mut parts = Vec::new();
        for (part_idx, path) in files.iter().enumerate() {
            let mapping = Mapping::open(path)?;
            let header = Header::parse(&mapping).map_err(|fault| fault.in_file(path))?;
            check_split(header.metadata(&mapping), part_idx, files.len())
                .map_err(|fault| fault.in_file(path))?;
            parts.push(Part { mapping, header });
        }
        let mut index = HashMap::new();
        for (part_idx, part) in parts.iter().enumerate() {
            for (tensor_idx, tensor) in part.header.tensors.iter().enumerate() {
                let place = (part_idx, tensor_idx);
                if index.insert(tensor.name.clone(), place).is_some() {
                    let fault =
                        Fault::new(&*tensor.name, tensor.range.start, Corruption::Duplicate);
                    return Err(fault.in_file(part.mapping.path()));
                }
            }
        }
        let weights = Self { parts, index };
        weights.check_split_total()?;
        Ok(weights)
    }

    /// The first file; the metadata of a split model is there.
    pub(crate) fn path(&self) -> &Path {
        self.parts[0].mapping.path()
    }

    pub(crate) fn metadata(&self) -> Metadata<'_> {
        let part = &self.parts[0];
        part.header.metadata(&part.mapping)
    }

    pub(crate) fn find(&self, name: &str) -> Option<TensorBytes<'_>> {
        let &(part_idx, tensor_idx) = self.index.get(name)?;
        let part = &self.parts[part_idx];
        let entry = &part.header.tensors[tensor_idx];
        Some(TensorBytes {
            entry,
            bytes: &part.mapping[entry.range.clone()],
            path: part.mapping.path(),
        })
    }

    /// The tensor with this name and shape, rows first.
    pub(crate) fn tensor(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<TensorBytes<'_>, InferenceError> {
        let missing = || Fault::missing(name).in_file(self.path());
        let tensor = self.find(name).ok_or_else(missing)?;
        if tensor.entry.shape != shape {
            let wrong = Corruption::Shape {
                expected: shape.to_vec(),
                found: tensor.entry.shape.clone(),
            };
            let fault = Fault::new(name, tensor.entry.range.start, wrong);
            return Err(fault.in_file(tensor.path));
        }
        Ok(tensor)
    }

    /// A small tensor as f32 (norms and biases).
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, InferenceError> {
        self.tensor(name, &[len]).map(|tensor| tensor.to_f32())
    }

    /// Drops the mapping and keeps one tensor's rows readable from its file.
    pub(crate) fn into_row_file(mut self, name: &str) -> Option<RowFile> {
        let &(part_idx, tensor_idx) = self.index.get(name)?;
        let part = self.parts.swap_remove(part_idx);
        let entry = part.header.tensors.into_iter().nth(tensor_idx)?;
        let (file, path) = part.mapping.into_file();
        let width = entry.shape.last().copied()?;
        Some(RowFile {
            file,
            path,
            start: entry.range.start as u64,
            n_rows: entry.shape.iter().rev().skip(1).product(),
            width,
            block_type: entry.block_type,
        })
    }

    fn check_split_total(&self) -> Result<(), InferenceError> {
        let total = self
            .metadata()
            .optional_unsigned("split.tensors.count")
            .map_err(|fault| fault.in_file(self.path()))?;
        match total {
            Some(total) if total != self.index.len() as u64 => {
                let found = format!("{} in {} files", self.index.len(), self.parts.len());
                let fault = Fault::unexpected("split.tensors.count", total.to_string(), found);
                Err(fault.in_file(self.path()))
            }
            _ => Ok(()),
        }
    }
}

fn check_split(metadata: Metadata<'_>, part_idx: usize, n_parts: usize) -> Result<(), Fault> {
    let count = metadata.optional_unsigned("split.count")?.unwrap_or(1);
    if count.max(1) != n_parts as u64 {
        let expected = format!("{n_parts}, the number of files given");
        return Err(Fault::unexpected("split.count", expected, count));
    }
    let number = metadata.optional_unsigned("split.no")?.unwrap_or(0);
    if number != part_idx as u64 {
        let expected = format!("{part_idx}, its place in the list of files");
        return Err(Fault::unexpected("split.no", expected, number));
    }
    Ok(())
}

impl TensorBytes<'_> {
    pub(crate) fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.entry.shape.iter().product()];
        self.entry.block_type.dequantize(self.bytes, &mut values);
        values
    }
}

/// A tensor of which single rows are read when they are needed.
///
/// Reads the file instead of a mapping: a file that shrinks is then an error
/// and not a signal.
#[derive(Debug)]
pub(crate) struct RowFile {
    file: File,
    path: PathBuf,
    start: u64,
    n_rows: usize,
    width: usize,
    block_type: BlockType,
}

impl RowFile {
    /// Fills `values`, which is one row wide, with row `row_idx < n_rows`.
    pub(crate) fn read(&self, row_idx: usize, values: &mut [f32]) -> Result<(), InferenceError> {
        debug_assert!(row_idx < self.n_rows && values.len() == self.width);
        let row_bytes = self.width / self.block_type.block_len() * self.block_type.block_bytes();
        let mut bytes = vec![0; row_bytes];
        let offset = self.start + row_idx as u64 * row_bytes as u64;
        std::os::unix::fs::FileExt::read_exact_at(&self.file, &mut bytes, offset).map_err(
            |source| InferenceError::Io {
                path: self.path.clone(),
                source,
            },
        )?;
        self.block_type.dequantize(&bytes, values);
        Ok(())
    }
}
