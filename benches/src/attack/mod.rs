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
mod texts;

use std::{
    io::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use inwarden::types::Label;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use self::{
    families::FAMILIES,
    payload::{Attempt, Payload},
    play::Player,
    report::Report,
    reverse::REVERSES,
    texts::TEXT_FAMILIES,
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
    /// Directory whose `exec.jsonl` and `prompts.jsonl` give the cases. Default: the shipped corpus.
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

impl AttackOptions {
    /// Rows that are tried for the wanted number of cases.
    fn tried(&self) -> usize {
        self.cases.saturating_mul(4)
    }
}

/// A case that is attacked.
struct Base {
    id: String,
    payload: Payload,
    score: f64,
}

pub(crate) fn run(options: &AttackOptions) -> anyhow::Result<()> {
    let rows = rows(options, Kind::Exec)?;
    ensure!(!rows.is_empty(), "NOTHING WAS ATTACKED: no program starts");
    let product = Product::load(&options.model, &options.without)?;
    let mut campaign = Campaign {
        options,
        product: &product,
        player: Player::new(&product),
        report: Report::new(json!({
            "machine": machine::describe(),
            "model": options.model,
            "configuration": product.configuration_hash(),
            "seed": options.seed,
        })),
        deadline: Instant::now() + Duration::from_secs(options.minutes * 60),
    };
    let detected = campaign.attack_starts(&rows)?;
    campaign.bait(&rows, &detected)?;
    campaign.attack_texts()?;
    let Campaign {
        player, mut report, ..
    } = campaign;
    report.starts = player.starts;
    writeln!(std::io::stdout().lock(), "{}", report.table())?;
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", report.json()))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// One run: what is attacked with what, and what came of it.
struct Campaign<'a> {
    options: &'a AttackOptions,
    product: &'a Product,
    player: Player<'a>,
    report: Report,
    deadline: Instant,
}

impl Campaign<'_> {
    /// Rewrites detected program starts; gives them back.
    fn attack_starts(&mut self, rows: &[Row]) -> anyhow::Result<Vec<Base>> {
        let attacks = spread(&of_truth(rows, true), self.options.tried());
        let (detected, seen) = bases(&mut self.player, &attacks, self.options.cases, |outcome| {
            outcome.is_detected
        })?;
        self.report.detected = (detected.len(), seen);
        ensure!(
            !detected.is_empty(),
            "NOTHING WAS ATTACKED: no attack is detected"
        );
        progress(&format!(
            "{} of {seen} attacks are detected unmodified",
            detected.len()
        ));
        for (idx, base) in detected.iter().enumerate() {
            if Instant::now() > self.deadline {
                self.report.left_out += detected.len() - idx;
                break;
            }
            self.rewrite_all(base)?;
            if idx < self.options.search_cases {
                let seed = seed_of(self.options.seed, "search", &base.id);
                let found = search::search(&mut self.player, &base.payload, base.score, seed)?;
                self.report.search(&base.id, found);
            }
            progress(&format!("{} of {} cases", idx + 1, detected.len()));
        }
        Ok(detected)
    }

    /// Gives ordinary starts the text of an attack.
    fn bait(&mut self, rows: &[Row], detected: &[Base]) -> anyhow::Result<()> {
        let ordinary = spread(&of_truth(rows, false), self.options.tried());
        let (ordinary, _) = bases(&mut self.player, &ordinary, self.options.cases, |outcome| {
            !outcome.is_killed
        })?;
        for (idx, base) in ordinary.iter().enumerate() {
            if Instant::now() > self.deadline {
                self.report.left_out += ordinary.len() - idx;
                break;
            }
            let (_, text) = detected[idx % detected.len()].payload.shell();
            for reverse in &REVERSES {
                let seed = seed_of(self.options.seed, reverse.name, &base.id);
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                let attempt = (reverse.rewrite)(&base.payload, &text, &mut random);
                let outcome = self.player.play(&attempt)?;
                self.report
                    .reverse(reverse.name, &base.id, outcome.is_killed);
            }
        }
        Ok(())
    }

    /// Rewrites detected injections.
    fn attack_texts(&mut self) -> anyhow::Result<()> {
        let rows = rows(self.options, Kind::Prompts)?;
        let rows = spread(&of_truth(&rows, true), self.options.tried());
        let product = self.product;
        let is_detected = |question: &Question| {
            let verdict = product.judge(question)?;
            anyhow::Ok(verdict.label == Label::Malicious)
        };
        for row in &rows {
            if self.report.detected_texts.0 == self.options.cases {
                break;
            }
            self.report.detected_texts.1 += 1;
            let Question::Prompt { text, .. } = &row.question else {
                continue;
            };
            if !is_detected(&row.question)? {
                continue;
            }
            if Instant::now() > self.deadline {
                self.report.left_out += 1;
                continue;
            }
            self.report.detected_texts.0 += 1;
            for family in &TEXT_FAMILIES {
                let seed = seed_of(self.options.seed, family.name, &row.id);
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                let rewritten = row.question.with_text((family.rewrite)(text, &mut random));
                self.report
                    .attempt(family.name, &row.id, !is_detected(&rewritten)?);
            }
        }
        if self.report.detected_texts.0 == 0 {
            progress("NO TEXT WAS ATTACKED: no injection is detected unmodified");
        }
        Ok(())
    }

    fn rewrite_all(&mut self, base: &Base) -> anyhow::Result<()> {
        for family in &FAMILIES {
            let seed = seed_of(self.options.seed, family.name, &base.id);
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let Some(attempt) = (family.rewrite)(&base.payload, &mut random) else {
                continue;
            };
            let outcome = self.player.play(&attempt)?;
            self.report
                .attempt(family.name, &base.id, !outcome.is_detected);
        }
        Ok(())
    }
}

/// The rows to take cases from; none where the file is absent.
fn rows(options: &AttackOptions, kind: Kind) -> anyhow::Result<Vec<Row>> {
    let Some(dir) = &options.data else {
        return Ok(corpus::read(&corpus::directory(None), kind)?.rows);
    };
    let path = dir.join(format!("{}.jsonl", kind.name()));
    let lines = read_lines(&path)?.unwrap_or_default();
    let rows = lines.into_iter().map(|line| line.into_row(kind));
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
