//! The measurements, one after the other on one store.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use inwarden::types::{Label, WallTime};
use inwarden_memory::{Memory, MemoryOptions as StoreOptions, Precedent, PrecedentQuery};
use serde_json::{Map, Value, json};

use super::{
    MemoryOptions,
    texts::{Stored, Texts},
    vectors::Vectors,
};
use crate::accuracy::progress;

/// Hits that are asked for.
const TOP_K: usize = 10;

/// Queries whose answer is compared with the exact one.
const RECALL_QUERIES: usize = 200;

/// Records that are written in one call.
const BATCH: usize = 4096;

/// How near a score must be to that of the last record of the exact answer to count:
/// which of several equal ones is found does not matter.
const EQUAL: f32 = 1e-6;

/// The figures so far, in the order they were found.
#[derive(Default)]
pub(crate) struct Measured {
    figures: Map<String, Value>,
}

impl Measured {
    pub(crate) fn add(&mut self, key: &str, value: Value) {
        self.figures.insert(key.to_owned(), value);
    }

    pub(crate) fn figures(&self) -> &Map<String, Value> {
        &self.figures
    }

    /// One line a figure.
    pub(crate) fn table(&self) -> String {
        fn lines(out: &mut String, key: &str, value: &Value) {
            match value {
                Value::Object(parts) => {
                    for (part, value) in parts {
                        lines(out, &format!("{key}.{part}"), value);
                    }
                }
                other => {
                    let shown = match other.as_f64().filter(|_| other.is_f64()) {
                        Some(number) => format!("{number:.4}"),
                        None => other.to_string(),
                    };
                    // Writing to a string does not fail.
                    let _ = writeln!(out, "{key:56} {shown}");
                }
            }
        }
        let mut out = String::new();
        for (key, value) in &self.figures {
            lines(&mut out, &format!("memory.{key}"), value);
        }
        out
    }
}

pub(crate) fn measure(
    texts: &Texts,
    vectors: Vectors,
    options: &MemoryOptions,
) -> anyhow::Result<Measured> {
    let dir = std::env::temp_dir().join(format!("inwarden-bench-memory-{}", std::process::id()));
    let measured = measure_in(&dir, texts, vectors, options);
    if let Err(error) = std::fs::remove_dir_all(&dir) {
        progress(&format!("{} stays: {error}", dir.display()));
    }
    measured
}

fn measure_in(
    dir: &std::path::Path,
    texts: &Texts,
    vectors: Vectors,
    options: &MemoryOptions,
) -> anyhow::Result<Measured> {
    let store_options = StoreOptions {
        index_threads: options.index_threads,
        ..StoreOptions::default()
    };
    let open = || Memory::open(dir, Arc::new(vectors.clone()), store_options.clone());
    let mut measured = Measured::default();
    let memory = open()?;
    // A tenth stays out, to be written while others search.
    let n_first = texts.stored.len() - texts.stored.len() / 10;
    let records: Vec<Precedent> = texts.stored.iter().enumerate().map(record).collect();
    let (first, rest) = records.split_at(n_first);

    let start = Instant::now();
    for batch in first.chunks(BATCH) {
        memory.upsert_precedents(batch)?;
    }
    measured.add("write_seconds", json!(start.elapsed().as_secs_f64()));
    progress("written; waiting for the index");
    wait_indexed(&memory)?;
    measured.add("index_seconds", json!(start.elapsed().as_secs_f64()));

    progress("searching while records are written");
    let during = during_inserts(&memory, rest, &texts.queries)?;
    measured.add("during_inserts_ms", during);
    for batch in rest.chunks(BATCH) {
        memory.upsert_precedents(batch)?;
    }
    wait_indexed(&memory)?;

    progress("searching");
    let searched = searches(&memory, &texts.queries)?;
    // The headline: what the classifier asks for, filtered.
    measured.add("retrieval_ms", searched["hybrid_filtered"].clone());
    measured.add("retrieval_by_form_ms", searched);
    measured.add("recall_at_10", recall(&memory, texts, &vectors)?);
    let stats = memory.stats()?;
    measured.add("journal_bytes", json!(stats.journal_bytes));
    measured.add("index_bytes", json!(stats.index_bytes));
    drop(memory);
    let start = Instant::now();
    let memory = open()?;
    measured.add("open_seconds", json!(start.elapsed().as_secs_f64()));
    drop(memory);
    Ok(measured)
}

fn tenant(n: usize) -> &'static str {
    if n.is_multiple_of(10) { "a" } else { "b" }
}

