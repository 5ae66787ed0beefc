//! Weights of 4 bits, exactly those of the Q4_K format.

use super::{
    PANEL_WIDTH, QUAD,
    blocks::{Int4Block, SUB_QUADS, SUBS},
    columns,
};

/// Inputs of a block of Q4_K.
pub const SUPER_BLOCK: usize = 256;

/// Bytes of a block of Q4_K: two halves, 12 bytes of scales and minima, nibbles.
pub const Q4_K_BLOCK_BYTES: usize = 144;

/// `W` of shape `(n_out, n_in)`, packed in panels of [`PANEL_WIDTH`] outputs.
///
/// A weight is `d * scale * nibble - d_min * min`, with a scale and a minimum of
/// 6 bits for 32 inputs and `d` and `d_min` in half precision for 256: the same
/// numbers as in the file, in another order. Outputs are padded with zeros to a
/// multiple of [`PANEL_WIDTH`]. Takes about `n_out * n_in * 0.58` bytes.
#[derive(Clone, Debug)]
pub struct Int4Matrix {
    /// `(n_panels, n_in / SUPER_BLOCK)`.
    blocks: Box<[Int4Block]>,
    n_in: usize,
    n_out: usize,
}

impl Int4Matrix {
    /// A matrix of zeros to be filled panel by panel.
    ///
    /// # Panics
    /// If `n_in` is 0 or no multiple of [`SUPER_BLOCK`].
    #[must_use]
    pub fn zeros(n_out: usize, n_in: usize) -> Self {
        assert!(
            n_in > 0 && n_in.is_multiple_of(SUPER_BLOCK),
            "the inputs are whole blocks"
        );
        Self {
            blocks: Int4Block::zeroed(columns::n_panels(n_out) * (n_in / SUPER_BLOCK)),
            n_in,
            n_out,
        }
    }

    /// Packs whole rows of blocks of Q4_K, row after row.
    ///
    /// # Panics
    /// If `n_in` is 0 or no multiple of [`SUPER_BLOCK`].
    #[must_use]
    pub fn from_q4_k(bytes: &[u8], n_in: usize) -> Self {
        let row_bytes = n_in / SUPER_BLOCK * Q4_K_BLOCK_BYTES;
        let mut matrix = Self::zeros(bytes.len() / row_bytes.max(1), n_in);
        let panels = bytes.chunks(PANEL_WIDTH * row_bytes);
        for (mut panel, rows) in matrix.panels_mut().into_iter().zip(panels) {
            panel.fill(rows);
        }
        matrix
    }

    /// The panels, to be filled, on any thread each.
    pub fn panels_mut(&mut self) -> Vec<Int4PanelMut<'_>> {
        self.blocks
            .chunks_exact_mut(self.n_in / SUPER_BLOCK)
            .map(|blocks| Int4PanelMut { blocks })
            .collect()
    }

    /// How many inputs.
    #[must_use]
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// How many outputs.
    #[must_use]
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// The bytes its weights and scales take, padding counted.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of_val(&*self.blocks)
    }

    /// The outputs with these indices, in this order, as a matrix of their own
    /// that gives bitwise the same numbers for them.
    ///
    /// # Panics
    /// If there is no such output.
    #[must_use]
    pub fn select_outputs(&self, outputs: &[usize]) -> Self {
        let mut selected = Self::zeros(outputs.len(), self.n_in);
        let panels = selected
            .blocks
            .chunks_exact_mut(self.n_in / SUPER_BLOCK)
            .zip(outputs.chunks(PANEL_WIDTH));
        for (panel, outputs) in panels {
            for (to_column, &output) in outputs.iter().enumerate() {
                assert!(output < self.n_out, "output {output} of {}", self.n_out);
                for (to, from) in panel.iter_mut().zip(self.panel(output / PANEL_WIDTH)) {
                    copy_column(to, to_column, from, output % PANEL_WIDTH);
                }
            }
        }
        selected
    }

    /// The super-blocks of panel `panel_idx`.
    pub(super) fn panel(&self, panel_idx: usize) -> &[Int4Block] {
        let n_blocks = self.n_in / SUPER_BLOCK;
        &self.blocks[panel_idx * n_blocks..][..n_blocks]
    }
}

