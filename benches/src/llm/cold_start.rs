//! From the start of a process to its first verdict, and what it then holds in memory.
//!
//! Measured in processes of their own: this one has loaded models before. A
//! child writes one line after its first verdict and its figures at the end.
//! The first child runs the prefix and saves it, all others read it.

use std::{
    io::{BufRead, BufReader, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, ensure};
use clap::Args;
use inwarden_inference::Fingerprint;
use serde_json::{Value, json};

use super::{
    compare::{BATCH, DECODE_TOKENS, VERDICT_TOKENS},
    options::{EngineOptions, LlmOptions},
    ours::Ours,
};
use crate::{
    machine,
    model_files::{ModelChoice, ModelFiles},
    sample::{Effort, Sample, millis},
    subject::Subject,
    workload::Workload,
};

/// What a child writes once it has its first verdict.
const FIRST_VERDICT: &str = "verdict";

/// Starts with a saved prefix, at most.
const SAVED_RUNS: usize = 5;

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
    /// The SHA-256 of the model's files.
    #[arg(long, value_parser = fingerprint)]
    fingerprint: Fingerprint,
    /// Where the prefix is saved: read if the file is there, written if not.
    #[arg(long)]
    prefix_file: PathBuf,
}

/// What starts cost.
#[derive(Clone, Debug)]
pub(crate) struct ColdStart {
    /// Milliseconds to the first verdict, the prefix read from a file.
    pub(crate) saved_prefix: Sample,
    /// Milliseconds to the first verdict, the prefix run at the start; one start.
    pub(crate) fresh_ms: f64,
    pub(crate) prefix_file_bytes: u64,
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
            "saved_prefix_ms": self.saved_prefix.median(),
            "saved_prefix": self.saved_prefix.figures(),
            "fresh_ms": self.fresh_ms,
            "prefix_file_bytes": self.prefix_file_bytes,
            "repack_cache": false,
            "peak_rss_bytes": self.peak_rss_bytes,
            "prefix_bytes": self.prefix_bytes,
            "model_file_bytes": self.model_file_bytes,
            "peak_rss_by_file": self.memory_ratio(),
        })
    }
}

/// Starts children, with the files in the page cache.
pub(crate) fn measure(
    files: &ModelFiles,
    options: &LlmOptions,
    effort: &Effort,
) -> anyhow::Result<ColdStart> {
    // Reads all of them, so that they are in the page cache afterwards.
    let fingerprint = Fingerprint::of_files(&files.files)?;
    let prefix_file = PrefixFile::new();
    let start = || start(files, options, fingerprint, &prefix_file.0);
    let (fresh_ms, figures) = start()?;
    let prefix_file_bytes = std::fs::metadata(&prefix_file.0)
        .context("the child saved no prefix")?
        .len();
    let effort = Effort {
        runs: effort.runs.min(SAVED_RUNS),
        ..*effort
    };
    let saved_prefix = Sample::of(&effort, || {
        let (saved_ms, loaded) = start()?;
        ensure!(
            loaded["first_verdict"] == figures["first_verdict"],
            "the verdict over a saved prefix is another one"
        );
        Ok(saved_ms)
    })?;
    let bytes = |key: &str| {
        let value = figures[key].as_u64();
        value.with_context(|| format!("the child reported no {key}"))
    };
    Ok(ColdStart {
        saved_prefix,
        fresh_ms,
        prefix_file_bytes,
        peak_rss_bytes: bytes("peak_rss_bytes")?,
        prefix_bytes: bytes("prefix_bytes")?,
        model_file_bytes: files.bytes,
    })
}

/// A file that is gone afterwards.
struct PrefixFile(PathBuf);

impl PrefixFile {
    fn new() -> Self {
        let name = format!("inwarden-bench-{}.prefix", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for PrefixFile {
    fn drop(&mut self) {
        // It may never have been written.
        let _absent = std::fs::remove_file(&self.0);
    }
}

fn start(
    files: &ModelFiles,
    options: &LlmOptions,
    fingerprint: Fingerprint,
    prefix_file: &Path,
) -> anyhow::Result<(f64, Value)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("cold-start");
    for file in &files.files {
        command.arg("--file").arg(file);
    }
    command
        .args(options.engine.arguments())
        .args(["--threads", &options.most_threads().to_string()])
        .args(["--prefix-tokens", &options.longest_prefix().to_string()])
        .args(["--fingerprint", &format!("{fingerprint:?}")])
        .arg("--prefix-file")
        .arg(prefix_file)
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

/// What a child does.
pub(crate) fn start_cold(options: &ColdStartOptions) -> anyhow::Result<()> {
    let files = options.model.locate()?;
    let mut load = options.engine.load_options(options.threads);
    load.fingerprint = Some(options.fingerprint);
    let mut ours = Ours::load_with(&files.files, &load)?;
    let model = ours.model().clone();
    let tokenizer = model.tokenizer();
    let mut workload = Workload::new(tokenizer)?;
    let prefix = workload.prefix(tokenizer, options.prefix_tokens)?;
    let is_saved = options.prefix_file.exists();
    if is_saved {
        ours.load_prefix(&options.prefix_file, &prefix)?;
    } else {
        ours.cache_prefix(&prefix)?;
    }
    let event = workload.event(tokenizer, VERDICT_TOKENS);
    let first_verdict = ours.judge(std::slice::from_ref(&event))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{FIRST_VERDICT}")?;
    out.flush()?;

    let scores = first_verdict.iter().flat_map(|one| &one.log_probabilities);
    let bits: Vec<u64> = scores.map(|score| score.to_bits()).collect();
    let mut figures = json!({ "first_verdict": bits });
    if !is_saved {
        // Everything a served model does, so that all its buffers are counted.
        ours.decode(&event, DECODE_TOKENS)?;
        ours.verdicts(&workload.events(tokenizer, VERDICT_TOKENS, BATCH))?;
        figures["peak_rss_bytes"] = json!(machine::peak_rss_bytes());
        figures["prefix_bytes"] = json!(ours.prefix_bytes());
        ours.save_prefix(&options.prefix_file)?;
    }
    writeln!(out, "{figures}")?;
    Ok(())
}

/// What [`Fingerprint`] writes in hexadecimal digits.
fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() || !text.is_ascii() {
        return Err("expected 64 hexadecimal digits".to_owned());
    }
    for (idx, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * idx..][..2], 16).map_err(|error| error.to_string())?;
    }
    Ok(Fingerprint(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_is_written() {
        let written = Fingerprint(std::array::from_fn(|idx| [0, 9, 0xa0, 0xff][idx % 4]));
        assert_eq!(fingerprint(&format!("{written:?}")).unwrap(), written);
        assert!(fingerprint("00").is_err());
        assert!(fingerprint(&"g".repeat(64)).is_err());
    }
}
