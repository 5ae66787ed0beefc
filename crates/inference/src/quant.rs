//! The block formats of GGUF tensors and how they become f32.
//!
//! Source: `ggml-common.h` and `ggml-quants.c` of ggml (`dequantize_row_*`).

/// How a tensor's numbers are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q5_0,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Numbers in a super-block of the K formats.
const QK_K: usize = 256;

impl BlockType {
    /// The format with this `ggml_type` number, if it is one of ours.
    pub(crate) fn from_ggml(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            6 => Self::Q5_0,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Numbers per block.
    pub(crate) fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => QK_K,
        }
    }

    /// Bytes per block.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q5_0 => 22,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Unpacks whole blocks; `bytes` and `values` hold the same number of them.
    pub(crate) fn dequantize(self, bytes: &[u8], values: &mut [f32]) {
        debug_assert_eq!(
            bytes.len() / self.block_bytes(),
            values.len() / self.block_len()
        );
        let unpack: fn(&[u8], &mut [f32]) = match self {
            Self::F32 => |block, values| {
                values[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
            },
            Self::F16 => |block, values| values[0] = half(block),
            Self::Bf16 => |block, values| {
                values[0] = f32::from_le_bytes([0, 0, block[0], block[1]]);
            },
            Self::Q4_0 => q4_0,
            Self::Q5_0 => q5_0,
            Self::Q8_0 => q8_0,
            Self::Q4K => q4_k,
            Self::Q5K => q5_k,
            Self::Q6K => q6_k,
        };
        let blocks = bytes.chunks_exact(self.block_bytes());
        for (block, values) in blocks.zip(values.chunks_exact_mut(self.block_len())) {
            unpack(block, values);
        }
    }
}

/// The IEEE half-precision number in the first two bytes, little endian.
fn half(bytes: &[u8]) -> f32 {
    let bits = u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let sign = (bits & 0x8000) << 16;
    let (exponent, mantissa) = ((bits >> 10) & 0x1f, bits & 0x3ff);
    match exponent {
        // Subnormal: mantissa * 2^-24, exact in f32.
        0 => f32::from_bits(sign | (mantissa as f32 * 2.0_f32.powi(-24)).to_bits()),
        0x1f => f32::from_bits(sign | 0x7f80_0000 | (mantissa << 13)),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13)),
    }
}

fn q4_0(block: &[u8], values: &mut [f32]) {
    let scale = half(block);
    let (low, high) = values.split_at_mut(16);
    for ((&byte, low), high) in block[2..18].iter().zip(low).zip(high) {
        *low = f32::from(i16::from(byte & 15) - 8) * scale;
        *high = f32::from(i16::from(byte >> 4) - 8) * scale;
    }
}

fn q5_0(block: &[u8], values: &mut [f32]) {
    let scale = half(block);
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    let (low, high) = values.split_at_mut(16);
    for (i, ((&byte, low), high)) in block[6..22].iter().zip(low).zip(high).enumerate() {
        let low_bit = if fifth >> i & 1 == 1 { 16 } else { 0 };
        let high_bit = if fifth >> (i + 16) & 1 == 1 { 16 } else { 0 };
        *low = f32::from(i16::from(byte & 15 | low_bit) - 16) * scale;
        *high = f32::from(i16::from(byte >> 4 | high_bit) - 16) * scale;
    }
}

fn q8_0(block: &[u8], values: &mut [f32]) {
    let scale = half(block);
    for (&byte, value) in block[2..34].iter().zip(values) {
        *value = f32::from(byte.cast_signed()) * scale;
    }
}

