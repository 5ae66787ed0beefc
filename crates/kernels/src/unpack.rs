//! The block formats of weight files, and how they become f32.
//!
//! Written once as plain loops over arrays of fixed size and compiled for each
//! instruction set. No sum is formed and every product is rounded where the
//! source rounds it, so all variants give bitwise the same numbers (of a NaN
//! the payload may differ).
//!
//! Source: `ggml-common.h` and `ggml-quants.c` of ggml (`dequantize_row_*`).

use crate::variant::{Variant, compiled_for};

/// How numbers are packed in a weight file; the names are those of ggml.
///
/// # Examples
/// ```
/// use inwarden_kernels::{BlockType, Variant};
///
/// let mut values = [0.0; 2];
/// BlockType::Bf16.unpack(Variant::detect(), &[0x80, 0x3f, 0x00, 0xc0], &mut values);
/// assert_eq!(values, [1.0, -2.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the formats'")]
pub enum BlockType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Numbers in a block of the formats with one scale.
const QK: usize = 32;
/// Numbers in a super-block of the K formats.
const QK_K: usize = 256;

impl BlockType {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Numbers per block.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => QK,
            Self::Q4K | Self::Q5K | Self::Q6K => QK_K,
        }
    }

    /// Bytes per block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Unpacks whole blocks: `bytes` are as in the file, little endian.
    ///
    /// # Panics
    /// If `bytes` are not whole blocks, or `values` not as many numbers.
    pub fn unpack(self, variant: Variant, bytes: &[u8], values: &mut [f32]) {
        let n_blocks = values.len() / self.block_len();
        assert_eq!(values.len(), n_blocks * self.block_len(), "whole blocks");
        assert_eq!(bytes.len(), n_blocks * self.block_bytes(), "as many blocks");
        match self {
            Self::F32 => compiled_for!(variant, f32s(bytes: &[u8], values: &mut [f32])),
            Self::F16 => compiled_for!(variant, f16s(bytes: &[u8], values: &mut [f32])),
            Self::Bf16 => compiled_for!(variant, bf16s(bytes: &[u8], values: &mut [f32])),
            Self::Q4_0 => compiled_for!(variant, q4_0(bytes: &[u8], values: &mut [f32])),
            Self::Q4_1 => compiled_for!(variant, q4_1(bytes: &[u8], values: &mut [f32])),
            Self::Q5_0 => compiled_for!(variant, q5_0(bytes: &[u8], values: &mut [f32])),
            Self::Q5_1 => compiled_for!(variant, q5_1(bytes: &[u8], values: &mut [f32])),
            Self::Q8_0 => compiled_for!(variant, q8_0(bytes: &[u8], values: &mut [f32])),
            Self::Q4K => compiled_for!(variant, q4_k(bytes: &[u8], values: &mut [f32])),
            Self::Q5K => compiled_for!(variant, q5_k(bytes: &[u8], values: &mut [f32])),
            Self::Q6K => compiled_for!(variant, q6_k(bytes: &[u8], values: &mut [f32])),
        }
    }
}

/// The IEEE half-precision number in two bytes, without a branch.
#[inline(always)]
fn half(low: u8, high: u8) -> f32 {
    let bits = u32::from(u16::from_le_bytes([low, high]));
    let sign = (bits & 0x8000) << 16;
    let (exponent, mantissa) = (bits & 0x7c00, bits & 0x3ff);
    // Subnormal: mantissa * 2^-24, exact in f32.
    let subnormal = (mantissa as f32 * f32::from_bits(0x3380_0000)).to_bits();
    let shifted = (exponent | mantissa) << 13;
    let infinite = shifted | 0x7f80_0000;
    let normal = shifted.wrapping_add(112 << 23);
    let magnitude = if exponent == 0 { subnormal } else { normal };
    let magnitude = if exponent == 0x7c00 {
        infinite
    } else {
        magnitude
    };
    f32::from_bits(sign | magnitude)
}

#[inline(always)]
fn f32s(bytes: &[u8], values: &mut [f32]) {
    for (number, value) in bytes.as_chunks().0.iter().zip(values) {
        *value = f32::from_le_bytes(*number);
    }
}

#[inline(always)]
fn f16s(bytes: &[u8], values: &mut [f32]) {
    for (&[low, high], value) in bytes.as_chunks().0.iter().zip(values) {
        *value = half(low, high);
    }
}

#[inline(always)]
fn bf16s(bytes: &[u8], values: &mut [f32]) {
    for (&[low, high], value) in bytes.as_chunks().0.iter().zip(values) {
        *value = f32::from_le_bytes([0, 0, low, high]);
    }
}

