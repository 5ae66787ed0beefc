//! The block formats of weight files that we read, by their numbers in GGUF.
//!
//! Source: `ggml.h` of ggml (`enum ggml_type`).

use std::sync::LazyLock;

pub(crate) use inwarden_kernels::BlockType;
use inwarden_kernels::Variant;

/// What can be read, for messages.
pub(crate) const NAMES: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K";

/// The format with this `ggml_type` number, if it is one of ours.
pub(crate) fn from_ggml(id: u32) -> Option<BlockType> {
    Some(match id {
        0 => BlockType::F32,
        1 => BlockType::F16,
        2 => BlockType::Q4_0,
        3 => BlockType::Q4_1,
        6 => BlockType::Q5_0,
        7 => BlockType::Q5_1,
        8 => BlockType::Q8_0,
        12 => BlockType::Q4K,
        13 => BlockType::Q5K,
        14 => BlockType::Q6K,
        30 => BlockType::Bf16,
        _ => return None,
    })
}

/// Unpacks whole blocks; `bytes` and `values` hold the same number of them.
pub(crate) fn dequantize(block_type: BlockType, bytes: &[u8], values: &mut [f32]) {
    static VARIANT: LazyLock<Variant> = LazyLock::new(Variant::detect);
    block_type.unpack(*VARIANT, bytes, values);
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use candle_core::{
        Device,
        quantized::{GgmlDType, QStorage, QTensor},
    };
    use rand::{RngCore, SeedableRng};

    use super::*;

    /// Random blocks with finite scales, unpacked by us and by the tensor library.
    fn check(ours: BlockType, theirs: GgmlDType) {
        let n_blocks = 37;
        let mut bytes = vec![0; n_blocks * ours.block_bytes()];
        rand_chacha::ChaCha8Rng::seed_from_u64(7).fill_bytes(&mut bytes);
        let half_offsets: &[usize] = match ours {
            BlockType::F32 => &[2],
            BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
            BlockType::Q6K => &[208],
            _ => &[0],
        };
        for block in bytes.chunks_exact_mut(ours.block_bytes()) {
            for offset in half_offsets {
                block[offset + 1] &= 0xbb; // not infinite, not NaN
            }
        }
        let mut values = vec![0.0; n_blocks * ours.block_len()];
        dequantize(ours, &bytes, &mut values);
        let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, theirs).unwrap();
        let expected = QTensor::new(storage, n_blocks * ours.block_len())
            .and_then(|tensor| tensor.dequantize(&Device::Cpu)?.to_vec1::<f32>())
            .unwrap();
        assert_eq!(values, expected, "{ours:?}");
    }

    #[test]
    fn every_format_unpacks_as_in_the_tensor_library() {
        check(BlockType::F32, GgmlDType::F32);
        check(BlockType::F16, GgmlDType::F16);
        check(BlockType::Bf16, GgmlDType::BF16);
        check(BlockType::Q4_0, GgmlDType::Q4_0);
        check(BlockType::Q4_1, GgmlDType::Q4_1);
        check(BlockType::Q5_0, GgmlDType::Q5_0);
        check(BlockType::Q5_1, GgmlDType::Q5_1);
        check(BlockType::Q8_0, GgmlDType::Q8_0);
        check(BlockType::Q4K, GgmlDType::Q4K);
        check(BlockType::Q5K, GgmlDType::Q5K);
        check(BlockType::Q6K, GgmlDType::Q6K);
    }
}
