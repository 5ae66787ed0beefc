//! One pass through all layers, readable from top to bottom.

use std::ops::Range;

use inwarden_kernels::{
    KV_BLOCK, KvShape, RmsNorm, Sequence, Visible, Write, attend, rms_norm, rope,
};

use super::{
    arena::{Activations, Arena, Lists},
    plan::{Plan, PlannedRows, PlannedSequence},
    weights::{Biased, DecoderLayer, Layers},
};
use crate::{
    config::ModelConfig,
    error::InferenceError,
    linear::{Input, Linear, Projection, Workers},
};

/// A model, as a pass needs it.
pub(super) struct Network<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) layers: &'a Layers,
    pub(super) workers: &'a Workers,
    pub(super) kv: &'a KvShape,
}

impl Network<'_> {
    /// Runs the plan of `arena`: stores keys and values in the tails, and leaves
    /// the wanted rows of the last layer in `hidden`, `(n_wanted, hidden_size)`,
    /// before the final norm, and what is tapped in `taps`.
    ///
    /// The caller has checked token ids and positions. In the last layer only
    /// the wanted rows go on after their keys and values.
    ///
    /// # Errors
    /// [`InferenceError::NotFinite`], and what reading the embeddings gives.
    pub(super) fn run(&self, arena: &mut Arena) -> Result<(), InferenceError> {
        let Arena {
            plan,
            activations,
            lists,
            ..
        } = arena;
        let hidden_size = self.config.hidden_size;
        activations
            .hidden
            .resize(plan.rows.len() * hidden_size, 0.0);
        activations.taps.resize(plan.taps.len() * hidden_size, 0.0);
        let Activations { packed, hidden, .. } = activations;
        let embeddings = &self.layers.embeddings;
        embeddings.read(&plan.rows.tokens, packed, hidden)?;
        let (last, others) = self.layers.decoder.split_last().ok_or_else(no_layers)?;
        for (layer_idx, layer) in others.iter().enumerate() {
            self.tap(layer_idx, plan, activations);
            self.attention(layer_idx, layer, plan, lists, activations)?;
            self.mlp(layer, activations)?;
        }
        self.tap(others.len(), plan, activations);
        finite(&activations.hidden, "hidden states")?;
        self.last_attention(others.len(), last, plan, lists, activations)?;
        if plan.wanted.is_empty() {
            return Ok(());
        }
        self.mlp(last, activations)?;
        finite(&activations.hidden, "hidden states")?;
        self.tap_end(plan, activations);
        Ok(())
    }

    /// The final norm and one head: `hidden` is `(n_rows, hidden_size)`, `logits`
    /// becomes `(n_rows, n_out)` of `head`.
    pub(super) fn head(
        &self,
        input: &mut Input,
        hidden: &[f32],
        head: &Linear,
        logits: &mut Vec<f32>,
    ) -> Result<(), InferenceError> {
        input.rms_norm(self.workers, hidden, &self.layers.final_norm.view());
        let n_rows = hidden.len() / self.config.hidden_size;
        logits.resize(n_rows * head.n_out(), 0.0);
        let projection = Projection {
            weights: head,
            bias: None,
            out: logits,
            write: Write::Overwrite,
        };
        input.multiply(self.workers, [projection])
    }

    fn attention(
        &self,
        layer_idx: usize,
        layer: &DecoderLayer,
        plan: &mut Plan,
        lists: &mut Lists,
        activations: &mut Activations,
    ) -> Result<(), InferenceError> {
        let Activations {
            hidden,
            queries,
            keys,
            values,
            input,
            ..
        } = activations;
        input.rms_norm(self.workers, hidden, &layer.attention_norm.view());
        let n_rows = plan.rows.len();
        queries.resize(n_rows * self.config.hidden_size, 0.0);
        keys.resize(n_rows * self.config.key_value_width(), 0.0);
        values.resize(keys.len(), 0.0);
        let projections = [
            layer.query.projection(queries),
            layer.key.projection(keys),
            layer.value.projection(values),
        ];
        input.multiply(self.workers, projections)?;
        self.rotate(queries, &plan.rows.positions);
        self.rotate(keys, &plan.rows.positions);
        layer.key_frame.apply_to_queries(queries);
        layer.key_frame.apply(keys);
        self.store(layer_idx, plan, keys, values);

        let mut visible = lists.take_visible();
        visible.extend((0..n_rows).map(|row| plan.rows.visible(row)));
        let rows = |sequence: &PlannedSequence| sequence.rows.clone();
        self.mix(layer_idx, plan, lists, activations, &visible, rows);
        lists.give_back_visible(visible);
        self.project_out(layer, activations)
    }

    /// As [`Self::attention`]; after their keys and values, only the wanted rows
    /// go on, and take the place of the others in `hidden`.
    fn last_attention(
        &self,
        layer_idx: usize,
        layer: &DecoderLayer,
        plan: &mut Plan,
        lists: &mut Lists,
        activations: &mut Activations,
    ) -> Result<(), InferenceError> {
        let Activations {
            hidden,
            queries,
            keys,
            values,
            input,
            positions,
            ..
        } = activations;
        let hidden_size = self.config.hidden_size;
        input.rms_norm(self.workers, hidden, &layer.attention_norm.view());
        keys.resize(plan.rows.len() * self.config.key_value_width(), 0.0);
        values.resize(keys.len(), 0.0);
        let projections = [layer.key.projection(keys), layer.value.projection(values)];
        input.multiply(self.workers, projections)?;
        self.rotate(keys, &plan.rows.positions);
        layer.key_frame.apply(keys);
        self.store(layer_idx, plan, keys, values);

        for (place, &row) in plan.wanted.iter().enumerate() {
            let from = row * hidden_size;
            hidden.copy_within(from..from + hidden_size, place * hidden_size);
        }
        hidden.truncate(plan.wanted.len() * hidden_size);
        if plan.wanted.is_empty() {
            return Ok(());
        }
        input.rms_norm(self.workers, hidden, &layer.attention_norm.view());
        queries.resize(hidden.len(), 0.0);
        input.multiply(self.workers, [layer.query.projection(queries)])?;
        positions.clear();
        positions.extend(plan.wanted.iter().map(|&row| plan.rows.positions[row]));
        self.rotate(queries, positions);
        layer.key_frame.apply_to_queries(queries);

        let wanted = &plan.wanted;
        let mut visible = lists.take_visible();
        visible.extend(wanted.iter().map(|&row| plan.rows.visible(row)));
        let place = |row| wanted.partition_point(|&wanted| wanted < row);
        let rows =
            |sequence: &PlannedSequence| place(sequence.rows.start)..place(sequence.rows.end);
        self.mix(layer_idx, plan, lists, activations, &visible, rows);
        lists.give_back_visible(visible);
        self.project_out(layer, activations)
    }

    /// Attention of `queries` into `mixed`; `rows` says which of the rows that
    /// are in `queries` a sequence has.
    fn mix(
        &self,
        layer_idx: usize,
        plan: &Plan,
        lists: &mut Lists,
        activations: &mut Activations,
        visible: &[Visible<'_>],
        rows: impl Fn(&PlannedSequence) -> Range<usize>,
    ) {
        let mut blocks = lists.take_blocks();
        for sequence in &plan.sequences {
            let shared = plan.shared[sequence.shared.clone()].iter();
            blocks.extend(shared.map(|block| block.layer(layer_idx)));
            let tails = plan.tails[sequence.tails.clone()].iter();
            blocks.extend(tails.map(|block| block.layer(layer_idx)));
        }
        let mut sequences = lists.take_sequences();
        let mut rest = &blocks[..];
        for planned in &plan.sequences {
            let (blocks, behind) = rest.split_at(planned.shared.len() + planned.tails.len());
            rest = behind;
            let rows = rows(planned);
            if !rows.is_empty() {
                let visible = &visible[rows.clone()];
                sequences.push(Sequence {
                    rows,
                    blocks,
                    visible,
                });
            }
        }
        let Activations { queries, mixed, .. } = activations;
        mixed.resize(queries.len(), 0.0);
        let Workers { pool, variant, .. } = self.workers;
        attend(pool, *variant, self.kv, queries, &sequences, mixed);
        lists.give_back_sequences(sequences);
        lists.give_back_blocks(blocks);
    }

    /// Adds the output projection of `mixed` to the residual stream.
    fn project_out(
        &self,
        layer: &DecoderLayer,
        activations: &mut Activations,
    ) -> Result<(), InferenceError> {
        let Activations {
            hidden,
            mixed,
            input,
            ..
        } = activations;
        input.set(self.workers, mixed, self.config.hidden_size);
        let output = Projection {
            weights: &layer.output,
            bias: None,
            out: hidden,
            write: Write::Add,
        };
        input.multiply(self.workers, [output])
    }

    fn mlp(
        &self,
        layer: &DecoderLayer,
        activations: &mut Activations,
    ) -> Result<(), InferenceError> {
        let Activations {
            hidden,
            input,
            gated,
            ..
        } = activations;
        input.rms_norm(self.workers, hidden, &layer.mlp_norm.view());
        gated.gate(self.workers, input, (&layer.gate, &layer.up))?;
        let down = Projection {
            weights: &layer.down,
            bias: None,
            out: hidden,
            write: Write::Add,
        };
        gated.multiply(self.workers, [down])
    }

    fn rotate(&self, rows: &mut [f32], positions: &[usize]) {
        let Workers { pool, variant, .. } = self.workers;
        let (head_dim, table) = (self.config.head_dim(), &self.layers.rotary);
        rope(pool, *variant, rows, head_dim, positions, table);
    }

    /// Stores keys and values in the tails, each block on one thread.
    fn store(&self, layer_idx: usize, plan: &mut Plan, keys: &[f32], values: &[f32]) {
        let width = self.config.key_value_width();
        let sequences = &plan.sequences;
        let pool = &self.workers.pool;
        pool.for_each_chunk(&mut plan.tails, 1, |tail_idx, blocks| {
            let behind = sequences.partition_point(|sequence| sequence.tails.end <= tail_idx);
            let sequence = &sequences[behind];
            let first = (sequence.shared.len() + tail_idx - sequence.tails.start) * KV_BLOCK;
            let block = blocks[0].layer_mut(layer_idx);
            for row in sequence.rows_in(first..first + KV_BLOCK) {
                let slot = sequence.slot(row) - first;
                let range = row * width..(row + 1) * width;
                block.store(slot, &keys[range.clone()], &values[range]);
            }
        });
    }

    /// Takes the hidden states that are asked for after `n_layers` layers.
    fn tap(&self, n_layers: usize, plan: &Plan, activations: &mut Activations) {
        let hidden_size = self.config.hidden_size;
        let Activations { hidden, taps, .. } = activations;
        for (tap, out) in plan.taps.iter().zip(taps.chunks_exact_mut(hidden_size)) {
            if tap.n_layers == n_layers {
                let rows = tap.rows.start * hidden_size..tap.rows.end * hidden_size;
                mean(&hidden[rows], out);
            }
        }
    }

    /// Takes those that are asked for after all layers and the final norm; their
    /// rows are among the wanted ones.
    fn tap_end(&self, plan: &Plan, activations: &mut Activations) {
        let hidden_size = self.config.hidden_size;
        let Activations {
            hidden,
            taps,
            mixed,
            ..
        } = activations;
        let Workers { pool, variant, .. } = self.workers;
        for (tap, out) in plan.taps.iter().zip(taps.chunks_exact_mut(hidden_size)) {
            if tap.n_layers == self.config.num_hidden_layers {
                let place = plan.wanted.partition_point(|&row| row < tap.rows.start);
                let rows = &hidden[place * hidden_size..][..tap.rows.len() * hidden_size];
                let normed = &mut mixed[..rows.len()];
                let RmsNorm { weight, eps, .. } = self.layers.final_norm.view();
                rms_norm(pool, *variant, rows, weight, eps, normed);
                mean(normed, out);
            }
        }
    }
}

