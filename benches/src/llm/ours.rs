//! This project's engine.

use std::{
    num::NonZeroUsize,
    ops::ControlFlow,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use inwarden_inference::{GenerateOptions, Prefix, Qwen2, Sampling};

use super::options::EngineOptions;
use crate::{
    sample::time_of,
    subject::{Subject, Way},
    workload::{Piece, Question, Workload},
};

/// The name of our engine in the figures.
pub(crate) const NAME: &str = "inwarden";

pub(crate) struct Ours {
    model: Arc<Qwen2>,
    question: Question,
    prefix: Option<Prefix>,
}

impl Ours {
    pub(crate) fn load(
        files: &[PathBuf],
        threads: NonZeroUsize,
        options: &EngineOptions,
    ) -> anyhow::Result<Self> {
        let model = Qwen2::load(files, &options.load_options(threads))?;
        let question = Workload::new(model.tokenizer())?.question().clone();
        Ok(Self {
            model: Arc::new(model),
            question,
            prefix: None,
        })
    }

    pub(crate) fn model(&self) -> &Arc<Qwen2> {
        &self.model
    }

    /// Bytes of the prefix's keys and values.
    pub(crate) fn prefix_bytes(&self) -> usize {
        self.prefix.as_ref().map_or(0, Prefix::size_bytes)
    }

    fn prefix(&self) -> anyhow::Result<&Prefix> {
        self.prefix.as_ref().context("no prefix was cached")
    }
}

impl Subject for Ours {
    fn name(&self) -> &str {
        NAME
    }

    fn cache_prefix(&mut self, prefix: &Piece) -> anyhow::Result<()> {
        self.prefix = Some(self.model.prefix(&prefix.tokens)?);
        Ok(())
    }

    fn prefill(&mut self, event: &Piece) -> anyhow::Result<Duration> {
        let prefix = self.prefix()?;
        time_of(|| Ok(self.model.logits(Some(prefix), &event.tokens)?)).map(|(time, _)| time)
    }

    fn decode(&mut self, event: &Piece, n_tokens: usize) -> anyhow::Result<f64> {
        let options = GenerateOptions {
            max_new_tokens: n_tokens,
            sampling: Sampling::Greedy,
            stop: Vec::new(),
        };
        let mut first = None;
        let prefix = self.prefix()?;
        self.model
            .generate(Some(prefix), &event.tokens, &options, &mut |_| {
                first.get_or_insert_with(Instant::now);
                ControlFlow::Continue(())
            })?;
        let steps = n_tokens.saturating_sub(1) as f64;
        Ok(steps / first.context("no token came")?.elapsed().as_secs_f64())
    }

    /// One pass that scores every label in full; there is nothing to constrain.
    fn verdict(&mut self, way: Way, event: &Piece) -> anyhow::Result<Option<Duration>> {
        if way == Way::Constrained {
            return Ok(None);
        }
        let started = Instant::now();
        let event = event.followed_by(&self.question.before_label);
        self.model
            .score_labels(self.prefix()?, &event.tokens, &self.question.labels)?;
        Ok(Some(started.elapsed()))
    }

    fn verdicts(&mut self, events: &[Piece]) -> anyhow::Result<Option<Duration>> {
        let started = Instant::now();
        for event in events {
            self.verdict(Way::OneToken, event)?;
        }
        Ok(Some(started.elapsed()))
    }
}
