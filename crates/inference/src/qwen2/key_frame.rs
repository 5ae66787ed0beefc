//! How keys are moved and scaled before they are kept, so that rounding costs little.
//!
//! Softmax does not change when all keys move by the same vector, and a product does
//! not when a dimension of the keys is divided by what the queries' is multiplied
//! with.

use crate::config::ModelConfig;

/// Of what the weights add to a dimension of the keys, in its size.
const DEVIATIONS: f64 = 3.0;

/// Of a dimension that is always 0; any will do that has an inverse.
const SMALLEST_SIZE: f64 = 1e-6;

/// What is done to the turned keys of a layer before they are kept.
pub(super) struct KeyFrame {
    /// `(key_value_width,)`: taken off every key.
    centre: Vec<f32>,
    /// How keys are scaled, if they are.
    sizes: Option<Sizes>,
}

struct Sizes {
    /// `(key_value_width,)`: one over about the size of each dimension of the keys.
    inverse: Vec<f32>,
    /// `(hidden_size,)`: these sizes, for each dimension of the queries.
    of_queries: Vec<f32>,
}

impl KeyFrame {
    /// `bias`: of the keys, `(key_value_width,)`.
    pub(super) fn new(bias: &[f32], config: &ModelConfig) -> Self {
        Self {
            centre: centre(bias, config),
            sizes: None,
        }
    }

    /// Scales the dimensions too, so that they are of about the same size.
    ///
    /// `weights`: of the keys, `(key_value_width, hidden_size)`; `norm`: those of the
    /// norm before, `(hidden_size,)`.
    pub(super) fn with_sizes(
        mut self,
        bias: &[f32],
        weights: &[f32],
        norm: &[f32],
        config: &ModelConfig,
    ) -> Self {
        let sizes = sizes(bias, &self.centre, weights, norm, config);
        let heads = sizes.chunks_exact(config.head_dim());
        let n_sharing = config.num_attention_heads / config.num_key_value_heads;
        self.sizes = Some(Sizes {
            inverse: sizes.iter().map(|size| 1.0 / size).collect(),
            of_queries: heads.flat_map(|head| head.repeat(n_sharing)).collect(),
        });
        self
    }

    /// Moves and scales `(n_rows, key_value_width)` turned keys.
    pub(super) fn apply(&self, keys: &mut [f32]) {
        for row in keys.chunks_exact_mut(self.centre.len()) {
            for (value, centre) in row.iter_mut().zip(&self.centre) {
                *value -= centre;
            }
        }
        if let Some(sizes) = &self.sizes {
            multiply(keys, &sizes.inverse);
        }
    }

    /// Scales `(n_rows, hidden_size)` queries so that they fit the keys.
    pub(super) fn apply_to_queries(&self, queries: &mut [f32]) {
        if let Some(sizes) = &self.sizes {
            multiply(queries, &sizes.of_queries);
        }
    }
}

fn multiply(rows: &mut [f32], factors: &[f32]) {
    for row in rows.chunks_exact_mut(factors.len()) {
        for (value, factor) in row.iter_mut().zip(factors) {
            *value *= factor;
        }
    }
}

/// About the largest number of each dimension of the turned and moved keys.
///
/// A pair of dimensions turns together, so both have one size: how far the turned
/// bias is from the centre in the mean, and three standard deviations of what the
/// weights add to it, for inputs of mean square 1. One scale for all dimensions then
/// suits each: unscaled, a bias of 160 in a pair that turns fast leaves the others,
/// which say what the token is, a handful of steps.
fn sizes(
    bias: &[f32],
    centre: &[f32],
    weights: &[f32],
    norm: &[f32],
    config: &ModelConfig,
) -> Vec<f32> {
    let head_dim = config.head_dim();
    let half = head_dim / 2;
    let square = |value: f32| f64::from(value).powi(2);
    let of_bias = |dim: usize| square(bias[dim]) - square(centre[dim]);
    let of_weights = |dim: usize| {
        let weights = &weights[dim * norm.len()..][..norm.len()];
        let products = weights.iter().zip(norm).map(|(weight, norm)| weight * norm);
        products.map(square).sum::<f64>()
    };
    let size = |dim: usize| {
        let head = dim - dim % head_dim;
        let pair = [head + dim % half, head + dim % half + half];
        let [bias, weights] = [
            pair.map(of_bias).iter().sum::<f64>(),
            pair.map(of_weights).iter().sum::<f64>(),
        ];
        let size = bias.max(0.0).sqrt() + DEVIATIONS * (weights / 2.0).sqrt();
        #[expect(clippy::cast_possible_truncation, reason = "rounded once, at the end")]
        let size = size.max(SMALLEST_SIZE) as f32;
        size
    };
    (0..bias.len()).map(size).collect()
}