fn record((n, stored): (usize, &Stored)) -> Precedent {
    Precedent {
        id: format!("p{n}"),
        text: stored.text.clone(),
        label: if stored.is_attack {
            Label::Malicious
        } else {
            Label::Benign
        },
        kind: Some(stored.kind.name().to_owned()),
        technique: None,
        tenant: tenant(n).to_owned(),
        observed: Some(WallTime(n as u64 * 1_000_000_000)),
        version: "1".to_owned(),
    }
}

/// The forms of a query: with and without words, with and without filters.
fn forms() -> [(&'static str, PrecedentQuery); 4] {
    let filtered = |query: PrecedentQuery| PrecedentQuery {
        tenants: Some(vec!["a".to_owned()]),
        labels: Some(vec![Label::Benign]),
        ..query
    };
    [
        ("cosine", PrecedentQuery::nearest(TOP_K)),
        ("cosine_filtered", filtered(PrecedentQuery::nearest(TOP_K))),
        ("hybrid", PrecedentQuery::hybrid(TOP_K)),
        ("hybrid_filtered", filtered(PrecedentQuery::hybrid(TOP_K))),
    ]
}

/// p50, p95 and p99 of each form.
fn searches(memory: &Memory, queries: &[String]) -> anyhow::Result<Value> {
    let mut figures = Map::new();
    for (name, query) in forms() {
        let mut times = Vec::with_capacity(queries.len());
        for text in queries {
            let start = Instant::now();
            memory.precedents(text, &query)?;
            times.push(start.elapsed());
        }
        figures.insert(name.to_owned(), spread(&mut times));
    }
    Ok(Value::Object(figures))
}

/// p50, p95 and p99, in milliseconds.
pub(crate) fn spread(times: &mut [Duration]) -> Value {
    times.sort_unstable();
    let at = |percent: usize| {
        let time = times.get(times.len() * percent / 100);
        time.map(|time| time.as_secs_f64() * 1000.0)
    };
    json!({ "p50": at(50), "p95": at(95), "p99": at(99) })
}

fn during_inserts(
    memory: &Memory,
    rest: &[Precedent],
    queries: &[String],
) -> anyhow::Result<Value> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| -> anyhow::Result<Vec<Duration>> {
            let mut times = Vec::new();
            for one in rest {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let start = Instant::now();
                memory.upsert_precedents(std::slice::from_ref(one))?;
                times.push(start.elapsed());
                thread::sleep(Duration::from_millis(2));
            }
            Ok(times)
        });
        let searched = searches(memory, queries);
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().ok().context("the writer panicked")?;
        let (mut searched, mut times) = (searched?, written?);
        searched["inserts"] = json!(times.len());
        searched["insert"] = spread(&mut times);
        Ok(searched)
    })
}

/// The share of the exact answer that is found.
fn recall(memory: &Memory, texts: &Texts, vectors: &Vectors) -> anyhow::Result<Value> {
    let all: Vec<&[f32]> = texts
        .stored
        .iter()
        .map(|row| vectors.vector(&row.text))
        .collect::<Result<_, _>>()?;
    let place: HashMap<String, usize> = (0..all.len()).map(|n| (format!("p{n}"), n)).collect();
    let mut figures = Map::new();
    for (name, query) in &forms()[..2] {
        let is_filtered = query.tenants.is_some();
        let passes = |n: usize| !is_filtered || (tenant(n) == "a" && !texts.stored[n].is_attack);
        let (mut n_found, mut n_wanted) = (0, 0);
        for text in texts.queries.iter().take(RECALL_QUERIES) {
            let asked = vectors.vector(text)?;
            let score = |n: usize| -> f32 { asked.iter().zip(all[n]).map(|(l, r)| l * r).sum() };
            let mut exact: Vec<f32> = (0..all.len()).filter(|n| passes(*n)).map(score).collect();
            exact.sort_unstable_by(|left, right| right.total_cmp(left));
            exact.truncate(TOP_K);
            let Some(last) = exact.last() else {
                continue;
            };
            n_wanted += exact.len();
            for hit in memory.precedents(text, query)? {
                let n = place.get(&hit.precedent.id);
                n_found += usize::from(n.is_some_and(|n| score(*n) >= last - EQUAL));
            }
        }
        let share = f64::from(u32::try_from(n_found)?) / f64::from(u32::try_from(n_wanted)?);
        figures.insert((*name).to_owned(), json!(share));
    }
    Ok(Value::Object(figures))
}

fn wait_indexed(memory: &Memory) -> anyhow::Result<()> {
    let threshold = StoreOptions::default().index_tail_records as u64;
    loop {
        let stats = memory.stats()?;
        anyhow::ensure!(
            stats.failed_index_builds == 0,
            "the index could not be built: {:?}",
            stats.last_index_error
        );
        let small = stats.records.precedents < StoreOptions::default().index_from_records as u64;
        if small || stats.unindexed_records.precedents < threshold {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
}
