//! Scores closed sets of labels for many texts, on a device.
//!
//! What labels take, and what their logits add up to, is the plan of the
//! processor's path too (`label_plan.rs`); here are the tables for a device and
//! what is read back from it: where labels compete with each other alone, the
//! logits of their own tokens, which the head computes alone; otherwise one
//! number a row for the whole vocabulary, and one for each token of a label.

use std::sync::Arc;

use candle_core::{D, Tensor};

use super::{
    buckets, finite,
    matrix::Matrix,
    model::Model,
    prefix::DevicePrefix,
    slab::{NewRows, Places, Sees, Shape, Slab, index},
    taps::{Tap, Taps},
};
use crate::{
    error::InferenceError,
    label_plan::LabelPlan,
    qwen2::{HiddenRequest, LabelScores},
    tokenizer::TokenId,
};

/// Labels ready to be scored, made by
/// [`DeviceQwen2::prepare_labels`](super::DeviceQwen2::prepare_labels).
///
/// Costs little to keep, and may be used from many threads at once.
pub struct DeviceLabels {
    pub(super) plan: LabelPlan,
    /// The rows of the head that are needed, f32; `None`: all.
    pub(super) head: Option<Matrix>,
    /// The model that made them ready.
    pub(super) model: Arc<()>,
}

impl DeviceLabels {
    /// How many labels.
    #[must_use]
    pub fn n_labels(&self) -> usize {
        self.plan.n_labels
    }

    /// Rows that they add to a pass, behind each text.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.plan.nodes.len()
    }
}

impl std::fmt::Debug for DeviceLabels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceLabels")
            .field("n_labels", &self.n_labels())
            .field("n_rows", &self.n_rows())
            .finish_non_exhaustive()
    }
}

/// A text and the labels that may follow it.
#[derive(Clone, Copy, Debug)]
pub struct DeviceLabelRequest<'a> {
    /// What comes before the text; of the model that is asked.
    pub prefix: &'a DevicePrefix,
    /// The text, at least one token.
    pub suffix: &'a [TokenId],
    /// What may come next.
    pub labels: &'a DeviceLabels,
    /// Hidden states to return as well, of tokens that one pass holds: the last
    /// 512 of text and labels, or a few fewer.
    pub hidden: Option<&'a HiddenRequest>,
}

/// One request, ready to run.
pub(super) struct Prepared<'a> {
    labels: &'a DeviceLabels,
    /// Of these rows, those of the text.
    n_text: usize,
    rows: NewRows,
    /// By the rows of this request.
    taps: Vec<Tap>,
    prefix: &'a DevicePrefix,
    shape: Shape,
}

impl<'a> Prepared<'a> {
    /// What has been checked; `prefix` comes before what follows the first
    /// `n_done` tokens of the request's text, and stands for these.
    pub(super) fn new(
        model: &Model,
        request: &DeviceLabelRequest<'a>,
        prefix: &'a DevicePrefix,
        n_done: usize,
    ) -> Result<Self, InferenceError> {
        let suffix = &request.suffix[n_done..];
        let mut rows = new_rows(&request.labels.plan, prefix.len(), suffix);
        if rows.tokens.len() > buckets::MAX_ROWS {
            return Err(InferenceError::InvalidOption {
                name: "labels",
                allowed: "few enough that text and labels fit a pass of 512 rows",
                value: format!("{} rows", rows.tokens.len()),
            });
        }
        let taps = match request.hidden {
            Some(hidden) => taps(hidden, request.suffix.len(), n_done)?,
            None => Vec::new(),
        };
        let n_layers = model.config().num_hidden_layers;
        let at_end = taps.iter().filter(|tap| tap.n_layers == n_layers);
        rows.wanted.extend(at_end.flat_map(|tap| tap.rows.clone()));
        rows.wanted.sort_unstable();
        rows.wanted.dedup();
        Ok(Self {
            shape: Shape::of(&rows, prefix.len(), model.slab_rows()),
            labels: request.labels,
            n_text: suffix.len(),
            rows,
            taps,
            prefix,
        })
    }

    /// Whether the two can share a slab.
    fn fits(&self, other: &Self) -> bool {
        self.shape == other.shape && self.prefix.same_slots(other.prefix)
    }

    /// The place among the wanted rows of that behind which `node` tokens of
    /// labels are passed: 0 is the text's end.
    fn place(&self, node: usize) -> usize {
        let row = self.n_text - 1 + node;
        self.rows.wanted.partition_point(|&wanted| wanted < row)
    }

    /// The taps by the rows of a slab in which it is the sequence `sequence_idx`.
    fn taps_in(&self, sequence_idx: usize, n_layers: usize) -> impl Iterator<Item = Tap> {
        self.taps.iter().map(move |tap| {
            let first = match tap.n_layers == n_layers {
                true => {
                    let wanted = &self.rows.wanted;
                    let place = wanted.partition_point(|&row| row < tap.rows.start);
                    sequence_idx * self.shape.n_wanted + place
                }
                false => sequence_idx * self.shape.n_rows + tap.rows.start,
            };
            Tap {
                n_layers: tap.n_layers,
                rows: first..first + tap.rows.len(),
            }
        })
    }
}

