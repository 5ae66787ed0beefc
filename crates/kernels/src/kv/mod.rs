//! Keys and values of past positions, in blocks of [`KV_BLOCK`] slots.
//!
//! A block holds one layer's slots for all its key/value heads, laid out the way
//! attention reads them: for each head, the slots of a block side by side, so
//! that a vector holds one dimension of 16 slots (keys) or 16 dimensions of one
//! slot (values). With bf16 two dimensions (keys) or two slots (values) share a
//! 32-bit word, the unit of the processor's bf16 products.
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

    /// Rows of a head's keys: dimensions, or pairs of them. A row is
    /// [`KV_BLOCK`] words.
    pub(crate) fn key_rows(&self) -> usize {
        match self.kv_type {
            KvType::Bf16 => self.head_dim / 2,
            KvType::F32 => self.head_dim,
        }
    }

    /// Rows of a head's values: slots, or pairs of them.
    pub(crate) fn value_rows(&self) -> usize {
        match self.kv_type {
            KvType::Bf16 => KV_BLOCK / 2,
            KvType::F32 => KV_BLOCK,
        }
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

    fn lines(&self) -> usize {
        self.n_kv_heads * (self.key_lines() + self.value_lines())
    }
}

/// A cache line: 16 words, each an f32 or a pair of bf16, the first in the low bits.
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
    /// value_row_lines)`; all numbers finite, zero where nothing is stored.
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
            KvType::F32 => |x| x,
        };
        let finite = keys.iter().chain(values).all(|&x| round(x).is_finite());
        if finite {
            self.not_finite &= !(1 << slot);
        } else {
            self.not_finite |= 1 << slot;
        }
        let number = |x: f32| if finite { x } else { 0.0 };
        let heads = keys
            .chunks_exact(shape.head_dim)
            .zip(values.chunks_exact(shape.head_dim));
        for (head, (keys, values)) in heads.enumerate() {
            let rows = self.keys_mut(head).chunks_exact_mut(KV_BLOCK / LINE_WORDS);
            match shape.kv_type {
                KvType::Bf16 => {
                    for (row, pair) in rows.zip(keys.chunks_exact(2)) {
                        row[slot / LINE_WORDS].0[slot % LINE_WORDS] =
                            u32::from(bf16(number(pair[0])))
                                | u32::from(bf16(number(pair[1]))) << 16;
                    }
                }
                KvType::F32 => {
                    for (row, &key) in rows.zip(keys) {
                        row[slot / LINE_WORDS].0[slot % LINE_WORDS] = number(key).to_bits();
                    }
                }
            }
            let row_lines = shape.value_row_lines();
            let (row, shift) = match shape.kv_type {
                KvType::Bf16 => (slot / 2, slot % 2 * 16),
                KvType::F32 => (slot, 0),
            };
            let row = &mut self.values_mut(head)[row * row_lines..][..row_lines];
            for (line, values) in row.iter_mut().zip(values.chunks(LINE_WORDS)) {
                for (word, &value) in line.0.iter_mut().zip(values) {
                    *word = match shape.kv_type {
                        KvType::Bf16 => {
                            *word & (0xffff_0000 >> shift) | u32::from(bf16(number(value))) << shift
                        }
                        KvType::F32 => number(value).to_bits(),
                    };
                }
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
        let (keys, values) = self.lines.split_at_mut(key_lines);
        let (other_keys, other_values) = other.lines.split_at(key_lines);
        let row_lines = KV_BLOCK / LINE_WORDS;
        let rows = keys.chunks_exact_mut(row_lines);
        for (row, other) in rows.zip(other_keys.chunks_exact(row_lines)) {
            let words = row.iter_mut().flat_map(|line| &mut line.0);
            let others = other.iter().flat_map(|line| &line.0);
            for (word, other) in words.zip(others).take(n_slots) {
                *word = *other;
            }
        }
        let row_lines = shape.value_row_lines();
        let slots_a_row = KV_BLOCK / shape.value_rows();
        let rows = values.chunks_exact_mut(row_lines).enumerate();
        for ((i, row), other) in rows.zip(other_values.chunks_exact(row_lines)) {
            let slot = i % shape.value_rows() * slots_a_row;
            let mask = match n_slots.saturating_sub(slot).min(slots_a_row) {
                0 => 0,
                1 if slots_a_row == 2 => 0xffff,
                _ => u32::MAX,
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
    /// `shape` has or hold a number that is not finite, so that no block gave them.
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
        let finite = |word: u32| match shape.kv_type {
            KvType::Bf16 => {
                f32::from_bits(word << 16).is_finite()
                    && f32::from_bits(word & 0xffff_0000).is_finite()
            }
            KvType::F32 => f32::from_bits(word).is_finite(),
        };
        block.not_finite = u64::from_le_bytes(*not_finite);
        let mut words = block.lines.iter().flat_map(|line| line.0);
        words.all(finite).then_some(block)
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
