//! Writes GGUF files with random weights and the golden model's tokenizer.

use std::path::PathBuf;

use inwarden_inference::{LoadOptions, Qwen2, TokenId, WeightForm};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::NamedTempFile;

/// A format of weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Format {
    F32,
    F16,
    Bf16,
    Q5_0,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// A model's shape and the formats of its matrices.
#[derive(Clone)]
pub(crate) struct Shape {
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) key_value_heads: usize,
    pub(crate) embeddings: Format,
    /// `None`: the head is the table of embeddings.
    pub(crate) head: Option<Format>,
    pub(crate) query: Format,
    pub(crate) key: Format,
    pub(crate) value: Format,
    pub(crate) output: Format,
    pub(crate) gate: Format,
    pub(crate) up: Format,
    pub(crate) down: Format,
}

/// The widths and most of the formats of the 0.5B model, tied.
pub(crate) fn narrow() -> Shape {
    Shape {
        hidden: 896,
        intermediate: 4864,
        layers: 2,
        heads: 14,
        key_value_heads: 2,
        embeddings: Format::Q8_0,
        head: None,
        query: Format::Q5_0,
        key: Format::Q5_0,
        value: Format::Q8_0,
        output: Format::F16,
        gate: Format::Q5_0,
        up: Format::Bf16,
        down: Format::Q6K,
    }
}

/// Wide enough to be kept in 4 bits, untied, heads as wide as those of 7B.
pub(crate) fn wide() -> Shape {
    Shape {
        hidden: 1024,
        intermediate: 1536,
        layers: 3,
        heads: 8,
        key_value_heads: 2,
        embeddings: Format::Q4K,
        head: Some(Format::Q6K),
        query: Format::Q4K,
        key: Format::Q4K,
        value: Format::Q6K,
        output: Format::Q4K,
        gate: Format::Q4K,
        up: Format::Q5K,
        down: Format::Q4K,
    }
}

/// Ids that the file's tokenizer has; the table of embeddings has 64 more.
const TOKENS: u32 = 300;

impl Format {
    fn ggml_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q5_0 => 6,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// `n` random weights with about this standard deviation, packed.
    fn random(self, n: usize, deviation: f32, random: &mut ChaCha8Rng) -> Vec<u8> {
        let uniform = |random: &mut ChaCha8Rng| random.random_range(-1.7..1.7_f32) * deviation;
        // Bytes of a block, weights in it, places of half-precision scales with
        // what the standard deviation of a weight is for a scale of 1.
        let (n_bytes, n_weights, scales): (usize, usize, &[(usize, f32)]) = match self {
            Self::F32 => {
                let weights = (0..n).flat_map(|_| uniform(random).to_le_bytes());
                return weights.collect();
            }
            Self::Bf16 => {
                let weights = (0..n).flat_map(|_| {
                    let [_, _, low, high] = uniform(random).to_le_bytes();
                    [low, high]
                });
                return weights.collect();
            }
            Self::F16 => {
                // The bits of a power of two and random lower ones.
                let exponent = half(deviation) & 0x7c00;
                let weights = (0..n).flat_map(|_| {
                    let bits: u16 = random.random();
                    (exponent | bits & 0x83ff).to_le_bytes()
                });
                return weights.collect();
            }
            Self::Q5_0 => (22, 32, &[(0, 9.2)]),
            Self::Q8_0 => (34, 32, &[(0, 74.0)]),
            // The second scale, of the minimum, makes the mean nearly 0.
            Self::Q4K => (144, 256, &[(0, 255.0), (2, 255.0 / 7.5)]),
            Self::Q5K => (176, 256, &[(0, 521.0), (2, 521.0 / 15.5)]),
            Self::Q6K => (210, 256, &[(208, 1369.0)]),
        };
        let mut bytes = vec![0; n / n_weights * n_bytes];
        random.fill_bytes(&mut bytes);
        for block in bytes.chunks_exact_mut(n_bytes) {
            for &(at, unit) in scales {
                block[at..at + 2].copy_from_slice(&half(deviation / unit).to_le_bytes());
            }
        }
        bytes
    }
}

/// The half-precision number next below a positive one that is below 1.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let exponent = (bits >> 23).cast_signed() - 127;
    let mantissa = bits >> 13 & 0x3ff;
    let half = if exponent >= -14 {
        (exponent + 15).cast_unsigned() << 10 | mantissa
    } else {
        (mantissa | 0x400) >> (-14 - exponent)
    };
    u16::try_from(half).expect("the value is below 1")
}

struct Tensor {
    name: String,
    shape: Vec<usize>,
    format: Format,
    bytes: Vec<u8>,
}

