//! The header: metadata and the list of tensors. A pure function of the bytes.

use std::{collections::HashMap, ops::Range};

use crate::{
    bytes::{Cursor, limit},
    error::{Corruption, Fault, InferenceError},
    model_file::ModelFile,
    quant::{self, BlockType},
};

/// Enough for the header of any Qwen2.5 (6 MB, most of it the vocabulary).
const FIRST_READ_BYTES: usize = 8 << 20;
const MAX_HEADER_BYTES: usize = 64 << 20;

/// Far above any real file; bounds on work, and on what a short entry costs.
const MAX_METADATA: u64 = 1 << 12;
const MAX_TENSORS: u64 = 1 << 16;
const MAX_KEY_BYTES: u64 = 1 << 10;
const MAX_STRING_BYTES: u64 = 1 << 24;
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 16;

/// The parsed header of one file.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) values: Values,
    pub(crate) tensors: Vec<TensorEntry>,
}

/// The metadata; texts and arrays are still in the bytes of the header.
#[derive(Debug)]
pub(crate) struct Values(HashMap<String, Value>);

/// One tensor as the file describes it; its bytes lie inside the file.
#[derive(Clone, Debug)]
pub(crate) struct TensorEntry {
    pub(crate) name: String,
    /// Rows first, the width of a row last (GGUF stores the reverse).
    pub(crate) shape: Vec<usize>,
    pub(crate) block_type: BlockType,
    /// Where the data lies, in bytes from the start of the file.
    pub(crate) range: Range<usize>,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(Range<usize>),
    Array(Array),
}

/// An array left in the file; `range` covers all its elements, checked once.
#[derive(Clone, Debug, PartialEq)]
struct Array {
    element: u32,
    n_elements: usize,
    range: Range<usize>,
}

const TYPE_STRING: u32 = 8;
const TYPE_ARRAY: u32 = 9;
const TYPE_I32: u32 = 5;

impl Header {
    /// Reads the header and as much of the file as it lies in, at most 64 MiB.
    ///
    /// The bytes are those that [`Metadata::new`] wants.
    pub(crate) fn read(file: &ModelFile) -> Result<(Self, Vec<u8>), InferenceError> {
        let file_len = usize::try_from(file.len()).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        let mut n_bytes = FIRST_READ_BYTES.min(file_len);
        loop {
            file.read_start("header", n_bytes, &mut bytes)?;
            let fault = match Self::parse(&bytes, file.len()) {
                Ok(header) => return Ok((header, bytes)),
                Err(fault) => fault,
            };
            n_bytes = match fault.corruption {
                Corruption::Truncated { needed, available }
                    if needed <= available && n_bytes < MAX_HEADER_BYTES.min(file_len) =>
                {
                    (2 * n_bytes).min(MAX_HEADER_BYTES).min(file_len)
                }
                Corruption::Truncated { needed, available } if needed <= available => {
                    let beyond = Corruption::OverLimit {
                        value: fault.at.saturating_add(needed),
                        limit: MAX_HEADER_BYTES as u64,
                    };
                    return Err(Fault::new("header", 0, beyond).in_file(file.path()));
                }
                _ => return Err(fault.in_file(file.path())),
            };
        }
    }

    /// `bytes` are the first of a file of `file_len`.
    ///
    /// A [`Corruption::Truncated`] that needs no more than the file has means
    /// that more bytes of it must be given.
    pub(crate) fn parse(bytes: &[u8], file_len: u64) -> Result<Self, Fault> {
        let mut cursor = Cursor::of_start(bytes, file_len);
        let magic = cursor.take(4, "magic")?;
        if magic != b"GGUF" {
            return Err(Fault::unexpected("magic", "GGUF", magic.escape_ascii()));
        }
        let version = cursor.u32("version")?;
        if !(2..=3).contains(&version) {
            return Err(Fault::unexpected("version", "2 or 3", version).at(4));
        }
        let n_tensors = cursor.u64("tensor count")?;
        limit(n_tensors, MAX_TENSORS, "tensor count", 8)?;
        let n_metadata = cursor.u64("metadata count")?;
        limit(n_metadata, MAX_METADATA, "metadata count", 16)?;

        let metadata = read_metadata(&mut cursor, n_metadata)?;
        let alignment = alignment(&metadata)?;
        let entries = (0..n_tensors)
            .map(|_| RawTensor::read(&mut cursor))
            .collect::<Result<Vec<_>, _>>()?;
        let data_start = (cursor.offset() as u64).next_multiple_of(alignment);
        let tensors = entries
            .into_iter()
            .map(|raw| raw.place(data_start, alignment, file_len))
            .collect::<Result<Vec<_>, _>>()?;
        refuse_overlaps(&tensors)?;
        Ok(Self {
            values: Values(metadata),
            tensors,
        })
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, count: u64) -> Result<HashMap<String, Value>, Fault> {
    let mut metadata = HashMap::new();
    for _ in 0..count {
        let at = cursor.offset();
        let key = cursor.string(MAX_KEY_BYTES, "metadata key")?;
        let value_type = cursor.u32(key)?;
        let value = read_value(cursor, value_type, key)?;
        if metadata.insert(key.to_owned(), value).is_some() {
            return Err(Fault::new(key, at, Corruption::Duplicate));
        }
    }
    Ok(metadata)
}

fn read_value(cursor: &mut Cursor<'_>, value_type: u32, key: &str) -> Result<Value, Fault> {
    let at = cursor.offset();
    Ok(match value_type {
        0 => Value::Unsigned(cursor.u8(key)?.into()),
        1 => Value::Signed(cursor.u8(key)?.cast_signed().into()),
        2 => Value::Unsigned(cursor.u16(key)?.into()),
        3 => Value::Signed(cursor.u16(key)?.cast_signed().into()),
        4 => Value::Unsigned(cursor.u32(key)?.into()),
        TYPE_I32 => Value::Signed(cursor.u32(key)?.cast_signed().into()),
        6 => Value::Float(f32::from_bits(cursor.u32(key)?).into()),
        7 => match cursor.u8(key)? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            other => return Err(Fault::unexpected(key, "0 or 1", other).at(at)),
        },
        TYPE_STRING => {
            let text = cursor.string(MAX_STRING_BYTES, key)?;
            Value::Text(cursor.offset() - text.len()..cursor.offset())
        }
        TYPE_ARRAY => Value::Array(read_array(cursor, key)?),
        10 => Value::Unsigned(cursor.u64(key)?),
        11 => Value::Signed(cursor.u64(key)?.cast_signed()),
        12 => Value::Float(f64::from_bits(cursor.u64(key)?)),
        other => return Err(Fault::unexpected(key, "a value type 0..=12", other).at(at)),
    })
}

