//! Ours and its peers in turns, over one prefix.
//!
//! In every round each subject is given the same new event, so that what
//! disturbs the machine disturbs all of them; a ratio is the median of the
//! ratios of the rounds.

use std::time::{Duration, Instant};

use inwarden_inference::Tokenizer;

use crate::{
    sample::{Effort, Sample, millis},
    subject::{Subject, Way},
    workload::{Piece, Workload},
};

/// Lengths of the events that are prefilled, in tokens.
pub(crate) const PREFILL_TOKENS: [usize; 2] = [64, 128];

/// Length of the events that are judged, in tokens, without the question's end.
pub(crate) const VERDICT_TOKENS: usize = 64;

/// Events that wait at once.
pub(crate) const BATCH: usize = 16;

/// Tokens that are decoded.
pub(crate) const DECODE_TOKENS: usize = 32;

/// Threads of one engine may spin on for a moment after they answered.
const SETTLE: Duration = Duration::from_millis(20);

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Tokens per second.
    Prefill(usize),
    /// Tokens per second.
    Decode,
    /// Milliseconds.
    Verdict(Way),
    /// Verdicts per second, [`BATCH`] asked at once.
    Verdicts,
}

pub(crate) const MEASURES: [Measure; 6] = [
    Measure::Prefill(PREFILL_TOKENS[0]),
    Measure::Prefill(PREFILL_TOKENS[1]),
    Measure::Decode,
    Measure::Verdict(Way::OneToken),
    Measure::Verdict(Way::Constrained),
    Measure::Verdicts,
];

/// Samples by subject, in the order of [`MEASURES`]; an empty one where a
/// subject does not offer it. The first subject is ours.
#[derive(Clone, Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) subjects: Vec<Measured>,
}

#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) name: String,
    samples: [Sample; MEASURES.len()],
}

impl Measured {
    pub(crate) fn new(name: &str, samples: [Sample; MEASURES.len()]) -> Self {
        Self {
            name: name.to_owned(),
            samples,
        }
    }

    pub(crate) fn sample(&self, measure: Measure) -> &Sample {
        let idx = MEASURES.iter().position(|&other| other == measure);
        &self.samples[idx.expect("every measure stands in MEASURES")]
    }

    /// Whichever way of asking answers first.
    pub(crate) fn fastest_verdict(&self) -> &Sample {
        let ways = [Way::OneToken, Way::Constrained].map(|way| self.sample(Measure::Verdict(way)));
        match ways {
            [one_token, constrained]
                if one_token.is_empty()
                    || (!constrained.is_empty() && constrained.median() < one_token.median()) =>
            {
                constrained
            }
            [one_token, _] => one_token,
        }
    }
}

pub(crate) fn run(
    subjects: &mut [Box<dyn Subject>],
    tokenizer: &Tokenizer,
    workload: &mut Workload,
    prefix: &Piece,
    effort: &Effort,
) -> anyhow::Result<Comparison> {
    let mut measured: Vec<Measured> = Vec::new();
    for subject in subjects.iter_mut() {
        subject.cache_prefix(prefix)?;
        measured.push(Measured::new(subject.name(), Default::default()));
    }
    for (measure_idx, measure) in MEASURES.into_iter().enumerate() {
        let started = Instant::now();
        // Round 0 warms up.
        for round in 0..=effort.runs {
            if round > 1 && started.elapsed() > effort.limit {
                break;
            }
            let events = events_of(measure, tokenizer, workload);
            for turn in 0..subjects.len() {
                // Nobody always comes first.
                let idx = (turn + round) % subjects.len();
                std::thread::sleep(SETTLE);
                let value = one(&mut *subjects[idx], measure, &events)?;
                if round > 0
                    && let Some(value) = value
                {
                    measured[idx].samples[measure_idx].push(value);
                }
            }
        }
    }
    Ok(Comparison { subjects: measured })
}

fn events_of(measure: Measure, tokenizer: &Tokenizer, workload: &mut Workload) -> Vec<Piece> {
    match measure {
        Measure::Prefill(n_tokens) => workload.events(tokenizer, n_tokens, 1),
        Measure::Decode => workload.events(tokenizer, 8, 1),
        Measure::Verdict(_) => workload.events(tokenizer, VERDICT_TOKENS, 1),
        Measure::Verdicts => workload.events(tokenizer, VERDICT_TOKENS, BATCH),
    }
}

fn one(
    subject: &mut dyn Subject,
    measure: Measure,
    events: &[Piece],
) -> anyhow::Result<Option<f64>> {
    Ok(match measure {
        Measure::Prefill(n_tokens) => {
            let time = subject.prefill(&events[0])?;
            Some(n_tokens as f64 / time.as_secs_f64())
        }
        Measure::Decode => Some(subject.decode(&events[0], DECODE_TOKENS)?),
        Measure::Verdict(way) => subject.verdict(way, &events[0])?.map(millis),
        Measure::Verdicts => subject
            .verdicts(events)?
            .map(|time| events.len() as f64 / time.as_secs_f64()),
    })
}