impl Biased {
    fn projection<'a>(&'a self, out: &'a mut [f32]) -> Projection<'a> {
        Projection {
            weights: &self.weights,
            bias: Some(&self.bias),
            out,
            write: Write::Overwrite,
        }
    }
}

impl PlannedRows {
    fn visible(&self, row: usize) -> Visible<'_> {
        Visible {
            until: self.until[row],
            beyond: &self.beyond[self.beyond_ranges[row].clone()],
        }
    }
}

/// The mean of `rows`, which are as wide as `out`, in their order.
fn mean(rows: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for row in rows.chunks_exact(out.len()) {
        for (sum, value) in out.iter_mut().zip(row) {
            *sum += value;
        }
    }
    let scale = 1.0 / (rows.len() / out.len()) as f32;
    for value in out {
        *value *= scale;
    }
}

/// An error unless every number is finite; `what` names them.
pub(super) fn finite(values: &[f32], what: &'static str) -> Result<(), InferenceError> {
    if values.iter().all(|value| value.is_finite()) {
        Ok(())
    } else {
        Err(InferenceError::NotFinite { what })
    }
}

fn no_layers() -> InferenceError {
    InferenceError::Tensor("a model has at least one layer".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_taken_column_by_column() {
        let mut out = [9.0; 2];
        mean(&[1.0, 2.0, 3.0, 6.0, 5.0, 1.0], &mut out);
        assert_eq!(out, [3.0, 3.0]);
    }

    #[test]
    fn one_number_that_is_not_finite_is_enough() {
        assert!(finite(&[0.0, 1.0], "x").is_ok());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(finite(&[0.0, bad, 1.0], "x").is_err());
        }
    }
}