/// Checks the elements' extent and leaves them where they are.
fn read_array(cursor: &mut Cursor<'_>, key: &str) -> Result<Array, Fault> {
    let at = cursor.offset();
    let element = cursor.u32(key)?;
    let count = cursor.u64(key)?;
    let start = cursor.offset();
    let element_bytes: u64 = match element {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        TYPE_STRING => {
            // Each string takes at least its length field: refuse before looping.
            limit(count, cursor.remaining() / 8, key, at + 4)?;
            for _ in 0..count {
                cursor.string(MAX_STRING_BYTES, key)?;
            }
            0
        }
        other => return Err(Fault::unexpected(key, "a plain element type", other).at(at)),
    };
    let n_bytes = count
        .checked_mul(element_bytes)
        .ok_or_else(|| Fault::new(key, at + 4, Corruption::Overflow))?;
    cursor.take(n_bytes, key)?;
    let n_elements =
        usize::try_from(count).map_err(|_| Fault::new(key, at + 4, Corruption::Overflow))?;
    Ok(Array {
        element,
        n_elements,
        range: start..cursor.offset(),
    })
}

fn alignment(metadata: &HashMap<String, Value>) -> Result<u64, Fault> {
    let key = "general.alignment";
    match metadata.get(key) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(&Value::Unsigned(value))
            if value.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(&value) =>
        {
            Ok(value)
        }
        Some(other) => Err(Fault::unexpected(
            key,
            format!("a power of two in 8..={MAX_ALIGNMENT}"),
            format_args!("{other:?}"),
        )),
    }
}

/// A tensor's description before its extent is checked.
struct RawTensor {
    name: String,
    shape: Vec<usize>,
    block_type: BlockType,
    relative_offset: u64,
    n_bytes: u64,
    at: usize,
}

impl RawTensor {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
        let at = cursor.offset();
        let name = cursor.string(MAX_KEY_BYTES, "tensor name")?.to_owned();
        let n_dimensions = cursor.u32(&name)?;
        if !(1..=MAX_DIMENSIONS).contains(&n_dimensions) {
            let expected = format!("1..={MAX_DIMENSIONS} dimensions");
            return Err(Fault::unexpected(name, expected, n_dimensions).at(at));
        }
        let overflow = || Fault::new(&*name, at, Corruption::Overflow);
        let mut shape = Vec::new();
        let mut n_elements = 1_u64;
        for _ in 0..n_dimensions {
            let size = cursor.u64(&name)?;
            n_elements = n_elements.checked_mul(size).ok_or_else(overflow)?;
            shape.push(usize::try_from(size).map_err(|_| overflow())?);
        }
        shape.reverse();
        let type_id = cursor.u32(&name)?;
        let relative_offset = cursor.u64(&name)?;
        let Some(block_type) = quant::from_ggml(type_id) else {
            let found = format_args!("type {type_id}");
            return Err(Fault::unexpected(name, quant::NAMES, found).at(at));
        };
        let (block_len, block_bytes) = (block_type.block_len(), block_type.block_bytes());
        let width = shape.last().copied().unwrap_or_default();
        if n_elements == 0 || !width.is_multiple_of(block_len) {
            let expected = format!("rows of whole blocks of {block_len}");
            return Err(Fault::unexpected(name, expected, format_args!("{shape:?}")).at(at));
        }
        let n_bytes = (n_elements / block_len as u64)
            .checked_mul(block_bytes as u64)
            .ok_or_else(overflow)?;
        Ok(Self {
            name,
            shape,
            block_type,
            relative_offset,
            n_bytes,
            at,
        })
    }

    fn place(self, data_start: u64, alignment: u64, file_len: u64) -> Result<TensorEntry, Fault> {
        if !self.relative_offset.is_multiple_of(alignment) {
            let expected = format!("an offset that is a multiple of {alignment}");
            return Err(Fault::unexpected(self.name, expected, self.relative_offset).at(self.at));
        }
        let overflow = || Fault::new(&*self.name, self.at, Corruption::Overflow);
        let start = data_start
            .checked_add(self.relative_offset)
            .ok_or_else(overflow)?;
        let end = start.checked_add(self.n_bytes).ok_or_else(overflow)?;
        if end > file_len {
            let truncated = Corruption::Truncated {
                needed: self.n_bytes,
                available: file_len.saturating_sub(start),
            };
            return Err(Fault::new(self.name, self.at, truncated));
        }
        let range = usize::try_from(start).map_err(|_| overflow())?
            ..usize::try_from(end).map_err(|_| overflow())?;
        Ok(TensorEntry {
            name: self.name,
            shape: self.shape,
            block_type: self.block_type,
            range,
        })
    }
}

