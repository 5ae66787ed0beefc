//! safetensors files: a bounded reader of the header.
//!
//! Source: `safetensors` format description, README of huggingface/safetensors.

use std::{
    collections::{HashMap, hash_map},
    fmt,
    path::Path,
    sync::Arc,
};

use serde::{
    Deserialize,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{
    bytes::{Cursor, limit},
    error::{Corruption, Fault, InferenceError},
    model_file::ModelFile,
    quant::BlockType,
    tensor_source::{StoredTensor, TensorSource},
};

/// Headers of real models are far smaller.
const MAX_HEADER_BYTES: u64 = 8 << 20;
const MAX_DIMENSIONS: usize = 8;

/// One file's tensors.
///
/// No two of them share bytes, so that all of them together hold no more
/// numbers than the file.
pub(crate) struct Safetensors {
    file: Arc<ModelFile>,
    entries: HashMap<String, Entry>,
    /// Byte at which the data begins.
    data_start: u64,
}

/// A tensor as the header describes it; its place is inside the data.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    dtype: String,
    shape: Shape,
    /// From the start of the data; ascending and inside of it.
    data_offsets: [u64; 2],
}

#[derive(Debug)]
struct Shape(Vec<usize>);

impl Safetensors {
    pub(crate) fn open(path: &Path) -> Result<Self, InferenceError> {
        let file = ModelFile::open(path)?;
        let in_file = |fault: Fault| fault.in_file(path);
        let mut bytes = Vec::new();
        file.read_start("header length", 8, &mut bytes)?;
        let n_bytes = Cursor::of_start(&bytes, file.len())
            .u64("header length")
            .map_err(in_file)?;
        let end = header_end(n_bytes, file.len()).map_err(in_file)?;
        file.read_start("header", end, &mut bytes)?;
        let entries = parse(&bytes[8..], file.len() - end as u64).map_err(in_file)?;
        Ok(Self {
            file,
            entries,
            data_start: end as u64,
        })
    }

    /// The names of all tensors, also of those whose type is not ours.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    fn stored(&self, name: &str, entry: &Entry) -> Result<StoredTensor, Fault> {
        let (block_type, [start, _]) = check(name, entry)?;
        let Shape(shape) = &entry.shape;
        Ok(StoredTensor {
            name: name.to_owned(),
            shape: shape.clone(),
            block_type,
            start: self.data_start + start,
            file: Arc::clone(&self.file),
        })
    }
}

impl TensorSource for Safetensors {
    fn find(&self, name: &str) -> Result<Option<StoredTensor>, InferenceError> {
        let entry = self.entries.get(name);
        entry
            .map(|entry| self.stored(name, entry))
            .transpose()
            .map_err(|fault| fault.in_file(self.file.path()))
    }

    fn path(&self) -> &Path {
        self.file.path()
    }
}

/// A tensor's type, if it is ours, and its place in the data, if it has that size.
pub(crate) fn check(name: &str, entry: &Entry) -> Result<(BlockType, [u64; 2]), Fault> {
    let block_type = match entry.dtype.as_str() {
        "F32" => BlockType::F32,
        "F16" => BlockType::F16,
        "BF16" => BlockType::Bf16,
        other => return Err(Fault::unexpected(name, "F32, F16 or BF16", other)),
    };
    let Shape(shape) = &entry.shape;
    let [start, end] = entry.data_offsets;
    let n_bytes = shape
        .iter()
        .try_fold(block_type.block_bytes(), |n, &size| n.checked_mul(size));
    if n_bytes.map(|n| n as u64) != Some(end - start) {
        let expected = format!("the bytes of {shape:?} as {}", entry.dtype);
        return Err(Fault::unexpected(name, expected, end - start));
    }
    Ok((block_type, entry.data_offsets))
}

/// The byte behind a header of `n_bytes`, which is inside the file.
pub(crate) fn header_end(n_bytes: u64, file_len: u64) -> Result<usize, Fault> {
    limit(n_bytes, MAX_HEADER_BYTES, "header length", 0)?;
    let available = file_len.saturating_sub(8);
    if n_bytes > available {
        let needed = n_bytes;
        return Err(Fault::new(
            "header",
            8,
            Corruption::Truncated { needed, available },
        ));
    }
    usize::try_from(n_bytes + 8).map_err(|_| Fault::new("header length", 0, Corruption::Overflow))
}

/// The tensors that a header describes; `data_bytes` follow it.
pub(crate) fn parse(header: &[u8], data_bytes: u64) -> Result<HashMap<String, Entry>, Fault> {
    let Entries(entries) = serde_json::from_slice(header)
        .map_err(|error| Fault::unexpected("header", "tensor descriptions", error).at(8))?;
    check_places(&entries, header.len() + 8, data_bytes)?;
    Ok(entries)
}

