//! The model by itself.

use std::{
    io::Write,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use anyhow::Context;
use inwarden_inference::{GenerateOptions, LoadOptions, Prefix, Qwen2, Sampling, TokenId};
use inwarden_models::{CacheDirQuery, ModelCache, default_cache_dir};
use serde_json::{Value, json};

use crate::{LlmOptions, machine, sample::Sample};

/// The cached prefix of the verdict measurement, in tokens.
const PREFIX_TOKENS: usize = 1_000;

/// The lengths of the events that are prefilled and judged, in tokens.
const EVENT_TOKENS: [usize; 3] = [32, 64, 128];

/// Tokens that are decoded.
const DECODED_TOKENS: usize = 32;

/// The labels of the verdict measurement.
const LABELS: [&str; 4] = ["benign", "suspicious", "malicious", "unknown"];

pub(crate) fn run(options: &LlmOptions) -> anyhow::Result<()> {
    let dir = default_cache_dir(CacheDirQuery {
        inwarden_models: std::env::var_os("INWARDEN_MODELS"),
        xdg_cache_home: std::env::var_os("XDG_CACHE_HOME"),
        home: std::env::var_os("HOME"),
    });
    let cache = ModelCache::at(dir.context("set INWARDEN_MODELS or HOME")?);
    let files = cache.locate(&options.model)?;
    let mut load = LoadOptions::default();
    if let Some(threads) = options.threads {
        load.threads = threads;
    }
    let started = Instant::now();
    let model = Qwen2::load(&files.files, &load)?;
    let bench = Bench {
        text: tokens_of(&model)?,
        runs: options.runs,
        model: &model,
    };
    let prefix = model.prefix(&bench.text[..PREFIX_TOKENS])?;
    bench.verdict(&prefix, EVENT_TOKENS[0])?;
    let cold_start = started.elapsed();

    let mut rows = Vec::new();
    for tokens in EVENT_TOKENS {
        let prefill = bench.prefill(&prefix, tokens)?;
        let verdict = Sample::of(bench.runs, || bench.verdict(&prefix, tokens))?;
        rows.push(Row {
            tokens,
            prefill,
            verdict,
        });
    }
    let decode = bench.decode(&prefix)?;
    let hashes: Vec<String> = files.sha256.iter().map(ToString::to_string).collect();
    let about = json!({
        "machine": machine::describe(),
        "model": options.model,
        "model_sha256": hashes,
        "threads": load.threads.get(),
        "runs": options.runs,
        "prefix_tokens": PREFIX_TOKENS,
    });
    let figures = figures(&about, &rows, &decode, cold_start);
    print(&about, &rows, &decode, &figures)?;
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{figures:#}\n"))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// What was measured at one event length.
struct Row {
    tokens: usize,
    prefill: Sample,
    verdict: Sample,
}

struct Bench<'a> {
    model: &'a Qwen2,
    text: Vec<TokenId>,
    runs: usize,
}

impl Bench<'_> {
    /// Prefill of `tokens` over the cached prefix.
    fn prefill(&self, prefix: &Prefix, tokens: usize) -> anyhow::Result<Sample> {
        let event = &self.text[PREFIX_TOKENS..PREFIX_TOKENS + tokens];
        Sample::of(self.runs, || {
            self.model.extend(prefix, event)?;
            Ok(())
        })
    }

    /// One label verdict over the cached prefix, in the form the classifier asks:
    /// one pass, all labels scored.
    fn verdict(&self, prefix: &Prefix, tokens: usize) -> anyhow::Result<()> {
        let event = &self.text[PREFIX_TOKENS..PREFIX_TOKENS + tokens];
        let labels = LABELS
            .iter()
            .map(|label| self.model.tokenizer().encode_text(label))
            .collect::<Result<Vec<_>, _>>()?;
        self.model.score_labels(prefix, event, &labels)?;
        Ok(())
    }

    /// Greedy decoding of [`DECODED_TOKENS`] after the prefix.
    fn decode(&self, prefix: &Prefix) -> anyhow::Result<Sample> {
        let first = &self.text[PREFIX_TOKENS..=PREFIX_TOKENS];
        let options = GenerateOptions {
            max_new_tokens: DECODED_TOKENS,
            sampling: Sampling::Greedy,
            stop: Vec::new(),
        };
        Sample::of(self.runs, || {
            self.model
                .generate(Some(prefix), first, &options, &mut |_| {
                    ControlFlow::Continue(())
                })?;
            Ok(())
        })
    }
}

/// Enough text for a prefix and the longest event, from a fixed paragraph.
fn tokens_of(model: &Qwen2) -> anyhow::Result<Vec<TokenId>> {
    const TEXT: &str = "The service writes its report to /srv/data/report.json at 07:30, \
        asks http://127.0.0.1:8080/health, and packs yesterday's logs with tar -czf. ";
    let needed = PREFIX_TOKENS + EVENT_TOKENS[EVENT_TOKENS.len() - 1];
    let mut tokens = Vec::new();
    while tokens.len() < needed {
        tokens.extend(model.tokenizer().encode_text(TEXT)?);
    }
    Ok(tokens)
}

fn rate(tokens: usize, time: Duration) -> f64 {
    tokens as f64 / time.as_secs_f64()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn figures(about: &Value, rows: &[Row], decode: &Sample, cold_start: Duration) -> Value {
    let by_length: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "event_tokens": row.tokens,
                "prefill_tokens_per_s": rate(row.tokens, row.prefill.median()),
                "prefill_tokens_per_s_min": rate(row.tokens, row.prefill.slowest()),
                "prefill_tokens_per_s_max": rate(row.tokens, row.prefill.fastest()),
                "verdict_ms": {
                    "p50": millis(row.verdict.median()),
                    "p95": millis(row.verdict.percentile(95)),
                    "min": millis(row.verdict.fastest()),
                    "max": millis(row.verdict.slowest()),
                },
            })
        })
        .collect();
    let longest = &rows[rows.len() - 1];
    let usual = rows.iter().find(|row| row.tokens == 64).unwrap_or(longest);
    json!({
        "about": about,
        "prefill_tokens_per_s": rate(longest.tokens, longest.prefill.median()),
        "decode_tokens_per_s": rate(DECODED_TOKENS, decode.median()),
        "verdict_ms": {
            "p50": millis(usual.verdict.median()),
            "p95": millis(usual.verdict.percentile(95)),
        },
        "verdicts_per_s": 1.0 / usual.verdict.median().as_secs_f64(),
        "peak_rss_bytes": machine::peak_rss_bytes(),
        "cold_start_ms": millis(cold_start),
        "by_event_length": by_length,
    })
}

