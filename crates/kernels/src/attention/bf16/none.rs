//! A processor without such instructions, which has no such variant either.

use super::super::rows::{CHUNK, Product, Scores};
use super::super::softmax::{Scales, State};

pub(crate) fn round_to_pairs(_: &[[f32; CHUNK]], _: &mut [[u32; CHUNK / 2]]) {
    unreachable!("no variant multiplies bf16 here");
}

pub(crate) fn take_scores(
    _: u64,
    _: Option<&Scales>,
    _: &[Scores],
    _: &mut [State],
    _: &mut [f32],
    _: &mut [[u32; CHUNK / 2]],
) {
    unreachable!("no variant multiplies bf16 here");
}

pub(crate) fn multiply(_: Product<'_, u32, { CHUNK / 2 }>) {
    unreachable!("no variant multiplies bf16 here");
}
