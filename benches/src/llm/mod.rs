//! The model by itself, and beside its peers.

mod cold_start;
mod compare;
mod grid;
mod options;
mod ours;
mod report;

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

pub(crate) use self::{
    cold_start::{ColdStartOptions, start_cold},
    options::{EngineOptions, LlmOptions},
    ours::Ours,
};
use self::{compare::Comparison, options::Part, report::Report};
use crate::{
    machine, model_files::ModelFiles, peer, sample::Effort, subject::Subject, workload::Workload,
};

/// A quick run that has taken this long leaves the grid out.
const QUICK_WITHOUT_GRID: Duration = Duration::from_secs(22);

pub(crate) fn run(options: &LlmOptions) -> anyhow::Result<()> {
    let started = Instant::now();
    let files = options.model.locate()?;
    let effort = options.effort();
    let mut report = Report {
        about: about(&files, options),
        ..Report::default()
    };
    if options.has(Part::Compare) {
        report.comparison = Some(compare(&files, options, &effort)?);
    }
    if options.has(Part::ColdStart) {
        report.cold_start = Some(cold_start::measure(&files, options, &effort)?);
    }
    // The other parts end by themselves; this one grows with the machine's slowness.
    if options.has(Part::Grid) && !(options.quick && started.elapsed() > QUICK_WITHOUT_GRID) {
        report.grid = grid::run(&files, options, &effort)?;
    }
    let table = report.table();
    std::io::stdout().lock().write_all(table.as_bytes())?;
    if let Some(path) = &options.json {
        write(path, &format!("{:#}\n", report.json()))?;
    }
    if let Some(path) = &options.svg {
        write(path, &report.svg())?;
    }
    Ok(())
}

/// Ours and every peer, one beside the other.
fn compare(
    files: &ModelFiles,
    options: &LlmOptions,
    effort: &Effort,
) -> anyhow::Result<Comparison> {
    let ours = Ours::load(&files.files, options.most_threads(), &options.engine)?;
    let tokenizer = Arc::clone(ours.model());
    let tokenizer = tokenizer.tokenizer();
    let mut workload = Workload::new(tokenizer)?;
    let probe = workload.event(tokenizer, 128);
    let mut subjects: Vec<Box<dyn Subject>> = vec![Box::new(ours)];
    for address in &options.peers {
        subjects.push(address.connect(workload.question(), &probe)?);
    }
    if options.peer_candle {
        subjects.push(peer::in_process(&files.files, workload.question())?);
    }
    check_names(&subjects)?;
    let prefix = workload.prefix(tokenizer, options.longest_prefix())?;
    compare::run(&mut subjects, tokenizer, &mut workload, &prefix, effort)
}

/// The figures stand under the subjects' names.
fn check_names(subjects: &[Box<dyn Subject>]) -> anyhow::Result<()> {
    let mut names = vec![report::BEST];
    for subject in subjects {
        ensure!(
            !names.contains(&subject.name()),
            "two subjects are called {}: use --peer NAME=URL",
            subject.name()
        );
        names.push(subject.name());
    }
    Ok(())
}

fn about(files: &ModelFiles, options: &LlmOptions) -> Value {
    let mut about = files.describe();
    about["machine"] = machine::describe();
    about["variant"] = json!(options.engine.instruction_set());
    about["engine"] = json!(format!("{:?}", options.engine));
    about["threads"] = json!(options.most_threads().get());
    about["prefix_tokens"] = json!(options.longest_prefix());
    about["quick"] = json!(options.quick);
    about
}

fn write(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}
