//! What holds of all cases, and what the shipped weights make of the shipped
//! sequences.

use std::sync::Arc;

use inwarden_types::{
    BootTime, CgroupId, Connection, DnsQuery, Event, EventData, EventId, FileAccess, FileOp, Image,
    Label, Peer, Process, ProcessKey, Protocol, SettledBy, Tgid, ToolCall,
};

use super::*;

const LIMITS: CaseLimits = CaseLimits {
    processes: 8,
    trees: 4,
    groups: 4,
    sessions: 2,
};

fn cases(limits: CaseLimits) -> Cases {
    Cases::new(
        Arc::new(CaseWeights::shipped().unwrap()),
        CaseReader::default(),
        limits,
    )
}

fn event(number: u32, exe: &str, data: EventData) -> Event {
    Event {
        id: EventId::External(number.to_string()),
        at: Some(BootTime(u64::from(number))),
        wall: None,
        process: Process {
            key: Some(ProcessKey {
                boot_id: inwarden_types::BootId([0; 16]),
                tgid: Tgid(number),
                start: BootTime(0),
            }),
            image: Image {
                exe: exe.to_owned(),
                ..Image::default()
            },
            cgroup_id: Some(CgroupId(u64::from(number) + 2)),
            ..Process::default()
        },
        ancestors: Vec::new(),
        data,
    }
}

fn file(op: FileOp, path: &str) -> EventData {
    EventData::File(FileAccess {
        op,
        path: path.to_owned(),
        to: None,
    })
}

fn take(cases: &mut Cases, event: &Event) -> Verdict {
    let seen = cases.observe(event);
    cases.conclude(&seen, None)
}

fn connection(address: [u8; 4], port: u16) -> EventData {
    EventData::Connect(Connection {
        peer: Peer::Address(address.into()),
        port: Some(port),
        protocol: Protocol::Tcp,
    })
}

#[test]
fn a_flood_of_processes_groups_and_agents_stays_in_bounds_and_is_counted() {
    let mut cases = cases(LIMITS);
    for number in 1..2_000 {
        take(
            &mut cases,
            &event(number, "/bin/x", file(FileOp::Write, "/tmp/x")),
        );
        let call = ToolCall {
            agent: number.to_string(),
            ..ToolCall::default()
        };
        take(&mut cases, &event(number, "", EventData::ToolCall(call)));
        let [processes, trees, groups, sessions] = cases.sizes();
        assert!(processes <= 8 && trees <= 4 && groups <= 4 && sessions <= 2);
    }
    assert!(cases.evicted() > 1_000);
}

#[test]
fn hostile_paths_names_and_clocks_are_taken_as_they_come() {
    let mut cases = cases(CaseLimits::default());
    let long = "é/../".repeat(800);
    let paths = [
        "",
        "/",
        "..",
        "//..//",
        "\0",
        "~",
        "/etc/cron.d/\u{202e}x",
        &long,
    ];
    for (idx, path) in paths.iter().enumerate() {
        for op in FileOp::ALL {
            let mut event = event(1, path, file(op, path));
            event.at = Some(BootTime(u64::MAX - idx as u64));
            let _any = take(&mut cases, &event);
            event.at = Some(BootTime(0));
            event.data = EventData::Dns(DnsQuery {
                name: (*path).to_owned(),
            });
            let _any = take(&mut cases, &event);
            event.at = None;
            event.data = EventData::Connect(Connection {
                peer: Peer::of(path),
                port: None,
                protocol: Protocol::Udp,
            });
            let _any = take(&mut cases, &event);
        }
    }
}

#[test]
fn a_clock_that_goes_backwards_forgets_no_secret() {
    let verdict = |times: [u64; 2]| {
        let mut cases = cases(CaseLimits::default());
        let mut read = event(7, "/usr/bin/cat", file(FileOp::Read, "/root/.ssh/id_rsa"));
        read.at = Some(BootTime(times[0]));
        let _read = take(&mut cases, &read);
        let mut sent = event(7, "/usr/bin/curl", connection([203, 0, 113, 9], 443));
        sent.at = Some(BootTime(times[1]));
        take(&mut cases, &sent)
    };
    let hour = 3_600_000_000_000;
    assert_eq!(verdict([5, 6]).label, Label::Malicious);
    assert_eq!(verdict([hour, 0]), verdict([5, 6]));
    assert_eq!(verdict([0, 2 * hour]).label, Label::Benign);
}

