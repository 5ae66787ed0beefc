//! What the classifier believes.

use std::{fmt, time::Duration};

use crate::{Provenance, Score};

/// What a case is held to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// Ordinary.
    Benign,
    /// An attack.
    Malicious,
    /// The stages that answered do not suffice for either.
    Undetermined,
}

impl Label {
    /// The name used in files: `benign`, `malicious`, `undetermined`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Benign => "benign",
            Self::Malicious => "malicious",
            Self::Undetermined => "undetermined",
        }
    }
}

/// Why a verdict is [`Label::Undetermined`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UndeterminedReason {
    /// The score lies between the two thresholds, and nothing is missing of what it
    /// rests on but, where it was settled by [`SettledBy::Fallback`], a judge.
    AbstainBand,
    /// The deadline passed before a stage settled the case.
    DeadlinePassed,
    /// The model's queue was full.
    Overloaded,
    /// A stage failed; its error, without any text of the case.
    StageFailed {
        /// Which stage.
        stage: Stage,
        /// What it said.
        error: String,
    },
    /// It is not malicious by what was read, but a part of its text is too long or too deep to be
    /// read, or is not in the form it claims.
    NotFullyRead,
}

impl UndeterminedReason {
    /// The name policies see: `abstain_band`, `deadline_passed`, `overloaded`,
    /// `stage_failed`, `not_fully_read`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::AbstainBand => "abstain_band",
            Self::DeadlinePassed => "deadline_passed",
            Self::Overloaded => "overloaded",
            Self::StageFailed { .. } => "stage_failed",
            Self::NotFullyRead => "not_fully_read",
        }
    }
}

impl fmt::Display for UndeterminedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AbstainBand => f.write_str("score in the abstain band"),
            Self::DeadlinePassed => f.write_str("deadline passed"),
            Self::Overloaded => f.write_str("judge queue full"),
            Self::StageFailed { stage, error } => write!(f, "{} failed: {error}", stage.name()),
            Self::NotFullyRead => f.write_str("not all of its text could be read"),
        }
    }
}

/// What settled a case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SettledBy {
    /// A detection rule with this id.
    Rule(String),
    /// The precedent with this id.
    Precedent(String),
    /// The language model, fused with the other signals.
    Model,
    /// What happened before in the same case.
    Case,
    /// Nothing: the strongest answer within the deadline stands.
    Fallback,
}

impl SettledBy {
    /// The name used in files: `rule`, `precedent`, `model`, `case`, `fallback`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rule(_) => "rule",
            Self::Precedent(_) => "precedent",
            Self::Model => "model",
            Self::Case => "case",
            Self::Fallback => "fallback",
        }
    }

    /// The id of the rule or precedent, if one settled the case.
    #[must_use]
    pub fn source_id(&self) -> Option<&str> {
        match self {
            Self::Rule(id) | Self::Precedent(id) => Some(id),
            Self::Model | Self::Case | Self::Fallback => None,
        }
    }
}

/// A MITRE ATT&CK technique id, such as `T1059.004`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Technique(pub String);

impl fmt::Display for Technique {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One reason for a verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Where it came from.
    pub provenance: Provenance,
    /// Its share in the log-odds of malicious, in nats.
    pub log_odds: f64,
    /// What it says, in words of ours or of the source; never of the case.
    pub summary: String,
}

/// A stage of the way from event to action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Waiting, all queues together.
    Queue,
    /// Detection rules.
    Screen,
    /// Retrieval of precedents.
    Precedents,
    /// The language model.
    Judge,
    /// The policy.
    Policy,
    /// Carrying the action out.
    Response,
}

impl Stage {
    /// The name used in files and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Screen => "screen",
            Self::Precedents => "precedents",
            Self::Judge => "judge",
            Self::Policy => "policy",
            Self::Response => "response",
        }
    }
}

/// How long each stage took, in the order in which they ran.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StageTimes(Vec<(Stage, Duration)>);

impl StageTimes {
    /// Adds to the time of `stage`.
    pub fn add(&mut self, stage: Stage, elapsed: Duration) {
        match self.0.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, total)) => *total += elapsed,
            None => self.0.push((stage, elapsed)),
        }
    }

    /// The stages that ran with their times.
    #[must_use]
    pub fn as_slice(&self) -> &[(Stage, Duration)] {
        &self.0
    }

    /// The time of one stage; zero if it did not run.
    #[must_use]
    pub fn of(&self, stage: Stage) -> Duration {
        self.0
            .iter()
            .find(|(known, _)| *known == stage)
            .map_or(Duration::ZERO, |(_, elapsed)| *elapsed)
    }

    /// The sum over all stages.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.0.iter().map(|(_, elapsed)| *elapsed).sum()
    }
}

/// What the classifier believes about a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What the case is held to be.
    pub label: Label,
    /// The calibrated probability of malicious; present for every label.
    pub score: Score,
    /// The likeliest technique, if the case is not benign and one is known.
    pub technique: Option<Technique>,
    /// What settled it.
    pub settled_by: SettledBy,
    /// Why it is undetermined, if it is.
    pub undetermined: Option<UndeterminedReason>,
    /// The reasons, strongest first.
    pub evidence: Vec<Evidence>,
    /// How long each stage took.
    pub stages: StageTimes,
}
