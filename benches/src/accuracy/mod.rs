//! What the resident form of the weights, and of keys and values, costs.
//!
//! Label scores of the judged form with those of our own f32 form on all rows;
//! the perplexity of a text in both; and label scores of both, and of candle's
//! default path, with candle's where everything is dequantized, on a few rows.
//! Each is printed as soon as it is known.

mod perplexity;
mod rows;
mod scores;
mod statistics;

use std::{
    io::Write,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use inwarden_inference::{KeyValueForm, LoadOptions, Qwen2, Tokenizer, WeightForm};
use serde_json::{Value, json};

use self::{
    rows::Row,
    scores::{Scored, by_candle, by_ours},
    statistics::{Differences, area_under_curve, flips},
};
use crate::{
    candle_qwen2::Products,
    llm::EngineOptions,
    machine,
    model_files::{ModelChoice, ModelFiles},
};

/// The share of benign rows above the threshold at which flips are counted.
const FALSE_POSITIVES: f64 = 0.03;

#[derive(Args, Debug)]
pub(crate) struct AccuracyOptions {
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    engine: EngineOptions,
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
    /// Write the figures as JSON, too, anew after each comparison.
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
    let threads = options
        .threads
        .unwrap_or_else(|| LoadOptions::default().threads);
    let mut load = options.engine.load_options(threads);
    let ours = judge(&files, &load, &rows, options.windows)?;

    let mut about = files.describe();
    about["machine"] = machine::describe();
    about["variant"] = json!(options.engine.instruction_set());
    about["weight_form"] = json!(format!("{:?}", ours.weight_form));
    about["key_value_form"] = json!(format!("{:?}", ours.key_value_form));
    let mut figures = Figures {
        all: json!({ "schema": "inwarden.bench.accuracy/1", "about": about }),
        file: options.json.as_deref(),
    };
    figures.print("about")?;
    figures.add("perplexity", "default", json!(ours.perplexity))?;

    load.weight_form = WeightForm::F32;
    load.key_value_form = None;
    let exact = judge(&files, &load, &rows, options.windows)?;
    figures.add("perplexity", "f32", json!(exact.perplexity))?;
    let change = ours.perplexity / exact.perplexity - 1.0;
    figures.add("perplexity", "change", json!(change))?;
    figures.all["to_own_f32"] = to_own_f32(&rows, &ours.scored, &exact.scored);
    figures.print("to_own_f32")?;
    if options.candle_rows > 0 {
        let few = spread(&(0..rows.len()).collect::<Vec<_>>(), options.candle_rows);
        compare_with_candle(
            &files,
            &rows,
            &few,
            &[&ours.scored, &exact.scored],
            &mut figures,
        )?;
    }
    Ok(())
}

/// The rows with the indices `few`; `scored`: in our judged form and in f32.
fn compare_with_candle(
    files: &ModelFiles,
    rows: &[Row],
    few: &[usize],
    scored: &[&[Scored]; 2],
    figures: &mut Figures<'_>,
) -> anyhow::Result<()> {
    const SECTION: &str = "to_candle_dequantized";
    let [file] = &files.files[..] else {
        anyhow::bail!("candle loads models of one file only: --candle-rows 0");
    };
    let rows: Vec<Row> = few.iter().map(|&idx| rows[idx].clone()).collect();
    let tokenizer = Tokenizer::from_gguf(&files.files)?;
    progress(&format!(
        "candle, everything dequantized, {} rows",
        rows.len()
    ));
    let reference = by_candle(file, Products::Exact, &tokenizer, &rows)?;
    figures.add(SECTION, "rows", json!(rows.len()))?;
    for (name, scored) in ["default", "f32"].into_iter().zip(scored) {
        let scored: Vec<Scored> = few.iter().map(|&idx| scored[idx].clone()).collect();
        figures.add(SECTION, name, Differences::of(&reference, &scored).json())?;
    }
    progress(&format!("candle, its default path, {} rows", rows.len()));
    let theirs = by_candle(file, Products::AsInFile, &tokenizer, &rows)?;
    let theirs = Differences::of(&reference, &theirs).json();
    figures.add(SECTION, "candle_default", theirs)
}

/// What one form of our engine says.
struct Judged {
    scored: Vec<Scored>,
    /// Of our text.
    perplexity: f64,
    weight_form: WeightForm,
    key_value_form: KeyValueForm,
}

fn judge(
    files: &ModelFiles,
    load: &LoadOptions,
    rows: &[Row],
    windows: usize,
) -> anyhow::Result<Judged> {
    let model = Qwen2::load(&files.files, load)?;
    let (weight_form, key_value_form) = (model.weight_form(), model.key_value_form());
    let form = format!("{weight_form:?}, keys and values {key_value_form:?}");
    progress(&format!("ours, {form}, {} rows", rows.len()));
    let scored = by_ours(&model, rows)?;
    progress(&format!("ours, {form}, perplexity"));
    Ok(Judged {
        scored,
        perplexity: perplexity::of(&model, windows)?,
        weight_form,
        key_value_form,
    })
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
pub(crate) fn spread<T: Clone>(items: &[T], n: usize) -> Vec<T> {
    let n = n.min(items.len());
    (0..n)
        .map(|idx| items[idx * items.len() / n].clone())
        .collect()
}

pub(crate) fn progress(what: &str) {
    // Nobody listens if this is closed.
    let _closed = writeln!(std::io::stderr(), "{what}");
}

/// What is known so far: whoever ends a long run keeps what it has found.
struct Figures<'a> {
    all: Value,
    file: Option<&'a Path>,
}

impl Figures<'_> {
    fn add(&mut self, section: &str, key: &str, value: Value) -> anyhow::Result<()> {
        writeln!(std::io::stdout().lock(), "{section}.{key} {value}")?;
        self.all[section][key] = value;
        self.save()
    }

    /// A section that was set as a whole.
    fn print(&self, section: &str) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        for (key, value) in self.all[section].as_object().into_iter().flatten() {
            writeln!(out, "{section}.{key} {value}")?;
        }
        self.save()
    }

    fn save(&self) -> anyhow::Result<()> {
        let Some(file) = self.file else {
            return Ok(());
        };
        std::fs::write(file, format!("{:#}\n", self.all))
            .with_context(|| format!("{} cannot be written", file.display()))
    }
}
