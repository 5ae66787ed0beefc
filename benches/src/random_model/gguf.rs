//! The header of a GGUF file.
//!
//! Source: `docs/gguf.md` of ggml, version 3.

use std::collections::HashMap;

use anyhow::{Context, bail};
use candle_core::quantized::gguf_file::Value;

use super::shape::{Shape, Tensor};

/// Tensors begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 32;

/// `tokenizer.ggml.token_type` of ids without a text.
const UNUSED: i32 = 5;

/// `general.file_type` of a Q4_K_M file.
const Q4_K_M: u32 = 15;

/// The shape, and the vocabulary of `like` with as many ids as the shape has.
pub(crate) fn metadata(
    shape: &Shape,
    name: &str,
    like: HashMap<String, Value>,
) -> anyhow::Result<Vec<(String, Value)>> {
    let size = |value: usize| anyhow::Ok(Value::U32(u32::try_from(value)?));
    let mut metadata = vec![
        ("general.architecture", Value::String("qwen2".to_owned())),
        ("general.name", Value::String(name.to_owned())),
        ("general.file_type", Value::U32(Q4_K_M)),
        ("general.quantization_version", Value::U32(2)),
        ("qwen2.block_count", size(shape.num_hidden_layers)?),
        ("qwen2.context_length", Value::U32(32_768)),
        ("qwen2.embedding_length", size(shape.hidden_size)?),
        ("qwen2.feed_forward_length", size(shape.intermediate_size)?),
        (
            "qwen2.attention.head_count",
            size(shape.num_attention_heads)?,
        ),
        (
            "qwen2.attention.head_count_kv",
            size(shape.num_key_value_heads)?,
        ),
        ("qwen2.rope.freq_base", Value::F32(1e6)),
        ("qwen2.attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect::<Vec<_>>();
    let mut vocabulary: Vec<_> = like
        .into_iter()
        .filter(|(key, _)| key.starts_with("tokenizer."))
        .collect();
    vocabulary.sort_by(|a, b| a.0.cmp(&b.0));
    for (key, value) in &mut vocabulary {
        let filler: fn(usize) -> Value = match &**key {
            "tokenizer.ggml.tokens" => |id| Value::String(format!("[PAD{id}]")),
            "tokenizer.ggml.token_type" => |_| Value::I32(UNUSED),
            _ => continue,
        };
        let Value::Array(items) = value else {
            bail!("{key} is not an array");
        };
        if items.len() > shape.vocab_size {
            bail!("{key} has more ids than the shape has");
        }
        items.extend((items.len()..shape.vocab_size).map(filler));
    }
    metadata.append(&mut vocabulary);
    Ok(metadata)
}

/// Everything before the first tensor's bytes.
pub(crate) fn header(metadata: &[(String, Value)], tensors: &[Tensor]) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    out.extend(b"GGUF");
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        string(&mut out, key);
        out.extend(type_id(value).to_le_bytes());
        write(&mut out, value).with_context(|| key.clone())?;
    }
    let mut offset = 0;
    for tensor in tensors {
        string(&mut out, &tensor.name);
        out.extend(u32::try_from(tensor.dims.len())?.to_le_bytes());
        for &dim in &tensor.dims {
            out.extend((dim as u64).to_le_bytes());
        }
        out.extend(tensor.kind.id().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        let n_bytes = tensor.n_blocks() * tensor.kind.block_bytes();
        offset += n_bytes.next_multiple_of(ALIGNMENT);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    Ok(out)
}

fn type_id(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn write(out: &mut Vec<u8>, value: &Value) -> anyhow::Result<()> {
    match value {
        Value::U8(value) => out.push(*value),
        Value::I8(value) => out.extend(value.to_le_bytes()),
        Value::U16(value) => out.extend(value.to_le_bytes()),
        Value::I16(value) => out.extend(value.to_le_bytes()),
        Value::U32(value) => out.extend(value.to_le_bytes()),
        Value::I32(value) => out.extend(value.to_le_bytes()),
        Value::U64(value) => out.extend(value.to_le_bytes()),
        Value::I64(value) => out.extend(value.to_le_bytes()),
        Value::F32(value) => out.extend(value.to_le_bytes()),
        Value::F64(value) => out.extend(value.to_le_bytes()),
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::String(value) => string(out, value),
        Value::Array(items) => {
            let first = items.first().context("an array without items")?;
            out.extend(type_id(first).to_le_bytes());
            out.extend((items.len() as u64).to_le_bytes());
            for item in items {
                write(out, item)?;
            }
        }
    }
    Ok(())
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
