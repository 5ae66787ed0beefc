//! From the start of a process to its first verdict, and what it then holds in memory.
//!
//! Measured in a process of its own: this one has loaded models before. The
//! child writes one line after its first verdict and its figures at the end.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    num::NonZeroUsize,
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::{
    compare::{BATCH, DECODE_TOKENS, VERDICT_TOKENS},
    options::{EngineOptions, LlmOptions},
    ours::Ours,
};
use crate::{
    machine,
    model_files::{ModelChoice, ModelFiles},
    sample::millis,
    subject::{Subject, Way},
    workload::Workload,
};

/// What a child writes once it has its first verdict.
const FIRST_VERDICT: &str = "verdict";

#[derive(Args, Debug)]
pub(crate) struct ColdStartOptions {
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    engine: EngineOptions,
    #[arg(long)]
    threads: NonZeroUsize,
    #[arg(long)]
    prefix_tokens: usize,
}

/// What starts cost.
#[derive(Clone, Debug)]
pub(crate) struct ColdStart {
    /// Milliseconds to the first verdict, the prefix run at the start.
    pub(crate) fresh_ms: f64,
    /// As the child reports it, after a verdict, decoding and a batch.
    pub(crate) peak_rss_bytes: u64,
    pub(crate) prefix_bytes: u64,
    pub(crate) model_file_bytes: u64,
}

impl ColdStart {
    /// Peak memory without the prefix's keys and values, by the size of the file.
    pub(crate) fn memory_ratio(&self) -> f64 {
        let without_prefix = self.peak_rss_bytes.saturating_sub(self.prefix_bytes);
        without_prefix as f64 / self.model_file_bytes as f64
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "fresh_ms": self.fresh_ms,
            "peak_rss_bytes": self.peak_rss_bytes,
            "prefix_bytes": self.prefix_bytes,
            "model_file_bytes": self.model_file_bytes,
            "peak_rss_by_file": self.memory_ratio(),
        })
    }
}

/// Starts a child, with the files in the page cache.
pub(crate) fn measure(files: &ModelFiles, options: &LlmOptions) -> anyhow::Result<ColdStart> {
    for file in &files.files {
        std::io::copy(&mut File::open(file)?, &mut std::io::sink())?;
    }
    let (fresh_ms, figures) = start(files, options)?;
    let bytes = |key: &str| {
        let value = figures[key].as_u64();
        value.with_context(|| format!("the child reported no {key}"))
    };
    Ok(ColdStart {
        fresh_ms,
        peak_rss_bytes: bytes("peak_rss_bytes")?,
        prefix_bytes: bytes("prefix_bytes")?,
        model_file_bytes: files.bytes,
    })
}

fn start(files: &ModelFiles, options: &LlmOptions) -> anyhow::Result<(f64, Value)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("cold-start");
    for file in &files.files {
        command.arg("--file").arg(file);
    }
    command
        .args(options.engine.arguments())
        .args(["--threads", &options.most_threads().to_string()])
        .args(["--prefix-tokens", &options.longest_prefix().to_string()])
        .stdout(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn()?;
    let answer = read(&mut child, started);
    let status = child.wait()?;
    ensure!(status.success(), "the child that starts cold failed");
    answer
}

fn read(child: &mut Child, started: Instant) -> anyhow::Result<(f64, Value)> {
    let output = child.stdout.take().context("the child's output is piped")?;
    let mut lines = BufReader::new(output).lines();
    let first = lines.next().context("the child ended without a word")??;
    let time = millis(started.elapsed());
    ensure!(first == FIRST_VERDICT, "the child wrote {first:?}");
    let figures = lines.next().context("the child gave no figures")??;
    Ok((time, serde_json::from_str(&figures)?))
}

/// What the child does.
pub(crate) fn start_cold(options: &ColdStartOptions) -> anyhow::Result<()> {
    let files = options.model.locate()?;
    let mut ours = Ours::load(&files.files, options.threads, &options.engine)?;
    let model = ours.model().clone();
    let tokenizer = model.tokenizer();
    let mut workload = Workload::new(tokenizer)?;
    let prefix = workload.prefix(tokenizer, options.prefix_tokens)?;
    ours.cache_prefix(&prefix)?;
    let event = workload.event(tokenizer, VERDICT_TOKENS);
    ours.verdict(Way::OneToken, &event)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{FIRST_VERDICT}")?;
    out.flush()?;

    // Everything a served model does, so that all its buffers are counted.
    ours.decode(&event, DECODE_TOKENS)?;
    ours.verdicts(&workload.events(tokenizer, VERDICT_TOKENS, BATCH))?;
    let figures = json!({
        "peak_rss_bytes": machine::peak_rss_bytes(),
        "prefix_bytes": ours.prefix_bytes(),
    });
    writeln!(out, "{figures}")?;
    Ok(())
}
