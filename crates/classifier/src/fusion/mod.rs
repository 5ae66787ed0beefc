//! From signals to one calibrated probability.
//!
//! A logistic model with one weight for each kind of signal, none negative: more
//! evidence of an attack never lowers the score. What the reading of a command
//! found is one signal, the log-odds of a small linear model over it
//! ([`FeatureModel`]). There is a set of weights for when the judge answered with
//! a head, for when it answered with labels alone, and for when it did not answer.
//! The weights are data (`data/weights.toml`), made by `learn`.

mod features;
mod fit;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use features::FeatureModel;
pub(crate) use fit::FitColumns;
pub use fit::{FitRow, Fitted, fit_calibration};

use inwarden_types::{Label, Score, UndeterminedReason};

use crate::{
    ClassifierError,
    reading::{Features, INDICATORS},
};

/// The log-odds of judge, head and words count at most this much each, in nats.
const MAX_JUDGE: f64 = 8.0;
/// The vote of precedents counts at most this much, in nats.
const MAX_VOTE: f64 = 4.0;
/// The log-odds of the feature model count at most this much, in nats.
const MAX_FEATURES: f64 = 8.0;
pub(crate) const FORMAT: u32 = 3;

/// What the stages found out about a case, before they are weighed.
#[derive(Clone, Debug, PartialEq)]
pub struct Signals {
    /// The log-odds of the judge's labels in nats, if it answered.
    pub judge: Option<f64>,
    /// The log-odds of the judge's head in nats, if it has one and answered.
    pub head: Option<f64>,
    /// The log-odds of the words, in nats, if there is a term model.
    pub terms: Option<f64>,
    /// The vote of precedents, log-odds in nats.
    pub vote: f64,
    /// The level of the strongest rule that does not settle alone, 0 (none) to 4
    /// (critical).
    pub rule_level: u8,
    /// Which indicators were seen, in the order of [`indicator_names`]; they explain
    /// the features and are not weighed themselves.
    pub indicators: Vec<bool>,
    /// What the reading shows, in the order of [`feature_names`], each `0.0..=1.0`.
    pub features: Vec<f32>,
}

/// A kind of signal, for leaving it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalKind {
    /// The judge's head.
    Head,
    /// The judge's labels.
    Judge,
    /// The words.
    Terms,
    /// The vote of precedents.
    Vote,
    /// Rules.
    Rule,
    /// What the reading of the command found.
    Features,
}

impl Signals {
    /// The signals as columns of about equal size: head, judge, terms, vote, rule, and
    /// `features`, the log-odds of the feature model.
    fn columns(&self, features: f64) -> [f64; 6] {
        [
            bounded(self.head.unwrap_or(0.0), MAX_JUDGE) / 2.0,
            bounded(self.judge.unwrap_or(0.0), MAX_JUDGE) / 2.0,
            bounded(self.terms.unwrap_or(0.0), MAX_JUDGE) / 2.0,
            bounded(self.vote, MAX_VOTE) / 2.0,
            f64::from(self.rule_level.min(4)) / 2.0,
            bounded(features, MAX_FEATURES) / 2.0,
        ]
    }
}

/// `value` within `-max..=max`; what is no number counts as 0.
pub(crate) fn bounded(value: f64, max: f64) -> f64 {
    if value.is_nan() {
        0.0
    } else {
        value.clamp(-max, max)
    }
}

/// The names of the indicators, in the order of [`Signals::indicators`].
#[must_use]
pub fn indicator_names() -> Vec<&'static str> {
    INDICATORS.iter().map(|indicator| indicator.name).collect()
}

/// The names of the features, in the order of [`Signals::features`].
#[must_use]
pub fn feature_names() -> &'static [&'static str] {
    Features::NAMES
}

/// Weights and the two thresholds on the score they give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Log-odds when nothing is known.
    pub intercept: f64,
    /// Weight of the head's log-odds; not negative, like all weights.
    pub head: f64,
    /// Weight of the labels' log-odds.
    pub judge: f64,
    /// Weight of the words' log-odds.
    pub terms: f64,
    /// Weight of the vote.
    pub vote: f64,
    /// Weight of the strongest rule's level.
    pub rule: f64,
    /// Weight of the feature model's log-odds.
    pub features: f64,
    /// Scores of at least this are malicious.
    pub malicious_threshold: f64,
    /// Scores of at most this are benign; in between the case is undetermined.
    pub benign_threshold: f64,
}

impl Weights {
    fn in_order(&self) -> [f64; 6] {
        let fast = [self.terms, self.vote, self.rule, self.features];
        [self.head, self.judge, fast[0], fast[1], fast[2], fast[3]]
    }

