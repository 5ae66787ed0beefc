//! Scores closed sets of labels, for many texts in one forward pass.
//!
//! The labels form a tree of tokens. Its inner nodes go through the model in
//! the same pass as the text, each seeing the text and its own ancestors only,
//! so a label of several tokens costs no further pass (teacher forcing).

mod prepared;

use std::{ops::Range, sync::Arc};

use inwarden_kernels::log_sum_exp;

pub use self::prepared::PreparedLabels;
use super::{
    HiddenRequest, MAX_PASS_ROWS, Prefix, Qwen2,
    arena::{Activations, Arena},
};
use crate::{
    error::InferenceError,
    label_plan::{LabelPlan, Normalization},
    linear::Workers,
    tokenizer::TokenId,
};

/// Rows whose logits over the whole vocabulary are in memory at once.
const MAX_LOGITS_ROWS: usize = 32;

/// How likely each label is to come next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelScores {
    /// Natural logarithm of each label's probability, in the order given: the
    /// sum over all its tokens. At most 0.
    pub log_probabilities: Vec<f64>,
    /// Probability that what comes next begins with none of the labels,
    /// `0.0..=1.0`. A label that begins with another one is counted in it.
    /// `None` where only legal tokens compete.
    pub outside: Option<f64>,
    /// The hidden states asked for, `(layers, hidden_size)`, f32, row-major; of
    /// several ranges of tokens one after the other.
    pub hidden: Vec<f32>,
}

/// One text to score labels for.
#[derive(Clone, Copy, Debug)]
pub struct LabelRequest<'a> {
    /// What stands before the text.
    pub prefix: &'a Prefix,
    /// The text, and what follows it up to the label; at least one token.
    pub suffix: &'a [TokenId],
    /// What may come next.
    pub labels: &'a PreparedLabels,
    /// Hidden states to return as well.
    pub hidden: Option<&'a HiddenRequest>,
}

impl LabelRequest<'_> {
    /// Rows that it adds to a pass.
    pub(crate) fn n_rows(&self) -> usize {
        self.suffix.len() + self.labels.plan.nodes.len()
    }
}

impl Qwen2 {
    /// Scores `labels` as continuations of `prefix` and `suffix`, in one pass,
    /// among the whole vocabulary.
    ///
    /// `labels`: each at least one token; they may share first tokens, and one
    /// may begin with another. Cost grows with `suffix`, hardly with labels.
    ///
    /// # Errors
    /// As for [`Self::prepare_labels`] and [`Self::score_labels_batch`].
    pub fn score_labels(
        &self,
        prefix: &Prefix,
        suffix: &[TokenId],
        labels: &[Vec<TokenId>],
    ) -> Result<LabelScores, InferenceError> {
        let labels = self.prepare_labels(labels, Normalization::WholeVocabulary)?;
        let request = LabelRequest {
            prefix,
            suffix,
            labels: &labels,
            hidden: None,
        };
        let mut scores = Vec::with_capacity(1);
        self.score_labels_into(&[request], &mut scores)?;
        Ok(scores.pop().unwrap_or_default())
    }

