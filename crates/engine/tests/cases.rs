//! Events of one case, replayed: what came before decides, without model files.

use std::{collections::BTreeSet, sync::Arc};

use inwarden::{
    Analyst, AnalystConfig, CaseReport, MemoryPlace, ReplayConfig, Warden,
    feeds::decode_event,
    models::ModelCache,
    types::{Action, CgroupId, EventData, Label, Mode, Scope, SettledBy},
};

const BOOT: &str = "00000000-0000-4000-8000-000000000001";

fn replay(lines: &[String]) -> Vec<CaseReport> {
    let analyst = Analyst::load(&AnalystConfig {
        model: None,
        memory: MemoryPlace::Off,
        ..AnalystConfig::new(ModelCache::at("unused".into()))
    })
    .expect("rules and weights are shipped");
    let config = ReplayConfig {
        mode: Mode::Enforce,
        scope: Scope::Cgroups(BTreeSet::from([CgroupId(9)])),
    };
    let events = lines
        .iter()
        .map(|line| decode_event(line.as_bytes()).map(|decoded| decoded.event));
    Warden::replay(Arc::new(analyst), config, events.collect::<Vec<_>>())
        .collect::<Result<_, _>>()
        .expect("the lines are events")
}

/// An event of the process `tgid` in the scope; `fields` are the rest of the line.
fn line(id: u32, tgid: u32, fields: &str) -> String {
    let at = u64::from(id) * 1_000_000_000;
    format!(
        r#"{{"id":{id},"at_ns":{at},"key":"{BOOT}:{tgid}:1","parent_key":"{BOOT}:5:1","cgroup_id":9,{fields}}}"#
    )
}

#[test]
fn a_connection_is_judged_by_what_its_processes_read_before() {
    let read = r#""kind":"file","exe":"/usr/bin/cat","op":"read","path":"/root/.ssh/id_rsa""#;
    let sent = r#""kind":"connect","exe":"/usr/bin/curl","dst":"203.0.113.7","port":443"#;
    let alone = replay(&[line(1, 7, sent)]);
    assert_eq!(alone[0].verdict.label, Label::Benign);
    assert_eq!(alone[0].decision.action, Action::Allow);
    // Both under one shell.
    let below = format!(r#","ancestors":[{{"key":"{BOOT}:5:1","comm":"bash"}}]"#);
    let [read, sent] = [read, sent].map(|fields| format!("{fields}{below}"));
    let after = replay(&[line(1, 6, &read), line(2, 7, &sent)]);
    assert_eq!(after.len(), 2);
    assert_eq!(after[1].verdict.label, Label::Malicious);
    assert_eq!(after[1].verdict.settled_by, SettledBy::Case);
    assert_eq!(after[1].decision.action, Action::Kill);
}

#[test]
fn a_replay_with_cases_gives_the_same_verdicts_twice() {
    let lines = [
        line(
            1,
            6,
            r#""kind":"file","exe":"/bin/sh","op":"write","path":"/etc/cron.d/x""#,
        ),
        line(
            2,
            6,
            r#""kind":"dns","exe":"/bin/sh","query":"pool.minexmr.test""#,
        ),
        line(
            3,
            6,
            r#""kind":"connect","exe":"/tmp/x","dst":"203.0.113.7","port":4444"#,
        ),
    ];
    let scores = || -> Vec<(Label, u16)> {
        let reports = replay(&lines);
        let verdicts = reports.iter().map(|report| &report.verdict);
        verdicts
            .map(|v| (v.label, v.score.basis_points()))
            .collect()
    };
    assert_eq!(scores(), scores());
}

#[test]
fn a_call_is_judged_in_the_light_of_what_its_agent_was_asked() {
    let asked =
        r#""kind":"text","agent":"a","given_by":"user","text":"Pay 40 to account NO12 7788 9900""#;
    let called = r#""kind":"tool_call","agent":"a","tool":"pay","args":{"account":"NO12 7788 9900","sum":40}"#;
    let alone = replay(&[line(1, 7, called)]);
    let after = replay(&[line(1, 7, asked), line(2, 7, called)]);
    let EventData::ToolCall(call) = &after[1].case.last().data else {
        panic!("the second event is a call");
    };
    assert_eq!(
        call.user_task.as_deref(),
        Some("Pay 40 to account NO12 7788 9900")
    );
    let (alone, after) = (alone[0].verdict.score, after[1].verdict.score);
    assert!(after < alone, "{after:?} {alone:?}");
    // Another agent was not asked.
    let other = called.replace(r#""agent":"a""#, r#""agent":"b""#);
    let other = replay(&[line(1, 7, asked), line(2, 7, &other)]);
    assert_eq!(other[1].verdict.score, alone);
}
