//! One pass through all layers, readable from top to bottom.

use rayon::prelude::*;

use super::{
    attention::attend,
    cache::Cache,
    weights::{Biased, DecoderLayer, Layers},
};
use crate::{
    config::ModelConfig,
    error::InferenceError,
    math::{rms_norm, swiglu},
    rows::Rows,
    tokenizer::TokenId,
};

/// What one pass computes: a run of tokens behind the cached positions.
///
/// The rows need not be one sequence: each says which of the others it sees,
/// so the branches of a tree, or several sequences, go through in one pass.
pub(super) struct Pass {
    pub(super) tokens: Vec<TokenId>,
    /// Absolute position of each row, cached positions counted.
    pub(super) positions: Vec<usize>,
    /// Which rows each row attends to; it always sees all cached positions.
    pub(super) reach: Vec<Reach>,
    /// Indices of the rows whose result is wanted, ascending.
    pub(super) wanted: Vec<usize>,
}

/// The rows of the same pass that a row attends to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reach {
    /// It sees the rows `0..until`,
    pub(super) until: usize,
    /// and these rows behind them, ascending.
    pub(super) beyond: Vec<usize>,
}

impl Pass {
    /// One sequence behind `n_cached` positions.
    pub(super) fn sequence(tokens: &[TokenId], n_cached: usize, wanted: Vec<usize>) -> Self {
        let n_rows = tokens.len();
        let reach = (1..=n_rows).map(|until| Reach {
            until,
            beyond: Vec::new(),
        });
        Self {
            tokens: tokens.to_vec(),
            positions: (n_cached..n_cached + n_rows).collect(),
            reach: reach.collect(),
            wanted,
        }
    }
}

/// Runs `pass`, stores its keys and values in `cache`, and returns the hidden
/// states of the wanted rows after the final norm, `(n_wanted, hidden_size)`.
///
/// The caller has checked token ids and positions and given the cache room.
/// In the last layer only the wanted rows go on after their keys and values.
pub(super) fn run(
    config: &ModelConfig,
    layers: &Layers,
    cache: &mut Cache,
    pass: &Pass,
) -> Result<Rows, InferenceError> {
    let mut hidden = embed(config, layers, &pass.tokens)?;
    let mut positions = pass.positions.clone();
    let mut reach = pass.reach.clone();
    for (layer_idx, layer) in layers.decoder.iter().enumerate() {
        let is_last = layer_idx + 1 == layers.decoder.len();
        let mut normed = normalised(config, &hidden, &layer.attention_norm);

        let mut keys = project(&layer.key, &normed)?;
        let values = project(&layer.value, &normed)?;
        layers.rotary.rotate(&mut keys, &positions);
        let (keys, values) = cache.store(layer_idx, &keys, &values)?;

        if is_last {
            let wanted = &pass.wanted;
            hidden = hidden.select(wanted);
            if wanted.is_empty() {
                break;
            }
            normed = normed.select(wanted);
            positions = wanted.iter().map(|&row| pass.positions[row]).collect();
            reach = wanted.iter().map(|&row| pass.reach[row].clone()).collect();
        }
        let mut queries = project(&layer.query, &normed)?;
        layers.rotary.rotate(&mut queries, &positions);
        let mixed = attend(config, &queries, &keys, &values, &(cache.len(), &*reach))?;
        hidden.add(&layer.output.forward(&mixed)?);

        let normed = normalised(config, &hidden, &layer.mlp_norm);
        hidden.add(&mlp(layer, &normed)?);
    }
    cache.advance(pass.tokens.len());
    Ok(normalised(config, &hidden, &layers.final_norm))
}

fn embed(
    config: &ModelConfig,
    layers: &Layers,
    tokens: &[TokenId],
) -> Result<Rows, InferenceError> {
    let mut hidden = vec![0.0; tokens.len() * config.hidden_size];
    let mut scratch = Vec::new();
    for (token, row) in tokens
        .iter()
        .zip(hidden.chunks_exact_mut(config.hidden_size))
    {
        let row_idx = token.0 as usize;
        let rows = row_idx..row_idx + 1;
        layers.embeddings.read_rows_f32(rows, &mut scratch, row)?;
    }
    Ok(Rows::new(hidden, config.hidden_size))
}

fn normalised(config: &ModelConfig, hidden: &Rows, weight: &[f32]) -> Rows {
    let mut normed = hidden.clone();
    for row in normed.iter_mut() {
        rms_norm(row, weight, config.rms_norm_eps);
    }
    normed
}

fn project(layer: &Biased, normed: &Rows) -> Result<Rows, InferenceError> {
    let mut projected = layer.weights.forward(normed)?;
    projected.add_bias(&layer.bias);
    Ok(projected)
}

fn mlp(layer: &DecoderLayer, normed: &Rows) -> Result<Rows, InferenceError> {
    let mut gate = layer.gate.forward(normed)?;
    let up = layer.up.forward(normed)?;
    let width = gate.width();
    gate.values_mut()
        .par_chunks_exact_mut(width)
        .zip(up.values().par_chunks_exact(width))
        .for_each(|(gate, up)| swiglu(gate, up));
    layer.down.forward(&gate)
}
