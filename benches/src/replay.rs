//! A recording, played several times over: what the first sight of a behaviour
//! costs, what every further one does, and what would be done about it.
//!
//! Events are read before the clock starts and handed over one after the other, as
//! a warden without a queue would get them. `benches/README.md` documents the figures.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::{self, File},
    io::{BufReader, Write as _},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use inwarden::{
    CaseReport, ReplayConfig, Warden,
    feeds::{FeedError, RecordingReader},
    types::{Action, CgroupId, Event, Mode, Scope, Stage},
};
use serde_json::{Value, json};

use crate::{
    accuracy::progress,
    eval::product::{Part, Product},
    machine,
};

#[derive(Args, Debug)]
pub(crate) struct ReplayOptions {
    /// A recording, as `inwarden watch --record` makes it.
    recording: PathBuf,
    /// The first so many of its events. Default: all.
    #[arg(long, value_name = "N")]
    events: Option<usize>,
    /// How often the recording is played; what the first time judged is known then.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Leave a part of the product out; may be given several times.
    #[arg(long, value_name = "PART")]
    without: Vec<Part>,
    /// The language model's id.
    #[arg(long, default_value = inwarden::DEFAULT_MODEL)]
    model: String,
    /// Write what is not allowed in the first round to this file, one JSON line each,
    /// with its command line as it was recorded.
    #[arg(long, value_name = "FILE")]
    alerts: Option<PathBuf>,
    /// Write the figures as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(options: &ReplayOptions) -> anyhow::Result<()> {
    let (events, n_unread) = read(options)?;
    ensure!(
        !events.is_empty() && options.rounds > 0,
        "NOTHING WAS PLAYED"
    );
    let product = Product::load(&options.model, &options.without)?;
    let mut alerts = match &options.alerts {
        Some(path) => Some(
            File::create(path).with_context(|| format!("{} cannot be written", path.display()))?,
        ),
        None => None,
    };
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        rounds.push(Round::play(&product, &events, alerts.take())?);
        progress(&format!("{number} of {} rounds", options.rounds));
    }
    writeln!(std::io::stdout().lock(), "{}", table(&rounds, n_unread))?;
    if let Some(path) = &options.json {
        let report = json!({
            "machine": machine::describe(),
            "model": options.model,
            "configuration": product.configuration_hash(),
            "unread": n_unread,
            "rounds": rounds.iter().map(Round::json).collect::<Vec<_>>(),
        });
        fs::write(path, format!("{report:#}\n"))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// The events, and how many could not be read.
fn read(options: &ReplayOptions) -> anyhow::Result<(Vec<Event>, usize)> {
    let path = &options.recording;
    let file = File::open(path).with_context(|| format!("{} is not there", path.display()))?;
    let reader = RecordingReader::new(BufReader::new(file))?;
    let (mut events, mut n_unread) = (Vec::new(), 0);
    for event in reader.take(options.events.unwrap_or(usize::MAX)) {
        match event {
            Ok(event) => events.push(event),
            Err(_) => n_unread += 1,
        }
    }
    Ok((events, n_unread))
}

/// The recording once.
#[derive(Default)]
struct Round {
    took: Duration,
    /// Time that this thread had a processor; `None` where the kernel does not say.
    on_processor: Option<Duration>,
    /// Of each judged event.
    times: Times,
    /// Of those that the model was asked about, and of all others.
    asked: Times,
    known: Times,
    decisions: BTreeMap<&'static str, usize>,
    settled_by: BTreeMap<&'static str, usize>,
}

impl Round {
    fn play(product: &Product, events: &[Event], mut alerts: Option<File>) -> anyhow::Result<Self> {
        let groups = events.iter().filter_map(|event| event.process.cgroup_id);
        let config = ReplayConfig {
            mode: Mode::Enforce,
            scope: Scope::Cgroups(groups.collect::<BTreeSet<CgroupId>>()),
        };
        let mut round = Self::default();
        // A sensor hands over events of its own; copying these is not the product's.
        let handed: Vec<_> = events.iter().cloned().map(Ok::<_, FeedError>).collect();
        let mut reports = Warden::replay(Arc::clone(&product.analyst), config, handed);
        let (start_of_round, on_processor) = (Instant::now(), on_processor());
        loop {
            let start = Instant::now();
            let Some(report) = reports.next() else {
                break;
            };
            let took = start.elapsed();
            let report = report.context("an event cannot be replayed")?;
            round.times.add(took);
            let stages = report.verdict.stages.as_slice();
            match stages.iter().any(|(stage, _)| *stage == Stage::Judge) {
                true => round.asked.add(took),
                false => round.known.add(took),
            }
            let action = report.decision.action.name();
            *round.decisions.entry(action).or_default() += 1;
            let settled_by = report.verdict.settled_by.name();
            *round.settled_by.entry(settled_by).or_default() += 1;
            if let (Some(file), true) = (&mut alerts, report.decision.action > Action::Allow) {
                writeln!(file, "{}", alert_line(&report))?;
            }
            if round.times.0.len().is_multiple_of(5_000) {
                let (n, n_asked) = (round.times.0.len(), round.asked.0.len());
                let seconds = start_of_round.elapsed().as_secs();
                progress(&format!(
                    "{n} of {} events in {seconds} s, the model asked about {n_asked}: {:?}",
                    events.len(),
                    round.decisions
                ));
            }
        }
        round.took = start_of_round.elapsed();
        let since = |then: Duration| Some(self::on_processor()?.saturating_sub(then));
        round.on_processor = on_processor.and_then(since);
        round.times.sort();
        round.asked.sort();
        round.known.sort();
        Ok(round)
    }

    fn per_second(&self) -> f64 {
        self.times.n() / self.took.as_secs_f64()
    }

    /// As if this thread had a processor for itself.
    fn per_processor_second(&self) -> Option<f64> {
        Some(self.times.n() / self.on_processor?.as_secs_f64())
    }

    fn json(&self) -> Value {
        json!({
            "events": self.times.0.len(),
            "seconds": self.took.as_secs_f64(),
            "events_per_second": self.per_second(),
            "events_per_processor_second": self.per_processor_second(),
            "model_asked": self.asked.0.len(),
            "us": self.times.json(),
            "us_model_asked": self.asked.json(),
            "us_others": self.known.json(),
            "decisions": self.decisions,
            "settled_by": self.settled_by,
        })
    }
}

fn alert_line(report: &CaseReport) -> Value {
    let process = &report.case.last().process;
    json!({
        "action": report.decision.action.name(),
        "score": report.verdict.score.probability(),
        "settled_by": report.verdict.settled_by.name(),
        "argv": process.image.argv.args,
        "parent": report.case.last().ancestors.first().map(|parent| &parent.image.comm),
    })
}

/// Times of events; sorted before they are read.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    fn sort(&mut self) {
        self.0.sort_unstable();
    }

    #[expect(clippy::cast_precision_loss, reason = "a count of events")]
    fn n(&self) -> f64 {
        self.0.len() as f64
    }

    /// Microseconds within which `share` of the events were through.
    fn within(&self, percent: usize) -> f64 {
        let idx = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(idx).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    }

    fn json(&self) -> Value {
        json!({ "p50": self.within(50), "p95": self.within(95), "p99": self.within(99) })
    }
}

