//! The report card: how well the product tells attacks from ordinary work.
//!
//! Labelled rows are put to the product as a user would put them, its verdicts are
//! counted, and a linear model that was trained on the shipped corpus is counted
//! beside it. `benches/README.md` documents figures and protocol.

mod calibration;
pub(crate) mod corpus;
mod error;
mod incidents;
mod judged;
mod near;
mod plot;
pub(crate) mod product;
pub(crate) mod rows;
mod section;
mod statistics;
mod table;
mod twin;

use std::{
    fs,
    io::Write as _,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Map, Value, json};

use self::{
    calibration::Reliability,
    incidents::{Course, Incident},
    judged::{JudgedRow, judge},
    product::{Part, Product},
    rows::{Kind, Row, read_lines},
    section::{Section, TwinScores},
    twin::Twin,
};
use crate::{
    accuracy::{progress, spread},
    machine,
};

pub(crate) use self::twin::hash;

/// Of everything that is drawn: bootstrap samples and simulated models.
const SEED: u64 = 1;

#[derive(Args, Debug)]
pub(crate) struct EvalOptions {
    /// Directory with `exec.jsonl`, `prompts.jsonl`, `toolcalls.jsonl` and
    /// `incidents.jsonl`; what is missing is left out.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Leave a part of the product out; may be given several times.
    #[arg(long, value_name = "PART")]
    without: Vec<Part>,
    /// Measure again without each part by itself, on rows only.
    #[arg(long)]
    ablations: bool,
    /// Only so many rows of each file, spread over it.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// The language model's id.
    #[arg(long, default_value = inwarden::DEFAULT_MODEL)]
    model: String,
    /// The shipped corpus: a directory with `corpus/`, `precedents.jsonl` and
    /// `calibration.jsonl`. Default: the one of the source tree.
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Threads that ask at the same time. With one, times are those of a lone case.
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    callers: NonZeroUsize,
    /// Write the figures as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the reliability plot.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write one JSON line a row; default: beside `--json`.
    #[arg(long, value_name = "FILE")]
    verdicts: Option<PathBuf>,
}

impl EvalOptions {
    fn verdicts_path(&self) -> Option<PathBuf> {
        let beside = || Some(self.json.as_ref()?.with_extension("verdicts.jsonl"));
        self.verdicts.clone().or_else(beside)
    }
}

/// What is evaluated on.
#[derive(Debug)]
struct Data {
    files: Vec<(Kind, Vec<Row>)>,
    incidents: Option<Vec<Incident>>,
    absent: Vec<String>,
}

/// The whole report card.
#[derive(Debug)]
struct Card {
    about: Value,
    sections: Vec<Section>,
    courses: Option<Vec<Course>>,
    reliability: Option<Reliability>,
    ablations: Map<String, Value>,
    absent: Vec<String>,
    verdicts: Option<PathBuf>,
}

pub(crate) fn run(options: &EvalOptions) -> anyhow::Result<()> {
    let data = Data::read(&options.data, options.limit)?;
    let product = Product::load(&options.model, &options.without)?;
    let mut card = Card::measure(options, &product, data)?;
    if options.ablations {
        card.ablate(options, product)?;
    }
    if let Some(path) = &card.verdicts {
        let lines = card.sections.iter().flat_map(|section| {
            let rows = section.judged.iter();
            rows.map(|row| row.line(section.kind) + "\n")
        });
        write(path, &lines.collect::<String>())?;
    }
    let json = card.json();
    writeln!(std::io::stdout().lock(), "{}", table::of(&card, &json))?;
    if let Some(path) = &options.json {
        write(path, &format!("{json:#}\n"))?;
    }
    if let Some(path) = &options.svg {
        write(path, &plot::of(card.reliability.as_ref()))?;
    }
    Ok(())
}

impl Data {
    fn read(dir: &Path, limit: Option<usize>) -> anyhow::Result<Self> {
        let mut data = Self {
            files: Vec::new(),
            incidents: None,
            absent: Vec::new(),
        };
        for kind in Kind::ALL {
            let name = format!("{}.jsonl", kind.name());
            let Some(lines) = read_lines(&dir.join(&name))? else {
                data.absent.push(name);
                continue;
            };
            let rows = lines.into_iter().map(|line| line.into_row(kind));
            let rows: Vec<Row> = rows.collect::<Result<_, _>>()?;
            let rows = spread(&rows, limit.unwrap_or(rows.len()));
            data.files.push((kind, rows));
        }
        let incidents = incidents::read(&dir.join("incidents.jsonl"))?;
        match incidents {
            Some(all) => data.incidents = Some(spread(&all, limit.unwrap_or(all.len()))),
            None => data.absent.push("incidents.jsonl".to_owned()),
        }
        for name in &data.absent {
            progress(&format!(
                "ABSENT, NOT MEASURED: {}",
                dir.join(name).display()
            ));
        }
        ensure!(
            !data.files.is_empty() || data.incidents.is_some(),
            "NOTHING WAS MEASURED: {} holds none of the files",
            dir.display()
        );
        Ok(data)
    }
}