    fn check(&self, set: &str) -> Result<(), ClassifierError> {
        let wrong = |what: &str| Err(ClassifierError::Calibration(format!("{set}: {what}")));
        let is_bad = |weight: f64| !weight.is_finite() || weight < 0.0;
        if !self.intercept.is_finite() || self.in_order().into_iter().any(is_bad) {
            return wrong("a weight is negative or not finite");
        }
        let ordered = 0.0 <= self.benign_threshold
            && self.benign_threshold < self.malicious_threshold
            && self.malicious_threshold <= 1.0;
        if !ordered {
            return wrong("the thresholds are not 0 <= benign < malicious <= 1");
        }
        Ok(())
    }

    fn leave_out(&mut self, kind: SignalKind) {
        *match kind {
            SignalKind::Head => &mut self.head,
            SignalKind::Judge => &mut self.judge,
            SignalKind::Terms => &mut self.terms,
            SignalKind::Vote => &mut self.vote,
            SignalKind::Rule => &mut self.rule,
            SignalKind::Features => &mut self.features,
        } = 0.0;
    }
}

/// The shares of the signals in a score's log-odds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Shares {
    /// Head and labels.
    pub(crate) model: f64,
    pub(crate) terms: f64,
    pub(crate) vote: f64,
    pub(crate) rule: f64,
    /// Beyond those of nothing seen.
    pub(crate) features: f64,
}

/// The weights for all situations and what they were made with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The file format, 3.
    pub format: u32,
    /// [`crate::Judge::identity`] of the judge whose answers were weighed.
    pub judge: String,
    /// The identity of the embedder whose similarities were weighed.
    pub embedder: String,
    /// The share of malicious cases that scores assume; that of the rows the
    /// weights were fitted on until [`Calibration::with_prior`] changes it.
    /// Ordinary hosts have far fewer attacks.
    pub prior: f64,
    /// How many rows the weights were fitted on.
    pub rows: usize,
    /// Hash of these rows.
    pub corpus: String,
    /// Log-odds of a case that a rule or precedent settles, in nats.
    pub settled_log_odds: f64,
    /// When the judge answered and its head too.
    pub with_head: Weights,
    /// When the judge answered with labels alone.
    pub with_judge: Weights,
    /// When it did not answer.
    pub without_judge: Weights,
    /// What the reading of a command counts.
    pub features: FeatureModel,
}

impl Calibration {
    /// The calibration that comes with this crate.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`]; a test makes sure that there is none.
    pub fn shipped() -> Result<Self, ClassifierError> {
        Self::parse(include_str!("../../data/weights.toml"))
    }

