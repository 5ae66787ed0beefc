//! Random weights of a given shape, made on the spot and the same every time.
//!
//! For measuring and checking a device without a model file: sizes, formats and
//! magnitudes are those of a real model, the numbers are noise.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{layers::Weights, matrix::Packed};
use crate::{error::InferenceError, quant::BlockType};

/// The weights of a "Q4_K_M" file: mostly Q4_K, with Q6_K where it matters, and
/// Q5_0 and Q8_0 in models whose width is no multiple of 256.
pub(super) struct RandomWeights {
    pub(super) seed: u64,
}

impl Weights for RandomWeights {
    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Packed, InferenceError> {
        let is_fine = ["attn_v", "ffn_down", "output.weight", "token_embd"]
            .iter()
            .any(|part| name.contains(part) && !name.contains("attn_output"));
        let block_type = match (shape[1].is_multiple_of(256), is_fine) {
            (true, true) => BlockType::Q6K,
            (true, false) => BlockType::Q4K,
            (false, true) => BlockType::Q8_0,
            (false, false) => BlockType::Q5_0,
        };
        Ok(matrix(block_type, shape, self.seed ^ hash(name)))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, InferenceError> {
        let noise = normal(len, self.seed ^ hash(name)).into_iter();
        Ok(match name.contains("norm") {
            true => noise.map(|value| 1.0 + 0.1 * value).collect(),
            false => noise.collect(),
        })
    }
}

/// Blocks of random bits with scales that give weights near 0.018 in size.
pub(super) fn matrix(block_type: BlockType, shape: [usize; 2], seed: u64) -> Packed {
    // The scales as f16 bits, by their offset in a block.
    let scales: &[(usize, u16)] = match block_type {
        BlockType::Q4_0 => &[(0, 0x1c00)],
        BlockType::Q4_1 => &[(0, 0x1c00), (2, 0xa780)],
        BlockType::Q5_0 => &[(0, 0x1800)],
        BlockType::Q5_1 => &[(0, 0x1800), (2, 0xa7c0)],
        BlockType::Q8_0 => &[(0, 0x0c00)],
        BlockType::Q4K => &[(0, 0x0800), (2, 0x1380)],
        BlockType::Q5K => &[(0, 0x0400), (2, 0x13c0)],
        BlockType::Q6K => &[(208, 0x0100)],
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => &[],
    };
    let n_blocks = shape[0] * shape[1] / block_type.block_len();
    let mut bytes = vec![0; n_blocks * block_type.block_bytes()];
    if scales.is_empty() {
        // Bits of a plain number may be no number: bf16 of small noise.
        let values = normal(n_blocks, seed).into_iter();
        for (bytes, value) in bytes.chunks_exact_mut(block_type.block_bytes()).zip(values) {
            let value = (0.018 * value).to_le_bytes();
            bytes.copy_from_slice(&value[4 - bytes.len()..]);
        }
    } else {
        ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        for block in bytes.chunks_exact_mut(block_type.block_bytes()) {
            for &(offset, bits) in scales {
                block[offset..offset + 2].copy_from_slice(&bits.to_le_bytes());
            }
        }
    }
    Packed {
        block_type,
        bytes,
        shape,
    }
}

/// Numbers of mean 0 and variance 1, each the sum of twelve uniform ones.
pub(super) fn normal(len: usize, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut sum = || (0..12).map(|_| random.random::<f32>() - 0.5).sum();
    (0..len).map(|_| sum()).collect()
}

/// FNV-1a: the same on every machine.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_weights_of_the_size_of_a_model_s() {
        for block_type in [
            BlockType::Q4_0,
            BlockType::Q4_1,
            BlockType::Q5_0,
            BlockType::Q5_1,
            BlockType::Q8_0,
            BlockType::Q4K,
            BlockType::Q5K,
            BlockType::Q6K,
            BlockType::Bf16,
            BlockType::F32,
        ] {
            let values = matrix(block_type, [64, 512], 3).to_f32();
            let square: f32 = values.iter().map(|value| value * value).sum();
            let size = (square / values.len() as f32).sqrt();
            assert!((0.01..0.04).contains(&size), "{block_type:?}: {size}");
        }
    }
}