/// Pairs each block of `bytes` with its numbers.
#[inline(always)]
fn blocks<'a, const BYTES: usize, const LEN: usize>(
    bytes: &'a [u8],
    values: &'a mut [f32],
) -> impl Iterator<Item = (&'a [u8; BYTES], &'a mut [f32; LEN])> {
    let values = values.as_chunks_mut::<LEN>().0;
    bytes.as_chunks::<BYTES>().0.iter().zip(values)
}

#[inline(always)]
fn q4_0(bytes: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<18, QK>(bytes, values) {
        let scale = half(block[0], block[1]);
        let (low, high) = values.split_at_mut(16);
        let pairs = block[2..].iter().zip(low.iter_mut().zip(high));
        for (&pair, (low, high)) in pairs {
            *low = (i32::from(pair & 15) - 8) as f32 * scale;
            *high = (i32::from(pair >> 4) - 8) as f32 * scale;
        }
    }
}

#[inline(always)]
fn q4_1(bytes: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<20, QK>(bytes, values) {
        let scale = half(block[0], block[1]);
        let minimum = half(block[2], block[3]);
        let (low, high) = values.split_at_mut(16);
        let pairs = block[4..].iter().zip(low.iter_mut().zip(high));
        for (&pair, (low, high)) in pairs {
            *low = f32::from(pair & 15) * scale + minimum;
            *high = f32::from(pair >> 4) * scale + minimum;
        }
    }
}

#[inline(always)]
fn q5_0(bytes: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<22, QK>(bytes, values) {
        let scale = half(block[0], block[1]);
        let fifth = i32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        for i in 0..16 {
            let pair = i32::from(block[6 + i]);
            let low = pair & 15 | (fifth >> i & 1) << 4;
            let high = pair >> 4 | (fifth >> (16 + i) & 1) << 4;
            values[i] = (low - 16) as f32 * scale;
            values[16 + i] = (high - 16) as f32 * scale;
        }
    }
}

#[inline(always)]
fn q5_1(bytes: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<24, QK>(bytes, values) {
        let scale = half(block[0], block[1]);
        let minimum = half(block[2], block[3]);
        let fifth = i32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        for i in 0..16 {
            let pair = i32::from(block[8 + i]);
            let low = pair & 15 | (fifth >> i & 1) << 4;
            let high = pair >> 4 | (fifth >> (16 + i) & 1) << 4;
            values[i] = low as f32 * scale + minimum;
            values[16 + i] = high as f32 * scale + minimum;
        }
    }
}

#[inline(always)]
fn q8_0(bytes: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<34, QK>(bytes, values) {
        let scale = half(block[0], block[1]);
        for i in 0..QK {
            values[i] = f32::from(block[2 + i].cast_signed()) * scale;
        }
    }
}