/// How long the calling thread has run: the first number of its `schedstat`, in
/// nanoseconds (Linux, `Documentation/scheduler/sched-stats.rst`).
fn on_processor() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn table(rounds: &[Round], n_unread: usize) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "round    events  model asked   events/s  /s of processor    us p50 / p95  \
         model asked p50 / p95 (us)"
    );
    for (idx, round) in rounds.iter().enumerate() {
        let _ = writeln!(
            text,
            "{:>5}  {:>8}  {:>11}  {:>9.0}  {:>15}  {:>6.0} / {:<6.0}  {:.0} / {:.0}",
            idx + 1,
            round.times.0.len(),
            round.asked.0.len(),
            round.per_second(),
            round
                .per_processor_second()
                .map_or_else(|| "not known".to_owned(), |rate| format!("{rate:.0}")),
            round.times.within(50),
            round.times.within(95),
            round.asked.within(50),
            round.asked.within(95),
        );
    }
    for (what, counts) in rounds.iter().take(1).flat_map(|round| {
        [
            ("decided", &round.decisions),
            ("settled by", &round.settled_by),
        ]
    }) {
        let counts: Vec<String> = counts
            .iter()
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        let _ = writeln!(text, "{what}: {}", counts.join(", "));
    }
    if n_unread > 0 {
        let _ = writeln!(text, "{n_unread} EVENTS COULD NOT BE READ");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_by_share() {
        let mut times = Times::default();
        assert!(times.within(95).abs() < 1e-9);
        for n in (1..=100).rev() {
            times.add(Duration::from_micros(n));
        }
        times.sort();
        assert!((times.within(50) - 51.0).abs() < 1e-6);
        assert!((times.within(99) - 100.0).abs() < 1e-6);
        assert!((times.within(100) - 100.0).abs() < 1e-6);
    }

    #[test]
    fn a_round_is_told_in_full() {
        let mut round = Round {
            took: Duration::from_secs(2),
            ..Round::default()
        };
        for _ in 0..4 {
            round.times.add(Duration::from_micros(5));
            round.known.add(Duration::from_micros(5));
        }
        round.decisions.insert("allow", 4);
        assert!((round.per_second() - 2.0).abs() < 1e-9);
        let text = table(&[round], 1);
        assert!(
            text.contains("decided: allow 4") && text.contains("1 EVENTS"),
            "{text}"
        );
    }
}