/// A file with random weights; the same seed gives the same file.
pub(crate) fn file(shape: &Shape, seed: u64) -> NamedTempFile {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut tensors = Vec::new();
    let mut matrix = |name: String, n_out: usize, n_in: usize, format: Format| {
        let deviation = 1.0 / (n_in as f32).sqrt();
        let bytes = format.random(n_out * n_in, deviation, &mut random);
        tensors.push(Tensor {
            name,
            shape: vec![n_out, n_in],
            format,
            bytes,
        });
    };
    let vocabulary = TOKENS as usize + 64;
    let key_value = shape.hidden / shape.heads * shape.key_value_heads;
    let (hidden, intermediate) = (shape.hidden, shape.intermediate);
    matrix(
        "token_embd.weight".into(),
        vocabulary,
        hidden,
        shape.embeddings,
    );
    if let Some(format) = shape.head {
        matrix("output.weight".into(), vocabulary, hidden, format);
    }
    for layer in 0..shape.layers {
        for (name, n_out, n_in, format) in [
            ("attn_q", hidden, hidden, shape.query),
            ("attn_k", key_value, hidden, shape.key),
            ("attn_v", key_value, hidden, shape.value),
            ("attn_output", hidden, hidden, shape.output),
            ("ffn_gate", intermediate, hidden, shape.gate),
            ("ffn_up", intermediate, hidden, shape.up),
            ("ffn_down", hidden, intermediate, shape.down),
        ] {
            matrix(format!("blk.{layer}.{name}.weight"), n_out, n_in, format);
        }
    }
    let mut vector = |name: String, values: Vec<f32>| {
        tensors.push(Tensor {
            name,
            shape: vec![values.len()],
            format: Format::F32,
            bytes: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        });
    };
    let norm = |random: &mut ChaCha8Rng| -> Vec<f32> {
        (0..hidden).map(|_| random.random_range(0.5..1.5)).collect()
    };
    let head_dim = hidden / shape.heads;
    for layer in 0..shape.layers {
        vector(format!("blk.{layer}.attn_norm.weight"), norm(&mut random));
        vector(format!("blk.{layer}.ffn_norm.weight"), norm(&mut random));
        for (name, width) in [
            ("attn_q", hidden),
            ("attn_k", key_value),
            ("attn_v", key_value),
        ] {
            let mut bias: Vec<f32> = (0..width).map(|_| random.random_range(-0.5..0.5)).collect();
            if name == "attn_k" {
                // As large as the real model's, in the pair that turns slowest.
                for head in bias.chunks_exact_mut(head_dim) {
                    head[head_dim / 2 - 1] = 160.0;
                    head[head_dim - 1] = -120.0;
                }
            }
            vector(format!("blk.{layer}.{name}.bias"), bias);
        }
    }
    vector("output_norm.weight".into(), norm(&mut random));
    write(shape, &tensors)
}

/// The golden model's metadata with another shape, then the tensors.
fn write(shape: &Shape, tensors: &[Tensor]) -> NamedTempFile {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/golden");
    let golden = std::fs::read(PathBuf::from(golden).join("qwen2-tiny/model.gguf"));
    let golden = golden.expect("the golden model is there");
    let name = b"token_embd.weight";
    let mut windows = golden.windows(name.len());
    let start = windows.position(|window| window == name).expect("a tensor") - 8;
    let mut metadata = golden[24..start].to_vec();
    for (key, value) in [
        ("qwen2.embedding_length", shape.hidden),
        ("qwen2.feed_forward_length", shape.intermediate),
        ("qwen2.block_count", shape.layers),
        ("qwen2.attention.head_count", shape.heads),
        ("qwen2.attention.head_count_kv", shape.key_value_heads),
        ("qwen2.context_length", 1024),
    ] {
        set(&mut metadata, key, u32::try_from(value).expect("small"));
    }
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(&golden[16..24]);
    file.extend(metadata);
    let mut data = Vec::new();
    for tensor in tensors {
        file.extend((tensor.name.len() as u64).to_le_bytes());
        file.extend(tensor.name.as_bytes());
        file.extend(
            u32::try_from(tensor.shape.len())
                .expect("small")
                .to_le_bytes(),
        );
        for &size in tensor.shape.iter().rev() {
            file.extend((size as u64).to_le_bytes());
        }
        file.extend(tensor.format.ggml_type().to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        data.extend(&tensor.bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    let written = NamedTempFile::with_suffix(".gguf").expect("a temporary file");
    std::fs::write(written.path(), file).expect("the temporary file is writable");
    written
}

/// Sets a 32-bit value of GGUF metadata.
fn set(metadata: &mut [u8], key: &str, value: u32) {
    let mut entry = (key.len() as u64).to_le_bytes().to_vec();
    entry.extend(key.as_bytes());
    entry.extend(4_u32.to_le_bytes());
    let at = metadata
        .windows(entry.len())
        .position(|window| window == entry);
    let at = at.unwrap_or_else(|| panic!("{key} is in the golden model")) + entry.len();
    metadata[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn load(file: &NamedTempFile, form: WeightForm, threads: usize) -> Qwen2 {
    load_with(
        file,
        LoadOptions {
            threads: threads.try_into().expect("not zero"),
            weight_form: form,
            ..LoadOptions::default()
        },
    )
}

pub(crate) fn load_with(file: &NamedTempFile, options: LoadOptions) -> Qwen2 {
    Qwen2::load(&[file.path().to_owned()], &options).expect("the file is right")
}

/// Random tokens, the same for the same seed.
pub(crate) fn text(seed: u64, n_tokens: usize) -> Vec<TokenId> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let token = || TokenId(random.random_range(0..TOKENS));
    std::iter::repeat_with(token).take(n_tokens).collect()
}