/// The 6-bit scale and minimum of sub-block `i < 8` (`get_scale_min_k4`).
#[inline(always)]
fn scale_and_minimum(i: usize, packed: &[u8; 12]) -> (f32, f32) {
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

/// The part of a block at `START`.
#[inline(always)]
fn part<const START: usize, const LEN: usize, const BYTES: usize>(
    block: &[u8; BYTES],
) -> &[u8; LEN] {
    let (_, rest) = block.split_at(START);
    rest.first_chunk().expect("the block has this part")
}

#[inline(always)]
fn q4_k(bytes: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<144, QK_K>(bytes, values) {
        let (d, d_min) = (half(block[0], block[1]), half(block[2], block[3]));
        let (scales, quants) = (part::<4, 12, _>(block), part::<16, 128, _>(block));
        let pairs = quants.as_chunks::<32>().0.iter();
        for (pair_idx, (quants, values)) in pairs.zip(values.as_chunks_mut::<64>().0).enumerate() {
            let (scale_low, min_low) = scale_and_minimum(2 * pair_idx, scales);
            let (scale_high, min_high) = scale_and_minimum(2 * pair_idx + 1, scales);
            let (scale_low, min_low) = (d * scale_low, d_min * min_low);
            let (scale_high, min_high) = (d * scale_high, d_min * min_high);
            for i in 0..32 {
                values[i] = scale_low * f32::from(quants[i] & 15) - min_low;
                values[32 + i] = scale_high * f32::from(quants[i] >> 4) - min_high;
            }
        }
    }
}

#[inline(always)]
fn q5_k(bytes: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<176, QK_K>(bytes, values) {
        let (d, d_min) = (half(block[0], block[1]), half(block[2], block[3]));
        let (scales, quants) = (part::<4, 12, _>(block), part::<48, 128, _>(block));
        let fifths = part::<16, 32, _>(block);
        let pairs = quants.as_chunks::<32>().0.iter();
        for (pair_idx, (quants, values)) in pairs.zip(values.as_chunks_mut::<64>().0).enumerate() {
            let (scale_low, min_low) = scale_and_minimum(2 * pair_idx, scales);
            let (scale_high, min_high) = scale_and_minimum(2 * pair_idx + 1, scales);
            let (scale_low, min_low) = (d * scale_low, d_min * min_low);
            let (scale_high, min_high) = (d * scale_high, d_min * min_high);
            for i in 0..32 {
                let fifth = fifths[i] >> (2 * pair_idx);
                let low = quants[i] & 15 | (fifth & 1) << 4;
                let high = quants[i] >> 4 | (fifth >> 1 & 1) << 4;
                values[i] = scale_low * f32::from(low) - min_low;
                values[32 + i] = scale_high * f32::from(high) - min_high;
            }
        }
    }
}

#[inline(always)]
fn q6_k(bytes: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<210, QK_K>(bytes, values) {
        let (low_bits, high_bits) = (part::<0, 128, _>(block), part::<128, 64, _>(block));
        let scales = part::<192, 16, _>(block);
        let d = half(block[208], block[209]);
        let halves = values.as_chunks_mut::<128>().0.iter_mut();
        let halves = halves.zip(low_bits.as_chunks::<64>().0);
        let halves = halves.zip(high_bits.as_chunks::<32>().0);
        for (((values, low_bits), high_bits), scales) in halves.zip(scales.as_chunks::<8>().0) {
            // Quarters 0 and 1 are the low nibbles of two runs of 32, 2 and 3 the high ones.
            let quarters = values.as_chunks_mut::<32>().0;
            for (quarter_idx, values) in quarters.iter_mut().enumerate() {
                let low_bits = &low_bits.as_chunks::<32>().0[quarter_idx % 2];
                let (nibble_shift, pair_shift) = (quarter_idx / 2 * 4, 2 * quarter_idx);
                let mut quants = [0; 32];
                for i in 0..32 {
                    let low = low_bits[i] >> nibble_shift & 15;
                    quants[i] = low | (high_bits[i] >> pair_shift & 3) << 4;
                }
                let scale = |i: usize| d * f32::from(scales[quarter_idx * 2 + i].cast_signed());
                let scale = [scale(0), scale(1)];
                for i in 0..32 {
                    values[i] = scale[i / 16] * f32::from(i16::from(quants[i]) - 32);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without a pattern that a block could repeat.
    fn scrambled(n_bytes: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(n_bytes).collect()
    }

    /// Bits, with one pattern for every NaN.
    fn bits(values: &[f32]) -> Vec<u32> {
        let bits = |value: &f32| match value.is_nan() {
            true => f32::NAN.to_bits(),
            false => value.to_bits(),
        };
        values.iter().map(bits).collect()
    }

    #[test]
    fn every_variant_unpacks_any_bytes_as_the_scalar_one() {
        for block_type in BlockType::ALL {
            for n_blocks in [0, 1, 2, 3, 67] {
                let bytes = scrambled(n_blocks * block_type.block_bytes(), 7);
                let unpacked = |variant| {
                    let mut values = vec![0.0; n_blocks * block_type.block_len()];
                    block_type.unpack(variant, &bytes, &mut values);
                    bits(&values)
                };
                let expected = unpacked(Variant::SCALAR);
                for variant in Variant::available() {
                    assert_eq!(unpacked(variant), expected, "{block_type:?} {variant:?}");
                }
            }
        }
    }

    #[test]
    fn every_half_precision_number_is_exact() {
        for bits in 0..=u16::MAX {
            let [low, high] = bits.to_le_bytes();
            let value = half(low, high);
            let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
            let magnitude = match exponent {
                0 => mantissa * 2_f64.powi(-24),
                31 if mantissa == 0.0 => f64::INFINITY,
                31 => {
                    assert!(value.is_nan(), "{bits:#x}");
                    continue;
                }
                _ => (1024.0 + mantissa) * 2_f64.powi(exponent - 25),
            };
            assert_eq!(f64::from(value.abs()), magnitude, "{bits:#x}");
            assert_eq!(value.is_sign_negative(), bits > 0x7fff, "{bits:#x}");
        }
    }
}