#[test]
fn later_events_change_no_earlier_verdict() {
    let judges = PlainJudges::shipped().unwrap();
    let (sequences, _) = shipped_sequences().unwrap();
    let play = |events: &[Event]| -> Vec<Verdict> {
        let mut cases = cases(CaseLimits::default());
        let verdicts = events.iter().map(|event| {
            let seen = cases.observe(event);
            let mut verdict = cases.conclude(&seen, judges.judge(event));
            verdict.stages = StageTimes::default();
            verdict
        });
        verdicts.collect()
    };
    for sequence in sequences.iter().step_by(7) {
        let all = play(&sequence.events);
        for end in 1..sequence.events.len() {
            assert_eq!(play(&sequence.events[..end]), all[..end], "{}", sequence.id);
        }
    }
}

#[test]
fn what_settles_a_file_names_itself_and_its_evidence() {
    let mut cases = cases(CaseLimits::default());
    let path = "/sys/fs/cgroup/rdma/release_agent";
    let verdict = take(&mut cases, &event(3, "/bin/sh", file(FileOp::Write, path)));
    assert_eq!(verdict.label, Label::Malicious);
    assert_eq!(verdict.settled_by, SettledBy::Case);
    let first = &verdict.evidence[0];
    assert_eq!(first.provenance.source_id, "case:kernel_door");
    assert_eq!(first.provenance.span, Some(0..path.len()));
    let quiet = take(
        &mut cases,
        &event(4, "/bin/ls", file(FileOp::Read, "/etc/hosts")),
    );
    assert_eq!(quiet.label, Label::Benign);
    assert!(quiet.evidence.is_empty());
}

#[test]
fn cases_of_different_places_do_not_touch_each_other() {
    let mut cases = cases(CaseLimits::default());
    let read = event(7, "/usr/bin/cat", file(FileOp::Read, "/root/.ssh/id_rsa"));
    let _read = take(&mut cases, &read);
    let elsewhere = event(8, "/usr/bin/curl", connection([203, 0, 113, 9], 443));
    assert_eq!(take(&mut cases, &elsewhere).label, Label::Benign);
}

#[test]
fn counters_are_of_the_case_before_the_event() {
    let mut cases = cases(CaseLimits::default());
    let opened = event(
        3,
        "/bin/sh",
        file(FileOp::Write, "/proc/sys/kernel/core_pattern"),
    );
    let seen = cases.observe(&opened);
    assert_eq!(cases.counters(&seen), CaseCounters::default());
    let _verdict = cases.conclude(&seen, None);
    cases.acted(&seen, Acted::Killed);
    let next = cases.observe(&event(3, "/bin/sh", file(FileOp::Read, "/etc/hosts")));
    let counted = cases.counters(&next);
    assert_eq!(
        (counted.malicious, counted.killed, counted.denied),
        (1, 1, 0)
    );
}

/// The promise of the weights: attacks in time and strong enough, all but one of 20;
/// no ordinary sequence is killed by what its case shows.
#[test]
fn the_shipped_weights_do_on_the_shipped_sequences_what_they_are_for() {
    let judges = PlainJudges::shipped().unwrap();
    let own = |event: &Event| judges.judge(event);
    let (sequences, corpus) = shipped_sequences().unwrap();
    let weights = Arc::new(CaseWeights::shipped().unwrap());
    assert_eq!(weights.corpus, corpus, "fit the weights anew");
    assert_eq!(weights.sequences, sequences.len());
    let (mut missed, mut hit) = (Vec::new(), Vec::new());
    for sequence in &sequences {
        let played = play(sequence, &weights, &own);
        let needed = if sequence.is_alert { 0.5 } else { 0.9 };
        match sequence.decisive {
            Some(_) if played.in_time.unwrap_or(0.0) < needed => missed.push(&sequence.id),
            None if played.by_case.unwrap_or(0.0) >= 0.9 => hit.push(&sequence.id),
            _ => {}
        }
    }
    let n_attacks = sequences.iter().filter(|s| s.decisive.is_some()).count();
    assert!(missed.len() * 20 <= n_attacks, "{missed:?}");
    assert!(hit.is_empty(), "{hit:?}");
    assert!(n_attacks >= 80 && sequences.len() - n_attacks >= 80);
}