/// The text behind `n_prefix` positions, then the nodes of the labels; wanted
/// are the rows that the labels need, and the text's last.
fn new_rows(plan: &LabelPlan, n_prefix: usize, suffix: &[TokenId]) -> NewRows {
    let n_text = suffix.len();
    let mut rows = NewRows::run(suffix, n_prefix, vec![n_text - 1]);
    for (node_idx, node) in plan.nodes.iter().enumerate() {
        rows.tokens.push(node.token);
        rows.positions
            .push(n_prefix + n_text + node.ancestors.len());
        let chain = node.ancestors.iter().chain([&node_idx]);
        rows.sees.push(Sees {
            until: n_text,
            beyond: chain.map(|idx| n_text + idx).collect(),
        });
    }
    let needed = plan.rows.iter().map(|row| n_text - 1 + row.node);
    rows.wanted.extend(needed);
    rows
}

/// What is asked for, by the rows of a text without its first `n_done` tokens.
fn taps(
    hidden: &HiddenRequest,
    n_suffix: usize,
    n_done: usize,
) -> Result<Vec<Tap>, InferenceError> {
    let mut taps = Vec::new();
    for tokens in hidden.ranges(n_suffix) {
        if tokens.start < n_done {
            return Err(InferenceError::InvalidOption {
                name: "pooling",
                allowed: "tokens that one pass of 512 rows holds",
                value: format!("{tokens:?} of {n_suffix}"),
            });
        }
        taps.extend(hidden.layers.iter().map(|&n_layers| Tap {
            n_layers,
            rows: tokens.start - n_done..tokens.end - n_done,
        }));
    }
    Ok(taps)
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
    let n_layers = model.config().num_hidden_layers;
    let numbered = || requests.iter().enumerate();
    let taps = numbered().flat_map(|(idx, request)| request.taps_in(idx, n_layers));
    let mut taps = Taps::new(taps.collect());
    let hidden = model.run(Slab::new(shape, &rows, places), &mut taps)?;

    let mut scores: Vec<LabelScores> = Vec::with_capacity(requests.len());
    scores.resize_with(requests.len(), LabelScores::default);
    for (first_idx, first) in numbered() {
        let is_same = |idx: usize| std::ptr::eq(requests[idx].labels, first.labels);
        if (0..first_idx).any(is_same) {
            continue;
        }
        let same: Vec<usize> = (first_idx..requests.len())
            .filter(|&idx| is_same(idx))
            .collect();
        let together: Vec<(usize, &Prepared<'_>)> = same
            .iter()
            .map(|&idx| (idx * shape.n_wanted, requests[idx]))
            .collect();
        let plan = &first.labels.plan;
        let sums = match &first.labels.head {
            // Nothing to choose.
            _ if plan.rows.is_empty() => vec![vec![0.0; plan.n_labels]; same.len()],
            Some(head) => sums_among_legal(head, &hidden, &together)?,
            None => sums_among_all(&model.head(&hidden)?, &together)?,
        };
        for (idx, sums) in same.into_iter().zip(sums) {
            scores[idx].log_probabilities = sums;
            scores[idx].finish(plan);
        }
    }
    let mut states = taps.read()?.into_iter();
    for (scores, request) in scores.iter_mut().zip(requests) {
        scores.hidden = states.by_ref().take(request.taps.len()).flatten().collect();
    }
    Ok(scores)
}

/// The sum of each label's steps, for each request and the first of its wanted
/// rows; `head` computes the legal tokens alone.
fn sums_among_legal(
    head: &Matrix,
    hidden: &Tensor,
    requests: &[(usize, &Prepared<'_>)],
) -> Result<Vec<Vec<f64>>, InferenceError> {
    let logits = head.product(hidden)?.to_vec2::<f32>()?;
    let sums = requests.iter().map(|&(first_row, request)| {
        let plan = &request.labels.plan;
        let mut sums = vec![0.0; plan.n_labels];
        for row in &plan.rows {
            let logits = &logits[first_row + request.place(row.node)];
            let normaliser = row.normaliser(logits);
            if !normaliser.is_finite() {
                return Err(InferenceError::NotFinite { what: "logits" });
            }
            for step in &row.steps {
                sums[step.label_idx] += f64::from(logits[step.column]) - normaliser;
            }
        }
        Ok(sums)
    });
    sums.collect()
}

/// The same among the whole vocabulary. `logits`: `(n_rows, vocab_size)`.
fn sums_among_all(
    logits: &Tensor,
    requests: &[(usize, &Prepared<'_>)],
) -> Result<Vec<Vec<f64>>, InferenceError> {
    let (_, vocab_size) = logits.dims2()?;
    // What each step needs, in the order in which it is read again.
    let wanted = requests.iter().flat_map(|(first_row, request)| {
        let rows = request.labels.plan.rows.iter();
        rows.flat_map(move |row| {
            let first = (first_row + request.place(row.node)) * vocab_size;
            row.steps.iter().map(move |step| index(first + step.column))
        })
    });
    let wanted: Vec<u32> = wanted.collect();
    let n_steps = wanted.len();
    let wanted = Tensor::from_vec(wanted, n_steps, logits.device())?;
    let chosen = logits.flatten_all()?.index_select(&wanted, 0)?;
    let chosen = chosen.to_vec1::<f32>()?;
    let normalisers = logits.log_sum_exp(D::Minus1)?.to_vec1::<f32>()?;
    finite(&chosen, "logits")?;
    finite(&normalisers, "logits")?;
    let mut chosen = chosen.into_iter();
    let sums = requests.iter().map(|&(first_row, request)| {
        let plan = &request.labels.plan;
        let mut sums = vec![0.0; plan.n_labels];
        for row in &plan.rows {
            let normaliser = f64::from(normalisers[first_row + request.place(row.node)]);
            for step in &row.steps {
                let logit = chosen.next().expect("one was gathered for each step");
                sums[step.label_idx] += f64::from(logit) - normaliser;
            }
        }
        sums
    });
    Ok(sums.collect())
}
