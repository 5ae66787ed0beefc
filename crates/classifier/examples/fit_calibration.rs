//! Learns the shipped head, words and weights of a question from the shipped rows.
//!
//! Needs the models in `$INWARDEN_MODELS` (default `~/.cache/inwarden/models`).
//! Usage: `fit_calibration STATES_DIR SECONDS MODEL_ID QUESTION ROWS.jsonl...`.
//! Hidden states are kept in STATES_DIR: a run that is cut off, or whose SECONDS
//! are over, goes on in the next one. When all are there it learns as
//! `inwarden learn` does, and writes `data/heads/MODEL_ID.QUESTION.json`,
//! `data/terms/QUESTION.bin` and `data/weights*.toml`.
//!
//! Expected output: how many rows are missing, or the report card.

#![expect(clippy::print_stdout, reason = "this program prints a report")]

use std::{
    env, fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use inwarden_classifier::{
    LearnTask, MiniLmEmbed, Prompt, Question, StateStore, distinct_rows, extract_states,
    kept_states, learn, read_rows, seed_memory,
};
use inwarden_inference::{Embedder, LoadOptions, Qwen2};
use inwarden_memory::Memory;

const FOLDS: usize = 8;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [states, seconds, model_id, question, files @ ..] = args.as_slice() else {
        bail!("usage: fit_calibration STATES_DIR SECONDS MODEL_ID QUESTION ROWS.jsonl...");
    };
    let question = Question::from_name(question).context("no such question")?;
    let deadline = Instant::now() + Duration::from_secs(seconds.parse()?);
    let mut rows = Vec::new();
    for file in files {
        rows.extend(read_rows(file, &fs::read_to_string(file)?)?);
    }
    let rows = distinct_rows(question, rows);
    let gguf = models()?.join(model_id).join(format!("{model_id}.gguf"));
    let model = Arc::new(Qwen2::load(&[gguf], &LoadOptions::default())?);
    let prompt = Prompt::of(question);
    let choice = kept_states(model.config().num_hidden_layers);
    let mut store = StateStore::open(model, model_id, &prompt, choice, Path::new(states))?;
    let mut texts: Vec<String> = rows.iter().map(|row| row.text.clone()).collect();
    texts.extend_from_slice(&prompt.content_free);
    let start = Instant::now();
    let n_missing = extract_states(
        &mut store,
        &texts,
        &mut |_| match Instant::now() >= deadline {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        },
    )?;
    println!(
        "{} rows, {n_missing} missing after {:?}",
        rows.len(),
        start.elapsed()
    );
    if n_missing > 0 {
        return Ok(());
    }
    let task = LearnTask {
        question,
        rows: &rows,
        n_folds: FOLDS,
        memory: match question {
            Question::Exec => Some(precedents()?),
            _ => None,
        },
    };
    let learned = learn(&task, &mut store)?;
    print!("{}", learned.card);
    let name = question.name();
    let weights = match question {
        Question::Exec => "weights.toml".to_owned(),
        _ => format!("weights-{name}.toml"),
    };
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let write = |file: PathBuf, bytes: &[u8]| -> Result<()> {
        fs::write(&file, bytes)?;
        println!("written: {}", file.display());
        Ok(())
    };
    let head = learned.head.to_text();
    write(
        data.join("heads").join(format!("{model_id}.{name}.json")),
        head.as_bytes(),
    )?;
    write(
        data.join("terms").join(format!("{name}.bin")),
        &learned.terms.to_bytes(),
    )?;
    write(data.join(weights), learned.weights.to_text()?.as_bytes())
}

/// The shipped precedents, embedded anew.
fn precedents() -> Result<Arc<Memory>> {
    let minilm = Embedder::load(&models()?.join("all-minilm-l6-v2"))?;
    let embed = Arc::new(MiniLmEmbed::new(minilm, "all-minilm-l6-v2"));
    let memory = Memory::ephemeral(embed)?;
    seed_memory(&memory)?;
    Ok(Arc::new(memory))
}

fn models() -> Result<PathBuf> {
    Ok(match env::var_os("INWARDEN_MODELS") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?)
            .join(".cache/inwarden/models"),
    })
}