fn copy_column(to: &mut Int4Block, to_column: usize, from: &Int4Block, from_column: usize) {
    to.d[to_column] = from.d[from_column];
    to.d_min[to_column] = from.d_min[from_column];
    for (to, from) in to.halves.iter_mut().zip(&from.halves) {
        for (to, from) in to.scales.iter_mut().zip(&from.scales) {
            to[to_column] = from[from_column];
        }
        let from_vectors = from.nibbles.as_flattened().iter().chain([&from.mins]);
        let to_vectors = to.nibbles.as_flattened_mut().iter_mut();
        for (to, from) in to_vectors.chain([&mut to.mins]).zip(from_vectors) {
            let quad = from.as_flattened().as_chunks::<QUAD>().0[from_column];
            to.as_flattened_mut().as_chunks_mut::<QUAD>().0[to_column] = quad;
        }
    }
}

/// One panel of an [`Int4Matrix`] under construction.
#[derive(Debug)]
pub struct Int4PanelMut<'a> {
    blocks: &'a mut [Int4Block],
}

impl Int4PanelMut<'_> {
    /// Packs up to [`PANEL_WIDTH`] rows of `W`, each as whole blocks of Q4_K as in
    /// a GGUF file.
    ///
    /// # Panics
    /// If there are more rows, or they are not whole.
    pub fn fill(&mut self, rows: &[u8]) {
        let row_bytes = self.blocks.len() * Q4_K_BLOCK_BYTES;
        assert!(rows.len().is_multiple_of(row_bytes) && rows.len() <= row_bytes * PANEL_WIDTH);
        for (column, row) in rows.chunks_exact(row_bytes).enumerate() {
            let file_blocks = row.as_chunks::<Q4_K_BLOCK_BYTES>().0;
            for (block, file_block) in self.blocks.iter_mut().zip(file_blocks) {
                fill_column(block, column, file_block);
            }
        }
    }
}

fn fill_column(block: &mut Int4Block, column: usize, file_block: &[u8; Q4_K_BLOCK_BYTES]) {
    let (header, nibbles) = file_block.as_chunks::<16>().0.split_at(1);
    let [d_low, d_high, d_min_low, d_min_high, scales @ ..] = header[0];
    block.d[column] = u16::from_le_bytes([d_low, d_high]);
    block.d_min[column] = u16::from_le_bytes([d_min_low, d_min_high]);
    // 32 bytes hold two sub-blocks, as here.
    let mut quads = nibbles.as_flattened().as_chunks::<QUAD>().0.iter();
    for (half_idx, half) in block.halves.iter_mut().enumerate() {
        for (to, quad) in half.nibbles.as_flattened_mut().iter_mut().zip(&mut quads) {
            to.as_flattened_mut().as_chunks_mut::<QUAD>().0[column] = *quad;
        }
        let mins = &mut half.mins.as_flattened_mut().as_chunks_mut::<SUBS>().0[column];
        for (sub, (scales_of_sub, min)) in half.scales.iter_mut().zip(mins).enumerate() {
            (scales_of_sub[column], *min) = scale_and_minimum(half_idx * SUBS + sub, &scales);
        }
    }
}

/// The scale and minimum of sub-block `sub`, 6 bits each.
fn scale_and_minimum(sub: usize, packed: &[u8; 12]) -> (u8, u8) {
    if sub < 4 {
        return (packed[sub] & 63, packed[sub + 4] & 63);
    }
    let scale = packed[sub + 4] & 15 | packed[sub - 4] >> 6 << 4;
    let minimum = packed[sub + 4] >> 4 | packed[sub] >> 6 << 4;
    (scale, minimum)
}

/// A check at compile time that the nibbles of a block fill its two halves.
const _: () = assert!(2 * SUBS / 2 * SUB_QUADS * QUAD * 2 == SUPER_BLOCK);
