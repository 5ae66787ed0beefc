//! The layout of weights in memory: what a panel of outputs needs for a run of
//! inputs lies in one piece, in the order in which the kernels read it.

#![expect(
    unsafe_code,
    reason = "zeroed memory becomes blocks, which are plain numbers"
)]

use super::{GROUP, PANEL_WIDTH, QUAD, VECTOR_BYTES, VECTORS};

/// Quads of a group.
pub(super) const QUADS: usize = GROUP / QUAD;

/// Inputs that share a 6-bit scale in Q4_K.
pub(super) const SUB_BLOCK: usize = 32;

/// Quads of a sub-block.
pub(super) const SUB_QUADS: usize = SUB_BLOCK / QUAD;

/// Sub-blocks of a group.
pub(super) const SUBS: usize = GROUP / SUB_BLOCK;

/// A quad of inputs for a panel of outputs: a byte of output `o` and input `i`
/// is `[o / 16][o % 16 * 4 + i]`.
pub(super) type QuadVectors = [[u8; VECTOR_BYTES]; VECTORS];

/// One group of inputs of one panel, 8 bits a weight.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Int8Block {
    /// The integers plus 128.
    pub(super) weights: [QuadVectors; QUADS],
    pub(super) scales: [f32; PANEL_WIDTH],
}

/// One super-block of inputs, two groups, of one panel, 4 bits a weight.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Int4Block {
    pub(super) halves: [Int4Half; 2],
    /// Half precision: what the scales are multiplied with.
    pub(super) d: [u16; PANEL_WIDTH],
    /// Half precision: what the minima are multiplied with.
    pub(super) d_min: [u16; PANEL_WIDTH],
}

/// One group of inputs of one panel, 4 bits a weight.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Int4Half {
    /// Element `[pair][quad]` has sub-block `2 * pair` in the low nibbles and
    /// sub-block `2 * pair + 1` in the high ones.
    pub(super) nibbles: [[QuadVectors; SUB_QUADS]; SUBS / 2],
    /// `(SUBS, PANEL_WIDTH)`, 6 bits.
    pub(super) scales: [[u8; PANEL_WIDTH]; SUBS],
    /// 6 bits; a quad is the sub-blocks of one output.
    pub(super) mins: QuadVectors,
}

/// Plain numbers, for which all bits zero is a value.
///
/// # Safety
/// All bytes zero must be a valid value of the type.
unsafe trait Zeroable {}

// SAFETY: `Int8Block` consists of arrays of u8 and f32, for which zero is a value.
unsafe impl Zeroable for Int8Block {}

// SAFETY: `Int4Block` consists of arrays of u8 and u16, for which zero is a value.
unsafe impl Zeroable for Int4Block {}

impl Int8Block {
    /// Blocks whose scales are all zero. The memory is not touched yet.
    pub(super) fn zeroed(len: usize) -> Box<[Self]> {
        zeroed(len)
    }
}

impl Int4Block {
    /// Blocks whose scales are all zero. The memory is not touched yet.
    pub(super) fn zeroed(len: usize) -> Box<[Self]> {
        zeroed(len)
    }
}

fn zeroed<T: Zeroable>(len: usize) -> Box<[T]> {
    let blocks = Box::new_zeroed_slice(len);
    // SAFETY: every byte is zero, and `Zeroable` says that this is a value.
    unsafe { blocks.assume_init() }
}