fn refuse_overlaps(tensors: &[TensorEntry]) -> Result<(), Fault> {
    let mut order: Vec<&TensorEntry> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.range.start);
    for pair in order.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            let with = pair[0].name.clone();
            let at = pair[1].range.start;
            return Err(Fault::new(&*pair[1].name, at, Corruption::Overlap { with }));
        }
    }
    Ok(())
}

/// Typed access to the metadata of one file.
#[derive(Clone, Copy)]
pub(crate) struct Metadata<'a> {
    values: &'a HashMap<String, Value>,
    bytes: &'a [u8],
}

impl<'a> Metadata<'a> {
    /// `values` were parsed from these `bytes`.
    pub(crate) fn new(Values(values): &'a Values, bytes: &'a [u8]) -> Self {
        Self { values, bytes }
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, Fault> {
        value.ok_or_else(|| Fault::missing(key))
    }

    pub(crate) fn text(&self, key: &str) -> Result<&'a str, Fault> {
        self.required(key, self.optional_text(key)?)
    }

    pub(crate) fn optional_text(&self, key: &str) -> Result<Option<&'a str>, Fault> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(range)) => {
                let text = &self.bytes[range.clone()];
                let text = std::str::from_utf8(text)
                    .map_err(|_| Fault::unexpected(key, "UTF-8", "other bytes").at(range.start))?;
                Ok(Some(text))
            }
            Some(other) => Err(wrong_type(key, "a string", other)),
        }
    }

    pub(crate) fn unsigned(&self, key: &str) -> Result<u64, Fault> {
        self.required(key, self.optional_unsigned(key)?)
    }

    pub(crate) fn optional_unsigned(&self, key: &str) -> Result<Option<u64>, Fault> {
        match self.values.get(key) {
            None => Ok(None),
            Some(&Value::Unsigned(value)) => Ok(Some(value)),
            Some(other) => match other {
                Value::Signed(value) if *value >= 0 => Ok(Some(value.cast_unsigned())),
                _ => Err(wrong_type(key, "an unsigned integer", other)),
            },
        }
    }

    pub(crate) fn float(&self, key: &str) -> Result<f32, Fault> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "written as f32 by all known tools"
        )]
        match self.required(key, self.values.get(key))? {
            Value::Float(value) => Ok(*value as f32),
            other => Err(wrong_type(key, "a floating-point number", other)),
        }
    }

    /// The strings of an array.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<&'a str>, Fault> {
        let array = self.array(key, TYPE_STRING, "an array of strings")?;
        let mut cursor = Cursor::new(&self.bytes[array.range.clone()]);
        (0..array.n_elements)
            .map(|_| cursor.string(MAX_STRING_BYTES, key))
            .collect()
    }

    /// The numbers of an `i32` array.
    pub(crate) fn integers(&self, key: &str) -> Result<Vec<i32>, Fault> {
        let array = self.array(key, TYPE_I32, "an array of i32")?;
        let mut cursor = Cursor::new(&self.bytes[array.range.clone()]);
        (0..array.n_elements)
            .map(|_| cursor.u32(key).map(u32::cast_signed))
            .collect()
    }

    fn array(&self, key: &str, element: u32, expected: &str) -> Result<&'a Array, Fault> {
        match self.required(key, self.values.get(key))? {
            Value::Array(array) if array.element == element => Ok(array),
            other => Err(wrong_type(key, expected, other)),
        }
    }
}

fn wrong_type(key: &str, expected: &str, found: &Value) -> Fault {
    Fault::unexpected(key, expected, format_args!("{found:?}"))
}

#[cfg(test)]
mod tests;
