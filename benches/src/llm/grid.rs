//! Ours by event length, prefix length, batch size and thread count.

use serde_json::{Value, json};

use super::{options::LlmOptions, ours::Ours};
use crate::{
    model_files::ModelFiles,
    sample::{Effort, Sample, millis},
    subject::{Subject, Way},
    workload::Workload,
};

/// One combination.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) threads: usize,
    pub(crate) prefix_tokens: usize,
    pub(crate) event_tokens: usize,
    pub(crate) batch: usize,
    /// Tokens per second; empty for batches.
    pub(crate) prefill: Sample,
    /// Milliseconds until every event of the batch has its verdict.
    pub(crate) verdict: Sample,
}

impl Cell {
    pub(crate) fn verdicts_per_s(&self) -> f64 {
        self.batch as f64 * 1e3 / self.verdict.median()
    }

    pub(crate) fn json(&self) -> Value {
        let mut cell = json!({
            "threads": self.threads,
            "prefix_tokens": self.prefix_tokens,
            "event_tokens": self.event_tokens,
            "batch": self.batch,
            "verdict_ms": self.verdict.figures(),
            "verdicts_per_s": self.verdicts_per_s(),
        });
        if !self.prefill.is_empty() {
            cell["prefill_tokens_per_s"] = self.prefill.figures();
        }
        cell
    }
}

/// Every event length with every prefix length, one by one; batches over the
/// longest prefix.
pub(crate) fn run(
    files: &ModelFiles,
    options: &LlmOptions,
    effort: &Effort,
) -> anyhow::Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for threads in options.threads() {
        let mut ours = Ours::load(&files.files, threads, &options.engine)?;
        for prefix_tokens in options.prefixes() {
            let mut workload = Workload::new(ours.model().tokenizer())?;
            let prefix = workload.prefix(ours.model().tokenizer(), prefix_tokens)?;
            ours.cache_prefix(&prefix)?;
            for batch in options.batches() {
                if batch > 1 && prefix_tokens < options.longest_prefix() {
                    continue;
                }
                for event_tokens in options.events() {
                    let (prefill, verdict) =
                        cell(&mut ours, &mut workload, event_tokens, batch, effort)?;
                    cells.push(Cell {
                        threads: threads.get(),
                        prefix_tokens,
                        event_tokens,
                        batch,
                        prefill,
                        verdict,
                    });
                }
            }
        }
    }
    Ok(cells)
}

fn cell(
    ours: &mut Ours,
    workload: &mut Workload,
    event_tokens: usize,
    batch: usize,
    effort: &Effort,
) -> anyhow::Result<(Sample, Sample)> {
    let model = ours.model().clone();
    let tokenizer = model.tokenizer();
    let mut events = || workload.events(tokenizer, event_tokens, batch);
    if batch > 1 {
        let verdict = Sample::of(effort, || {
            let time = ours.verdicts(&events())?;
            Ok(time.map_or(f64::NAN, millis))
        })?;
        return Ok((Sample::default(), verdict));
    }
    let prefill = Sample::of(effort, || {
        let time = ours.prefill(&events()[0])?;
        Ok(event_tokens as f64 / time.as_secs_f64())
    })?;
    let verdict = Sample::of(effort, || {
        let time = ours.verdict(Way::OneToken, &events()[0])?;
        Ok(time.map_or(f64::NAN, millis))
    })?;
    Ok((prefill, verdict))
}
