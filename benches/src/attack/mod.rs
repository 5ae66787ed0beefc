//! The classifier under attack.
//!
//! Attacks that the product detects are rewritten so that they still do what they
//! did; an attempt succeeds if no part of it is called malicious any more. The
//! other way round, ordinary starts are given the text of an attack; an attempt
//! succeeds if policy would kill. `benches/README.md` documents the figures.

mod encodings;
mod families;
mod payload;
mod play;
mod report;
mod reverse;
mod search;
mod shell_text;

use std::{
    io::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use self::{
    families::FAMILIES,
    payload::{Attempt, Payload},
    play::Player,
    report::Report,
    reverse::REVERSES,
};
use crate::{
    accuracy::{progress, spread},
    eval::{
        corpus, hash,
        product::{Part, Product},
        rows::{Kind, Question, Row, read_lines},
    },
    machine,
};

#[derive(Args, Debug)]
pub(crate) struct AttackOptions {
    /// Directory whose `exec.jsonl` gives the cases. Default: the shipped corpus.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Detected attacks that are rewritten, and as many ordinary starts.
    #[arg(long, default_value_t = 36)]
    cases: usize,
    /// Of these, on how many the search is tried, too: 50 queries each.
    #[arg(long, default_value_t = 12)]
    search_cases: usize,
    /// What is begun after so many minutes is left out, loudly.
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// Leave a part of the product out; may be given several times.
    #[arg(long, value_name = "PART")]
    without: Vec<Part>,
    /// The language model's id.
    #[arg(long, default_value = inwarden::DEFAULT_MODEL)]
    model: String,
    /// Of everything that is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the figures as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A case that is attacked.
struct Base {
    id: String,
    payload: Payload,
    score: f64,
}

pub(crate) fn run(options: &AttackOptions) -> anyhow::Result<()> {
    let rows = rows(options)?;
    let product = Product::load(&options.model, &options.without)?;
    let mut player = Player::new(&product);
    let mut report = Report::new(json!({
        "machine": machine::describe(),
        "model": options.model,
        "configuration": product.configuration_hash(),
        "seed": options.seed,
    }));
    let deadline = Instant::now() + Duration::from_secs(options.minutes * 60);

    let tried = options.cases.saturating_mul(4);
    let attacks = spread(&of_truth(&rows, true), tried);
    let (detected, seen) = bases(&mut player, &attacks, options.cases, |outcome| {
        outcome.is_detected
    })?;
    report.detected = (detected.len(), seen);
    ensure!(
        !detected.is_empty(),
        "NOTHING WAS ATTACKED: no attack is detected"
    );
    progress(&format!(
        "{} of {seen} attacks are detected unmodified",
        detected.len()
    ));
    for (idx, base) in detected.iter().enumerate() {
        if Instant::now() > deadline {
            report.left_out = detected.len() - idx;
            break;
        }
        rewrite_all(&mut player, base, options, &mut report)?;
        if idx < options.search_cases {
            let found = search::search(
                &mut player,
                &base.payload,
                base.score,
                seed_of(options.seed, "search", &base.id),
            )?;
            report.search(&base.id, found);
        }
        progress(&format!("{} of {} cases", idx + 1, detected.len()));
    }

    let ordinary = spread(&of_truth(&rows, false), tried);
    let (ordinary, _) = bases(&mut player, &ordinary, options.cases, |outcome| {
        !outcome.is_killed
    })?;
    for (idx, base) in ordinary.iter().enumerate() {
        if Instant::now() > deadline {
            report.left_out += ordinary.len() - idx;
            break;
        }
        let attack = &detected[idx % detected.len()];
        let (_, text) = attack.payload.shell();
        for reverse in &REVERSES {
            let seed = seed_of(options.seed, reverse.name, &base.id);
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let attempt = (reverse.rewrite)(&base.payload, &text, &mut random);
            let outcome = player.play(&attempt)?;
            report.reverse(reverse.name, &base.id, outcome.is_killed);
        }
    }
    report.starts = player.starts;
    writeln!(std::io::stdout().lock(), "{}", report.table())?;
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", report.json()))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn rewrite_all(
    player: &mut Player<'_>,
    base: &Base,
    options: &AttackOptions,
    report: &mut Report,
) -> anyhow::Result<()> {
    for family in &FAMILIES {
        let seed = seed_of(options.seed, family.name, &base.id);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let Some(attempt) = (family.rewrite)(&base.payload, &mut random) else {
            continue;
        };
        let outcome = player.play(&attempt)?;
        report.attempt(family.name, &base.id, !outcome.is_detected);
    }
    Ok(())
}

/// The rows to take cases from.
fn rows(options: &AttackOptions) -> anyhow::Result<Vec<Row>> {
    let Some(dir) = &options.data else {
        let directory = corpus::directory(None);
        let rows = corpus::read(&directory, Kind::Exec)?.rows;
        ensure!(
            !rows.is_empty(),
            "NOTHING WAS ATTACKED: no corpus in {}",
            directory.display()
        );
        return Ok(rows);
    };
    let path = dir.join("exec.jsonl");
    let lines = read_lines(&path)?;
    let lines = lines.with_context(|| format!("NOTHING WAS ATTACKED: no {}", path.display()))?;
    let rows = lines.into_iter().map(|line| line.into_row(Kind::Exec));
    Ok(rows.collect::<Result<_, _>>()?)
}

fn of_truth(rows: &[Row], is_attack: bool) -> Vec<Row> {
    let of_truth = rows.iter().filter(|row| row.is_attack == Some(is_attack));
    of_truth.cloned().collect()
}

/// The first `n` rows with the wanted outcome as they are, and how many rows were
/// tried for them.
fn bases(
    player: &mut Player<'_>,
    rows: &[Row],
    n: usize,
    is_wanted: impl Fn(&play::Outcome) -> bool,
) -> anyhow::Result<(Vec<Base>, usize)> {
    let mut found = Vec::new();
    for (idx, row) in rows.iter().enumerate() {
        if found.len() == n {
            return Ok((found, idx));
        }
        let Question::Exec { argv, parent } = &row.question else {
            continue;
        };
        if argv.is_empty() {
            continue;
        }
        let payload = Payload {
            argv: argv.clone(),
            parent: parent.clone(),
            exe: None,
        };
        let outcome = player.play(&Attempt::of(payload.clone()))?;
        if is_wanted(&outcome) {
            found.push(Base {
                id: row.id.clone(),
                payload,
                score: outcome.score,
            });
        }
    }
    Ok((found, rows.len()))
}

/// One seed for each family and case, so that their order does not count.
fn seed_of(seed: u64, family: &str, id: &str) -> u64 {
    seed ^ hash(family.as_bytes(), id.as_bytes())
}
