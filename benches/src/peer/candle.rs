//! candle's own Qwen2 in this process, on the same file.
//!
//! It takes as many threads as `RAYON_NUM_THREADS` says; default: all cores.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use inwarden_inference::TokenId;

use crate::{
    candle_qwen2::{Cache, CandleQwen2, Products},
    sample::time_of,
    subject::{Subject, Way},
    workload::{Piece, Question},
};

pub(crate) struct CandlePeer {
    model: CandleQwen2,
    question: Question,
    prefix: Cache,
}

impl CandlePeer {
    pub(crate) fn load(files: &[PathBuf], question: Question) -> anyhow::Result<Self> {
        let [file] = files else {
            anyhow::bail!("candle loads models of one file only");
        };
        Ok(Self {
            model: CandleQwen2::load(file, Products::AsInFile)?,
            question,
            prefix: Cache::default(),
        })
    }

    fn run(&self, event: &Piece) -> anyhow::Result<(Cache, Vec<f32>)> {
        let mut cache = self.prefix.clone();
        let logits = self.model.last_logits(&mut cache, &event.tokens)?;
        Ok((cache, logits))
    }
}

impl Subject for CandlePeer {
    fn name(&self) -> &str {
        "candle"
    }

    fn cache_prefix(&mut self, prefix: &Piece) -> anyhow::Result<()> {
        self.prefix = Cache::default();
        if !prefix.tokens.is_empty() {
            self.model.last_logits(&mut self.prefix, &prefix.tokens)?;
        }
        Ok(())
    }

    fn prefill(&mut self, event: &Piece) -> anyhow::Result<Duration> {
        time_of(|| self.run(event)).map(|(time, _)| time)
    }

    fn decode(&mut self, event: &Piece, n_tokens: usize) -> anyhow::Result<f64> {
        let (mut cache, mut logits) = self.run(event)?;
        let started = Instant::now();
        for _ in 1..n_tokens {
            let next = most_likely(&logits)?;
            logits = self.model.last_logits(&mut cache, &[next])?;
        }
        let steps = n_tokens.saturating_sub(1) as f64;
        Ok(steps / started.elapsed().as_secs_f64())
    }

    fn verdict(&mut self, way: Way, event: &Piece) -> anyhow::Result<Option<Duration>> {
        if way == Way::Constrained {
            return Ok(None);
        }
        let event = event.followed_by(&self.question.before_label);
        let (time, (_, logits)) = time_of(|| self.run(&event))?;
        let is_known = |label: &Vec<TokenId>| logits.get(label[0].0 as usize).is_some();
        ensure!(
            self.question.labels.iter().all(is_known),
            "a label is unknown"
        );
        Ok(Some(time))
    }

    /// It has no batches of unequal lengths.
    fn verdicts(&mut self, events: &[Piece]) -> anyhow::Result<Option<Duration>> {
        let started = Instant::now();
        for event in events {
            self.verdict(Way::OneToken, event)?;
        }
        Ok(Some(started.elapsed()))
    }
}

fn most_likely(logits: &[f32]) -> anyhow::Result<TokenId> {
    let best = (0..).zip(logits).max_by(|a, b| a.1.total_cmp(b.1));
    let (id, _) = best.context("a model without a vocabulary")?;
    Ok(TokenId(id))
}
