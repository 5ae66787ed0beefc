//! Rotary positions and grouped-query attention over cached and new positions.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::forward::Reach;
use crate::{config::ModelConfig, error::InferenceError, math::softmax, rows::Rows};

/// Cosines and sines of the rotary angles, `(n_positions, head_dim / 2)` each.
///
/// Source: Su et al. 2021, arXiv:2104.09864, in the half-split layout of
/// GPT-NeoX: element `i` turns with element `i + head_dim / 2`.
pub(super) struct RotaryTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half_dim: usize,
}

impl RotaryTable {
    pub(super) fn new(head_dim: usize, theta: f32, n_positions: usize) -> Self {
        let half_dim = head_dim / 2;
        let angles = (0..n_positions).flat_map(|position| {
            (0..half_dim).map(move |i| {
                let exponent = -2.0 * i as f64 / head_dim as f64;
                position as f64 * f64::from(theta).powf(exponent)
            })
        });
        #[expect(clippy::cast_possible_truncation, reason = "rounded once, at the end")]
        let (sin, cos) = angles
            .map(f64::sin_cos)
            .map(|(sin, cos)| (sin as f32, cos as f32))
            .unzip();
        Self { cos, sin, half_dim }
    }

    /// Turns every head of every row by its position; positions are in the table.
    pub(super) fn rotate(&self, rows: &mut Rows, positions: &[usize]) {
        for (row, position) in rows.iter_mut().zip(positions) {
            let cos = &self.cos[position * self.half_dim..][..self.half_dim];
            let sin = &self.sin[position * self.half_dim..][..self.half_dim];
            for head in row.chunks_exact_mut(2 * self.half_dim) {
                let (first, second) = head.split_at_mut(self.half_dim);
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        }
    }
}

/// Query rows handled at once: bounds the score matrix.
const CHUNK_ROWS: usize = 128;

/// Softmax attention of `queries` over all positions in `keys` and `values`.
///
/// `queries`: `(n_rows, hidden_size)`; `keys` and `values`:
/// `(num_key_value_heads, n_positions, head_dim)`, the cached positions first.
/// `seen`: how many of them are cached, and what each row sees of the others.
/// Returns `(n_rows, hidden_size)`.
pub(super) fn attend(
    config: &ModelConfig,
    queries: &Rows,
    keys: &Tensor,
    values: &Tensor,
    seen: &(usize, &[Reach]),
) -> Result<Rows, InferenceError> {
    let (n_cached, reach) = *seen;
    let (n_kv_heads, n_positions, _) = keys.dims3()?;
    let keys = keys.transpose(1, 2)?;
    let mut mixed = Vec::with_capacity(queries.values().len());
    let chunks = queries.values().chunks(CHUNK_ROWS * config.hidden_size);
    for (chunk, reach) in chunks.zip(reach.chunks(CHUNK_ROWS)) {
        let queries = by_head(config, chunk)?;
        let mut scores = queries.matmul(&keys)?.flatten_all()?.to_vec1::<f32>()?;
        scores
            .par_chunks_exact_mut(n_positions)
            .enumerate()
            .for_each(|(score_idx, scores)| {
                softmax_within(scores, n_cached, &reach[score_idx % reach.len()]);
            });
        let (_, n_queries, _) = queries.dims3()?;
        let shape = (n_kv_heads, n_queries, n_positions);
        let weights = Tensor::from_vec(scores, shape, &Device::Cpu)?;
        let heads = weights.matmul(values)?.flatten_all()?.to_vec1::<f32>()?;
        by_row(config, &heads, &mut mixed);
    }
    Ok(Rows::new(mixed, config.hidden_size))
}

/// `(n_rows, hidden_size)` to `(num_key_value_heads, group * n_rows, head_dim)`,
/// scaled by one over the square root of `head_dim`.
///
/// All query heads that share a key head become one matrix.
fn by_head(config: &ModelConfig, rows: &[f32]) -> Result<Tensor, InferenceError> {
    let head_dim = config.head_dim();
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mut heads = Vec::with_capacity(rows.len());
    for head_idx in 0..config.num_attention_heads {
        for row in rows.chunks_exact(config.hidden_size) {
            let head = &row[head_idx * head_dim..][..head_dim];
            heads.extend(head.iter().map(|query| query * scale));
        }
    }
    let n_kv_heads = config.num_key_value_heads;
    let n_queries = heads.len() / head_dim / n_kv_heads;
    let shape = (n_kv_heads, n_queries, head_dim);
    Ok(Tensor::from_vec(heads, shape, &Device::Cpu)?)
}

/// The reverse of [`by_head`] without the scale; appends to `rows`.
fn by_row(config: &ModelConfig, heads: &[f32], rows: &mut Vec<f32>) {
    let head_dim = config.head_dim();
    let n_rows = heads.len() / config.hidden_size;
    for row_idx in 0..n_rows {
        for head_idx in 0..config.num_attention_heads {
            rows.extend_from_slice(&heads[(head_idx * n_rows + row_idx) * head_dim..][..head_dim]);
        }
    }
}

/// Softmax over the positions that a row sees; the others get weight 0.
///
/// `scores`: one row, the `n_cached` cached positions first.
fn softmax_within(scores: &mut [f32], n_cached: usize, reach: &Reach) {
    let (seen, hidden) = scores.split_at_mut(n_cached + reach.until);
    if reach.beyond.is_empty() {
        softmax(seen);
        hidden.fill(0.0);
        return;
    }
    // Few rows reach beyond (the branches of a label tree): gather, then scatter.
    let beyond = reach.beyond.iter().map(|row| row - reach.until);
    let mut gathered = seen.to_vec();
    gathered.extend(beyond.clone().map(|row| hidden[row]));
    softmax(&mut gathered);
    hidden.fill(0.0);
    for (row, weight) in beyond.zip(&gathered[seen.len()..]) {
        hidden[row] = *weight;
    }
    seen.copy_from_slice(&gathered[..seen.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_falls_only_on_what_a_row_sees() {
        let mut scores = [0.0; 6];
        let reach = Reach {
            until: 1,
            beyond: vec![3],
        };
        softmax_within(&mut scores, 2, &reach);
        let third = 1.0 / 4.0;
        assert_eq!(scores, [third, third, third, 0.0, 0.0, third]);
    }

    #[test]
    fn rotation_keeps_the_angle_between_positions() {
        let table = RotaryTable::new(8, 10_000.0, 64);
        let dot = |left: usize, right: usize| {
            let values: Vec<f32> = (1..=8_u8).map(f32::from).collect();
            let mut rows = Rows::new([values.clone(), values].concat(), 8);
            table.rotate(&mut rows, &[left, right]);
            let products = rows.row(0).iter().zip(rows.row(1)).map(|(a, b)| a * b);
            products.sum::<f32>()
        };
        assert!((dot(3, 10) - dot(43, 50)).abs() < 1e-3);
        assert!((dot(3, 10) - dot(3, 11)).abs() > 1e-1);
    }
}
