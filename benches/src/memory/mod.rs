//! How long the memory takes to find a record, and what it misses.
//!
//! Texts are those of the shipped corpus, and variations of them up to the wanted
//! number; their vectors are those of the real embedding model. A search is timed
//! without its embedding, which is reported beside it. `benches/README.md` documents
//! the figures.

mod measure;
mod texts;
mod vectors;

use std::{io::Write as _, path::PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::machine;
use measure::Measured;
use texts::Texts;
use vectors::Vectors;

#[derive(Args, Debug)]
pub(crate) struct MemoryOptions {
    /// Precedents in the store.
    #[arg(long, default_value_t = 100_000)]
    records: usize,
    /// Searches of each form; a text of none of the precedents each.
    #[arg(long, default_value_t = 400)]
    queries: usize,
    /// Directory that keeps the vectors, so that another run need not embed again; a run
    /// that is interrupted goes on there. Default: they are not kept.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Embed for at most so many seconds and stop, to go on in another run.
    #[arg(long, value_name = "SECONDS", requires = "cache")]
    embed_seconds: Option<u64>,
    /// Threads that build the index.
    #[arg(long, default_value_t = 2)]
    index_threads: usize,
    /// Directory of the corpus. Default: the one of the source tree.
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Of everything that is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the figures as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(options: &MemoryOptions) -> anyhow::Result<()> {
    ensure!(
        options.records >= 100 && options.queries >= 10,
        "at least 100 records and 10 queries are needed"
    );
    let texts = Texts::of_corpus(options)?;
    let Some(vectors) = Vectors::of(&texts, options)? else {
        return Ok(());
    };
    let embedding = vectors.embedding_ms();
    let mut measured = measure::measure(&texts, vectors, options)?;
    measured.add("embedding_ms", embedding);
    writeln!(std::io::stdout().lock(), "{}", measured.table())?;
    if let Some(path) = &options.json {
        let figures = figures(&measured, options);
        std::fs::write(path, format!("{figures:#}\n"))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn figures(measured: &Measured, options: &MemoryOptions) -> Value {
    let mut memory: Map<String, Value> = measured.figures().clone();
    memory.insert("records".to_owned(), json!(options.records));
    memory.insert("queries".to_owned(), json!(options.queries));
    memory.insert("index_threads".to_owned(), json!(options.index_threads));
    json!({
        "machine": machine::describe(),
        "seed": options.seed,
        "build": if cfg!(debug_assertions) { "dev" } else { "release" },
        "memory": memory,
    })
}
