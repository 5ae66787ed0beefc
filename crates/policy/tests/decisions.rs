//! What is decided, by the shipped policies and by others.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up must fail"
)]

use inwarden_policy::{
    CallQuery, Counters, EntitySource, Policy, PolicySource, ResponseQuery, Target, TextQuery,
};
use inwarden_types::{
    Action, AgentText, CgroupId, Decision, DecisionReason, Event, EventData, EventId, Image, Label,
    Mode, Process, Score, SettledBy, StageTimes, Technique, TextGiver, ToolCall, Uid, Verdict,
};

fn verdict(label: Label, score: f64) -> Verdict {
    Verdict {
        label,
        score: Score::new(score).unwrap(),
        technique: Some(Technique("T1059.004".into())),
        settled_by: SettledBy::Rule("r1".into()),
        undetermined: None,
        evidence: Vec::new(),
        stages: StageTimes::default(),
    }
}

fn event(exe: &str) -> Event {
    Event {
        id: EventId::External("e1".into()),
        at: None,
        wall: None,
        process: Process {
            image: Image {
                exe: exe.into(),
                ..Image::default()
            },
            uid: Some(Uid(u32::MAX)),
            cgroup_id: Some(CgroupId(u64::MAX)),
            ..Process::default()
        },
        ancestors: Vec::new(),
        data: EventData::Exec,
    }
}

fn query<'a>(event: &'a Event, verdict: &'a Verdict) -> ResponseQuery<'a> {
    ResponseQuery {
        event,
        verdict,
        in_scope: true,
        mode: Mode::Enforce,
        target: Target::Decided,
        protected: false,
        counters: Counters::default(),
    }
}

/// The shipped policies and `more`.
fn with(more: &str) -> Policy {
    let mut sources = Policy::builtin_sources();
    sources.push(PolicySource {
        name: "more.cedar".into(),
        text: more.into(),
    });
    Policy::load(&sources).unwrap()
}

fn check(decision: &Decision, action: Action, reason: &str, policies: &[&str]) {
    let ids: Vec<&str> = decision.policies.iter().map(|id| id.0.as_str()).collect();
    assert_eq!(
        (decision.action, decision.reason.name(), ids.as_slice()),
        (action, reason, policies)
    );
}

#[test]
fn the_shipped_response_by_label_and_score() {
    let policy = Policy::builtin().unwrap();
    let event = event("/bin/sh");
    for (label, score, action, policies) in [
        (
            Label::Malicious,
            0.90,
            Action::Kill,
            &["kill-malicious"][..],
        ),
        (
            Label::Malicious,
            0.8999,
            Action::Alert,
            &["alert-malicious"],
        ),
        (
            Label::Undetermined,
            1.0,
            Action::Alert,
            &["alert-undetermined"],
        ),
        (
            Label::Undetermined,
            0.5,
            Action::Alert,
            &["alert-undetermined"],
        ),
    ] {
        let verdict = verdict(label, score);
        let decision = policy.decide_response(&query(&event, &verdict));
        check(&decision, action, "permitted", policies);
        assert_eq!(decision.enforced, action);
    }
    for verdict in [
        verdict(Label::Undetermined, 0.4),
        verdict(Label::Benign, 1.0),
    ] {
        let decision = policy.decide_response(&query(&event, &verdict));
        check(&decision, Action::Allow, "nothing_stronger_permitted", &[]);
    }
}

#[test]
fn a_forbid_that_takes_something_away_is_named() {
    let policy = Policy::builtin().unwrap();
    let (event, verdict) = (event("/bin/sh"), verdict(Label::Malicious, 1.0));
    let decision = policy.decide_response(&ResponseQuery {
        protected: true,
        ..query(&event, &verdict)
    });
    let policies = ["alert-malicious", "never-kill-protected"];
    check(&decision, Action::Alert, "forbidden", &policies);
}

