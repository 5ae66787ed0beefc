//! Scores closed sets of labels for many texts, on a device.
//!
//! The tree of labels, and what its log-probabilities add up to, are those of
//! the processor's path (`qwen2/labels.rs`); here are the tables for a device
//! and what is read back from it: one number per row for the whole vocabulary,
//! and one per token of a label.

use candle_core::{D, Tensor};

use super::{
    buckets,
    model::Model,
    prefix::DevicePrefix,
    slab::{NewRows, Places, Sees, Shape, Slab, index},
};
use crate::{error::InferenceError, label_tree::LabelTree, qwen2::LabelScores, tokenizer::TokenId};

/// A text and the labels that may follow it.
#[derive(Clone, Copy, Debug)]
pub struct DeviceLabelRequest<'a> {
    /// What comes before the text; of the model that is asked.
    pub prefix: &'a DevicePrefix,
    /// The text, at least one token.
    pub suffix: &'a [TokenId],
    /// At least one label of at least one token each.
    pub labels: &'a [Vec<TokenId>],
}

/// One request, ready to run.
pub(super) struct Prepared<'a> {
    labels: &'a [Vec<TokenId>],
    tree: LabelTree,
    rows: NewRows,
    prefix: &'a DevicePrefix,
    shape: Shape,
}

impl<'a> Prepared<'a> {
    /// `suffix` and `labels` have been checked; `prefix` comes before `suffix`.
    pub(super) fn new(
        labels: &'a [Vec<TokenId>],
        prefix: &'a DevicePrefix,
        suffix: &[TokenId],
        slab_rows: usize,
    ) -> Result<Self, InferenceError> {
        let tree = LabelTree::new(labels);
        let rows = new_rows(&tree, prefix.len(), suffix);
        if rows.tokens.len() > buckets::MAX_ROWS {
            return Err(InferenceError::InvalidOption {
                name: "labels",
                allowed: "few enough that text and labels fit a pass of 512 rows",
                value: format!("{} rows", rows.tokens.len()),
            });
        }
        Ok(Self {
            shape: Shape::of(&rows, prefix.len(), slab_rows),
            labels,
            tree,
            rows,
            prefix,
        })
    }

    /// Whether the two can share a slab.
    fn fits(&self, other: &Self) -> bool {
        self.shape == other.shape && self.prefix.same_slots(other.prefix)
    }
}

/// The text behind `n_prefix` positions, then the inner nodes of `tree`; wanted
/// are the text's last token and the nodes.
fn new_rows(tree: &LabelTree, n_prefix: usize, suffix: &[TokenId]) -> NewRows {
    let n_text = suffix.len();
    let mut rows = NewRows::run(suffix, n_prefix, vec![n_text - 1]);
    for (node_idx, (token, chain)) in tree.nodes().enumerate() {
        rows.tokens.push(token);
        rows.positions.push(n_prefix + n_text - 1 + chain.len());
        rows.wanted.push(n_text + node_idx);
        rows.sees.push(Sees {
            until: n_text,
            beyond: chain.into_iter().map(|idx| n_text + idx).collect(),
        });
    }
    rows
}

/// Runs `requests` in as few slabs as they fill; results in their order.
///
/// The caller keeps other passes off the device meanwhile.
pub(super) fn score(
    model: &Model,
    requests: &[Prepared<'_>],
) -> Result<Vec<LabelScores>, InferenceError> {
    let mut scores: Vec<Option<LabelScores>> = requests.iter().map(|_| None).collect();
    for (first_idx, first) in requests.iter().enumerate() {
        if scores[first_idx].is_some() {
            continue;
        }
        let waiting = (first_idx..requests.len())
            .filter(|&idx| scores[idx].is_none() && requests[idx].fits(first));
        let chosen: Vec<usize> = waiting.take(first.shape.n_sequences).collect();
        let together: Vec<&Prepared<'_>> = chosen.iter().map(|&idx| &requests[idx]).collect();
        for (idx, score) in chosen.into_iter().zip(score_slab(model, &together)?) {
            scores[idx] = Some(score);
        }
    }
    Ok(scores.into_iter().flatten().collect())
}

/// All of one shape, behind the same prefix, at most a slab full.
fn score_slab(
    model: &Model,
    requests: &[&Prepared<'_>],
) -> Result<Vec<LabelScores>, InferenceError> {
    let shape = requests[0].shape;
    let slots = requests[0].prefix.slots();
    let places = Places {
        prefix: &slots,
        ..model.places()
    };
    let rows: Vec<&NewRows> = requests.iter().map(|request| &request.rows).collect();
    let hidden = model.run(Slab::new(shape, &rows, places))?;
    let logits = model.head(&hidden)?;

    // What each label's tokens need, in the order in which it is read again.
    let vocab_size = model.config().vocab_size;
    let wanted = requests
        .iter()
        .enumerate()
        .flat_map(|(sequence_idx, request)| {
            let first_row = sequence_idx * shape.n_wanted;
            steps(request)
                .map(move |(row, token)| index((first_row + row) * vocab_size + token.0 as usize))
        });
    let wanted: Vec<u32> = wanted.collect();
    let n_steps = wanted.len();
    let wanted = Tensor::from_vec(wanted, n_steps, logits.device())?;
    let chosen = logits.flatten_all()?.index_select(&wanted, 0)?;
    let mut chosen = finite(chosen.to_vec1::<f32>()?, "logits")?.into_iter();
    let normalisers = logits.log_sum_exp(D::Minus1)?.to_vec1::<f32>()?;
    let normalisers = finite(normalisers, "logits")?;
    let hidden = hidden.to_vec2::<f32>()?;

    let scores = requests.iter().enumerate().map(|(sequence_idx, request)| {
        let first_row = sequence_idx * shape.n_wanted;
        let steps = steps(request).map(|(row, _)| {
            let logit = chosen.next().expect("one was gathered for each step");
            f64::from(logit) - f64::from(normalisers[first_row + row])
        });
        let steps: Vec<f64> = steps.collect();
        let hidden = finite(hidden[first_row].clone(), "hidden states")?;
        Ok(LabelScores::from_steps(request.labels, &steps, hidden))
    });
    scores.collect()
}

/// The row that each token of each label is read from, and the token.
fn steps<'a>(request: &'a Prepared<'_>) -> impl Iterator<Item = (usize, TokenId)> + 'a {
    let labels = request.labels.iter();
    labels.flat_map(|label| request.tree.steps(label))
}

fn finite(values: Vec<f32>, what: &'static str) -> Result<Vec<f32>, InferenceError> {
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(values),
        false => Err(InferenceError::NotFinite { what }),
    }
}
