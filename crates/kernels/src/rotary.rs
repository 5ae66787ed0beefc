//! Rotary position embedding of queries and keys.
//!
//! Source: Su et al. 2021, arXiv:2104.09864, with the halves of a head paired as
//! in Qwen2 (dimension `i` with `i + head_dim / 2`).

use crate::variant::compiled_for;
use crate::{Pool, Variant};

/// Positions whose angles are held one by one; those further on are sums.
const STEP: usize = 64;

/// Pairs of dimensions whose angles are worked out together.
const LANES: usize = 16;

/// Numbers a task should have, so that starting it costs little beside it.
const TASK_LEN: usize = 8192;

/// Sines and cosines of the angles of all positions, to half a unit in the last
/// place of f32.
///
/// It holds those of `STEP` positions in a row and of every `STEP`th, in f64, so
/// that 32,768 positions take less than a megabyte and no time to speak of.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    n_positions: usize,
    n_pairs: usize,
    /// `(STEP, n_pairs)`: cosine and sine.
    near: Vec<[f64; 2]>,
    /// `(n_positions / STEP rounded up, n_pairs)`: cosine and sine.
    far: Vec<[f64; 2]>,
}

impl RotaryTable {
    /// For heads of `head_dim` dimensions and positions below `n_positions`; the angle
    /// of pair `i` is the position times `theta^(-2 i / head_dim)`, in radians.
    ///
    /// # Panics
    /// If `head_dim` is odd.
    #[must_use]
    pub fn new(head_dim: usize, theta: f64, n_positions: usize) -> Self {
        assert!(head_dim.is_multiple_of(2), "head_dim {head_dim} is odd");
        let n_pairs = head_dim / 2;
        let angles = |step: usize, n_steps: usize| {
            let mut angles = Vec::with_capacity(n_steps * n_pairs);
            for position in (0..n_steps).map(|i| i * step) {
                for pair in 0..n_pairs {
                    let frequency = theta.powf(-2.0 * pair as f64 / head_dim as f64);
                    let (sine, cosine) = (position as f64 * frequency).sin_cos();
                    angles.push([cosine, sine]);
                }
            }
            angles
        };
        Self {
            n_positions,
            n_pairs,
            near: angles(1, STEP.min(n_positions)),
            far: angles(STEP, n_positions.div_ceil(STEP)),
        }
    }

    /// The first position it does not have.
    #[must_use]
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// A position's angles: of the position before that is a multiple of [`STEP`],
    /// and of the rest.
    fn angles(&self, position: usize) -> (&[[f64; 2]], &[[f64; 2]]) {
        assert!(position < self.n_positions, "position {position}");
        let part = |angles, i| <[_]>::split_at(angles, i * self.n_pairs).1;
        let far = &part(&self.far, position / STEP)[..self.n_pairs];
        let near = &part(&self.near, position % STEP)[..self.n_pairs];
        (far, near)
    }
}

