//! Fits `data/weights.toml` on `data/calibration.jsonl`.
//!
//! Needs the models in `$INWARDEN_MODELS` (default `~/.cache/inwarden/models`).
//! Usage: `fit_calibration ANSWERS.tsv [ROWS] [MODEL_ID]`. The judge's answers are
//! kept in the first argument: an interrupted run goes on, a second one only
//! fits. ROWS asks the judge about that many rows, evenly spread (default all).
//!
//! Expected output: recall and false positives, the thresholds, and where the
//! weights were written. What these numbers are:
//!
//! * Without the judge, a row's score comes from weights fitted without the row's
//!   tenth of the rows. The tenths are dealt by row, not by family: rows that
//!   resemble it were fitted on.
//! * With the judge, its three numbers (how much the others count, how much the
//!   judge, the intercept) are fitted on the very rows they score: in-sample.
//! * Thresholds are chosen on the scores they are reported for.
//!
//! So they are a sanity check. The measure of quality is a corpus that took no
//! part in any of this.

#![expect(
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "this program prints a report over a few thousand rows"
)]

use std::{env, fs, io::Write as _, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use inwarden_classifier::{
    Calibration, Classifier, ClassifierConfig, FitRow, Judge, MiniLmEmbed, Parts, Prompt,
    QwenJudge, RuleSet, Weights, add_judge, calibration_rows, fit_weights, grouped_scores,
    render_case, seed_memory,
};
use inwarden_inference::{Embedder, LoadOptions, Qwen2, Scheduler, SchedulerConfig};
use inwarden_memory::{Embed, Memory};
use inwarden_types::Label;

const L2: f64 = 0.001;
const FOLDS: usize = 10;
/// Precedents nearer than this do not vote for a calibration row: new cases have
/// no twin in the store, so the weight of a vote must not be learnt from twins.
const TWIN_COSINE: f64 = 0.9;

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let answers_file = args
        .next()
        .context("usage: fit_calibration ANSWERS.tsv [ROWS] [MODEL_ID]")?;
    let n_rows: usize = args.next().map_or(Ok(usize::MAX), |text| text.parse())?;
    let model_id = args
        .next()
        .unwrap_or_else(|| "qwen2.5-coder-0.5b-instruct-q4_k_m".to_owned());
    let models = match env::var_os("INWARDEN_MODELS") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?)
            .join(".cache/inwarden/models"),
    };
    let gguf = models.join(&model_id).join(format!("{model_id}.gguf"));
    // Without rows for the judge, its weights stay as they are.
    let judge = match n_rows {
        0 => None,
        _ => {
            let model = Arc::new(Qwen2::load(&[gguf], &LoadOptions::default())?);
            let scheduler = Arc::new(Scheduler::start(model, SchedulerConfig::default())?);
            Some(QwenJudge::new(scheduler, &model_id, &Prompt::shipped())?)
        }
    };
    let minilm = Embedder::load(&models.join("all-minilm-l6-v2"))?;
    let embed = Arc::new(MiniLmEmbed::new(minilm, "all-minilm-l6-v2"));
    let memory = Arc::new(Memory::ephemeral(embed.clone())?);
    seed_memory(&memory)?;
    let config = ClassifierConfig::shipped()?;
    let parts = Parts {
        judge: None,
        memory: Some(memory),
        rules: Some(Arc::new(RuleSet::shipped()?)),
    };
    let classifier = Classifier::new(config.clone(), parts)?;

    let answers = fs::read_to_string(&answers_file).unwrap_or_default();
    let mut answers_file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&answers_file)?;
    let all = calibration_rows()?;
    let stride = all.len().div_ceil(n_rows.clamp(1, all.len()));
    let mut rows = Vec::new();
    for (idx, row) in all.iter().enumerate() {
        let mut signals = classifier.signals(&row.case(), &|hit| hit.score > TWIN_COSINE);
        // Only the judge is slow: its answer is taken from the file if it is there.
        signals.judge = answers
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .find_map(|(id, answer)| (id == row.id).then(|| answer.parse().ok())?);
        if let Some(judge) = &judge
            && signals.judge.is_none()
            && idx % stride == 0
        {
            let answer = judge.judge(&render_case(&row.case()))?.log_odds;
            writeln!(answers_file, "{}\t{answer}", row.id)?;
            signals.judge = Some(answer);
        }
        let malicious = row.label() == Label::Malicious;
        rows.push(FitRow {
            signals,
            malicious,
            group: row.id.clone(),
        });
    }
    let others = grouped_scores(&rows, L2, FOLDS);
    let base = fit_weights(&rows, L2);
    let mut calibration = Calibration {
        embedder: embed.identity(),
        without_judge: with_thresholds("without judge", base.clone(), &rows, &others),
        ..config.calibration
    };
    if let Some(judge) = &judge {
        let (judged, others): (Vec<FitRow>, Vec<f64>) = rows
            .iter()
            .cloned()
            .zip(others)
            .filter(|(row, _)| row.signals.judge.is_some())
            .unzip();
        let (weights, scores) = add_judge(&base, &judged, &others, L2);
        let n_malicious = judged.iter().filter(|row| row.malicious).count();
        calibration.judge = judge.identity();
        calibration.prior = n_malicious as f64 / judged.len() as f64;
        calibration.rows = judged.len();
        calibration.with_judge = with_thresholds("with judge", weights, &judged, &scores);
        with_thresholds("the same rows without", base, &judged, &others);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/weights.toml");
    fs::write(path, calibration.to_text()?)?;
    println!("written: {path}");
    Ok(())
}

/// Sets the thresholds from `scores`, and prints what they do on the same rows.
fn with_thresholds(name: &str, weights: Weights, rows: &[FitRow], scores: &[f64]) -> Weights {
    let of = |malicious: bool| -> Vec<f64> {
        let mut picked: Vec<f64> = rows
            .iter()
            .zip(scores)
            .filter(|(row, _)| row.malicious == malicious)
            .map(|(_, score)| 1.0 / (1.0 + (-score).exp()))
            .collect();
        picked.sort_by(f64::total_cmp);
        picked
    };
    let (attacks, ordinary) = (of(true), of(false));
    let above =
        |set: &[f64], at: f64| set.iter().filter(|p| **p >= at).count() as f64 / set.len() as f64;
    for share in [0.005, 0.01, 0.03, 0.05] {
        let at = quantile(&ordinary, 1.0 - share) + 1e-9;
        println!(
            "{name}: recall {:.3} at {share} false positives (score {at:.3})",
            above(&attacks, at)
        );
    }
    // One in 200 ordinary rows may be called malicious, one in 20 attacks benign.
    let malicious = (quantile(&ordinary, 0.995) + 0.01).clamp(0.75, 0.99);
    let benign = quantile(&attacks, 0.05).clamp(0.02, 0.3);
    println!(
        "{name}: malicious from {malicious:.3}: recall {:.3}, false positives {:.4}; benign up to {benign:.3}: {:.3} of ordinary, {:.3} of attacks",
        above(&attacks, malicious),
        above(&ordinary, malicious),
        1.0 - above(&ordinary, benign),
        1.0 - above(&attacks, benign),
    );
    Weights {
        malicious_threshold: (malicious * 1e3).round() / 1e3,
        benign_threshold: (benign * 1e3).round() / 1e3,
        ..weights
    }
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let idx = ((sorted.len() - 1) as f64 * share).ceil() as usize;
    sorted[idx]
}