#[test]
fn outside_the_scope_an_alert_is_the_most() {
    let (event, verdict) = (event("/bin/sh"), verdict(Label::Malicious, 1.0));
    let outside = ResponseQuery {
        in_scope: false,
        ..query(&event, &verdict)
    };
    let policies = ["alert-malicious", "only-alert-outside-scope"];
    let decision = Policy::builtin().unwrap().decide_response(&outside);
    check(&decision, Action::Alert, "outside_scope", &policies);

    // Without the policy that says so, the code says so.
    let greedy = Policy::load(&[PolicySource {
        name: "greedy".into(),
        text: "@id(\"all\") permit (principal, action, resource);".into(),
    }])
    .unwrap();
    let decision = greedy.decide_response(&outside);
    check(&decision, Action::Alert, "outside_scope", &["all"]);
    let decision = greedy.decide_response(&query(&event, &verdict));
    check(&decision, Action::Kill, "permitted", &["all"]);
}

#[test]
fn an_ancestor_is_killed_only_if_a_policy_grants_it() {
    let (event, verdict) = (event("/bin/sh"), verdict(Label::Malicious, 1.0));
    let ancestor = ResponseQuery {
        target: Target::OldestLiveAncestor,
        ..query(&event, &verdict)
    };
    let decision = Policy::builtin().unwrap().decide_response(&ancestor);
    check(&decision, Action::Alert, "permitted", &["alert-malicious"]);
    let granted = with(
        "@id(\"ancestors\") permit (principal, action == Action::\"respond_kill\", resource)
         when { context.target == \"ancestor\" && context.settled_by == \"rule\" };",
    );
    check(
        &granted.decide_response(&ancestor),
        Action::Kill,
        "permitted",
        &["ancestors"],
    );
}

#[test]
fn the_strongest_permitted_action_is_taken() {
    let (event, verdict) = (event("/bin/sh"), verdict(Label::Malicious, 1.0));
    let protected = ResponseQuery {
        protected: true,
        ..query(&event, &verdict)
    };
    let policy = with(
        "@id(\"q\") permit (principal, action == Action::\"respond_quarantine\", resource);
         @id(\"d\") permit (principal, action == Action::\"respond_deny\", resource);",
    );
    let decision = policy.decide_response(&protected);
    check(
        &decision,
        Action::Quarantine,
        "forbidden",
        &["never-kill-protected", "q"],
    );
}

#[test]
fn monitor_mode_records_the_action_and_carries_out_an_alert_at_most() {
    let policy = Policy::builtin().unwrap();
    let event = event("/bin/sh");
    for (label, action, enforced) in [
        (Label::Malicious, Action::Kill, Action::Alert),
        (Label::Benign, Action::Allow, Action::Allow),
    ] {
        let verdict = verdict(label, 1.0);
        let decision = policy.decide_response(&ResponseQuery {
            mode: Mode::Monitor,
            ..query(&event, &verdict)
        });
        assert_eq!((decision.action, decision.enforced), (action, enforced));
        assert_eq!(decision.mode, Mode::Monitor);
    }
    let call = ToolCall::default();
    let decision = policy.decide_call(&CallQuery {
        call: &call,
        verdict: None,
        mode: Mode::Monitor,
    });
    assert_eq!(
        (decision.action, decision.enforced),
        (Action::Deny, Action::Alert)
    );
}

const OVERFLOWING: &str = "context.counters.killed + 9223372036854775807 > 0";

#[test]
fn a_broken_forbid_stops_kill_quarantine_and_deny() {
    let (event, verdict) = (event("/bin/secret"), verdict(Label::Malicious, 1.0));
    let broken = |action: &str| {
        with(&format!(
            "@id(\"everything\") permit (principal, action, resource);
             @id(\"broken\") forbid (principal, action == Action::\"{action}\", resource)
             when {{ {OVERFLOWING} }};"
        ))
    };
    let counters = Counters {
        killed: u64::MAX,
        ..Counters::default()
    };
    let query = ResponseQuery {
        counters,
        ..query(&event, &verdict)
    };
    let decision = broken("respond_kill").decide_response(&query);
    let policies = ["alert-malicious", "broken", "everything"];
    check(&decision, Action::Alert, "evaluation_failed", &policies);
    let errors = vec!["policy broken: integer overflow".to_owned()];
    assert_eq!(decision.reason, DecisionReason::EvaluationFailed { errors });

    // The same policy that does not fail: a forbid like any other.
    let sound = ResponseQuery {
        counters: Counters::default(),
        ..query
    };
    let decision = broken("respond_kill").decide_response(&sound);
    check(
        &decision,
        Action::Quarantine,
        "forbidden",
        &["broken", "everything"],
    );
}

#[test]
fn a_failure_cannot_hide_a_case() {
    let (event, verdict) = (event("/bin/sh"), verdict(Label::Benign, 0.0));
    let policy = with(&format!(
        "@id(\"broken\") permit (principal, action == Action::\"respond_alert\", resource)
         when {{ {OVERFLOWING} }};"
    ));
    let decision = policy.decide_response(&ResponseQuery {
        counters: Counters {
            killed: 1,
            ..Counters::default()
        },
        ..query(&event, &verdict)
    });
    check(&decision, Action::Alert, "evaluation_failed", &["broken"]);
}

fn call(agent: &str, role: Option<&str>, tool: &str) -> ToolCall {
    ToolCall {
        agent: agent.into(),
        role: role.map(Into::into),
        tool: tool.into(),
        ..ToolCall::default()
    }
}

fn ask(policy: &Policy, call: &ToolCall, verdict: Option<&Verdict>) -> Decision {
    policy.decide_call(&CallQuery {
        call,
        verdict,
        mode: Mode::Enforce,
    })
}

#[test]
fn a_call_goes_through_only_if_judged() {
    let policy = Policy::builtin().unwrap();
    let call = call("a", None, "bash");
    let of = |label| ask(&policy, &call, Some(&verdict(label, 0.5)));
    check(
        &of(Label::Benign),
        Action::Allow,
        "permitted",
        &["call-benign"],
    );
    check(
        &of(Label::Malicious),
        Action::Deny,
        "forbidden",
        &["never-call-malicious"],
    );
    check(&of(Label::Undetermined), Action::Deny, "not_permitted", &[]);
    check(
        &ask(&policy, &call, None),
        Action::Deny,
        "not_permitted",
        &[],
    );
}

#[test]
fn a_broken_policy_denies_the_call() {
    let call = call("secret-agent", None, "bash");
    for effect in ["forbid", "permit"] {
        let policy = with(&format!(
            "@id(\"broken\") {effect} (principal, action == Action::\"call_tool\", resource)
             when {{ context has score_bp && context.score_bp * 9223372036854775807 > 0 }};"
        ));
        let decision = ask(&policy, &call, Some(&verdict(Label::Benign, 0.4)));
        check(
            &decision,
            Action::Deny,
            "evaluation_failed",
            &["broken", "call-benign"],
        );
        assert!(!format!("{:?}", decision.reason).contains("secret-agent"));
    }
}

#[test]
fn roles_and_groups_decide() {
    let text = "@id(\"readers\") permit (principal in Role::\"reader\",
        action == Action::\"call_tool\", resource in ToolGroup::\"read-only\");";
    let mut sources = Policy::builtin_sources();
    sources.push(PolicySource {
        name: "roles".into(),
        text: text.into(),
    });
    let entities = EntitySource {
        name: "groups.json".into(),
        text: r#"[
            {"uid":{"type":"Tool","id":"cat"},"attrs":{},"parents":[{"type":"ToolGroup","id":"read-only"}]},
            {"uid":{"type":"Role","id":"auditor"},"attrs":{},"parents":[{"type":"Role","id":"reader"}]},
            {"uid":{"type":"Agent","id":"known"},"attrs":{},"parents":[{"type":"Role","id":"auditor"}]},
            {"uid":{"type":"Agent","id":"pinned"},"attrs":{},"parents":[]}
        ]"#
        .into(),
    };
    let policy = Policy::load_with_entities(&sources, &entities).unwrap();
    for (agent, role, tool, allowed) in [
        ("known", None, "cat", true),
        ("stranger", Some("reader"), "cat", true),
        ("stranger", Some("auditor"), "cat", true),
        ("stranger", None, "cat", false),
        ("stranger", Some("writer"), "cat", false),
        ("stranger", Some("reader"), "rm", false),
        // The entities name it, so the role it claims does not count.
        ("pinned", Some("reader"), "cat", false),
    ] {
        let decision = ask(&policy, &call(agent, role, tool), None);
        assert_eq!(
            decision.action == Action::Allow,
            allowed,
            "{agent} {role:?} {tool}"
        );
    }
}

#[test]
fn names_are_values_whatever_they_contain() {
    let policy = with(
        "@id(\"root-may\") permit (principal == Agent::\"root\",
         action == Action::\"call_tool\", resource);",
    );
    for name in [
        "root\" || true || \"",
        "root\n",
        "root\0",
        "\"",
        "\\",
        "",
        "Agent::\"root\"",
        "\u{202e}toor",
        &"r".repeat(4_096),
    ] {
        let call = call(name, Some(name), name);
        check(
            &ask(&policy, &call, None),
            Action::Deny,
            "not_permitted",
            &[],
        );
        let verdict = Verdict {
            settled_by: SettledBy::Precedent(name.into()),
            technique: Some(Technique(name.into())),
            ..verdict(Label::Malicious, 1.0)
        };
        let mut event = event(name);
        event.data = EventData::ToolCall(call);
        let decision = policy.decide_response(&query(&event, &verdict));
        check(&decision, Action::Kill, "permitted", &["kill-malicious"]);
    }
}

#[test]
fn oversized_names_fail_closed_and_are_not_repeated() {
    let policy = with("@id(\"all\") permit (principal, action, resource);");
    let huge = "x".repeat(5_000_000);
    for call in [
        call(&huge, None, "t"),
        call("a", Some(&huge), "t"),
        call("a", None, &huge),
    ] {
        let decision = ask(&policy, &call, None);
        check(&decision, Action::Deny, "evaluation_failed", &[]);
        assert!(format!("{:?}", decision.reason).len() < 200);
    }
    let (mut event, verdict) = (event("/bin/sh"), verdict(Label::Malicious, 1.0));
    event.data = EventData::ToolCall(call(&huge, None, "t"));
    let decision = policy.decide_response(&query(&event, &verdict));
    check(&decision, Action::Alert, "evaluation_failed", &[]);
}

#[test]
fn a_program_with_an_oversized_path_is_killed_all_the_same() {
    // A path of PATH_MAX bytes that are no text: three bytes for each, lossily.
    let path = format!("/tmp/{}", "\u{fffd}".repeat(4_400));
    assert!(path.len() > 13_000);
    let (mut event, verdict) = (event(&path), verdict(Label::Malicious, 1.0));
    event.process.image.comm.clone_from(&path);
    let builtin = Policy::builtin().unwrap();
    let decision = builtin.decide_response(&query(&event, &verdict));
    check(&decision, Action::Kill, "permitted", &["kill-malicious"]);
    let outside = ResponseQuery {
        in_scope: false,
        ..query(&event, &verdict)
    };
    let policies = ["alert-malicious", "only-alert-outside-scope"];
    let decision = builtin.decide_response(&outside);
    check(&decision, Action::Alert, "outside_scope", &policies);
}

#[test]
fn an_observed_text_is_cut_at_4096_bytes_and_marked() {
    let by = |field: &str| {
        with(&format!(
            "@id(\"cut\") forbid (principal, action == Action::\"respond_kill\", resource)
             when {{ context.{field}_truncated && context.{field} like \"/tmp/*\" }};"
        ))
    };
    let verdict = verdict(Label::Malicious, 1.0);
    for (path, is_cut) in [
        (format!("/tmp/{}", "x".repeat(4_091)), false),
        (format!("/tmp/{}", "x".repeat(4_092)), true),
        // The limit lies within a character.
        (format!("/tmp/{}", "\u{fffd}".repeat(1_364)), true),
        (format!("/opt/{}", "x".repeat(4_092)), false),
    ] {
        let mut event = event(&path);
        event.process.image.comm.clone_from(&path);
        for field in ["exe", "comm"] {
            let decision = by(field).decide_response(&query(&event, &verdict));
            let action = if is_cut { Action::Alert } else { Action::Kill };
            assert_eq!(decision.action, action, "{field} of {} bytes", path.len());
        }
    }
}

#[test]
fn a_policy_is_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&Policy::builtin().unwrap());
}

/// splitmix64: the tests bring their own numbers.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) >> 33).unwrap() % below
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next(from.len())]
    }

    fn policy(&mut self, effect: &str, id: usize) -> String {
        let action = self.pick(&[
            "respond_alert",
            "respond_deny",
            "respond_quarantine",
            "respond_kill",
        ]);
        let condition = self.pick(&[
            "context.label == \"malicious\"",
            "context.label != \"benign\"",
            "context.score_bp >= 4000",
            "context.score_bp < 8000",
            "context.protected",
            "!context.in_scope",
            "context.target == \"ancestor\"",
            "context.exe like \"/bin/*\"",
            "context has uid && context.uid == 0",
            "context.counters.malicious > 1",
            OVERFLOWING,
        ]);
        format!(
            "@id(\"{effect}-{id}\") {effect} (principal, action == Action::\"{action}\", resource)
             when {{ {condition} }};\n\
             @id(\"{effect}-call-{id}\") {effect} (principal, action == Action::\"call_tool\", resource)
             when {{ context has score_bp && context.score_bp {} }};\n",
            self.pick(&["> 5000", "< 3000", "> 0", "* 9223372036854775807 > 0"]),
        )
    }

    fn verdict(&mut self) -> Verdict {
        let label = self.pick(&[Label::Benign, Label::Malicious, Label::Undetermined]);
        verdict(label, self.pick(&[0.0, 0.25, 0.45, 0.75, 0.95, 1.0]))
    }
}

