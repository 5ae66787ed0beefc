//! Models with random weights, in the shape and tensor types of a real one.
//!
//! For loading, memory and speed at sizes whose weights are not at hand: what a
//! model costs depends on its shape and types, not on what its weights say. The
//! values are scaled so that activations stay finite; the vocabulary is that of
//! an installed model, since every engine wants a real one.

mod blocks;
mod gguf;
mod shape;

#[cfg(test)]
use std::collections::HashMap;
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use candle_core::quantized::gguf_file::Content;
use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use self::shape::{Shape, Tensor};

#[derive(Args, Debug)]
pub(crate) struct RandomModelOptions {
    /// Whose shape.
    #[arg(long, value_enum)]
    shape: shape::Size,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
    /// A Qwen2.5 GGUF file to take the vocabulary from.
    #[arg(long)]
    like: PathBuf,
    /// Seed of the weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(options: &RandomModelOptions) -> anyhow::Result<()> {
    let like = File::open(&options.like);
    let mut like = like.with_context(|| options.like.display().to_string())?;
    let vocabulary = Content::read(&mut like)?.metadata;
    let shape = options.shape.shape();
    let name = format!("random {:?}, seed {}", options.shape, options.seed);
    let metadata = gguf::metadata(&shape, &name, vocabulary)?;
    // Half a file must not pass for a model.
    let unfinished = options.out.with_extension("part");
    write(&unfinished, &shape, &metadata, options.seed)
        .with_context(|| unfinished.display().to_string())?;
    std::fs::rename(&unfinished, &options.out)?;
    Ok(())
}

fn write(
    path: &Path,
    shape: &Shape,
    metadata: &[(String, candle_core::quantized::gguf_file::Value)],
    seed: u64,
) -> anyhow::Result<()> {
    let tensors = shape.tensors();
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    out.write_all(&gguf::header(metadata, &tensors)?)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for tensor in &tensors {
        write_tensor(&mut out, tensor, &mut random)?;
    }
    out.into_inner()?.sync_all()?;
    Ok(())
}

fn write_tensor(
    out: &mut impl Write,
    tensor: &Tensor,
    random: &mut ChaCha8Rng,
) -> anyhow::Result<()> {
    const BLOCKS_AT_ONCE: usize = 4096;
    let mut left = tensor.n_blocks();
    let mut bytes = Vec::new();
    while left > 0 {
        let n_blocks = left.min(BLOCKS_AT_ONCE);
        bytes.resize(n_blocks * tensor.kind.block_bytes(), 0);
        tensor.kind.fill(&mut bytes, tensor.values, random);
        out.write_all(&bytes)?;
        left -= n_blocks;
    }
    let n_bytes = tensor.n_blocks() * tensor.kind.block_bytes();
    let padding = n_bytes.next_multiple_of(gguf::ALIGNMENT) - n_bytes;
    out.write_all(&vec![0; padding])?;
    Ok(())
}

/// A shape of the real kind, but small enough for a test.
#[cfg(test)]
const SMALL: Shape = Shape {
    hidden_size: 256,
    intermediate_size: 512,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    vocab_size: 300,
};

/// A small model without a vocabulary.
#[cfg(test)]
pub(crate) fn write_small(path: &Path) -> anyhow::Result<()> {
    let metadata = gguf::metadata(&SMALL, "small", HashMap::new())?;
    write(path, &SMALL, &metadata, 7)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_model_reads_back_with_values_of_the_wanted_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        write_small(&path).unwrap();
        let mut file = File::open(&path).unwrap();
        let content = Content::read(&mut file).unwrap();
        assert_eq!(content.tensor_infos.len(), SMALL.tensors().len());
        for tensor in SMALL.tensors() {
            let read = content
                .tensor(&mut file, &tensor.name, &Device::Cpu)
                .unwrap();
            let values = read
                .dequantize(&Device::Cpu)
                .unwrap()
                .flatten_all()
                .unwrap();
            let values: Vec<f32> = values.to_vec1().unwrap();
            let squares: f64 = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            let spread = (squares / values.len() as f64).sqrt();
            let wanted = tensor.values.spread();
            assert!(
                (0.7..1.3).contains(&(spread / wanted)),
                "{}: {spread} instead of {wanted}",
                tensor.name
            );
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, seed| {
            let path = dir.path().join(name);
            write(&path, &SMALL, &[], seed).unwrap();
            std::fs::read(path).unwrap()
        };
        assert_eq!(file("a", 1), file("b", 1));
        assert_ne!(file("a", 1), file("c", 2));
    }
}