    /// Reads a calibration.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`] if it is not TOML of this format, a
    /// weight is negative, the prior is no share or the thresholds are out of order.
    pub fn parse(text: &str) -> Result<Self, ClassifierError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let wrong = |what: String| Err(ClassifierError::Calibration(what));
        let unreadable = |e: toml::de::Error| ClassifierError::Calibration(e.to_string());
        let version: Version = toml::from_str(text).map_err(unreadable)?;
        if version.format != FORMAT {
            let format = version.format;
            return wrong(format!("format {format}, this program reads {FORMAT}"));
        }
        let calibration: Self = toml::from_str(text).map_err(unreadable)?;
        if !calibration.settled_log_odds.is_finite() || calibration.settled_log_odds <= 0.0 {
            return wrong("settled_log_odds is not positive".to_owned());
        }
        if !(calibration.prior > 0.0 && calibration.prior < 1.0) {
            return wrong("the prior is not between 0 and 1".to_owned());
        }
        calibration.with_head.check("with_head")?;
        calibration.with_judge.check("with_judge")?;
        calibration.without_judge.check("without_judge")?;
        calibration.features.check()?;
        Ok(calibration)
    }

    /// Writes it as [`Calibration::parse`] reads it.
    ///
    /// # Errors
    /// [`ClassifierError::Calibration`] if a number cannot be written.
    pub fn to_text(&self) -> Result<String, ClassifierError> {
        toml::to_string(self).map_err(|e| ClassifierError::Calibration(e.to_string()))
    }

    /// The same for cases of which `prior` are malicious, between 0 and 1: all
    /// scores move by the difference of the priors' log-odds, thresholds stay.
    ///
    /// # Errors
    /// [`ClassifierError::Setting`] if `prior` is not between 0 and 1.
    pub fn with_prior(mut self, prior: f64) -> Result<Self, ClassifierError> {
        if !(prior > 0.0 && prior < 1.0) {
            return Err(ClassifierError::Setting {
                key: "prior",
                got: prior,
                allowed: "between 0 and 1",
            });
        }
        let log_odds = |share: f64| (share / (1.0 - share)).ln();
        let shift = log_odds(prior) - log_odds(self.prior);
        for weights in self.sets_mut() {
            weights.intercept += shift;
        }
        self.prior = prior;
        Ok(self)
    }

    /// The same without a kind of signal, to see what it adds.
    #[must_use]
    pub fn without(mut self, kind: SignalKind) -> Self {
        for weights in self.sets_mut() {
            weights.leave_out(kind);
        }
        self
    }

    fn sets_mut(&mut self) -> [&mut Weights; 3] {
        let (head, judge) = (&mut self.with_head, &mut self.with_judge);
        [head, judge, &mut self.without_judge]
    }

    /// The weights for what answered.
    pub(crate) fn weights_for(&self, signals: &Signals) -> &Weights {
        match (signals.head, signals.judge) {
            (Some(_), _) => &self.with_head,
            (None, Some(_)) => &self.with_judge,
            (None, None) => &self.without_judge,
        }
    }

    /// The log-odds of malicious, and the shares in it.
    pub(crate) fn weigh(&self, signals: &Signals) -> (f64, Shares) {
        let weights = self.weights_for(signals);
        let columns = signals.columns(self.features.log_odds(signals));
        let mut parts = columns;
        for (part, weight) in parts.iter_mut().zip(weights.in_order()) {
            *part *= weight;
        }
        let nothing = bounded(self.features.intercept, MAX_FEATURES) / 2.0 * weights.features;
        let shares = Shares {
            model: parts[0] + parts[1],
            terms: parts[2],
            vote: parts[3],
            rule: parts[4],
            features: parts[5] - nothing,
        };
        (weights.intercept + parts.iter().sum::<f64>(), shares)
    }

    /// Whether some answer of a judge, of its head or labels, makes these malicious.
    pub(crate) fn may_be_malicious(&self, signals: &Signals) -> bool {
        let judge = Some(MAX_JUDGE);
        [(judge, judge), (None, judge), (None, None)]
            .into_iter()
            .any(|(head, judge)| {
                let answered = Signals {
                    head,
                    judge,
                    ..signals.clone()
                };
                let score = Score::from_log_odds(self.weigh(&answered).0);
                score.probability() >= self.weights_for(&answered).malicious_threshold
            })
    }

    pub(crate) fn content_hash(&self) -> Result<[u8; 32], ClassifierError> {
        Ok(Sha256::digest(self.to_text()?).into())
    }
}

