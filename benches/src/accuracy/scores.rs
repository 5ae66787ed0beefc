//! Label scores of rows, by our engine and by candle.

use std::path::Path;

use inwarden_inference::{LabelRequest, Normalization, Qwen2, TokenId, Tokenizer};

use super::rows::Row;
use crate::{
    candle_qwen2::{Cache, CandleQwen2, Products},
    workload::{LABELS, PREFIX, Question, Workload},
};

/// The longest event, in tokens; what is beyond is left out for every engine.
const MAX_EVENT_TOKENS: usize = 256;

/// Rows that our engine is handed together.
const ROWS_AT_ONCE: usize = 16;

/// One row's scores.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scored {
    /// Natural logarithm of each label's probability, in the order of [`LABELS`].
    pub(crate) log_probabilities: Vec<f64>,
}

impl Scored {
    /// Natural logarithm of how many times likelier `malicious` is than `benign`.
    pub(crate) fn log_odds(&self) -> f64 {
        let of = |wanted: &str| {
            let label = LABELS.iter().position(|&label| label == wanted);
            label.map_or(f64::NAN, |idx| self.log_probabilities[idx])
        };
        of("malicious") - of("benign")
    }

    /// Probabilities among the labels alone; their sum is 1.
    pub(crate) fn among_labels(&self) -> Vec<f64> {
        let largest = self
            .log_probabilities
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = self
            .log_probabilities
            .iter()
            .map(|log_probability| (log_probability - largest).exp())
            .collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    }
}

pub(crate) fn by_ours(model: &Qwen2, rows: &[Row]) -> anyhow::Result<Vec<Scored>> {
    let tokenizer = model.tokenizer();
    let workload = Workload::new(tokenizer)?;
    let question = workload.question();
    let prefix = model.prefix(&tokenizer.encode_prompt(PREFIX)?)?;
    let labels = model.prepare_labels(&question.labels, Normalization::WholeVocabulary)?;
    let mut scored = Vec::with_capacity(rows.len());
    for rows in rows.chunks(ROWS_AT_ONCE) {
        let events: Vec<Vec<TokenId>> = rows
            .iter()
            .map(|row| event(tokenizer, row, question))
            .collect::<anyhow::Result<_>>()?;
        let requests: Vec<LabelRequest<'_>> = events
            .iter()
            .map(|event| LabelRequest {
                prefix: &prefix,
                suffix: event,
                labels: &labels,
                hidden: None,
            })
            .collect();
        let scores = model.score_labels_batch(&requests)?;
        scored.extend(scores.into_iter().map(|scores| Scored {
            log_probabilities: scores.log_probabilities,
        }));
    }
    Ok(scored)
}

pub(crate) fn by_candle(
    file: &Path,
    products: Products,
    tokenizer: &Tokenizer,
    rows: &[Row],
) -> anyhow::Result<Vec<Scored>> {
    let model = CandleQwen2::load(file, products)?;
    let workload = Workload::new(tokenizer)?;
    let question = workload.question();
    let mut prefix = Cache::default();
    model.last_logits(&mut prefix, &tokenizer.encode_prompt(PREFIX)?)?;
    rows.iter()
        .map(|row| {
            let event = event(tokenizer, row, question)?;
            let scores = model.log_probabilities(&prefix, &event, &question.labels)?;
            Ok(Scored {
                log_probabilities: scores,
            })
        })
        .collect()
}

fn event(tokenizer: &Tokenizer, row: &Row, question: &Question) -> anyhow::Result<Vec<TokenId>> {
    let mut tokens = tokenizer.encode_text(&row.text)?;
    tokens.truncate(MAX_EVENT_TOKENS);
    tokens.extend(&question.before_label.tokens);
    Ok(tokens)
}