impl Card {
    fn measure(options: &EvalOptions, product: &Product, data: Data) -> anyhow::Result<Self> {
        let corpus_dir = corpus::directory(options.corpus.as_deref());
        let mut sections = Vec::new();
        for (kind, rows) in data.files {
            let corpus = corpus::read(&corpus_dir, kind)?;
            sections.push(section(product, kind, rows, &corpus, options.callers)?);
        }
        let courses = match &data.incidents {
            None => None,
            Some(incidents) => {
                let courses = incidents.iter().map(|incident| incident.play(product));
                Some(courses.collect::<anyhow::Result<Vec<_>>>()?)
            }
        };
        let points: Vec<_> = sections.iter().flat_map(Section::points).collect();
        let identity = product.identity.iter();
        let identity: Map<String, Value> = identity
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        Ok(Self {
            about: json!({
                "machine": machine::describe(),
                "model": options.model,
                "configuration": product.configuration_hash(),
                "identity": identity,
                "limit": options.limit,
                "callers": options.callers,
                "seed": SEED,
            }),
            reliability: Reliability::of(&points, SEED),
            sections,
            courses,
            ablations: Map::new(),
            absent: data.absent,
            verdicts: options.verdicts_path(),
        })
    }

    /// Judges the same rows without one more part each time.
    fn ablate(&mut self, options: &EvalOptions, whole: Product) -> anyhow::Result<()> {
        // Two models at once would double the memory.
        drop(whole);
        for part in Part::ALL {
            if options.without.contains(&part) {
                continue;
            }
            let without = [&options.without[..], &[part]].concat();
            let product = Product::load(&options.model, &without)?;
            progress(&format!("without {}", part.name()));
            let mut figures = Map::new();
            for section in &self.sections {
                let rows: Vec<Row> = section.judged.iter().map(|row| row.row.clone()).collect();
                let verdicts = judge(&product, section.kind, &rows, options.callers.get())?;
                let judged = section.judged.iter().zip(verdicts);
                let judged = judged.map(|(row, verdict)| JudgedRow {
                    verdict,
                    ..row.clone()
                });
                let ablated = Section {
                    kind: section.kind,
                    judged: judged.collect(),
                    near_corpus_rows: section.near_corpus_rows,
                    twin: None,
                };
                figures.insert(section.kind.name().to_owned(), ablated.short_json());
            }
            self.ablations
                .insert(part.name().to_owned(), Value::Object(figures));
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let mut all = json!({
            "schema": "inwarden.bench.eval/1",
            "about": self.about,
            "absent": self.absent,
            "calibration_error": self.reliability.as_ref().map(|found| found.error),
            "calibration": self.reliability.as_ref().map(Reliability::json),
            "incidents": self.courses.as_deref().map(incidents::json),
            "ablations": self.ablations,
            "verdicts": self.verdicts,
        });
        for section in &self.sections {
            all[section.kind.name()] = section.json(SEED);
        }
        all
    }
}

/// Judges the rows of one file and trains its twin.
fn section(
    product: &Product,
    kind: Kind,
    rows: Vec<Row>,
    corpus: &corpus::Corpus,
    callers: NonZeroUsize,
) -> anyhow::Result<Section> {
    let corpus_texts: Vec<String> = corpus.rows.iter().map(|row| row.question.text()).collect();
    let texts: Vec<String> = rows.iter().map(|row| row.question.text()).collect();
    let near = near::find(
        corpus_texts.iter().map(String::as_str),
        texts.iter().map(String::as_str),
    );
    let training: Vec<(&str, bool)> = corpus
        .rows
        .iter()
        .enumerate()
        .filter(|(idx, _)| !near.corpus.contains(idx))
        .filter_map(|(idx, row)| Some((corpus_texts[idx].as_str(), row.is_attack?)))
        .collect();
    let twin = Twin::train(&training);
    if twin.is_none() {
        let name = kind.name();
        progress(&format!(
            "NO LINEAR TWIN: the corpus has no {name} of both labels"
        ));
    }
    let twin = twin.map(|twin| TwinScores {
        scores: texts.iter().map(|text| twin.score(text)).collect(),
        trained_on: training.len(),
        files: corpus.files.clone(),
    });
    let verdicts = judge(product, kind, &rows, callers.get())?;
    let judged = rows.into_iter().zip(verdicts).enumerate();
    Ok(Section {
        kind,
        judged: judged
            .map(|(idx, (row, verdict))| JudgedRow {
                row,
                verdict,
                is_near_corpus: near.evaluated.contains(&idx),
            })
            .collect(),
        near_corpus_rows: near.corpus.len(),
        twin,
    })
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}
