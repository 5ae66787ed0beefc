//! Measures the shipped classifier on labelled program starts.
//!
//! Usage: `measure ROWS.jsonl [ROWS]`; a row has `id`, `label` (`malicious` or
//! another), `argv`, `parent`, and `tier` for the table only. `WITHOUT` in the
//! environment may name `judge`, `memory` and `rules`, separated by commas. Needs
//! the models in `$INWARDEN_MODELS` (default `~/.cache/inwarden/models`).
//!
//! Expected output: AUC and recall at 1 % and 3 % false positives by tier, labels
//! at the shipped thresholds, what settled the rows, time per stage.

#![expect(
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "this program prints a report over a few thousand rows"
)]

use std::{collections::BTreeMap, env, fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use inwarden_classifier::{
    Classifier, ClassifierConfig, Judge, MiniLmEmbed, Parts, Prompt, QwenJudge, RuleSet, exec_case,
    seed_memory,
};
use inwarden_inference::{Embedder, LoadOptions, Qwen2, Scheduler, SchedulerConfig};
use inwarden_memory::Memory;
use inwarden_types::{Stage, Verdict};
use serde_json::Value;

const MODEL_ID: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m";

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let rows = fs::read_to_string(args.next().context("usage: measure ROWS.jsonl [ROWS]")?)?;
    let rows: Vec<Value> = rows
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let n_rows = args
        .next()
        .map_or(Ok(rows.len()), |text| text.parse())?
        .min(rows.len());
    let classifier = classifier()?;
    let mut scored = Vec::new();
    for row in (0..n_rows).map(|n| &rows[n * rows.len() / n_rows]) {
        let argv: Vec<String> = serde_json::from_value(row["argv"].clone())?;
        let parent: Vec<String> = row["parent"]
            .as_str()
            .map(str::to_owned)
            .into_iter()
            .collect();
        let id = row["id"].as_str().unwrap_or_default();
        let verdict = classifier.classify(&exec_case(id, argv, &parent));
        if env::var_os("SCORES").is_some() {
            let (label, score) = (verdict.label.name(), verdict.score.probability());
            println!(
                "{id}\t{}\t{label}\t{score:.4}\t{:?}",
                row["label"], verdict.settled_by
            );
        }
        scored.push((row, verdict));
    }
    report(&scored);
    Ok(())
}

fn classifier() -> Result<Classifier> {
    let without = env::var("WITHOUT").unwrap_or_default();
    let models = match env::var_os("INWARDEN_MODELS") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?)
            .join(".cache/inwarden/models"),
    };
    let mut parts = Parts::default();
    if !without.contains("judge") {
        let gguf = models.join(MODEL_ID).join(format!("{MODEL_ID}.gguf"));
        let model = Arc::new(Qwen2::load(&[gguf], &LoadOptions::default())?);
        let scheduler = Arc::new(Scheduler::start(model, SchedulerConfig::default())?);
        let judge = QwenJudge::new(scheduler, MODEL_ID, &Prompt::shipped())?;
        let judge: Arc<dyn Judge> = Arc::new(judge);
        parts.judge = Some(judge);
    }
    if !without.contains("memory") {
        let minilm = Embedder::load(&models.join("all-minilm-l6-v2"))?;
        let memory = Memory::ephemeral(Arc::new(MiniLmEmbed::new(minilm, "all-minilm-l6-v2")))?;
        seed_memory(&memory)?;
        parts.memory = Some(Arc::new(memory));
    }
    if !without.contains("rules") {
        parts.rules = Some(Arc::new(RuleSet::shipped()?));
    }
    Ok(Classifier::new(ClassifierConfig::shipped()?, parts)?)
}

fn report(scored: &[(&Value, Verdict)]) {
    let is_attack = |row: &Value| row["label"] == "malicious";
    let ordinary: Vec<f64> = scored
        .iter()
        .filter(|(row, _)| !is_attack(row))
        .map(|(_, verdict)| verdict.score.probability())
        .collect();
    let mut tiers: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (row, verdict) in scored.iter().filter(|(row, _)| is_attack(row)) {
        for tier in ["all", row["tier"].as_str().unwrap_or("untiered")] {
            let scores = tiers.entry(tier.to_owned()).or_default();
            scores.push(verdict.score.probability());
        }
    }
    for (tier, attacks) in &tiers {
        println!(
            "{tier}: {} attacks, AUC {:.3}, recall at 1 % {:.3}, at 3 % {:.3}",
            attacks.len(),
            auc(attacks, &ordinary),
            recall_at(attacks, &ordinary, 0.01),
            recall_at(attacks, &ordinary, 0.03)
        );
    }
    let mut counts: BTreeMap<(bool, &str, &str), usize> = BTreeMap::new();
    for (row, verdict) in scored {
        let key = (
            is_attack(row),
            verdict.label.name(),
            verdict.settled_by.name(),
        );
        *counts.entry(key).or_default() += 1;
    }
    for ((attack, label, settled_by), count) in counts {
        let truth = if attack { "attack" } else { "ordinary" };
        println!("{truth} called {label} by {settled_by}: {count}");
    }
    for stage in [Stage::Screen, Stage::Precedents, Stage::Judge] {
        let mut times: Vec<Duration> = scored
            .iter()
            .map(|(_, verdict)| verdict.stages.of(stage))
            .filter(|time| *time > Duration::ZERO)
            .collect();
        times.sort();
        if let (Some(p50), Some(p95)) = (
            times.get(times.len() / 2),
            times.get(times.len() * 95 / 100),
        ) {
            println!(
                "{}: {} rows, p50 {p50:?}, p95 {p95:?}",
                stage.name(),
                times.len()
            );
        }
    }
}

/// The probability that an attack scores above an ordinary row; ties count half.
fn auc(attacks: &[f64], ordinary: &[f64]) -> f64 {
    let wins: f64 = attacks
        .iter()
        .flat_map(|a| {
            ordinary
                .iter()
                .map(move |o| f64::from(u8::from(a > o)) + 0.5 * f64::from(u8::from(a == o)))
        })
        .sum();
    wins / (attacks.len() * ordinary.len()).max(1) as f64
}

/// Recall at the lowest threshold that at most `share` of the ordinary rows meet.
fn recall_at(attacks: &[f64], ordinary: &[f64], share: f64) -> f64 {
    let mut sorted = ordinary.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let allowed = (ordinary.len() as f64 * share) as usize;
    let above = sorted.get(allowed).copied().unwrap_or(-1.0);
    attacks.iter().filter(|score| **score > above).count() as f64 / attacks.len().max(1) as f64
}
