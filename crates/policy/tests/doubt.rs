//! What follows for calls and texts from a verdict that is neither benign nor
//! malicious, by its reason.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up must fail"
)]

use inwarden_policy::{CallQuery, Policy, PolicySource, TextQuery};
use inwarden_types::{
    Action, AgentText, DecisionReason, Label, Mode, Score, SettledBy, Stage, StageTimes, ToolCall,
    UndeterminedReason, Verdict,
};

fn undetermined(reason: UndeterminedReason, settled_by: SettledBy) -> Verdict {
    Verdict {
        label: Label::Undetermined,
        score: Score::new(0.4).unwrap(),
        technique: None,
        settled_by,
        undetermined: Some(reason),
        evidence: Vec::new(),
        stages: StageTimes::default(),
    }
}

/// The actions on a call and on a text.
fn actions(policy: &Policy, verdict: &Verdict) -> [Action; 2] {
    let call = ToolCall {
        agent: "a1".into(),
        tool: "bash".into(),
        ..ToolCall::default()
    };
    let text = AgentText {
        agent: "a1".into(),
        ..AgentText::default()
    };
    let of_call = policy.decide_call(&CallQuery {
        call: &call,
        verdict: Some(verdict),
        mode: Mode::Enforce,
    });
    let of_text = policy.decide_text(&TextQuery {
        text: &text,
        verdict: Some(verdict),
        mode: Mode::Enforce,
    });
    for decision in [&of_call, &of_text] {
        let reason = match decision.action {
            Action::Allow => DecisionReason::Permitted,
            _ => DecisionReason::NotPermitted,
        };
        assert_eq!(decision.reason, reason);
    }
    [of_call.action, of_text.action]
}

#[test]
fn doubt_of_a_judge_passes_and_whatever_failed_is_held() {
    use UndeterminedReason::{AbstainBand, DeadlinePassed, NotFullyRead, Overloaded, StageFailed};
    let policy = Policy::builtin().unwrap();
    let judges = [
        SettledBy::Model,
        SettledBy::Case,
        SettledBy::Rule("r".into()),
        SettledBy::Precedent("p".into()),
    ];
    for settled_by in judges {
        let verdict = undetermined(AbstainBand, settled_by.clone());
        assert_eq!(
            actions(&policy, &verdict),
            [Action::Allow; 2],
            "{settled_by:?}"
        );
        for reason in [
            DeadlinePassed,
            NotFullyRead,
            Overloaded,
            StageFailed {
                stage: Stage::Judge,
                error: "x".into(),
            },
        ] {
            let verdict = undetermined(reason.clone(), settled_by.clone());
            assert_eq!(actions(&policy, &verdict), [Action::Deny; 2], "{reason:?}");
        }
    }
    let no_judge = undetermined(AbstainBand, SettledBy::Fallback);
    assert_eq!(actions(&policy, &no_judge), [Action::Deny; 2]);
}

#[test]
fn without_the_permits_doubt_is_held_too() {
    let strict = Policy::load(&[PolicySource {
        name: "strict.cedar".into(),
        text: ["calls", "texts"]
            .map(|name| {
                let path = format!("{}/src/defaults/{name}.cedar", env!("CARGO_MANIFEST_DIR"));
                let text = std::fs::read_to_string(path).unwrap();
                let mut policies: Vec<&str> = text.split("\n\n").collect();
                let n_all = policies.len();
                policies.retain(|policy| !policy.contains("-in-doubt"));
                assert_eq!(policies.len() + 1, n_all);
                policies.join("\n\n")
            })
            .join("\n"),
    }])
    .unwrap();
    let verdict = undetermined(UndeterminedReason::AbstainBand, SettledBy::Model);
    assert_eq!(actions(&strict, &verdict), [Action::Deny; 2]);
}
