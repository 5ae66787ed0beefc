//! Words of four int8, made words of two bf16 for the products: every such number is
//! one of bf16.
//!
//! What a block is widened to stays in the nearest cache and serves all rows of a
//! task, so that the products need not know of int8, nor the queries be rounded to it.

use super::rows::Scores;
use super::softmax::Scales;
use crate::Variant;
use crate::kv::{KV_BLOCK, KvBlock, LINE_WORDS, Line};
use crate::variant::compiled_for;

/// One head's keys and values of a block; kept, so that its memory is taken once.
pub(super) struct Widened {
    /// `(head_dim / 2, KV_BLOCK)` words.
    pub(super) keys: Vec<Line>,
    /// `(KV_BLOCK / 2, value_row_lines)` lines.
    pub(super) values: Vec<Line>,
    pub(super) scales: Scales,
}

impl Widened {
    /// Of no block.
    pub(super) const EMPTY: Self = Self {
        keys: Vec::new(),
        values: Vec::new(),
        scales: Scales {
            keys: [0.0; KV_BLOCK],
            values: [0.0; KV_BLOCK],
        },
    };

    /// Becomes a head of `block`, which is of int8.
    pub(super) fn take(&mut self, variant: Variant, block: &KvBlock, head: usize) {
        const ROW_LINES: usize = KV_BLOCK / LINE_WORDS;
        let shape = block.shape();
        let row_lines = shape.value_row_lines();
        let zeros = Line([0; LINE_WORDS]);
        self.keys.resize(shape.head_dim / 2 * ROW_LINES, zeros);
        self.values.resize(KV_BLOCK / 2 * row_lines, zeros);
        for (quads, row_lines, pairs) in [
            (block.keys(head), ROW_LINES, &mut self.keys),
            (block.values(head), row_lines, &mut self.values),
        ] {
            let pairs = &mut pairs[..];
            compiled_for!(
                variant,
                widen(quads: &[Line], row_lines: usize, pairs: &mut [Line])
            );
        }
        let (keys, values) = block.scales(head).split_at(ROW_LINES);
        set(&mut self.scales.keys, keys);
        set(&mut self.scales.values, values);
    }
}

fn set(scales: &mut Scores, lines: &[Line]) {
    let words = lines.iter().flat_map(|line| line.0);
    for (scale, word) in scales.iter_mut().zip(words) {
        *scale = f32::from_bits(word);
    }
}

/// Makes two rows of each; the last one makes one if `pairs` ends there.
#[inline(always)]
fn widen(quads: &[Line], row_lines: usize, pairs: &mut [Line]) {
    let rows = pairs.chunks_mut(2 * row_lines);
    for (quads, rows) in quads.chunks_exact(row_lines).zip(rows) {
        let (first, second) = rows.split_at_mut(row_lines);
        for (pairs, quads) in first.iter_mut().zip(quads) {
            for (pair, quad) in pairs.0.iter_mut().zip(quads.0) {
                *pair = pair_of(quad << 24, quad << 16);
            }
        }
        for (pairs, quads) in second.iter_mut().zip(quads) {
            for (pair, quad) in pairs.0.iter_mut().zip(quads.0) {
                *pair = pair_of(quad << 8, quad);
            }
        }
    }
}

/// Of the numbers in the high bytes.
#[inline(always)]
fn pair_of(low: u32, high: u32) -> u32 {
    // With 7 significant bits, the low half of an f32 is zero.
    let number = |word: u32| ((word.cast_signed() >> 24) as f32).to_bits();
    number(high) | number(low) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_becomes_its_number() {
        for variant in Variant::available() {
            for (n_quads, n_pairs) in [(16, 32), (16, 31)] {
                let line = |row: usize| {
                    Line(std::array::from_fn(|i| {
                        let byte = |place: usize| (row * 64 + i * 4 + place) % 256;
                        let bytes = [0, 1, 2, 3].map(|place| u8::try_from(byte(place)).unwrap());
                        u32::from_le_bytes(bytes)
                    }))
                };
                let quads: Vec<Line> = (0..n_quads).map(line).collect();
                let mut pairs = vec![Line([0; LINE_WORDS]); n_pairs];
                let (quads, row_lines, widened) = (&quads[..], 1, &mut pairs[..]);
                compiled_for!(
                    variant,
                    widen(quads: &[Line], row_lines: usize, widened: &mut [Line])
                );
                for (row, line) in pairs.iter().enumerate() {
                    for (i, word) in line.0.iter().enumerate() {
                        let first = row / 2 * 64 + i * 4 + row % 2 * 2;
                        let expected = [first, first + 1].map(|byte| {
                            let byte = u8::try_from(byte % 256).unwrap();
                            f32::from(byte.cast_signed())
                        });
                        let halves = [word << 16, word & 0xffff_0000].map(f32::from_bits);
                        assert_eq!(halves, expected, "{}", variant.name());
                    }
                }
            }
        }
    }
}