/// Rotates each head of each row by the angles of the row's position, in place.
///
/// `rows`: `(n_rows, n_heads, head_dim)`, f32, row-major. `positions`: one a row.
/// All variants give bitwise the same.
///
/// # Panics
/// If the lengths do not fit together, `head_dim` is not that of `table`, or
/// `table` lacks a position.
pub fn rope(
    pool: &Pool,
    variant: Variant,
    rows: &mut [f32],
    head_dim: usize,
    positions: &[usize],
    table: &RotaryTable,
) {
    assert_eq!(head_dim, table.n_pairs * 2);
    if rows.is_empty() {
        return;
    }
    assert!(rows.len().is_multiple_of(positions.len() * head_dim));
    let row_len = rows.len() / positions.len();
    let task_rows = TASK_LEN.div_ceil(row_len);
    pool.for_each_chunk(rows, task_rows * row_len, |task_idx, rows| {
        let positions = &positions[task_idx * task_rows..];
        for (row, &position) in rows.chunks_exact_mut(row_len).zip(positions) {
            let (far, near) = table.angles(position);
            compiled_for!(
                variant,
                rotate_row(row: &mut [f32], far: &[[f64; 2]], near: &[[f64; 2]])
            );
        }
    });
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "rounded to f32")]
fn rotate_row(row: &mut [f32], far: &[[f64; 2]], near: &[[f64; 2]]) {
    let n_pairs = far.len();
    for start in (0..n_pairs).step_by(LANES) {
        let len = LANES.min(n_pairs - start);
        let (mut cosines, mut sines) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let angles = far[start..].iter().zip(&near[start..]);
        for ((cosine, sine), (a, b)) in cosines.iter_mut().zip(&mut sines).zip(angles) {
            *cosine = a[0].mul_add(b[0], -(a[1] * b[1])) as f32;
            *sine = a[1].mul_add(b[0], a[0] * b[1]) as f32;
        }
        for head in row.chunks_exact_mut(2 * n_pairs) {
            let (first, second) = head.split_at_mut(n_pairs);
            let (first, second) = (&mut first[start..][..len], &mut second[start..][..len]);
            let pairs = first.iter_mut().zip(second);
            for ((x, y), (cosine, sine)) in pairs.zip(cosines.iter().zip(&sines)) {
                let rotated = x.mul_add(*cosine, -(*y * sine));
                *y = y.mul_add(*cosine, *x * sine);
                *x = rotated;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn pool() -> Pool {
        Pool::new(NonZeroUsize::new(2).unwrap(), "test").unwrap()
    }

    fn rows(len: usize) -> Vec<f32> {
        (0..len)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0)
            .collect()
    }

    #[test]
    fn rows_are_rotated_by_the_angles_of_their_positions() {
        const POSITIONS: [usize; 5] = [0, 1, 63, 64, 32_767];
        for (head_dim, n_heads) in [(2, 1), (34, 3), (64, 14), (128, 2)] {
            let theta = 1_000_000.0_f64;
            let table = RotaryTable::new(head_dim, theta, 32_768);
            let before = rows(POSITIONS.len() * n_heads * head_dim);
            let mut reference = before.clone();
            rope(
                &pool(),
                Variant::SCALAR,
                &mut reference,
                head_dim,
                &POSITIONS,
                &table,
            );
            for (row, position) in POSITIONS.into_iter().enumerate() {
                for head in 0..n_heads {
                    for pair in 0..head_dim / 2 {
                        let angle =
                            position as f64 * theta.powf(-2.0 * pair as f64 / head_dim as f64);
                        let at = (row * n_heads + head) * head_dim + pair;
                        let (x, y) = (f64::from(before[at]), f64::from(before[at + head_dim / 2]));
                        let rotated = x * angle.cos() - y * angle.sin();
                        assert!((f64::from(reference[at]) - rotated).abs() < 2e-6);
                        let rotated = y * angle.cos() + x * angle.sin();
                        let at = at + head_dim / 2;
                        assert!((f64::from(reference[at]) - rotated).abs() < 2e-6);
                    }
                }
            }
            for variant in Variant::available() {
                let mut out = before.clone();
                rope(&pool(), variant, &mut out, head_dim, &POSITIONS, &table);
                assert!(
                    out.iter()
                        .zip(&reference)
                        .all(|(a, b)| a.to_bits() == b.to_bits())
                );
            }
        }
    }

    #[test]
    fn a_row_gives_the_same_alone_and_among_others() {
        let table = RotaryTable::new(64, 10_000.0, 100);
        let positions: Vec<usize> = (0..70).map(|i| i * 7 % 100).collect();
        let before = rows(70 * 128);
        let mut together = before.clone();
        rope(
            &pool(),
            Variant::detect(),
            &mut together,
            64,
            &positions,
            &table,
        );
        for (i, position) in positions.iter().enumerate() {
            let mut alone = before[i * 128..][..128].to_vec();
            rope(
                &pool(),
                Variant::detect(),
                &mut alone,
                64,
                &[*position],
                &table,
            );
            assert_eq!(alone, together[i * 128..][..128]);
        }
    }

    #[test]
    #[should_panic(expected = "position 100")]
    fn a_position_beyond_the_table_is_refused() {
        let table = RotaryTable::new(2, 10_000.0, 100);
        rope(&pool(), Variant::SCALAR, &mut [1.0; 2], 2, &[100], &table);
    }
}