/// The mean of the turned `bias` over the first positions.
///
/// Softmax does not change when all keys move by the same vector, and a vector
/// near to all of them leaves less to round: the biases of real models reach 350
/// in the pairs that turn slowest, where keys without their centre differ by a
/// few units.
fn centre(bias: &[f32], config: &ModelConfig) -> Vec<f32> {
    const POSITIONS: u32 = 1024;
    let half = config.head_dim() / 2;
    let mut centre = bias.to_vec();
    for pair in 0..half {
        let exponent = -2.0 * pair as f64 / config.head_dim() as f64;
        let frequency = f64::from(config.rope_theta).powf(exponent);
        let angles = (0..POSITIONS).map(|position| f64::from(position) * frequency);
        let (sines, cosines) = angles.fold((0.0, 0.0), |(sines, cosines), angle| {
            (sines + angle.sin(), cosines + angle.cos())
        });
        let (sine, cosine) = (sines / f64::from(POSITIONS), cosines / f64::from(POSITIONS));
        for head in centre.chunks_exact_mut(2 * half) {
            let (a, b) = (f64::from(head[pair]), f64::from(head[pair + half]));
            #[expect(clippy::cast_possible_truncation, reason = "rounded once, at the end")]
            let turned = [a * cosine - b * sine, b * cosine + a * sine].map(|value| value as f32);
            [head[pair], head[pair + half]] = turned;
        }
    }
    centre
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two heads of 8 that share keys, and what 16 inputs go into.
    fn config(rope_theta: f32) -> ModelConfig {
        ModelConfig {
            hidden_size: 16,
            intermediate_size: 1,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            vocab_size: 1,
            max_position_embeddings: 1,
            rms_norm_eps: 1e-6,
            rope_theta,
            tie_word_embeddings: true,
        }
    }

    #[test]
    fn slow_pairs_lose_their_bias_and_fast_ones_hardly_any() {
        let config = config(1e12);
        // Frequencies 1, 1e-3, 1e-6 and 1e-9.
        let bias = [50.0, 0.0, 50.0, 50.0, -20.0, 0.0, -20.0, -20.0];
        let centre = centre(&bias, &config);
        assert!(centre[0].abs() < 0.1 && centre[4].abs() < 0.1, "{centre:?}");
        assert!((centre[2] - 50.0).abs() < 0.1 && (centre[6] + 20.0).abs() < 0.1);
        assert!((centre[3] - 50.0).abs() < 1e-3 && (centre[7] + 20.0).abs() < 1e-3);
    }

    /// Frequency 1 with a large bias, and others with none.
    fn frame() -> KeyFrame {
        let config = config(1e4);
        let mut bias = [0.0; 8];
        (bias[0], bias[4]) = (160.0, -120.0);
        let weights: Vec<f32> = (0..8 * 16).map(|i| (i * 7 % 5) as f32 - 2.0).collect();
        KeyFrame::new(&bias, &config).with_sizes(&bias, &weights, &[0.5; 16], &config)
    }

    #[test]
    fn a_large_bias_makes_its_own_pair_small_and_no_other() {
        let mut keys = [1.0; 8];
        let centre = frame().centre;
        keys.iter_mut()
            .zip(&centre)
            .for_each(|(key, centre)| *key += centre);
        frame().apply(&mut keys);
        for (dim, key) in keys.iter().enumerate() {
            let expected = if dim % 4 == 0 { 0.004..0.006 } else { 0.1..0.2 };
            assert!(expected.contains(key), "{dim}: {key}");
            let other = keys[dim % 4];
            assert!((key - other).abs() < 1e-6, "a pair is scaled together");
        }
    }

    #[test]
    fn scaled_queries_and_keys_have_the_products_of_unscaled_ones() {
        let frame = frame();
        let mut keys: Vec<f32> = (0..16).map(|i| 3.0 - i as f32).collect();
        let mut queries: Vec<f32> = (0..16).map(|i| (i * 5 % 7) as f32 - 3.0).collect();
        let products = |keys: &[f32], queries: &[f32]| -> Vec<f32> {
            let heads = queries
                .chunks(8)
                .flat_map(|query| keys.chunks(8).map(move |key| (query, key)));
            heads
                .map(|(query, key)| query.iter().zip(key).map(|(q, k)| q * k).sum())
                .collect()
        };
        let moved: Vec<f32> = keys
            .iter()
            .enumerate()
            .map(|(i, key)| key - frame.centre[i % 8])
            .collect();
        let expected = products(&moved, &queries);
        frame.apply(&mut keys);
        frame.apply_to_queries(&mut queries);
        for (product, expected) in products(&keys, &queries).iter().zip(expected) {
            assert!((product - expected).abs() < 1e-3, "{product} {expected}");
        }
    }
}
