//! The tensors of one model, over one or several files.

use std::{
    collections::{HashMap, hash_map},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::header::{Header, Metadata, TensorEntry, Values};
use crate::{
    error::{Corruption, Fault, InferenceError},
    model_file::ModelFile,
    tensor_source::{StoredTensor, TensorSource},
};

/// All parts of a model, open.
///
/// Holds the header of the first part until it is dropped, and the files for as
/// long as one of their tensors is held.
pub(crate) struct Weights {
    /// The first file and its header: the metadata of a split model is there.
    path: PathBuf,
    header: Vec<u8>,
    values: Values,
    tensors: HashMap<String, StoredTensor>,
}

impl Weights {
    /// Opens the parts of one model, given in their order.
    pub(crate) fn open(files: &[PathBuf]) -> Result<Self, InferenceError> {
        let Some((first, others)) = files.split_first() else {
            return Err(InferenceError::Empty { what: "files" });
        };
        let (values, header, entries) = open_part(first, 0, files.len())?;
        let mut weights = Self {
            path: first.clone(),
            header,
            values,
            tensors: HashMap::new(),
        };
        weights.add(entries)?;
        for (part_idx, path) in (1..).zip(others) {
            let (_, _, entries) = open_part(path, part_idx, files.len())?;
            weights.add(entries)?;
        }
        weights.check_split_total(files.len())?;
        Ok(weights)
    }

    pub(crate) fn metadata(&self) -> Metadata<'_> {
        Metadata::new(&self.values, &self.header)
    }

    fn add(&mut self, (file, entries): Entries) -> Result<(), InferenceError> {
        for entry in entries {
            match self.tensors.entry(entry.name.clone()) {
                hash_map::Entry::Vacant(vacant) => vacant.insert(StoredTensor {
                    name: entry.name,
                    shape: entry.shape,
                    block_type: entry.block_type,
                    start: entry.range.start as u64,
                    file: Arc::clone(&file),
                }),
                hash_map::Entry::Occupied(_) => {
                    let fault = Fault::new(entry.name, entry.range.start, Corruption::Duplicate);
                    return Err(fault.in_file(file.path()));
                }
            };
        }
        Ok(())
    }

    fn check_split_total(&self, n_files: usize) -> Result<(), InferenceError> {
        let total = self
            .metadata()
            .optional_unsigned("split.tensors.count")
            .map_err(|fault| fault.in_file(&self.path))?;
        match total {
            Some(total) if total != self.tensors.len() as u64 => {
                let found = format!("{} in {n_files} files", self.tensors.len());
                let fault = Fault::unexpected("split.tensors.count", total.to_string(), found);
                Err(fault.in_file(&self.path))
            }
            _ => Ok(()),
        }
    }
}

impl TensorSource for Weights {
    fn find(&self, name: &str) -> Result<Option<StoredTensor>, InferenceError> {
        Ok(self.tensors.get(name).cloned())
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

type Entries = (Arc<ModelFile>, Vec<TensorEntry>);

fn open_part(
    path: &Path,
    part_idx: usize,
    n_parts: usize,
) -> Result<(Values, Vec<u8>, Entries), InferenceError> {
    let file = ModelFile::open(path)?;
    let (Header { values, tensors }, bytes) = Header::read(&file)?;
    let metadata = Metadata::new(&values, &bytes);
    check_split(metadata, part_idx, n_parts).map_err(|fault| fault.in_file(path))?;
    Ok((values, bytes, (file, tensors)))
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
