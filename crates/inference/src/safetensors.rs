//! safetensors files: a bounded reader of the header, tensors as f32.
//!
//! Source: `safetensors` format description, README of huggingface/safetensors.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    bytes::{Cursor, limit},
    error::{Corruption, Fault, InferenceError},
    mapping::Mapping,
    quant::BlockType,
};

/// Headers of real models are far smaller.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// A mapped file and where its tensors lie.
///
/// No two of them share bytes, so that all of them together hold no more
/// numbers than the file.
pub(crate) struct Safetensors {
    mapping: Mapping,
    tensors: HashMap<String, Entry>,
    data_start: usize,
}

#[derive(Debug, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    /// From the start of the data; ascending and inside of it.
    data_offsets: [usize; 2],
}

/// A header entry: a tensor, or the free-form `__metadata__`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Named {
    Tensor(Entry),
    #[expect(dead_code, reason = "checked to be text, then passed over")]
    Metadata(HashMap<String, String>),
}

impl Safetensors {
    pub(crate) fn open(path: &Path) -> Result<Self, InferenceError> {
        let mapping = Mapping::open(path)?;
        let (tensors, data_start) = parse(&mapping).map_err(|fault| fault.in_file(path))?;
        Ok(Self {
            mapping,
            tensors,
            data_start,
        })
    }

    /// The tensor with this name and shape, rows first.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, InferenceError> {
        self.read(name, shape)
            .map_err(|fault| fault.in_file(&PathBuf::from(self.mapping.path())))
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Fault> {
        let entry = self.tensors.get(name).ok_or_else(|| Fault::missing(name))?;
        if entry.shape != shape {
            let wrong = Corruption::Shape {
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            };
            return Err(Fault::new(name, 0, wrong));
        }
        let block_type = match entry.dtype.as_str() {
            "F32" => BlockType::F32,
            "F16" => BlockType::F16,
            "BF16" => BlockType::Bf16,
            other => return Err(Fault::unexpected(name, "F32, F16 or BF16", other)),
        };
        let [start, end] = entry.data_offsets;
        let bytes = &self.mapping[self.data_start..][start..end];
        let n_elements = shape
            .iter()
            .try_fold(1_usize, |n, &size| n.checked_mul(size));
        let n_bytes = n_elements.and_then(|n| n.checked_mul(block_type.block_bytes()));
        if n_bytes != Some(bytes.len()) {
            let expected = format!("the bytes of {shape:?} as {}", entry.dtype);
            return Err(Fault::unexpected(name, expected, bytes.len()));
        }
        let mut values = vec![0.0; bytes.len() / block_type.block_bytes()];
        block_type.dequantize(bytes, &mut values);
        Ok(values)
    }
}

fn parse(bytes: &[u8]) -> Result<(HashMap<String, Entry>, usize), Fault> {
    let mut cursor = Cursor::new(bytes);
    let n_bytes = cursor.u64("header length")?;
    limit(n_bytes, MAX_HEADER_BYTES, "header length", 0)?;
    let header = cursor.take(n_bytes, "header")?;
    let named: HashMap<String, Named> = serde_json::from_slice(header)
        .map_err(|error| Fault::unexpected("header", "tensor descriptions", error).at(8))?;
    let tensors = named.into_iter().filter_map(|(name, named)| match named {
        Named::Tensor(entry) => Some((name, entry)),
        Named::Metadata(_) => None,
    });
    let tensors = tensors.collect();
    check_places(&tensors, cursor.offset(), cursor.remaining())?;
    Ok((tensors, cursor.offset()))
}

/// Refuses tensors that reach out of the data or share bytes.
fn check_places(
    tensors: &HashMap<String, Entry>,
    data_start: usize,
    data_bytes: usize,
) -> Result<(), Fault> {
    let mut order: Vec<([usize; 2], &str)> = tensors
        .iter()
        .map(|(name, entry)| (entry.data_offsets, name.as_str()))
        .collect();
    order.sort_unstable();
    for &([start, end], name) in &order {
        if start > end || end > data_bytes {
            let expected = format!("ascending offsets up to {data_bytes}");
            let found = format_args!("{start} and {end}");
            return Err(Fault::unexpected(name, expected, found).at(data_start));
        }
    }
    for pair in order.windows(2) {
        let [([_, end], with), ([start, _], name)] = [pair[0], pair[1]];
        if start < end {
            let with = with.to_owned();
            return Err(Fault::new(
                name,
                data_start + start,
                Corruption::Overlap { with },
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn open(header: &str, data: &[u8]) -> Result<Safetensors, InferenceError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let length = (header.len() as u64).to_le_bytes();
        file.write_all(&[&length[..], header.as_bytes(), data].concat())
            .unwrap();
        Safetensors::open(file.path())
    }

    #[test]
    fn tensors_are_read_and_metadata_is_passed_over() {
        let header = r#"{"__metadata__":{"format":"pt"},
            "a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#;
        let data = [1.5_f32, -2.0].map(f32::to_le_bytes).concat();
        let file = open(header, &data).unwrap();
        assert_eq!(file.tensor("a", &[1, 2]).unwrap(), [1.5, -2.0]);
        assert!(file.tensor("a", &[2, 1]).is_err());
        assert!(file.tensor("b", &[2]).is_err());
    }

    #[test]
    fn offsets_outside_the_file_or_reversed_are_refused() {
        for offsets in ["0,8", "4,0", "18446744073709551612,4", "0,3"] {
            let header =
                format!(r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":[{offsets}]}}}}"#);
            let tensor = open(&header, &[0; 4]).and_then(|file| file.tensor("a", &[1]));
            assert!(tensor.is_err(), "{offsets}");
        }
    }

    #[test]
    fn tensors_that_share_bytes_are_refused() {
        let two = |offsets: &str| {
            let header = format!(
                r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":[4,12]}},
                    "b":{{"dtype":"F32","shape":[1],"data_offsets":[{offsets}]}}}}"#
            );
            open(&header, &[0; 16]).map(drop)
        };
        for offsets in ["4,8", "8,12", "2,6", "10,14"] {
            let Err(InferenceError::Corrupt { corruption, .. }) = two(offsets) else {
                panic!("{offsets} was accepted");
            };
            assert!(matches!(corruption, Corruption::Overlap { .. }));
        }
        two("0,4").unwrap();
        two("12,16").unwrap();
    }

    #[test]
    fn a_header_length_beyond_the_file_or_the_limit_is_refused() {
        for length in [3, 1 << 30, u64::MAX] {
            assert!(parse(&u64::to_le_bytes(length)).is_err(), "{length}");
        }
        assert!(open("not json", &[]).is_err());
    }
}
