//! What the resident form of the weights costs.
//!
//! Three comparisons: label scores of our default form and of candle's default
//! path with candle's where everything is dequantized, on a few rows; our
//! default form with our own f32 form on all rows; and the perplexity of a text
//! in both of our forms.

mod perplexity;
mod rows;
mod scores;
mod statistics;

use std::{io::Write, num::NonZeroUsize, path::PathBuf};

use anyhow::Context;
use clap::Args;
use inwarden_inference::{LoadOptions, Qwen2, WeightForm};
use serde_json::{Map, Value, json};

use self::{
    rows::Row,
    scores::{Scored, by_candle, by_ours},
    statistics::{Differences, area_under_curve, flips},
};
use crate::{candle_qwen2::Products, machine, model_files::ModelChoice};

/// The share of benign rows above the threshold at which flips are counted.
const FALSE_POSITIVES: f64 = 0.03;

#[derive(Args, Debug)]
pub(crate) struct AccuracyOptions {
    #[command(flatten)]
    model: ModelChoice,
    /// Labelled processes, one JSON object a line: `argv`, `label` ("benign" or
    /// "malicious"), and `parent` where it is known.
    #[arg(long, value_name = "FILE")]
    rows: PathBuf,
    /// Threads; default: all.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Only so many rows, spread over the file.
    #[arg(long)]
    limit: Option<usize>,
    /// Rows that candle judges, too, spread over the file; 0 leaves it out.
    #[arg(long, default_value_t = 20)]
    candle_rows: usize,
    /// Windows of 256 tokens whose perplexity is taken; default: the whole text.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    windows: usize,
    /// Write the figures as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(options: &AccuracyOptions) -> anyhow::Result<()> {
    let rows = rows::read(&options.rows).with_context(|| {
        format!(
            "NOTHING WAS COMPARED: no rows in {}",
            options.rows.display()
        )
    })?;
    let rows = spread(&rows, options.limit.unwrap_or(rows.len()));
    let files = options.model.locate()?;
    let mut load = LoadOptions::default();
    if let Some(threads) = options.threads {
        load.threads = threads;
    }
    let default_form = load.weight_form;
    let judge = |load: &LoadOptions| judge(&files.files, load, &rows, options.windows);
    let (ours, perplexity) = judge(&load)?;
    load.weight_form = WeightForm::F32;
    let (exact, exact_perplexity) = judge(&load)?;

    let mut about = files.describe();
    about["machine"] = machine::describe();
    about["weight_form"] = json!(format!("{default_form:?}"));
    let mut figures = json!({
        "schema": "inwarden.bench.accuracy/1",
        "about": about,
        "to_own_f32": to_own_f32(&rows, &ours, &exact),
        "perplexity": {
            "default": perplexity,
            "f32": exact_perplexity,
            "change": perplexity / exact_perplexity - 1.0,
        },
    });
    if options.candle_rows > 0 {
        let few = spread(&(0..rows.len()).collect::<Vec<_>>(), options.candle_rows);
        let few_rows: Vec<Row> = few.iter().map(|&idx| rows[idx].clone()).collect();
        let [file] = &files.files[..] else {
            anyhow::bail!("candle loads models of one file only: --candle-rows 0");
        };
        let tokenizer = Qwen2::load(&files.files, &LoadOptions::default())?;
        let tokenizer = tokenizer.tokenizer();
        progress("candle, everything dequantized");
        let reference = by_candle(file, Products::Exact, tokenizer, &few_rows)?;
        progress("candle, its default path");
        let theirs = by_candle(file, Products::AsInFile, tokenizer, &few_rows)?;
        let some = |all: &[Scored]| few.iter().map(|&idx| all[idx].clone()).collect::<Vec<_>>();
        figures["to_candle_dequantized"] = json!({
            "rows": few.len(),
            "default": Differences::of(&reference, &some(&ours)).json(),
            "f32": Differences::of(&reference, &some(&exact)).json(),
            "candle_default": Differences::of(&reference, &theirs).json(),
        });
    }
    print(&figures)?;
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{figures:#}\n"))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// Scores of `rows` and the perplexity of our text.
fn judge(
    files: &[PathBuf],
    load: &LoadOptions,
    rows: &[Row],
    windows: usize,
) -> anyhow::Result<(Vec<Scored>, f64)> {
    progress(&format!(
        "ours, {:?}, {} rows",
        load.weight_form,
        rows.len()
    ));
    let model = Qwen2::load(files, load)?;
    let scored = by_ours(&model, rows)?;
    progress(&format!("ours, {:?}, perplexity", load.weight_form));
    Ok((scored, perplexity::of(&model, windows)?))
}

fn to_own_f32(rows: &[Row], ours: &[Scored], exact: &[Scored]) -> Value {
    let mut figures = Differences::of(exact, ours).json();
    let log_odds = |scored: &[Scored]| scored.iter().map(Scored::log_odds).collect::<Vec<_>>();
    let (ours, exact) = (log_odds(ours), log_odds(exact));
    let is_malicious: Vec<bool> = rows.iter().map(|row| row.is_malicious).collect();
    let area = area_under_curve(&ours, &is_malicious);
    let exact_area = area_under_curve(&exact, &is_malicious);
    figures["rows"] = json!(rows.len());
    figures["auc"] = json!(area);
    figures["auc_f32"] = json!(exact_area);
    figures["auc_change"] = json!(area - exact_area);
    figures["flips"] = json!(flips(&exact, &ours, &is_malicious, FALSE_POSITIVES));
    figures
}

/// `n` of `items`, evenly spread.
fn spread<T: Clone>(items: &[T], n: usize) -> Vec<T> {
    let n = n.min(items.len());
    (0..n)
        .map(|idx| items[idx * items.len() / n].clone())
        .collect()
}

fn progress(what: &str) {
    // Nobody listens if this is closed.
    let _closed = writeln!(std::io::stderr(), "{what}");
}

fn print(figures: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:#}", figures["about"])?;
    let empty = Map::new();
    let section = |name: &str| figures[name].as_object().unwrap_or(&empty).clone();
    for name in ["to_own_f32", "to_candle_dequantized", "perplexity"] {
        writeln!(out, "{name}")?;
        for (key, value) in section(name) {
            writeln!(out, "  {key:<16} {value}")?;
        }
    }
    Ok(())
}
