//! What is measured: this project's engine and its peers, behind one trait.

use std::time::Duration;

use crate::workload::Piece;

/// How a verdict is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The answer is written as JSON, held to the labels by a grammar.
    Constrained,
    /// The text up to the label stands in the prompt already, and one position
    /// gives the labels' probabilities.
    OneToken,
}

/// An engine that answers over a cached prefix.
pub(crate) trait Subject {
    fn name(&self) -> &str;

    /// Puts `prefix` into the cache of every slot that the calls below use.
    fn cache_prefix(&mut self, prefix: &Piece) -> anyhow::Result<()>;

    /// The time in which `event` goes through the model behind the prefix, with
    /// the logits after its last token.
    fn prefill(&mut self, event: &Piece) -> anyhow::Result<Duration>;

    /// Tokens per second of greedy decoding behind the prefix and `event`,
    /// without the pass that reads the event.
    fn decode(&mut self, event: &Piece, n_tokens: usize) -> anyhow::Result<f64>;

    /// The time from question to verdict; `None` where this way is not offered.
    fn verdict(&mut self, way: Way, event: &Piece) -> anyhow::Result<Option<Duration>>;

    /// The time until all of `events`, asked at once in the fastest way, are
    /// answered; `None` where nothing is gained over one after the other.
    fn verdicts(&mut self, events: &[Piece]) -> anyhow::Result<Option<Duration>>;
}
