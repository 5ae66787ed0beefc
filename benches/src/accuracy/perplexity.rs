//! Perplexity of a text of our own.

use anyhow::ensure;
use inwarden_inference::Qwen2;

use crate::workload::TEXT;

/// Each window is read by itself, from its first token.
const WINDOW_TOKENS: usize = 256;

/// The exponential of the mean negative log-probability of a token.
///
/// A window's first token is its text and all others are its label: the score
/// of a label is the sum over its tokens, each read after the ones before it.
/// At most the first `windows` are read.
pub(crate) fn of(model: &Qwen2, windows: usize) -> anyhow::Result<f64> {
    let tokens = model.tokenizer().encode_text(TEXT)?;
    let nothing = model.prefix(&[])?;
    let (mut sum, mut n_scored) = (0.0, 0);
    for window in tokens.chunks_exact(WINDOW_TOKENS).take(windows) {
        let (first, rest) = window.split_at(1);
        let scores = model.score_labels(&nothing, first, &[rest.to_vec()])?;
        sum += scores.log_probabilities[0];
        n_scored += rest.len();
    }
    ensure!(n_scored > 0, "no window was read");
    Ok((-sum / n_scored as f64).exp())
}