/// The 6-bit scale and minimum of sub-block `i < 8` (`get_scale_min_k4`).
fn scale_and_minimum(i: usize, packed: &[u8]) -> (f32, f32) {
    let (scale, minimum) = if i < 4 {
        (packed[i] & 63, packed[i + 4] & 63)
    } else {
        (
            packed[i + 4] & 15 | packed[i - 4] >> 6 << 4,
            packed[i + 4] >> 4 | packed[i] >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(minimum))
}

fn q4_k(block: &[u8], values: &mut [f32]) {
    let (d, d_min) = (half(block), half(&block[2..]));
    let (scales, quants) = (&block[4..16], &block[16..144]);
    for (pair_idx, values) in values.chunks_exact_mut(64).enumerate() {
        let quants = &quants[pair_idx * 32..][..32];
        let (scale_low, min_low) = scale_and_minimum(2 * pair_idx, scales);
        let (scale_high, min_high) = scale_and_minimum(2 * pair_idx + 1, scales);
        let (scale_low, min_low) = (d * scale_low, d_min * min_low);
        let (scale_high, min_high) = (d * scale_high, d_min * min_high);
        let (low, high) = values.split_at_mut(32);
        for ((&byte, low), high) in quants.iter().zip(low).zip(high) {
            *low = scale_low * f32::from(byte & 15) - min_low;
            *high = scale_high * f32::from(byte >> 4) - min_high;
        }
    }
}

fn q5_k(block: &[u8], values: &mut [f32]) {
    let (d, d_min) = (half(block), half(&block[2..]));
    let (scales, fifths, quants) = (&block[4..16], &block[16..48], &block[48..176]);
    for (pair_idx, values) in values.chunks_exact_mut(64).enumerate() {
        let quants = &quants[pair_idx * 32..][..32];
        let (scale_low, min_low) = scale_and_minimum(2 * pair_idx, scales);
        let (scale_high, min_high) = scale_and_minimum(2 * pair_idx + 1, scales);
        let (scale_low, min_low) = (d * scale_low, d_min * min_low);
        let (scale_high, min_high) = (d * scale_high, d_min * min_high);
        let (low, high) = values.split_at_mut(32);
        for (((&byte, &fifth), low), high) in quants.iter().zip(fifths).zip(low).zip(high) {
            let low_bit = (fifth >> (2 * pair_idx) & 1) << 4;
            let high_bit = (fifth >> (2 * pair_idx + 1) & 1) << 4;
            *low = scale_low * f32::from(byte & 15 | low_bit) - min_low;
            *high = scale_high * f32::from(byte >> 4 | high_bit) - min_high;
        }
    }
}

fn q6_k(block: &[u8], values: &mut [f32]) {
    let (low_bits, high_bits, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half(&block[208..]);
    for (half_idx, values) in values.chunks_exact_mut(128).enumerate() {
        let low_bits = &low_bits[half_idx * 64..][..64];
        let high_bits = &high_bits[half_idx * 32..][..32];
        let scales = &scales[half_idx * 8..][..8];
        for (quarter_idx, values) in values.chunks_exact_mut(32).enumerate() {
            // Quarters 0 and 1 are the low nibbles of two runs of 32, 2 and 3 the high ones.
            let low_bits = &low_bits[quarter_idx % 2 * 32..][..32];
            let nibble_shift = quarter_idx / 2 * 4;
            for (i, value) in values.iter_mut().enumerate() {
                let low = low_bits[i] >> nibble_shift & 15;
                let high = (high_bits[i] >> (2 * quarter_idx) & 3) << 4;
                let scale = d * f32::from(scales[quarter_idx * 2 + i / 16].cast_signed());
                *value = scale * f32::from(i16::from(low | high) - 32);
            }
        }
    }
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
            BlockType::Q4K | BlockType::Q5K => &[0, 2],
            BlockType::Q6K => &[208],
            _ => &[0],
        };
        for block in bytes.chunks_exact_mut(ours.block_bytes()) {
            for offset in half_offsets {
                block[offset + 1] &= 0xbb; // not infinite, not NaN
            }
        }
        let mut values = vec![0.0; n_blocks * ours.block_len()];
        ours.dequantize(&bytes, &mut values);
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
        check(BlockType::Q5_0, GgmlDType::Q5_0);
        check(BlockType::Q8_0, GgmlDType::Q8_0);
        check(BlockType::Q4K, GgmlDType::Q4K);
        check(BlockType::Q5K, GgmlDType::Q5K);
        check(BlockType::Q6K, GgmlDType::Q6K);
    }

    #[test]
    fn half_precision_extremes_are_exact() {
        assert_eq!(half(&[0x01, 0x00]), 2.0_f32.powi(-24));
        assert_eq!(half(&[0xff, 0x83]), -1023.0 * 2.0_f32.powi(-24));
        assert_eq!(half(&[0xff, 0x7b]), 65504.0);
        assert_eq!(half(&[0x00, 0xfc]), f32::NEG_INFINITY);
        assert!(half(&[0x01, 0x7e]).is_nan());
    }
}