/// What a case of this probability is held to be between `thresholds` (benign,
/// malicious), after `failure` of a stage or an `incomplete` reading. What failed or
/// was not read might have said otherwise, so only malicious stands without it.
pub(crate) fn label_of(
    probability: f64,
    thresholds: (f64, f64),
    failure: Option<UndeterminedReason>,
    incomplete: bool,
) -> (Label, Option<UndeterminedReason>) {
    let reason = if probability >= thresholds.1 {
        return (Label::Malicious, None);
    } else if failure.is_some() {
        failure
    } else if incomplete {
        Some(UndeterminedReason::NotFullyRead)
    } else if probability > thresholds.0 {
        Some(UndeterminedReason::AbstainBand)
    } else {
        return (Label::Benign, None);
    };
    (Label::Undetermined, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals() -> Signals {
        Signals {
            judge: Some(1.0),
            head: Some(-1.0),
            terms: Some(0.5),
            vote: -0.5,
            rule_level: 2,
            indicators: vec![false; INDICATORS.len()],
            features: vec![0.0; Features::COUNT],
        }
    }

    #[test]
    fn more_evidence_never_lowers_the_score() {
        let calibration = Calibration::shipped().unwrap();
        for (judge, head) in [(Some(1.0), Some(-1.0)), (Some(1.0), None), (None, None)] {
            let base = Signals {
                judge,
                head,
                ..signals()
            };
            let (before, _) = calibration.weigh(&base);
            let at_least = |more: &Signals, what: &str| {
                assert!(calibration.weigh(more).0 >= before, "{what}");
            };
            for (idx, name) in feature_names().iter().enumerate() {
                let mut more = base.clone();
                more.features[idx] = 1.0;
                at_least(&more, name);
            }
            let mut more = base.clone();
            more.judge = judge.map(|judge| judge + 1.0);
            at_least(&more, "judge");
            more.head = head.map(|head| head + 1.0);
            at_least(&more, "head");
            more.terms = more.terms.map(|terms| terms + 1.0);
            at_least(&more, "terms");
            more.vote += 1.0;
            at_least(&more, "vote");
            more.rule_level = 4;
            at_least(&more, "rule");
        }
    }

    #[test]
    fn the_shipped_calibration_survives_writing_and_bad_ones_are_refused() {
        let shipped = Calibration::shipped().unwrap();
        let text = shipped.to_text().unwrap();
        assert_eq!(Calibration::parse(&text).unwrap(), shipped);
        for (from, to, expected) in [
            ("format = 3", "format = 9", "format 9"),
            ("format = 3", "format = 3\nextra = 2", "extra"),
            (
                "shell_on_socket = ",
                "no_such = 1.0\nshell_on_socket = ",
                "no_such",
            ),
            (
                "shell_on_socket = ",
                "shell_on_socket = -1.0 # ",
                "negative",
            ),
            ("\nvote = ", "\nvote = -1.0 # ", "negative"),
            ("\nprior = ", "\nprior = 1.0 # ", "prior"),
            (
                "malicious_threshold = ",
                "malicious_threshold = 0.0 # ",
                "thresholds",
            ),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            let error = Calibration::parse(&changed).unwrap_err();
            assert!(error.to_string().contains(expected), "{to}: {error}");
        }
    }

    #[test]
    fn the_shares_and_the_intercepts_are_the_score() {
        let calibration = Calibration::shipped().unwrap();
        let mut signals = signals();
        signals.features[2] = 1.0;
        let (log_odds, shares) = calibration.weigh(&signals);
        let none = Signals {
            judge: Some(0.0),
            head: Some(0.0),
            terms: Some(0.0),
            vote: 0.0,
            rule_level: 0,
            indicators: vec![false; INDICATORS.len()],
            features: vec![0.0; Features::COUNT],
        };
        let (base, nothing) = calibration.weigh(&none);
        assert_eq!(nothing.model, 0.0);
        let sum = base + shares.model + shares.terms + shares.vote + shares.rule + shares.features;
        assert!((log_odds - sum).abs() < 1e-9, "{log_odds} {sum}");
    }

    #[test]
    fn another_prior_moves_all_scores_alike() {
        let shipped = Calibration::shipped().unwrap();
        let rare = shipped.clone().with_prior(0.001).unwrap();
        let signals = signals();
        let moved = rare.weigh(&signals).0 - shipped.weigh(&signals).0;
        let log_odds = |share: f64| (share / (1.0 - share)).ln();
        assert!((moved - log_odds(0.001) + log_odds(shipped.prior)).abs() < 1e-9);
        let back = rare.with_prior(shipped.prior).unwrap();
        assert!((back.weigh(&signals).0 - shipped.weigh(&signals).0).abs() < 1e-9);
        assert!(shipped.with_prior(1.0).is_err());
    }

    #[test]
    fn what_is_left_out_counts_nothing() {
        let shipped = Calibration::shipped().unwrap();
        let without = shipped.without(SignalKind::Features);
        let base = signals();
        let mut more = base.clone();
        more.features.fill(1.0);
        assert_eq!(without.weigh(&base).0, without.weigh(&more).0);
    }

    #[test]
    fn wild_numbers_are_bounded() {
        let calibration = Calibration::shipped().unwrap();
        for judge in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            let wild = Signals {
                judge: Some(judge),
                head: Some(judge),
                terms: Some(judge),
                vote: judge,
                ..signals()
            };
            assert!(calibration.weigh(&wild).0.is_finite(), "{judge}");
        }
    }

    #[test]
    fn what_is_missing_outweighs_doubt() {
        use UndeterminedReason::{AbstainBand, NotFullyRead, Overloaded};
        let of = |probability, failure, incomplete| {
            label_of(probability, (0.2, 0.8), failure, incomplete)
        };
        for (probability, whole) in [
            (0.2, (Label::Benign, None)),
            (0.21, (Label::Undetermined, Some(AbstainBand))),
            (0.79, (Label::Undetermined, Some(AbstainBand))),
        ] {
            assert_eq!(of(probability, None, false), whole);
            let in_part = (Label::Undetermined, Some(NotFullyRead));
            assert_eq!(of(probability, None, true), in_part);
            let failed = (Label::Undetermined, Some(Overloaded));
            assert_eq!(of(probability, Some(Overloaded), true), failed);
        }
        let malicious = (Label::Malicious, None);
        assert_eq!(of(0.8, Some(Overloaded), true), malicious);
    }
}