fn print(about: &Value, rows: &[Row], decode: &Sample, figures: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{about:#}")?;
    writeln!(
        out,
        "{:>12} {:>28} {:>30}",
        "event", "prefill tok/s", "verdict ms"
    )?;
    for row in rows {
        writeln!(
            out,
            "{:>12} {:>10.1} ({:.1} to {:.1}) {:>12.1} ({:.1} to {:.1})",
            format!("{} tokens", row.tokens),
            rate(row.tokens, row.prefill.median()),
            rate(row.tokens, row.prefill.slowest()),
            rate(row.tokens, row.prefill.fastest()),
            millis(row.verdict.median()),
            millis(row.verdict.fastest()),
            millis(row.verdict.slowest()),
        )?;
    }
    writeln!(
        out,
        "decode {:.1} tok/s ({:.1} to {:.1}), verdicts/s {:.2}, cold start {:.0} ms, peak {} MB",
        rate(DECODED_TOKENS, decode.median()),
        rate(DECODED_TOKENS, decode.slowest()),
        rate(DECODED_TOKENS, decode.fastest()),
        figures["verdicts_per_s"].as_f64().unwrap_or_default(),
        figures["cold_start_ms"].as_f64().unwrap_or_default(),
        machine::peak_rss_bytes().unwrap_or(0) / 1_000_000,
    )?;
    Ok(())
}