fn load_text(text: &str) -> Policy {
    Policy::load(&[PolicySource {
        name: "random".into(),
        text: text.into(),
    }])
    .unwrap()
}

#[test]
fn adding_a_forbid_never_allows_more_and_answers_repeat() {
    let mut numbers = Numbers(20_261_122);
    let mut weaker = 0;
    for round in 0..60 {
        let mut text =
            "@id(\"base\") permit (principal, action, resource) when { true };\n".to_owned();
        if round % 2 == 0 {
            text.clear();
        }
        for id in 0..4 {
            text += &numbers.policy("permit", id);
        }
        text += &numbers.policy("forbid", 0);
        let before = load_text(&text);
        text += &numbers.policy("forbid", 1);
        let after = load_text(&text);
        for _ in 0..40 {
            let verdict = numbers.verdict();
            let event = event(numbers.pick(&["/bin/sh", "/usr/bin/curl", ""]));
            let query = ResponseQuery {
                in_scope: numbers.next(4) > 0,
                target: numbers.pick(&[Target::Decided, Target::OldestLiveAncestor]),
                protected: numbers.next(4) == 0,
                counters: Counters {
                    malicious: numbers.next(3) as u64,
                    killed: numbers.next(2) as u64,
                    ..Counters::default()
                },
                ..query(&event, &verdict)
            };
            let (old, new) = (
                before.decide_response(&query),
                after.decide_response(&query),
            );
            // A forbid that fails alerts; nothing else may grow.
            let failed = new.reason.name() == "evaluation_failed";
            let most = if failed {
                old.action.max(Action::Alert)
            } else {
                old.action
            };
            assert!(new.action <= most, "{text}\n{query:?}\n{old:?}\n{new:?}");
            assert!(!failed || new.action == Action::Alert);
            assert!(query.in_scope || new.action <= Action::Alert);
            assert_eq!(new, after.decide_response(&query));
            weaker += usize::from(new.action < old.action);

            let call = call("a", None, "t");
            let (old, new) = (
                ask(&before, &call, Some(&verdict)),
                ask(&after, &call, Some(&verdict)),
            );
            assert!(
                !(old.action == Action::Deny && new.action == Action::Allow),
                "{text}"
            );
        }
    }
    assert!(weaker > 50, "the forbids did nothing: {weaker}");
}

