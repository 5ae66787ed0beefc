//! Counts, filters, delay, and who may start a sensor.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use inwarden_sensor::{Sensor, SensorConfig};
use inwarden_types::{CgroupId, EventData, EventKind};

use crate::support::{
    TestCgroup, events_until, exec_of, helper_command, is_exec_of, marker, quiet, start, tgid_of,
};

#[test]
fn a_burst_of_2000_execs_loses_nothing_and_the_counts_reconcile() {
    const EACH: usize = 1000;
    let Some(mut sensor) = start(&SensorConfig::default()) else {
        return;
    };
    let marker = marker();
    let done = AtomicBool::new(false);
    let mut events = Vec::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        quiet("/bin/true").arg(&marker).status().unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            for worker in workers {
                worker.join().unwrap();
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            sensor.poll(Duration::from_millis(50), &mut events).unwrap();
        }
    });
    let (rest, losses) = sensor.stop().unwrap();
    events.extend(rest);
    assert_eq!(losses.dropped, 0, "{losses:?}");
    assert_eq!(losses.undecodable, 0, "{losses:?}");
    assert_eq!(
        losses.seen,
        losses.emitted + losses.dropped + losses.filtered
    );
    assert_eq!(losses.read, losses.emitted);

    let mut kinds: BTreeMap<_, Vec<EventKind>> = BTreeMap::new();
    for event in &events {
        kinds
            .entry(event.process.key.unwrap())
            .or_default()
            .push(event.kind());
    }
    let mine: Vec<_> = events.iter().filter(|e| is_exec_of(e, &marker)).collect();
    assert_eq!(mine.len(), 2 * EACH);
    for event in mine {
        assert_eq!(
            kinds[&event.process.key.unwrap()],
            [EventKind::Fork, EventKind::Exec, EventKind::Exit]
        );
    }
    let ids: BTreeSet<_> = events.iter().map(|event| &event.id).collect();
    assert_eq!(ids.len(), events.len(), "ids are unique");
    let times: Vec<_> = events.iter().map(|event| event.at).collect();
    assert!(times.is_sorted(), "events come in order");
}

#[test]
fn a_full_ring_is_counted_and_shown_in_the_stream() {
    let config = SensorConfig {
        ring_bytes: 4096,
        ..SensorConfig::default()
    };
    let Some(mut sensor) = start(&config) else {
        return;
    };
    for _ in 0..30 {
        quiet("/bin/true").arg("x".repeat(500)).status().unwrap();
    }
    let events = events_until(&mut sensor, |events| {
        events.iter().any(|event| event.kind() == EventKind::Loss)
    });
    let loss = events.iter().find(|e| e.kind() == EventKind::Loss).unwrap();
    assert_eq!(tgid_of(loss), std::process::id());
    let EventData::Loss(reported) = loss.data else {
        panic!("{loss:?}")
    };
    assert!(reported.dropped > 0);
    for program in sensor.program_counters().unwrap() {
        assert_eq!(program.dropped_no_scratch, 0, "{program:?}");
    }
    let (_, losses) = sensor.stop().unwrap();
    assert!(losses.dropped >= reported.dropped);
    assert_eq!(
        losses.seen,
        losses.emitted + losses.dropped + losses.filtered
    );
    assert_eq!(losses.read, losses.emitted);
}

#[test]
fn the_cgroup_id_is_the_inode_of_its_directory() {
    let Some(mut sensor) = start(&SensorConfig::default()) else {
        return;
    };
    let Some(cgroup) = TestCgroup::create() else {
        return;
    };
    let marker = marker();
    cgroup.echo_inside(&marker);
    let event = exec_of(&mut sensor, &marker);
    assert_eq!(event.process.cgroup_id, Some(cgroup.id()));
    assert_ne!(event.process.cgroup_id, Some(CgroupId(1)));
}

