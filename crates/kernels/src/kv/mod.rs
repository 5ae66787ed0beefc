//! Keys and values of past positions, in blocks of [`KV_BLOCK`] slots.
//!
//! A block holds one layer's slots for all its key/value heads, laid out the way
//! attention reads them: for each head, the slots of a block side by side, so
//! that a vector holds one dimension of 16 slots (keys) or 16 dimensions of one
//! slot (values). With bf16 two dimensions (keys) or two slots (values) share a
//! 32-bit word, the unit of the processor's bf16 products; with int8 four do.
//!
//! What is not here: which slot belongs to which position or sequence.

#[cfg(test)]
mod tests;

/// Slots of a block.
pub const KV_BLOCK: usize = 64;

/// 32-bit words of a [`Line`].
pub(crate) const LINE_WORDS: usize = 16;

/// What a number of a cache is stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Rounded to bf16, 8 significant bits: half the memory.
    Bf16,
    /// As computed.
    F32,
    /// A byte, of -127..=127, times a scale: one for the keys of a slot and head and
    /// one for its values. A quarter of the memory of f32, and 4 bytes a scale.
    ///
    /// A scale is 1/127 of the largest number it is for, so all dimensions of a key
    /// should be of about the same size; the caller sees to that.
    Int8,
}

impl KvType {
    /// Numbers that share a 32-bit word.
    fn numbers_a_word(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 4,
        }
    }
}

/// The shape of one layer's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvShape {
    /// Heads that have keys and values of their own; at least 1.
    pub n_kv_heads: usize,
    /// Dimensions of a head; even, at least 2.
    pub head_dim: usize,
    /// What a number is stored as.
    pub kv_type: KvType,
}

impl KvShape {
    /// Numbers of one slot's keys, and of its values.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Rows of a head's keys: dimensions, or pairs or quadruples of them. A row is
    /// [`KV_BLOCK`] words.
    fn key_rows(&self) -> usize {
        self.head_dim.div_ceil(self.kv_type.numbers_a_word())
    }

    /// Rows of a head's values: slots, or pairs or quadruples of them.
    fn value_rows(&self) -> usize {
        KV_BLOCK / self.kv_type.numbers_a_word()
    }

    /// Lines of a row of values: one word a dimension, the last line padded.
    pub(crate) fn value_row_lines(&self) -> usize {
        self.head_dim.div_ceil(LINE_WORDS)
    }

    fn key_lines(&self) -> usize {
        self.key_rows() * (KV_BLOCK / LINE_WORDS)
    }

    fn value_lines(&self) -> usize {
        self.value_rows() * self.value_row_lines()
    }

    /// Lines of a head's scales, those of keys before those of values.
    fn scale_lines(&self) -> usize {
        match self.kv_type {
            KvType::Bf16 | KvType::F32 => 0,
            KvType::Int8 => 2 * KV_BLOCK / LINE_WORDS,
        }
    }

    /// Lines of all heads' keys and values, behind which the scales lie.
    fn number_lines(&self) -> usize {
        self.n_kv_heads * (self.key_lines() + self.value_lines())
    }

    fn lines(&self) -> usize {
        self.number_lines() + self.n_kv_heads * self.scale_lines()
    }
}

/// A cache line: 16 words, each an f32, two bf16 or four int8, the first in the low
/// bits.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; LINE_WORDS]);

/// Keys and values of [`KV_BLOCK`] slots of one layer, for all its key/value heads.
///
/// A slot whose keys or values are not all finite numbers, after rounding, is
/// marked instead of stored: attention that sees it gives NaN, and attention that
/// does not see it is not touched by it.
///
/// # Examples
/// ```
/// use inwarden_kernels::{KvBlock, KvShape, KvType};
///
/// let shape = KvShape { n_kv_heads: 2, head_dim: 4, kv_type: KvType::Bf16 };
/// let mut block = KvBlock::new(&shape);
/// block.store(5, &[0.5; 8], &[-2.0; 8]);
/// let bytes = block.to_le_bytes();
/// assert!(KvBlock::from_le_bytes(&shape, &bytes).as_ref() == Some(&block));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct KvBlock {
    shape: KvShape,
    /// Keys `(head, key_rows, KV_BLOCK)`, then values `(head, value_rows,
    /// value_row_lines)`, then scales `(head, 2, KV_BLOCK)` if there are any; all
    /// numbers finite, zero where nothing is stored.
    lines: Vec<Line>,
    /// A bit for each slot with a number that is not finite.
    not_finite: u64,
}

