//! Ordinary work that looks like an attack: what recordings hold and the present
//! configuration scores highest.
//!
//! Two passes, since asking the model about everything would take hours: the fast
//! stages order all distinct behaviours, then the model judges the most suspicious.

use std::{collections::HashSet, fs::File, io::BufReader, ops::ControlFlow, path::PathBuf};

use inwarden_classifier::{LearnRow, Prepared, ordinary_exec};
use inwarden_feeds::RecordingReader;
use inwarden_types::{Case, Event, EventData, Label, SettledBy, Verdict};

use super::{LearnStep, file_error};
use crate::{Analyst, EngineError};

/// Behaviours that are told apart; what comes after them is not looked at.
const MAX_DISTINCT: usize = 500_000;
/// The model judges this many for each that is taken.
const JUDGED_PER_TAKEN: usize = 4;
/// Events between two reports.
const REPORT_EVENTS: usize = 4_096;

/// What became of the executions of recordings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mined {
    /// Executions that were read.
    pub read: usize,
    /// Lines that are no event; they were passed over.
    pub unreadable: usize,
    /// Executions whose arguments were not all captured; they were passed over.
    pub cut: usize,
    /// Behaviours that differ, by the key of the verdict cache.
    pub distinct: usize,
    /// Behaviours that a rule or a precedent settles as malicious; never taken.
    pub settled_malicious: usize,
    /// Executions past the most behaviours that are told apart.
    pub beyond: usize,
    /// Behaviours that the model judged so far.
    pub judged: usize,
    /// Behaviours that are taken as benign rows.
    pub taken: usize,
}

struct Candidate {
    /// How suspicious it is, log-odds or probability.
    score: f64,
    /// Its place among the distinct behaviours, so that ties have an order.
    place: usize,
    case: Case,
}

/// At most `limit` rows of the executions in `recordings`, or `None` if `step` broke
/// off.
pub(super) fn mine(
    analyst: &Analyst,
    recordings: &[PathBuf],
    limit: usize,
    step: &mut dyn FnMut(LearnStep) -> ControlFlow<()>,
) -> Result<Option<Vec<LearnRow>>, EngineError> {
    let mut found = Found {
        analyst,
        keep: limit.saturating_mul(JUDGED_PER_TAKEN),
        counts: Mined::default(),
        seen: HashSet::new(),
        candidates: Vec::new(),
    };
    for path in recordings {
        let file = File::open(path).map_err(|source| file_error(path, source))?;
        let events = RecordingReader::new(BufReader::new(file))?;
        for (idx, event) in events.enumerate() {
            match event {
                Ok(event) => found.take(event),
                Err(_) => found.counts.unreadable += 1,
            }
            if idx % REPORT_EVENTS == 0 && step(LearnStep::Mining(found.counts)).is_break() {
                return Ok(None);
            }
        }
    }
    let Found {
        mut counts,
        candidates: mut all,
        keep,
        ..
    } = found;
    most_suspicious(&mut all, keep);
    for candidate in &mut all {
        candidate.score = analyst.classify(&candidate.case).score.probability();
        counts.judged += 1;
        if step(LearnStep::Mining(counts)).is_break() {
            return Ok(None);
        }
    }
    most_suspicious(&mut all, limit);
    counts.taken = all.len();
    if step(LearnStep::Mining(counts)).is_break() {
        return Ok(None);
    }
    let rows = all.into_iter().map(|candidate| {
        let event = candidate.case.last();
        let argv = event.process.image.argv.args.clone();
        let id = format!("mined-{}", candidate.place);
        ordinary_exec(&id, argv, parent_of(event).as_deref())
    });
    Ok(Some(rows.collect()))
}

/// The name of the nearest ancestor.
pub(super) fn parent_of(event: &Event) -> Option<String> {
    let image = &event.ancestors.first()?.image;
    let name = match image.exe.rsplit('/').next() {
        Some(name) if !name.is_empty() => name,
        _ => image.comm.as_str(),
    };
    Some(name.to_owned())
}

struct Found<'a> {
    analyst: &'a Analyst,
    /// Most candidates.
    keep: usize,
    counts: Mined,
    seen: HashSet<[u8; 32]>,
    candidates: Vec<Candidate>,
}

impl Found<'_> {
    fn take(&mut self, event: Event) {
        let argv = &event.process.image.argv;
        if !matches!(event.data, EventData::Exec) || argv.args.is_empty() {
            return;
        }
        self.counts.read += 1;
        if argv.truncated {
            self.counts.cut += 1;
            return;
        }
        let case = Case::of(event);
        let classifier = self.analyst.classifier();
        let key = classifier.behaviour_of(&case);
        if self.seen.contains(&key) {
            return;
        }
        if self.seen.len() >= MAX_DISTINCT {
            self.counts.beyond += 1;
            return;
        }
        self.seen.insert(key);
        self.counts.distinct += 1;
        let score = match classifier.prepare(&case) {
            Prepared::Settled(verdict) if is_settled_malicious(&verdict) => {
                self.counts.settled_malicious += 1;
                return;
            }
            Prepared::Settled(verdict) => log_odds(verdict.score.probability()),
            Prepared::NeedsJudge(pending) => pending.priority.0,
        };
        self.candidates.push(Candidate {
            score,
            place: self.counts.distinct,
            case,
        });
        if self.candidates.len() > self.keep.saturating_mul(2) {
            most_suspicious(&mut self.candidates, self.keep);
        }
    }
}

/// Whether what is known for certain says malicious, not a weighing of signals.
fn is_settled_malicious(verdict: &Verdict) -> bool {
    verdict.label == Label::Malicious
        && matches!(
            verdict.settled_by,
            SettledBy::Rule(_) | SettledBy::Precedent(_)
        )
}

fn log_odds(probability: f64) -> f64 {
    let bounded = probability.clamp(1e-9, 1.0 - 1e-9);
    (bounded / (1.0 - bounded)).ln()
}

/// Keeps the `limit` highest.
fn most_suspicious(candidates: &mut Vec<Candidate>, limit: usize) {
    candidates.sort_by(|a, b| {
        let by_score = b.score.total_cmp(&a.score);
        by_score.then(a.place.cmp(&b.place))
    });
    candidates.truncate(limit);
}