/// Refuses tensors that reach out of the data or share bytes.
fn check_places(
    entries: &HashMap<String, Entry>,
    data_start: usize,
    data_bytes: u64,
) -> Result<(), Fault> {
    let mut order: Vec<([u64; 2], &str)> = entries
        .iter()
        .map(|(name, entry)| (entry.data_offsets, name.as_str()))
        .collect();
    order.sort_unstable();
    let mut before: (u64, &str) = (0, "");
    for ([start, end], name) in order {
        if start > end || end > data_bytes {
            let expected = format!("ascending offsets up to {data_bytes}");
            let found = format_args!("{start} and {end}");
            return Err(Fault::unexpected(name, expected, found).at(data_start));
        }
        if start < before.0 {
            let with = before.1.to_owned();
            return Err(Fault::new(name, data_start, Corruption::Overlap { with }));
        }
        before = (end, name);
    }
    Ok(())
}

/// A whole header, read without an intermediate tree.
struct Entries(HashMap<String, Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Header;
        impl<'de> Visitor<'de> for Header {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = HashMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    match entries.entry(name) {
                        hash_map::Entry::Vacant(vacant) => vacant.insert(map.next_value()?),
                        hash_map::Entry::Occupied(occupied) => {
                            let name = occupied.key().escape_debug();
                            return Err(A::Error::custom(format!("{name} occurs twice")));
                        }
                    };
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Header)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_DIMENSIONS} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(size) = seq.next_element()? {
                    if shape.len() == MAX_DIMENSIONS {
                        return Err(A::Error::invalid_length(MAX_DIMENSIONS + 1, &self));
                    }
                    shape.push(size);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(header: &str, data: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let length = (header.len() as u64).to_le_bytes();
        file.write_all(&[&length[..], header.as_bytes(), data].concat())
            .unwrap();
        file
    }

    fn open(header: &str, data: &[u8]) -> Result<Safetensors, InferenceError> {
        Safetensors::open(file(header, data).path())
    }

    fn check_refused(header: &str, expected: &str) {
        let error = open(header, &[0; 16]).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{header}: {error}");
    }

    #[test]
    fn tensors_are_read_and_metadata_is_passed_over() {
        let header = r#"{"__metadata__":{"format":"pt"},
            "a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},
            "b":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]},
            "empty":{"dtype":"F16","shape":[0],"data_offsets":[12,12]}}"#;
        let mut data = [1.5_f32, -2.0].map(f32::to_le_bytes).concat();
        data.extend([0x80, 0x3f, 0, 0xc0]);
        let file = open(header, &data).unwrap();
        let tensor = |name, shape: &[usize]| file.tensor(name, shape)?.to_f32();
        assert_eq!(tensor("a", &[1, 2]).unwrap(), [1.5, -2.0]);
        assert_eq!(file.vector("b", 2).unwrap(), [1.0, -2.0]);
        assert_eq!(file.vector("empty", 0).unwrap(), [0.0; 0]);
        assert!(tensor("a", &[2, 1]).is_err());
        assert!(tensor("c", &[2]).is_err());
    }

    #[test]
    fn a_type_that_is_not_ours_is_an_error_for_who_asks_for_the_tensor() {
        let header = r#"{"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},
            "a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#;
        let file = open(header, &[0; 16]).unwrap();
        file.vector("a", 2).unwrap();
        let error = file.find("ids").unwrap_err().to_string();
        assert!(error.contains("found I64"), "{error}");
    }

    #[test]
    fn offsets_outside_the_file_reversed_or_of_another_size_are_refused() {
        for offsets in ["0,8", "4,0", "18446744073709551612,4", "0,3"] {
            let header =
                format!(r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":[{offsets}]}}}}"#);
            let tensor = open(&header, &[0; 4]).and_then(|file| file.vector("a", 1));
            assert!(tensor.is_err(), "{offsets}");
        }
    }

    #[test]
    fn shapes_that_overflow_or_have_many_dimensions_are_refused() {
        let many = ["1"; 9].join(",");
        for shape in ["4611686018427387904,4", "18446744073709551615", &many] {
            let header =
                format!(r#"{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,0]}}}}"#);
            let found = open(&header, &[]).and_then(|file| file.find("a").map(drop));
            assert!(found.is_err(), "{shape}");
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
    fn a_name_that_occurs_twice_is_refused() {
        let tensor = r#""a":{"dtype":"F32","shape":[1],"data_offsets":"#;
        check_refused(
            &format!("{{{tensor}[0,4]}},{tensor}[4,8]}}}}"),
            "occurs twice",
        );
    }

    #[test]
    fn a_header_length_beyond_the_file_or_the_limit_is_refused() {
        for length in [3, 1 << 30, u64::MAX] {
            assert!(header_end(length, 8).is_err(), "{length}");
        }
        check_refused("not json", "tensor descriptions");
        check_refused("[]", "tensor descriptions");
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(Safetensors::open(empty.path()).is_err());
    }
}
