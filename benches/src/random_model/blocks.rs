//! Random blocks of ggml's quantized types.
//!
//! The quants are drawn evenly; the scales are set so that the values of a
//! tensor have mean 0 and the wanted spread.
//!
//! Source: `ggml/src/ggml-common.h` and `ggml-quants.c` of llama.cpp.

use rand::{Rng, RngCore};
use rand_chacha::ChaCha8Rng;

/// A tensor type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    Q5_0,
    Q8_0,
    Q4K,
    Q6K,
}

/// What a tensor's values are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Values {
    /// 1 throughout.
    One,
    /// Random with mean 0 and this root mean square.
    Spread(f32),
}

impl Values {
    /// Root mean square.
    #[cfg(test)]
    pub(crate) fn spread(self) -> f64 {
        match self {
            Self::One => 1.0,
            Self::Spread(spread) => f64::from(spread),
        }
    }
}

impl Kind {
    /// Its number in a GGUF file.
    pub(crate) fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::Q5_0 => 6,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q6K => 14,
        }
    }

    /// Values in a block.
    pub(crate) fn block_len(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Q5_0 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Q5_0 => 22,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Fills `bytes`, whole blocks.
    pub(crate) fn fill(self, bytes: &mut [u8], values: Values, random: &mut ChaCha8Rng) {
        let spread = match values {
            Values::One => {
                let ones = bytes.chunks_exact_mut(4);
                ones.for_each(|value| value.copy_from_slice(&1f32.to_le_bytes()));
                return;
            }
            Values::Spread(spread) => spread,
        };
        random.fill_bytes(bytes);
        for block in bytes.chunks_exact_mut(self.block_bytes()) {
            match self {
                Self::F32 => {
                    // Even over an interval whose root mean square is 1.
                    let even = random.random_range(-1.0f32..1.0) * 3f32.sqrt();
                    block.copy_from_slice(&(even * spread).to_le_bytes());
                }
                Self::Q5_0 => block[..2].copy_from_slice(&half(spread / rms(-16..=15))),
                Self::Q8_0 => block[..2].copy_from_slice(&half(spread / rms(-128..=127))),
                Self::Q4K => fill_q4_k(block, spread),
                Self::Q6K => fill_q6_k(block, spread),
            }
        }
    }
}

/// `d * scale * q - dmin * min` with q in 0..16: as scale and min are the same
/// number and dmin is 7.5 d, the mean is 0.
fn fill_q4_k(block: &mut [u8], spread: f32) {
    let scales: [u8; 8] = std::array::from_fn(|idx| 32 | (block[4 + idx] & 31));
    // 4.61 is the root mean square of q - 7.5.
    let d = spread / (rms(32..=63) * 4.61);
    block[..2].copy_from_slice(&half(d));
    block[2..4].copy_from_slice(&half(d * 7.5));
    for idx in 0..4 {
        let (low, high) = (scales[idx], scales[idx + 4]);
        block[4 + idx] = low | ((high >> 4) << 6);
        block[8 + idx] = low | ((high >> 4) << 6);
        block[12 + idx] = (high & 15) | ((high & 15) << 4);
    }
}

/// `d * scale * (q - 32)` with q in 0..64.
fn fill_q6_k(block: &mut [u8], spread: f32) {
    for scale in &mut block[192..208] {
        *scale = 32 + *scale % 64;
    }
    let d = spread / (rms(32..=95) * rms(-32..=31));
    block[208..].copy_from_slice(&half(d));
}

/// Root mean square of whole numbers drawn evenly from `range`.
fn rms(range: std::ops::RangeInclusive<i16>) -> f32 {
    let n = range.clone().count() as f32;
    let squares: f32 = range.map(|value| f32::from(value) * f32::from(value)).sum();
    (squares / n).sqrt()
}

/// The bytes of `value` as an IEEE half, `0.0..65504.0`; digits that do not fit
/// are cut off.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "both casts keep what the checks above them leave: 10 and 15 bits"
)]
fn half(value: f32) -> [u8; 2] {
    const SMALLEST_NORMAL: f32 = 6.103_515_6e-5;
    const SMALLEST: f32 = 5.960_464_5e-8;
    if value < SMALLEST_NORMAL {
        return ((value / SMALLEST) as u16).to_le_bytes();
    }
    // 127 is the bias of an f32's exponent, 15 that of a half's.
    let bits = (value.to_bits() >> 13) - ((127 - 15) << 10);
    (bits as u16).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_those_of_ieee() {
        for (value, bits) in [
            (0.0, 0),
            (1.0, 0x3C00),
            (1.5, 0x3E00),
            (6.103_515_6e-5, 0x0400),
            (5.960_464_5e-8, 1),
        ] {
            assert_eq!(half(value), u16::to_le_bytes(bits), "{value}");
        }
    }
}
