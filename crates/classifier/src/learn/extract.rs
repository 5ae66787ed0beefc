//! Computing the hidden states of many texts, with the time that is left.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use crate::{
    ClassifierError,
    head::{Position, StateChoice, StateStore},
};

/// Texts that are computed between two reports.
const CHUNK: usize = 32;
/// What a text costs beside its own bytes (frame and head), in bytes.
const TEXT_OVERHEAD: usize = 60;

/// How far an extraction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extraction {
    /// Texts whose states are kept, also those of earlier runs.
    pub done: usize,
    /// Texts in all.
    pub total: usize,
    /// How long the rest takes at the pace so far; `None` before there is one.
    pub remaining: Option<Duration>,
}

/// The states from which heads are chosen: after a third, a half, two thirds and
/// five sixths of the layers.
#[must_use]
pub fn kept_states(n_layers: usize) -> StateChoice {
    StateChoice {
        positions: vec![Position::EventMean, Position::LastLine, Position::Windows],
        layers: vec![
            n_layers / 3,
            n_layers / 2,
            n_layers * 2 / 3,
            n_layers * 5 / 6,
        ],
    }
}

/// Computes what `store` lacks of `texts`, shortest first, and returns how many are
/// still missing: none, unless `report` breaks off. What was computed stays, so the
/// next run goes on there.
///
/// # Errors
/// As [`StateStore::extract`].
pub fn extract_states(
    store: &mut StateStore,
    texts: &[String],
    report: &mut dyn FnMut(Extraction) -> ControlFlow<()>,
) -> Result<usize, ClassifierError> {
    let mut missing: Vec<&String> = texts.iter().filter(|text| !store.contains(text)).collect();
    missing.sort_by_key(|text| (text.len(), *text));
    missing.dedup();
    let cost =
        |texts: &[&String]| -> usize { texts.iter().map(|text| text.len() + TEXT_OVERHEAD).sum() };
    let total = texts.len();
    let (start, mut spent) = (Instant::now(), 0);
    let mut left = missing.as_slice();
    loop {
        let remaining = (spent > 0).then(|| pace(start.elapsed(), spent, cost(left)));
        let done = total - left.len();
        let extraction = Extraction {
            done,
            total,
            remaining,
        };
        if report(extraction).is_break() || left.is_empty() {
            return Ok(left.len());
        }
        let (chunk, rest) = left.split_at(CHUNK.min(left.len()));
        let owned: Vec<String> = chunk.iter().map(|text| (*text).clone()).collect();
        store.extract(&owned, None, &mut |_| {})?;
        spent += cost(chunk);
        left = rest;
    }
}

/// How long `left` takes where `spent` took `elapsed`.
fn pace(elapsed: Duration, spent: usize, left: usize) -> Duration {
    elapsed.mul_f64(left as f64 / spent.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_was_done() {
        let left = pace(Duration::from_secs(10), 200, 600);
        assert_eq!(left, Duration::from_secs(30));
        assert_eq!(pace(Duration::from_secs(10), 200, 0), Duration::ZERO);
    }
}