    /// Scores many texts at once, each behind its own prefix and with its own
    /// labels; in one pass as long as they are 512 tokens together.
    ///
    /// What one gets is bitwise the same alone or among others, in any order.
    ///
    /// # Errors
    /// What [`Self::check_request`] gives for one of them, before anything is
    /// computed; [`InferenceError::NotFinite`], and [`InferenceError::Io`] or
    /// [`InferenceError::Corrupt`] if the model's file has shrunk.
    pub fn score_labels_batch(
        &self,
        requests: &[LabelRequest<'_>],
    ) -> Result<Vec<LabelScores>, InferenceError> {
        let mut scores = Vec::with_capacity(requests.len());
        self.score_labels_into(requests, &mut scores)?;
        Ok(scores)
    }

    /// As [`Self::score_labels_batch`], into the memory of earlier scores.
    ///
    /// Allocates nothing once that memory and the model's own are large enough.
    ///
    /// # Errors
    /// As for [`Self::score_labels_batch`]; `scores` then hold anything.
    pub fn score_labels_into(
        &self,
        requests: &[LabelRequest<'_>],
        scores: &mut Vec<LabelScores>,
    ) -> Result<(), InferenceError> {
        for request in requests {
            self.check_request(request)?;
        }
        scores.resize_with(requests.len(), LabelScores::default);
        let (mut requests, mut scores) = (requests, &mut scores[..]);
        while !requests.is_empty() {
            let n_fitting = n_fitting(requests);
            let (now, later) = requests.split_at(n_fitting);
            let (of_now, of_later) = scores.split_at_mut(n_fitting);
            self.score_pass(&mut self.arena(), now, of_now)?;
            (requests, scores) = (later, of_later);
        }
        Ok(())
    }

    /// Whether `request` can be answered; computes nothing.
    ///
    /// # Errors
    /// [`InferenceError::Empty`] without a suffix,
    /// [`InferenceError::ContextOverflow`], [`InferenceError::UnknownToken`],
    /// [`InferenceError::ForeignPrefix`] for a prefix or labels of another
    /// model, [`InferenceError::InvalidOption`].
    pub fn check_request(&self, request: &LabelRequest<'_>) -> Result<(), InferenceError> {
        if !Arc::ptr_eq(&request.labels.model, self.identity()) {
            return Err(InferenceError::ForeignPrefix);
        }
        let n_tokens = request
            .suffix
            .len()
            .saturating_add(request.labels.plan.longest);
        self.check_room(Some(request.prefix), n_tokens)?;
        self.check_tokens(request.suffix)?;
        if request.suffix.is_empty() {
            return Err(InferenceError::Empty { what: "tokens" });
        }
        match request.hidden {
            Some(hidden) => hidden.check(self.config.num_hidden_layers, request.suffix.len()),
            None => Ok(()),
        }
    }

    fn score_pass(
        &self,
        arena: &mut Arena,
        requests: &[LabelRequest<'_>],
        scores: &mut [LabelScores],
    ) -> Result<(), InferenceError> {
        self.plan_requests(arena, requests);
        self.network().run(arena)?;
        arena.spare.give_back(arena.plan.tails.drain(..));
        gather_rows(arena, requests, self.config.hidden_size);
        let mut taps = arena.activations.taps.chunks_exact(self.config.hidden_size);
        for (request, scores) in requests.iter().zip(&mut *scores) {
            scores.log_probabilities.clear();
            scores
                .log_probabilities
                .resize(request.labels.plan.n_labels, 0.0);
            scores.hidden.clear();
            let n_states = request.hidden.map_or(0, HiddenRequest::n_states);
            scores.hidden.extend(taps.by_ref().take(n_states).flatten());
        }
        // Requests in a row with the same labels share the products of the head.
        let same_labels =
            |a: &LabelRequest<'_>, b: &LabelRequest<'_>| std::ptr::eq(a.labels, b.labels);
        let (mut first_request, mut first_row) = (0, 0);
        for requests in requests.chunk_by(same_labels) {
            let scores = &mut scores[first_request..][..requests.len()];
            let labels = requests[0].labels;
            let n_rows = requests.len() * labels.plan.rows.len();
            let rows = first_row..first_row + n_rows;
            self.score_rows(&mut arena.activations, rows, labels, scores)?;
            first_request += requests.len();
            first_row += n_rows;
        }
        scores
            .iter_mut()
            .zip(requests)
            .for_each(|(scores, request)| scores.finish(&request.labels.plan));
        Ok(())
    }

    fn plan_requests(&self, arena: &mut Arena, requests: &[LabelRequest<'_>]) {
        let n_layers = self.config.num_hidden_layers;
        let Arena {
            plan, spare, chain, ..
        } = arena;
        plan.clear();
        for request in requests {
            let LabelRequest {
                prefix,
                suffix,
                labels,
                hidden,
            } = request;
            chain.clear(spare);
            chain.begin(prefix.blocks(), prefix.len(), spare);
            let first = plan.rows.len();
            plan.begin_sequence(chain, request.n_rows(), spare);
            plan.push_run(suffix);
            let until = prefix.len() + suffix.len();
            for node in &labels.plan.nodes {
                let ancestors = node.ancestors.iter().map(|idx| until + idx);
                plan.push_branch(node.token, until, ancestors);
            }
            if let Some(hidden) = hidden {
                hidden.plan(plan, first, suffix.len(), n_layers);
            }
            for row in &labels.plan.rows {
                let row = first + suffix.len() - 1 + row.node;
                if plan.wanted.last() != Some(&row) {
                    plan.wanted.push(row);
                }
            }
        }
    }

    /// Takes the steps of all labels in these rows of `head_rows`.
    fn score_rows(
        &self,
        activations: &mut Activations,
        rows: Range<usize>,
        labels: &PreparedLabels,
        scores: &mut [LabelScores],
    ) -> Result<(), InferenceError> {
        let Activations {
            head_rows,
            input,
            logits,
            normalisers,
            ..
        } = activations;
        let head = labels.head.as_ref().unwrap_or(&self.layers.head);
        let hidden_size = self.config.hidden_size;
        let hidden = &head_rows[rows.start * hidden_size..rows.end * hidden_size];
        let mut prepared = (0..scores.len())
            .flat_map(|scores_idx| labels.plan.rows.iter().map(move |row| (scores_idx, row)));
        for hidden in hidden.chunks(MAX_LOGITS_ROWS * hidden_size) {
            self.network().head(input, hidden, head, logits)?;
            let n_out = head.n_out();
            if labels.plan.disjoint.is_some() {
                normalise(&self.workers, logits, n_out, normalisers);
            }
            for (idx, logits) in logits.chunks_exact(n_out).enumerate() {
                let Some((scores_idx, row)) = prepared.next() else {
                    break;
                };
                let normaliser = match row.legal.is_empty() {
                    true => normalisers[idx],
                    false => row.normaliser(logits),
                };
                if !normaliser.is_finite() {
                    return Err(InferenceError::NotFinite { what: "logits" });
                }
                for step in &row.steps {
                    let log_probability = f64::from(logits[step.column]) - normaliser;
                    scores[scores_idx].log_probabilities[step.label_idx] += log_probability;
                }
            }
        }
        Ok(())
    }
}

/// How many of `requests` go into one pass, at least one.
fn n_fitting(requests: &[LabelRequest<'_>]) -> usize {
    let mut n_rows = 0;
    let fitting = requests.iter().take_while(|request| {
        n_rows += request.n_rows();
        n_rows <= MAX_PASS_ROWS
    });
    fitting.count().max(1)
}

/// Copies the rows that go through a head, request by request.
fn gather_rows(arena: &mut Arena, requests: &[LabelRequest<'_>], hidden_size: usize) {
    let Activations {
        hidden, head_rows, ..
    } = &mut arena.activations;
    let plan = &arena.plan;
    head_rows.clear();
    for (request, sequence) in requests.iter().zip(&plan.sequences) {
        for row in &request.labels.plan.rows {
            let row = sequence.rows.start + request.suffix.len() - 1 + row.node;
            let place = plan.wanted.partition_point(|&wanted| wanted < row);
            head_rows.extend_from_slice(&hidden[place * hidden_size..][..hidden_size]);
        }
    }
}

/// The logarithm of the sum of exponentials of each row; NaN for one that is
/// not finite.
fn normalise(workers: &Workers, logits: &[f32], n_out: usize, normalisers: &mut Vec<f64>) {
    normalisers.clear();
    normalisers.resize(logits.len() / n_out, 0.0);
    workers
        .pool
        .for_each_chunk(normalisers, 1, |row, normaliser| {
            let logits = &logits[row * n_out..][..n_out];
            normaliser[0] = match logits.iter().all(|logit| logit.is_finite()) {
                true => log_sum_exp(workers.variant, logits),
                false => f64::NAN,
            };
        });
}

impl LabelScores {
    /// `log_probabilities` are the sums over the labels' steps.
    pub(crate) fn finish(&mut self, labels: &LabelPlan) {
        for log_probability in &mut self.log_probabilities {
            // A sum of rounded numbers may pass 0; unlike `min`, `clamp` does
            // not make a number of NaN.
            *log_probability = log_probability.clamp(f64::NEG_INFINITY, 0.0);
        }
        self.outside = labels.disjoint.as_ref().map(|disjoint| {
            let probabilities = disjoint
                .iter()
                .map(|&idx| self.log_probabilities[idx].exp());
            (1.0 - probabilities.sum::<f64>()).clamp(0.0, 1.0)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(labels: &[&[u32]], log_probabilities: &[f64]) -> LabelScores {
        let label = |ids: &&[u32]| ids.iter().copied().map(TokenId).collect();
        let labels: Vec<Vec<TokenId>> = labels.iter().map(label).collect();
        let plan = LabelPlan::new(&labels, Normalization::WholeVocabulary, |_| Ok(()));
        let mut scores = LabelScores {
            log_probabilities: log_probabilities.to_vec(),
            ..LabelScores::default()
        };
        scores.finish(&plan.unwrap());
        scores
    }

    #[test]
    fn a_label_that_begins_with_another_adds_no_mass() {
        let logs = [0.25_f64, 0.5, 0.25, 0.25].map(f64::ln);
        let scores = finished(&[&[1, 2], &[1], &[3], &[3]], &logs);
        assert!((scores.outside.unwrap() - 0.25).abs() < 1e-12);
    }

    #[test]
    fn a_sum_above_certainty_is_certainty_and_what_is_no_number_stays_so() {
        let sums = finished(&[&[1], &[2]], &[1e-9, f64::NAN]).log_probabilities;
        assert!(sums[0] == 0.0 && sums[1].is_nan());
    }
}