impl KvBlock {
    /// A block of zeros.
    ///
    /// # Panics
    /// If there are no heads, or `head_dim` is zero or odd.
    #[must_use]
    pub fn new(shape: &KvShape) -> Self {
        assert!(shape.n_kv_heads > 0, "no key/value heads");
        assert!(
            shape.head_dim > 0 && shape.head_dim.is_multiple_of(2),
            "head_dim {} is not even",
            shape.head_dim
        );
        Self {
            shape: *shape,
            lines: vec![Line([0; LINE_WORDS]); shape.lines()],
            not_finite: 0,
        }
    }

    /// Stores `keys` (rotated) and `values`, each `(n_kv_heads, head_dim)`, f32, in `slot`.
    ///
    /// # Panics
    /// If the block has no such slot, or the lengths are not those of its shape.
    pub fn store(&mut self, slot: usize, keys: &[f32], values: &[f32]) {
        let shape = self.shape;
        assert!(slot < KV_BLOCK, "slot {slot}");
        assert_eq!(keys.len(), shape.kv_width());
        assert_eq!(values.len(), shape.kv_width());
        let round: fn(f32) -> f32 = match shape.kv_type {
            KvType::Bf16 => |x| f32::from_bits(u32::from(bf16(x)) << 16),
            KvType::F32 | KvType::Int8 => |x| x,
        };
        let finite = keys.iter().chain(values).all(|&x| round(x).is_finite());
        if finite {
            self.not_finite &= !(1 << slot);
        } else {
            self.not_finite |= 1 << slot;
        }
        let rows = [keys, values];
        match shape.kv_type {
            KvType::Bf16 => self.store_words::<2>(slot, rows, finite, |x, _| bf16(x).into()),
            KvType::F32 => self.store_words::<1>(slot, rows, finite, |x, _| x.to_bits()),
            KvType::Int8 => self.store_words::<4>(slot, rows, finite, |x, inverse_scale| {
                // Adding 1.5 * 2^23 rounds to the nearest integer, the low bits.
                const ROUND: f32 = 12_582_912.0;
                (x * inverse_scale + ROUND).to_bits() & 0xff
            }),
        }
    }

    /// Stores keys and values, zeros unless `finite`, `N` numbers a word.
    ///
    /// `bits` makes a number, given one over its scale, the low bits of a word.
    fn store_words<const N: usize>(
        &mut self,
        slot: usize,
        rows: [&[f32]; 2],
        finite: bool,
        bits: impl Fn(f32, f32) -> u32,
    ) {
        const ROW_LINES: usize = KV_BLOCK / LINE_WORDS;
        let shape = self.shape;
        let (line, place) = (slot / LINE_WORDS, slot % LINE_WORDS);
        let n_bits = 32 / N;
        let bits = |x: f32, scale: Scale| bits(if finite { x } else { 0.0 }, scale.inverse);
        for head in 0..shape.n_kv_heads {
            let [keys, values] = rows.map(|row| &row[head * shape.head_dim..][..shape.head_dim]);
            let scales = [keys, values].map(|numbers| match shape.kv_type {
                KvType::Int8 if finite => Scale::of(numbers),
                _ => Scale::NONE,
            });
            let rows = self.keys_mut(head).chunks_exact_mut(ROW_LINES);
            for (row, keys) in rows.zip(keys.chunks(N)) {
                let word = keys.iter().enumerate().fold(0, |word, (i, &key)| {
                    word | bits(key, scales[0]) << (i * n_bits)
                });
                row[line].0[place] = word;
            }
            let shift = slot % N * n_bits;
            let mask = u32::MAX >> (32 - n_bits) << shift;
            let row_lines = shape.value_row_lines();
            let row = &mut self.values_mut(head)[slot / N * row_lines..][..row_lines];
            for (line, values) in row.iter_mut().zip(values.chunks(LINE_WORDS)) {
                for (word, &value) in line.0.iter_mut().zip(values) {
                    *word = *word & !mask | bits(value, scales[1]) << shift;
                }
            }
            let rows = self.scales_mut(head).chunks_exact_mut(ROW_LINES);
            for (row, scale) in rows.zip(scales) {
                row[line].0[place] = scale.scale.to_bits();
            }
        }
    }

