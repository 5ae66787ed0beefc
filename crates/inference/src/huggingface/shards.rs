//! The weights of one model in one or several safetensors files.

use std::{
    collections::{BTreeSet, HashMap, hash_map},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    error::{Corruption, Fault, InferenceError},
    model_file::read_whole,
    safetensors::Safetensors,
    tensor_source::{StoredTensor, TensorSource},
};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
const MAX_INDEX_BYTES: u64 = 8 << 20;
/// More than any Qwen2 has; a bound on open files.
const MAX_SHARDS: usize = 256;

/// All files of a model's weights, open.
pub(super) struct Shards {
    /// The index, or the only file.
    path: PathBuf,
    shards: Vec<Safetensors>,
    /// Which of `shards` has the tensor of this name.
    places: HashMap<String, usize>,
}

#[derive(Deserialize)]
pub(crate) struct Index {
    /// Tensor name to file name. A name that occurs twice counts as the last;
    /// what a file really has is compared with it.
    weight_map: HashMap<String, String>,
}

impl Shards {
    pub(super) fn open(dir: &Path) -> Result<Self, InferenceError> {
        let path = dir.join(INDEX);
        let index = match read_whole(&path, MAX_INDEX_BYTES) {
            Ok(json) => parse_index(&json).map_err(|fault| fault.in_file(&path))?,
            Err(InferenceError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                return Self::single(dir.join(SINGLE));
            }
            Err(error) => return Err(error),
        };
        Self::indexed(dir, path, &index.weight_map)
    }

    fn single(path: PathBuf) -> Result<Self, InferenceError> {
        let file = Safetensors::open(&path)?;
        let mut shards = Self::empty(path);
        shards.add(file)?;
        Ok(shards)
    }

    fn indexed(
        dir: &Path,
        path: PathBuf,
        weight_map: &HashMap<String, String>,
    ) -> Result<Self, InferenceError> {
        let names: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
        if names.len() > MAX_SHARDS {
            let (value, limit) = (names.len() as u64, MAX_SHARDS as u64);
            let fault = Fault::new("weight_map", 0, Corruption::OverLimit { value, limit });
            return Err(fault.in_file(&path));
        }
        let mut shards = Self::empty(path);
        for &name in &names {
            let is_plain = name.ends_with(".safetensors") && !name.contains(['/', '\0']);
            if !is_plain {
                let expected = "the name of a .safetensors file beside it";
                return Err(Fault::unexpected("weight_map", expected, name).in_file(&shards.path));
            }
            shards.add(Safetensors::open(&dir.join(name))?)?;
        }
        shards.check_index(weight_map)?;
        Ok(shards)
    }

    fn empty(path: PathBuf) -> Self {
        Self {
            path,
            shards: Vec::new(),
            places: HashMap::new(),
        }
    }

    fn add(&mut self, file: Safetensors) -> Result<(), InferenceError> {
        for name in file.names() {
            match self.places.entry(name.to_owned()) {
                hash_map::Entry::Vacant(vacant) => vacant.insert(self.shards.len()),
                hash_map::Entry::Occupied(_) => {
                    let fault = Fault::new(name, 0, Corruption::Duplicate);
                    return Err(fault.in_file(file.path()));
                }
            };
        }
        self.shards.push(file);
        Ok(())
    }

    /// The index names every tensor, in the file that has it.
    fn check_index(&self, weight_map: &HashMap<String, String>) -> Result<(), InferenceError> {
        for (name, file_name) in weight_map {
            let shard = self.places.get(name).map(|&idx| &self.shards[idx]);
            if !shard.is_some_and(|shard| shard.path().ends_with(file_name)) {
                let fault = Fault::unexpected(name.as_str(), "a tensor in that file", file_name);
                return Err(fault.in_file(&self.path));
            }
        }
        if weight_map.len() != self.places.len() {
            let expected = format!("{} tensors, as in the files", self.places.len());
            let fault = Fault::unexpected("weight_map", expected, weight_map.len());
            return Err(fault.in_file(&self.path));
        }
        Ok(())
    }
}

pub(crate) fn parse_index(json: &[u8]) -> Result<Index, Fault> {
    serde_json::from_slice(json).map_err(|error| Fault::unexpected("index", "a weight_map", error))
}

impl TensorSource for Shards {
    fn find(&self, name: &str) -> Result<Option<StoredTensor>, InferenceError> {
        match self.places.get(name) {
            Some(&idx) => self.shards[idx].find(name),
            None => Ok(None),
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a file with tensors of one f32 each.
    fn shard(dir: &Path, file_name: &str, tensors: &[(&str, f32)]) {
        let entry = |(i, (name, _)): (usize, &(&str, f32))| {
            let (start, end) = (4 * i, 4 * i + 4);
            format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{start},{end}]}}"#)
        };
        let entries: Vec<_> = tensors.iter().enumerate().map(entry).collect();
        let header = format!("{{{}}}", entries.join(","));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(tensors.iter().flat_map(|(_, value)| value.to_le_bytes()));
        std::fs::write(dir.join(file_name), bytes).unwrap();
    }

    fn check(index: &str) -> Result<Shards, InferenceError> {
        let dir = tempfile::tempdir().unwrap();
        shard(dir.path(), "1.safetensors", &[("a", 1.0), ("b", 2.0)]);
        shard(dir.path(), "2.safetensors", &[("c", 3.0)]);
        shard(dir.path(), "3.safetensors", &[("a", 4.0)]);
        std::fs::write(dir.path().join(INDEX), index).unwrap();
        Shards::open(dir.path())
    }

    fn check_refused(map: &str, expected: &str) {
        let error = check(&format!(r#"{{"weight_map":{{{map}}}}}"#)).map(drop);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{map}: {error}");
    }

    #[test]
    fn a_tensor_is_found_in_whichever_file_has_it() {
        let index = r#"{"metadata":{"total_size":12},"weight_map":
            {"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"}}"#;
        let shards = check(index).unwrap();
        for (name, value) in [("a", 1.0), ("b", 2.0), ("c", 3.0)] {
            assert_eq!(shards.vector(name, 1).unwrap(), [value]);
        }
        assert!(shards.find("d").unwrap().is_none());
    }

    #[test]
    fn without_an_index_there_is_one_file() {
        let dir = tempfile::tempdir().unwrap();
        shard(dir.path(), SINGLE, &[("a", 1.0)]);
        let shards = Shards::open(dir.path()).unwrap();
        assert_eq!(shards.vector("a", 1).unwrap(), [1.0]);
    }

    #[test]
    fn an_index_that_is_not_true_of_the_files_is_refused() {
        check_refused(r#""a":"1.safetensors""#, "weight_map");
        check_refused(
            r#""a":"1.safetensors","b":"2.safetensors","c":"2.safetensors""#,
            "b",
        );
        check_refused(r#""c":"2.safetensors","d":"2.safetensors""#, "d");
        check_refused(
            r#""a":"1.safetensors","b":"1.safetensors","x":"3.safetensors""#,
            "occurs twice",
        );
    }

    #[test]
    fn a_file_name_that_leaves_the_directory_is_refused() {
        for name in ["../1.safetensors", "/1.safetensors", "..", "1.bin", ""] {
            check_refused(&format!(r#""a":"{name}""#), "a .safetensors file beside it");
        }
    }

    #[test]
    fn an_index_that_is_no_index_is_refused() {
        for index in [
            "",
            "[]",
            "{}",
            r#"{"weight_map":[]}"#,
            r#"{"weight_map":{"a":1}}"#,
        ] {
            assert!(matches!(check(index), Err(InferenceError::Corrupt { .. })));
        }
    }
}
