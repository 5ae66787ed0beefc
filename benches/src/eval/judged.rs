//! Rows after the product has judged them.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use anyhow::Context;
use inwarden::types::{Label, Verdict};
use serde_json::json;

use super::{
    product::Product,
    rows::{Kind, Row},
    statistics::Point,
};
use crate::accuracy::progress;

/// Seconds between two lines of progress.
const PROGRESS_S: u64 = 20;

/// A row and what the product says.
#[derive(Clone, Debug)]
pub(crate) struct JudgedRow {
    pub(crate) row: Row,
    pub(crate) verdict: Verdict,
    /// Whether the corpus holds nearly the same row.
    pub(crate) is_near_corpus: bool,
}

impl JudgedRow {
    /// For the figures, if its truth is known.
    pub(crate) fn point(&self) -> Option<Point> {
        Some(Point {
            score: self.verdict.score.probability(),
            is_attack: self.row.is_attack?,
            is_flagged: self.verdict.label == Label::Malicious,
        })
    }

    /// Its line in the file of verdicts: what does not depend on label, tier or
    /// time.
    pub(crate) fn line(&self, kind: Kind) -> String {
        let verdict = &self.verdict;
        let line = json!({
            "file": kind.name(),
            "id": self.row.id,
            "score": verdict.score.probability(),
            "verdict": verdict.label.name(),
            "settled_by": verdict.settled_by.name(),
            "near_corpus": self.is_near_corpus,
        });
        line.to_string()
    }
}

/// Judges `rows` with `callers` threads; the order is kept.
pub(crate) fn judge(
    product: &Product,
    kind: Kind,
    rows: &[Row],
    callers: usize,
) -> anyhow::Result<Vec<Verdict>> {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    let work = |is_first: bool| -> anyhow::Result<Vec<(usize, Verdict)>> {
        let mut judged = Vec::new();
        let mut said = 0;
        loop {
            let idx = next.fetch_add(1, Ordering::Relaxed);
            let Some(row) = rows.get(idx) else {
                return Ok(judged);
            };
            let verdict = product.judge(&row.question);
            let verdict =
                verdict.with_context(|| format!("{}.jsonl line {}", kind.name(), row.line))?;
            judged.push((idx, verdict));
            let seconds = started.elapsed().as_secs();
            if is_first && seconds / PROGRESS_S > said {
                said = seconds / PROGRESS_S;
                let total = rows.len();
                progress(&format!("{}: {} of {total} rows", kind.name(), idx + 1));
            }
        }
    };
    let mut judged = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..callers)
            .map(|idx| scope.spawn(move || work(idx == 0)))
            .collect();
        let mut all = Vec::new();
        for caller in callers {
            // A panic of the product is a failure of the measurement.
            let part = caller
                .join()
                .map_err(|_| anyhow::anyhow!("the product panicked"))?;
            all.extend(part?);
        }
        anyhow::Ok(all)
    })?;
    judged.sort_by_key(|(idx, _)| *idx);
    Ok(judged.into_iter().map(|(_, verdict)| verdict).collect())
}