    /// Copies the first `n_slots` slots of `other`; the rest stays as it is.
    ///
    /// # Panics
    /// If `n_slots` is above [`KV_BLOCK`] or the shapes differ.
    pub fn copy_slots_from(&mut self, other: &Self, n_slots: usize) {
        assert!(n_slots <= KV_BLOCK);
        assert_eq!(self.shape, other.shape);
        let shape = self.shape;
        let key_lines = shape.n_kv_heads * shape.key_lines();
        let (numbers, scales) = self.lines.split_at_mut(shape.number_lines());
        let (other_numbers, other_scales) = other.lines.split_at(shape.number_lines());
        let (keys, values) = numbers.split_at_mut(key_lines);
        let (other_keys, other_values) = other_numbers.split_at(key_lines);
        let row_lines = KV_BLOCK / LINE_WORDS;
        let rows = keys.chunks_exact_mut(row_lines);
        let rows = rows.chain(scales.chunks_exact_mut(row_lines));
        let others = other_keys.chunks_exact(row_lines);
        let others = others.chain(other_scales.chunks_exact(row_lines));
        for (row, other) in rows.zip(others) {
            let words = row.iter_mut().flat_map(|line| &mut line.0);
            let others = other.iter().flat_map(|line| &line.0);
            for (word, other) in words.zip(others).take(n_slots) {
                *word = *other;
            }
        }
        let row_lines = shape.value_row_lines();
        let slots_a_row = shape.kv_type.numbers_a_word();
        let rows = values.chunks_exact_mut(row_lines).enumerate();
        for ((i, row), other) in rows.zip(other_values.chunks_exact(row_lines)) {
            let slot = i % shape.value_rows() * slots_a_row;
            let mask = match n_slots.saturating_sub(slot).min(slots_a_row) {
                0 => 0,
                n => u32::MAX >> (32 - n * 32 / slots_a_row),
            };
            let words = row.iter_mut().flat_map(|line| &mut line.0);
            for (word, other) in words.zip(other.iter().flat_map(|line| &line.0)) {
                *word = *word & !mask | other & mask;
            }
        }
        let copied = first_bits(n_slots);
        self.not_finite = self.not_finite & !copied | other.not_finite & copied;
    }

