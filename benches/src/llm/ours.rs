//! This project's engine.

use std::{
    num::NonZeroUsize,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use inwarden_inference::{
    GenerateOptions, LabelRequest, LabelScores, LoadOptions, Normalization, Prefix, PreparedLabels,
    Qwen2, Sampling, TokenId,
};

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
    /// Those of the question, which compete with each other alone.
    labels: Arc<PreparedLabels>,
    prefix: Option<Prefix>,
}

impl Ours {
    pub(crate) fn load(
        files: &[PathBuf],
        threads: NonZeroUsize,
        options: &EngineOptions,
    ) -> anyhow::Result<Self> {
        Self::load_with(files, &options.load_options(threads))
    }

    pub(crate) fn load_with(files: &[PathBuf], options: &LoadOptions) -> anyhow::Result<Self> {
        let model = Qwen2::load(files, options)?;
        let question = Workload::new(model.tokenizer())?.question().clone();
        let closed = Normalization::LegalTokens { terminator: None };
        let labels = model.prepare_labels(&question.labels, closed)?;
        Ok(Self {
            model: Arc::new(model),
            question,
            labels,
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

    pub(super) fn save_prefix(&self, path: &Path) -> anyhow::Result<()> {
        Ok(self.model.save_prefix(self.prefix()?, None, path)?)
    }

    /// In place of [`Subject::cache_prefix`]: what [`Self::save_prefix`] wrote.
    pub(super) fn load_prefix(&mut self, path: &Path, expected: &Piece) -> anyhow::Result<()> {
        let prefix = self.model.load_prefix(path)?.prefix;
        ensure!(
            prefix.tokens() == expected.tokens,
            "{} holds another prefix",
            path.display()
        );
        self.prefix = Some(prefix);
        Ok(())
    }

    fn prefix(&self) -> anyhow::Result<&Prefix> {
        self.prefix.as_ref().context("no prefix was cached")
    }

    /// The verdicts of `events`, all of them handed over in one call.
    pub(super) fn judge(&self, events: &[Piece]) -> anyhow::Result<Vec<LabelScores>> {
        let before_label = &self.question.before_label.tokens;
        let suffixes: Vec<Vec<TokenId>> = events
            .iter()
            .map(|event| [&event.tokens[..], before_label].concat())
            .collect();
        let prefix = self.prefix()?;
        let requests: Vec<LabelRequest<'_>> = suffixes
            .iter()
            .map(|suffix| LabelRequest {
                prefix,
                suffix,
                labels: &self.labels,
                hidden: None,
            })
            .collect();
        Ok(self.model.score_labels_batch(&requests)?)
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
        let (time, _) = time_of(|| self.judge(std::slice::from_ref(event)))?;
        Ok(Some(time))
    }

    fn verdicts(&mut self, events: &[Piece]) -> anyhow::Result<Option<Duration>> {
        let (time, _) = time_of(|| self.judge(events))?;
        Ok(Some(time))
    }
}