fn decide_text(policy: &Policy, text: &AgentText, label: Option<Label>) -> Decision {
    let verdict = label.map(|label| verdict(label, 0.5));
    policy.decide_text(&TextQuery {
        text,
        verdict: verdict.as_ref(),
        mode: Mode::Enforce,
    })
}

#[test]
fn a_text_is_read_only_if_judged() {
    let policy = Policy::builtin().unwrap();
    for given_by in [TextGiver::User, TextGiver::Tool] {
        let text = AgentText {
            agent: "a1".into(),
            given_by,
            ..AgentText::default()
        };
        let action = |label| decide_text(&policy, &text, label).action;
        assert_eq!(action(Some(Label::Benign)), Action::Allow);
        assert_eq!(action(Some(Label::Undetermined)), Action::Deny);
        assert_eq!(action(Some(Label::Malicious)), Action::Deny);
        assert_eq!(action(None), Action::Deny);
    }
}

#[test]
fn policies_tell_who_gave_a_text_and_who_reads_it() {
    let policy = with(
        "@id(\"trusted-tool\") permit (principal in Role::\"reader\", action == Action::\"read_text\",
         resource == Tool::\"clock\");
         @id(\"users\") permit (principal, action == Action::\"read_text\", resource == User::\"user\");",
    );
    let text = |role: &str, given_by, tool: Option<&str>| AgentText {
        agent: "a1".into(),
        role: Some(role.into()),
        given_by,
        tool: tool.map(Into::into),
        ..AgentText::default()
    };
    let undetermined = Some(Label::Undetermined);
    for (text, expected) in [
        (
            text("reader", TextGiver::Tool, Some("clock")),
            Action::Allow,
        ),
        (text("writer", TextGiver::Tool, Some("clock")), Action::Deny),
        (text("reader", TextGiver::Tool, Some("mail")), Action::Deny),
        (text("reader", TextGiver::Tool, None), Action::Deny),
        (text("writer", TextGiver::User, None), Action::Allow),
    ] {
        let decision = decide_text(&policy, &text, undetermined);
        assert_eq!(decision.action, expected, "{text:?}");
    }
    let long = text("reader", TextGiver::Tool, Some(&"x".repeat(5_000)));
    assert!(matches!(
        decide_text(&policy, &long, Some(Label::Benign)).reason,
        DecisionReason::EvaluationFailed { .. }
    ));
}

/// What was decided without counters must not stand for what they would change.
#[test]
fn a_policy_that_reads_counters_is_asked_when_they_change() {
    for condition in [
        "context.counters.malicious >= 3",
        r#"context["count\u{65}rs"].malicious >= 3"#,
    ] {
        let policy = with(&format!(
            r#"@id("repeated") permit (principal, action == Action::"respond_alert", resource)
            when {{ {condition} }};"#
        ));
        let event = event("/bin/sh");
        let verdict = verdict(Label::Benign, 0.1);
        let query = |malicious| ResponseQuery {
            counters: Counters {
                malicious,
                ..Counters::default()
            },
            ..query(&event, &verdict)
        };
        for _ in 0..2 {
            assert_eq!(policy.decide_response(&query(2)).action, Action::Allow);
            assert_eq!(policy.decide_response(&query(3)).action, Action::Alert);
        }
    }
}