    /// The block as bytes that [`KvBlock::from_le_bytes`] reads on any machine.
    #[must_use]
    pub fn to_le_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::n_bytes(&self.shape));
        bytes.extend(self.not_finite.to_le_bytes());
        for line in &self.lines {
            bytes.extend(line.0.iter().flat_map(|word| word.to_le_bytes()));
        }
        bytes
    }

    /// Bytes of [`KvBlock::to_le_bytes`] for a block of `shape`.
    #[must_use]
    pub fn n_bytes(shape: &KvShape) -> usize {
        size_of::<u64>() + shape.lines() * size_of::<Line>()
    }

    /// The block that gave `bytes`; `None` if they are not as many as a block of
    /// `shape` has or hold a number that is not finite or a scale below 0, so that no
    /// block gave them.
    ///
    /// # Panics
    /// Like [`KvBlock::new`].
    #[must_use]
    pub fn from_le_bytes(shape: &KvShape, bytes: &[u8]) -> Option<Self> {
        let mut block = Self::new(shape);
        let (not_finite, lines) = bytes.split_first_chunk()?;
        let (words, rest) = lines.as_chunks();
        if !rest.is_empty() || words.len() != block.lines.len() * LINE_WORDS {
            return None;
        }
        let (lines, _) = words.as_chunks::<LINE_WORDS>();
        for (line, words) in block.lines.iter_mut().zip(lines) {
            line.0 = words.map(u32::from_le_bytes);
        }
        block.not_finite = u64::from_le_bytes(*not_finite);
        let (numbers, scales) = block.lines.split_at(shape.number_lines());
        let mut numbers = numbers.iter().flat_map(|line| line.0);
        let mut scales = scales.iter().flat_map(|line| line.0.map(f32::from_bits));
        let is_whole = numbers.all(|word| is_stored(shape.kv_type, word))
            && scales.all(|scale| scale.is_finite() && scale.is_sign_positive());
        is_whole.then_some(block)
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// Bytes of memory it takes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.lines.len() * size_of::<Line>()
    }

    /// The slots that hold a number that is not finite, a bit each.
    pub(crate) fn not_finite(&self) -> u64 {
        self.not_finite
    }

    /// A head's keys: `(key_rows, KV_BLOCK)` words.
    pub(crate) fn keys(&self, head: usize) -> &[Line] {
        let len = self.shape.key_lines();
        &self.lines[head * len..][..len]
    }

    /// A head's values: `(value_rows, value_row_lines)` lines.
    pub(crate) fn values(&self, head: usize) -> &[Line] {
        let len = self.shape.value_lines();
        &self.lines[self.shape.n_kv_heads * self.shape.key_lines() + head * len..][..len]
    }

    /// A head's scales of keys, and of values; none but for int8.
    pub(crate) fn scales(&self, head: usize) -> &[Line] {
        let len = self.shape.scale_lines();
        &self.lines[self.shape.number_lines() + head * len..][..len]
    }

    fn scales_mut(&mut self, head: usize) -> &mut [Line] {
        let len = self.shape.scale_lines();
        &mut self.lines[self.shape.number_lines() + head * len..][..len]
    }

    fn keys_mut(&mut self, head: usize) -> &mut [Line] {
        let len = self.shape.key_lines();
        &mut self.lines[head * len..][..len]
    }

    fn values_mut(&mut self, head: usize) -> &mut [Line] {
        let len = self.shape.value_lines();
        &mut self.lines[self.shape.n_kv_heads * self.shape.key_lines() + head * len..][..len]
    }
}

impl std::fmt::Debug for KvBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvBlock")
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

/// Whether a number that a block stores has such words.
fn is_stored(kv_type: KvType, word: u32) -> bool {
    match kv_type {
        KvType::Bf16 => {
            f32::from_bits(word << 16).is_finite() && f32::from_bits(word & 0xffff_0000).is_finite()
        }
        KvType::F32 => f32::from_bits(word).is_finite(),
        KvType::Int8 => !word.to_le_bytes().contains(&i8::MIN.cast_unsigned()),
    }
}

/// Of one head's keys or values of a slot.
#[derive(Clone, Copy)]
struct Scale {
    scale: f32,
    inverse: f32,
}

impl Scale {
    /// Makes every number 0.
    const NONE: Self = Self {
        scale: 0.0,
        inverse: 0.0,
    };

    /// The one with which the largest number is 127 or -127.
    fn of(numbers: &[f32]) -> Self {
        let largest = numbers.iter().fold(0.0, |largest, x| x.abs().max(largest));
        // Below, 127 over it would not be finite.
        if largest / 127.0 < f32::MIN_POSITIVE {
            return Self::NONE;
        }
        Self {
            scale: largest / 127.0,
            inverse: 127.0 / largest,
        }
    }
}

/// The lowest `n` bits, of at most 64.
pub(crate) fn first_bits(n: usize) -> u64 {
    if n == 0 {
        0
    } else {
        u64::MAX >> (KV_BLOCK - n)
    }
}

/// Rounds to the nearest bf16, ties to even; what is too large becomes infinite.
pub(crate) fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        // Quiet, so that dropping low bits cannot make it infinite.
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}