#[test]
fn with_a_cgroup_filter_only_members_are_reported_and_the_others_counted() {
    if start(&SensorConfig::default()).is_none() {
        return;
    }
    let Some(cgroup) = TestCgroup::create() else {
        return;
    };
    let config = SensorConfig {
        cgroups: Some(BTreeSet::from([cgroup.id()])),
        ..SensorConfig::default()
    };
    let mut sensor = start(&config).unwrap();
    let marker = marker();
    cgroup.echo_inside(&marker);
    let event = exec_of(&mut sensor, &marker);
    // The shell's birth was left out: its key came with the exec, its image from /proc or not at all.
    assert_eq!(event.process.image.argv.args, ["/bin/echo", &marker]);
    quiet("/bin/true").status().unwrap();
    let (rest, losses) = sensor.stop().unwrap();
    assert!(
        rest.iter()
            .all(|e| e.process.cgroup_id == Some(cgroup.id()))
    );
    assert!(losses.filtered >= 4, "{losses:?}");
    assert_eq!(
        losses.seen,
        losses.emitted + losses.dropped + losses.filtered
    );
}

#[test]
fn an_event_is_delivered_within_50_ms_in_the_median() {
    let Some(mut sensor) = start(&SensorConfig::default()) else {
        return;
    };
    let mut delays: Vec<Duration> = (0..21)
        .map(|_| {
            let marker = marker();
            quiet("/bin/true").arg(&marker).status().unwrap();
            let returned = Instant::now();
            exec_of(&mut sensor, &marker);
            returned.elapsed()
        })
        .collect();
    delays.sort();
    eprintln!("delivery after wait(2): {delays:?}");
    assert!(delays[10] < Duration::from_millis(50), "{delays:?}");
}

#[test]
fn without_privilege_the_start_names_the_missing_capabilities() {
    if start(&SensorConfig::default()).is_none() {
        // Then this process itself is the unprivileged one.
        assert!(Sensor::start(&SensorConfig::default()).is_err());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = directory.path().join("helper");
    // By another process: a descriptor of ours that is open for writing could be
    // inherited by a child of another test, and the file then not be executed.
    let copied = quiet("/bin/cp")
        .arg(std::env::current_exe().unwrap())
        .arg(&binary)
        .status();
    assert!(copied.unwrap().success());
    let mut command = helper_command(&binary, "unprivileged");
    command.uid(65_534).gid(65_534).current_dir("/");
    let output = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{output:?}"
    );
}

#[test]
fn a_dropped_sensor_leaves_nothing_attached() {
    let Some(sensor) = start(&SensorConfig::default()) else {
        return;
    };
    // Links show up as our own descriptors.
    let links = || {
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(Result::ok)
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| link.to_string_lossy().contains("bpf_link"))
    };
    assert!(links());
    drop(sensor);
    // Other tests of this process hold links of their own, so only a process
    // that runs this test alone can tell.
    if std::env::args().any(|arg| arg == "--exact") {
        assert!(!links());
    }
}

#[test]
fn a_sensor_starts_while_signals_arrive() {
    if start(&SensorConfig::default()).is_none() {
        return;
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Each child that ends sends this process a signal, which interrupts the verifier.
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                quiet("/bin/true").status().unwrap();
            }
        });
        let started = Instant::now();
        let results: Vec<_> = (0..8)
            .map(|_| Sensor::start(&SensorConfig::default()).map(drop))
            .collect();
        eprintln!("8 starts took {:?}", started.elapsed());
        done.store(true, Ordering::Release);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    });
}

/// Seconds for `count` times fork, exec and exit of a small program.
fn time_execs(count: usize) -> f64 {
    let started = Instant::now();
    for _ in 0..count {
        quiet("/bin/true").status().unwrap();
    }
    started.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a measurement: needs a quiet machine; run with --ignored --nocapture"]
fn exec_overhead_in_adjacent_pairs() {
    if start(&SensorConfig::default()).is_none() {
        return;
    }
    time_execs(200);
    let mut ratios: Vec<f64> = (0..13)
        .map(|_| {
            let without = time_execs(500);
            let mut sensor = start(&SensorConfig::default()).unwrap();
            let done = AtomicBool::new(false);
            let with = thread::scope(|scope| {
                scope.spawn(|| {
                    let mut events = Vec::new();
                    while !done.load(Ordering::Acquire) {
                        sensor.poll(Duration::from_millis(50), &mut events).unwrap();
                        events.clear();
                    }
                });
                let with = time_execs(500);
                done.store(true, Ordering::Release);
                with
            });
            let (_, losses) = sensor.stop().unwrap();
            assert_eq!(losses.dropped, 0);
            with / without
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    eprintln!(
        "time with the sensor / without: median {:.3}, all {ratios:.3?}",
        ratios[6]
    );
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let rss = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    eprintln!("{rss}");
    assert!(ratios[6] < 1.5, "{ratios:?}");
}
