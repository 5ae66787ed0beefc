//! Two readings of one tool call: as what somebody may have steered an agent to, and
//! as a command that it would run.

use inwarden_types::{Label, Score, SettledBy, ToolCall, UndeterminedReason, Verdict};

use crate::screen::command_of;

/// Whether `call` asks to run a command, or its arguments cannot be read to the
/// end, so that it may.
#[must_use]
pub fn may_run_command(call: &ToolCall) -> bool {
    let command = command_of(call);
    command.line.is_some() || command.incomplete
}

/// The more severe of two verdicts on one case, with the evidence and the times of
/// both: malicious before undetermined before benign, what is undetermined because
/// something failed before what is by its score, then by score. The score is the
/// higher of the two.
#[must_use]
pub fn more_severe(one: Verdict, other: Verdict) -> Verdict {
    let rank = |verdict: &Verdict| match verdict.label {
        Label::Benign => 0,
        Label::Undetermined if is_in_doubt(verdict) => 1,
        Label::Undetermined => 2,
        Label::Malicious => 3,
    };
    let probability = |verdict: &Verdict| verdict.score.probability();
    let other_is_higher = probability(&other) > probability(&one);
    let score: Score = if other_is_higher {
        other.score
    } else {
        one.score
    };
    let is_other = match rank(&one).cmp(&rank(&other)) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Equal => other_is_higher,
        std::cmp::Ordering::Greater => false,
    };
    let (mut verdict, milder) = if is_other { (other, one) } else { (one, other) };
    verdict.score = score;
    if verdict.label != Label::Benign {
        verdict.technique = verdict.technique.or(milder.technique);
    }
    verdict.evidence.extend(milder.evidence);
    let strength = |log_odds: f64| log_odds.abs();
    verdict
        .evidence
        .sort_by(|a, b| strength(b.log_odds).total_cmp(&strength(a.log_odds)));
    for (stage, elapsed) in milder.stages.as_slice() {
        verdict.stages.add(*stage, *elapsed);
    }
    verdict
}

/// Whether a judge answered and its score lies between the thresholds.
fn is_in_doubt(verdict: &Verdict) -> bool {
    verdict.undetermined == Some(UndeterminedReason::AbstainBand)
        && verdict.settled_by != SettledBy::Fallback
}

#[cfg(test)]
mod tests {
    use inwarden_types::{StageTimes, Technique};

    use super::*;

    fn verdict(label: Label, probability: f64, technique: Option<&str>) -> Verdict {
        Verdict {
            label,
            score: Score::new(probability).unwrap(),
            technique: technique.map(|id| Technique(id.to_owned())),
            settled_by: SettledBy::Rule(format!("{label:?}")),
            undetermined: None,
            evidence: Vec::new(),
            stages: StageTimes::default(),
        }
    }

    #[test]
    fn the_more_severe_counts_in_either_order() {
        use Label::{Benign, Malicious, Undetermined};
        for (one, other, label, probability) in [
            ((Benign, 0.1), (Malicious, 0.9), Malicious, 0.9),
            ((Undetermined, 0.6), (Benign, 0.1), Undetermined, 0.6),
            ((Undetermined, 0.95), (Malicious, 0.9), Malicious, 0.95),
            ((Benign, 0.02), (Benign, 0.1), Benign, 0.1),
        ] {
            let of = |(label, probability)| verdict(label, probability, None);
            for joined in [
                more_severe(of(one), of(other)),
                more_severe(of(other), of(one)),
            ] {
                assert_eq!(joined.label, label);
                assert_eq!(joined.score.probability(), probability);
                assert_eq!(joined.settled_by, SettledBy::Rule(format!("{label:?}")));
            }
        }
        let mut doubtful = verdict(Undetermined, 0.8, None);
        doubtful.undetermined = Some(UndeterminedReason::AbstainBand);
        let mut failed = verdict(Undetermined, 0.3, None);
        failed.undetermined = Some(UndeterminedReason::Overloaded);
        let mut unjudged = doubtful.clone();
        unjudged.settled_by = SettledBy::Fallback;
        unjudged.score = Score::new(0.3).unwrap();
        for held in [failed, unjudged] {
            for joined in [
                more_severe(doubtful.clone(), held.clone()),
                more_severe(held.clone(), doubtful.clone()),
            ] {
                assert_eq!(joined.undetermined, held.undetermined);
                assert_eq!(joined.settled_by, held.settled_by);
                assert_eq!(joined.score.probability(), 0.8);
            }
        }
        let joined = more_severe(
            verdict(Malicious, 0.9, None),
            verdict(Undetermined, 0.5, Some("T1059")),
        );
        assert_eq!(joined.technique, Some(Technique("T1059".into())));
    }

    #[test]
    fn commands_are_told_from_other_calls() {
        let may_run = |args: &str| {
            may_run_command(&ToolCall {
                args_json: args.to_owned(),
                ..ToolCall::default()
            })
        };
        assert!(may_run(r#"{"command":"ls"}"#) && may_run(r#"{"command":"#));
        assert!(!may_run(r#"{"to":"DE12","amount":7}"#) && !may_run("{}"));
    }
}
