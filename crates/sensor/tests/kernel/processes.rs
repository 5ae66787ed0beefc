//! What is reported of a process.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::Stdio,
    thread,
    time::Duration,
};

use inwarden_sensor::SensorConfig;
use inwarden_types::{Event, EventData, EventKind, NamespaceInode, Tgid, Uid};

use crate::support::{
    events_until, exec_of, exec_of_program, helper_command, is_exec_of, is_exit_of, marker, quiet,
    start, tgid_of,
};

#[test]
fn three_nested_subshells_are_the_ancestors_in_order() {
    let Some(mut sensor) = start(&SensorConfig::default()) else {
        return;
    };
    let marker = marker();
    let script = format!("( ( ( /bin/echo {marker}; : ); : ); : ); :");
    assert!(
        quiet("/bin/sh")
            .args(["-c", &script])
            .status()
            .unwrap()
            .success()
    );
    let event = exec_of(&mut sensor, &marker);
    assert_eq!(event.process.image.argv.args, ["/bin/echo", &marker]);
    let shells = &event.ancestors[..4];
    for shell in shells {
        assert_eq!(shell.image.argv.args, ["/bin/sh", "-c", &script]);
    }
    let keys: BTreeSet<_> = shells.iter().map(|shell| shell.key.unwrap()).collect();
    assert_eq!(keys.len(), 4);
    assert!(event.process.parent == shells[0].key);
    // Born in this order, the nearest last.
    assert!(
        shells
            .windows(2)
            .all(|pair| { pair[0].key.unwrap().start > pair[1].key.unwrap().start })
    );
    assert_eq!(
        event.ancestors[4].key.unwrap().tgid,
        Tgid(std::process::id())
    );
    assert!(event.ancestors.len() <= 8);
}

#[test]
fn a_process_that_ran_before_the_sensor_is_an_ancestor_with_its_arguments() {
    if start(&SensorConfig::default()).is_none() {
        return;
    }
    let marker = marker();
    let mut shell = quiet("/bin/sh")
        .args(["-c", "read line; /bin/echo $line; :", "found-running"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(50));
    let mut sensor = start(&SensorConfig::default()).unwrap();
    writeln!(shell.stdin.take().unwrap(), "{marker}").unwrap();
    let event = exec_of(&mut sensor, &marker);
    let parent = &event.ancestors[0];
    assert_eq!(parent.key.unwrap().tgid.0, shell.id());
    assert_eq!(parent.image.argv.args.last().unwrap(), "found-running");
    assert_eq!(parent.image.exec_at, None);
    assert!(parent.image.exe.starts_with('/'));
    shell.wait().unwrap();
}

#[test]
fn arguments_beyond_the_cap_are_flagged_with_their_true_length() {
    let small = SensorConfig {
        max_argv_bytes: 64,
        ..SensorConfig::default()
    };
    for (config, long) in [(SensorConfig::default(), 50_000), (small, 500)] {
        let cap = config.max_argv_bytes as usize;
        let Some(mut sensor) = start(&config) else {
            return;
        };
        let marker = marker();
        let text = "x".repeat(long);
        quiet("/bin/echo").args([&marker, &text]).status().unwrap();
        let argv = exec_of(&mut sensor, &marker).process.image.argv;
        assert!(argv.truncated);
        let true_bytes = "/bin/echo".len() + marker.len() + long + 3;
        assert_eq!(argv.true_bytes, true_bytes as u64);
        let captured: usize = argv.args.iter().map(|arg| arg.len() + 1).sum();
        assert_eq!(captured - 1, cap);
    }
    // Just below the cap nothing is flagged.
    let mut sensor = start(&SensorConfig::default()).unwrap();
    let marker = marker();
    let fits = 16_384 - "/bin/echo".len() - marker.len() - 3;
    let text = "y".repeat(fits);
    quiet("/bin/echo").args([&marker, &text]).status().unwrap();
    let argv = exec_of(&mut sensor, &marker).process.image.argv;
    assert_eq!((argv.truncated, argv.true_bytes), (false, 16_384));
    assert_eq!(argv.args, ["/bin/echo", &marker, &text]);
}

#[test]
fn a_killed_process_ends_with_signal_9_after_its_birth_and_exec() {
    let Some(mut sensor) = start(&SensorConfig::default()) else {
        return;
    };
    let mut child = quiet("/bin/sleep").arg("60").spawn().unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let tgid = child.id();
    let events = events_until(&mut sensor, |events| {
        events.iter().any(|event| is_exit_of(event, tgid))
    });
    let mine: Vec<&Event> = events.iter().filter(|e| tgid_of(e) == tgid).collect();
    assert_eq!(mine.first().unwrap().kind(), EventKind::Fork);
    let keys: BTreeSet<_> = mine
        .iter()
        .map(|event| event.process.key.unwrap())
        .collect();
    assert_eq!(keys.len(), 1, "exec keeps the key");
    let EventData::Exit(status) = mine.last().unwrap().data else {
        panic!("{mine:?}")
    };
    assert_eq!((status.signal, status.code), (9, 0));
}

#[test]
fn an_exit_code_is_reported_as_wait_reports_it() {
    let Some(mut sensor) = start(&SensorConfig::default()) else {
        return;
    };
    let mut child = quiet("/bin/sh").args(["-c", "exit 37"]).spawn().unwrap();
    child.wait().unwrap();
    let tgid = child.id();
    let events = events_until(&mut sensor, |events| {
        events.iter().any(|event| is_exit_of(event, tgid))
    });
    let exit = events.iter().find(|event| is_exit_of(event, tgid)).unwrap();
    let EventData::Exit(status) = exit.data else {
        panic!("{exit:?}")
    };
    assert_eq!((status.signal, status.code), (0, 37));
    assert_eq!(exit.process.image.argv.args, ["/bin/sh", "-c", "exit 37"]);
}

#[test]
fn threads_are_neither_born_nor_ended() {
    let Some(mut sensor) = start(&SensorConfig::default()) else {
        return;
    };
    let binary = std::env::current_exe().unwrap();
    let mut child = helper_command(&binary, "threads").spawn().unwrap();
    assert!(child.wait().unwrap().success());
    let tgid = child.id();
    let mut events = events_until(&mut sensor, |events| {
        events.iter().any(|event| is_exit_of(event, tgid))
    });
    events.extend(sensor.stop().unwrap().0);
    let kinds: Vec<_> = events
        .iter()
        .filter(|event| tgid_of(event) == tgid)
        .map(Event::kind)
        .collect();
    assert_eq!(kinds, [EventKind::Fork, EventKind::Exec, EventKind::Exit]);
}

#[test]
fn an_exec_by_a_thread_keeps_the_key_of_the_process() {
    let Some(mut sensor) = start(&SensorConfig::default()) else {
        return;
    };
    let marker = marker();
    let binary = std::env::current_exe().unwrap();
    let mut child = helper_command(&binary, "exec_from_thread")
        .env("INWARDEN_MARKER", &marker)
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success());
    let tgid = child.id();
    let mut events = events_until(&mut sensor, |events| {
        events.iter().any(|event| is_exit_of(event, tgid))
    });
    events.extend(sensor.stop().unwrap().0);
    let mine: Vec<_> = events.iter().filter(|e| tgid_of(e) == tgid).collect();
    let kinds: Vec<_> = mine.iter().map(|event| event.kind()).collect();
    let expected = [
        EventKind::Fork,
        EventKind::Exec,
        EventKind::Exec,
        EventKind::Exit,
    ];
    assert_eq!(kinds, expected);
    let keys: BTreeSet<_> = mine
        .iter()
        .map(|event| event.process.key.unwrap())
        .collect();
    assert_eq!(keys.len(), 1);
    assert!(is_exec_of(mine[2], &marker));
    assert_eq!(mine[3].process.image.argv.args, ["/bin/echo", &marker]);
}

#[test]
fn paths_ids_and_namespaces_are_those_of_the_process() {
    let Some(mut sensor) = start(&SensorConfig::default()) else {
        return;
    };
    let inode = |name: &str| {
        let link = fs::metadata(format!("/proc/self/ns/{name}")).unwrap();
        Some(NamespaceInode(u32::try_from(link.ino()).unwrap()))
    };
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let echo = fs::canonicalize("/bin/echo").unwrap();
    // A plain directory, a mount in a mount, and the root.
    for cwd in [directory.path(), Path::new("/proc/sys"), Path::new("/")] {
        let marker = marker();
        let mut command = quiet("/bin/echo");
        command
            .arg(&marker)
            .current_dir(cwd)
            .uid(65_534)
            .gid(65_534);
        assert!(command.status().unwrap().success());
        let process = exec_of(&mut sensor, &marker).process;
        assert_eq!(Path::new(&process.image.exe), echo);
        assert_eq!(Path::new(&process.image.cwd), cwd);
        assert_eq!(process.image.comm, "echo");
        assert_eq!(process.uid, Some(Uid(65_534)));
        assert_eq!(process.gid.unwrap().0, 65_534);
        assert_eq!(process.mount_ns, inode("mnt"));
        assert_eq!(process.net_ns, inode("net"));
        assert_eq!(process.pid_ns, inode("pid"));
    }
}

#[test]
fn a_working_directory_deeper_than_the_limit_is_marked() {
    let Some(mut sensor) = start(&SensorConfig::default()) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let marker = marker();
    let binary = std::env::current_exe().unwrap();
    let status = helper_command(&binary, "exec_in_deep_directory")
        .env("INWARDEN_MARKER", &marker)
        .current_dir(directory.path())
        .status()
        .unwrap();
    assert!(status.success());
    let image = exec_of(&mut sensor, &marker).process.image;
    assert!(image.cwd.starts_with("…/"), "{}", image.cwd);
    assert!(image.cwd.len() > 4000);
    // What follows it in the record is intact.
    assert_eq!(image.argv.args, ["/bin/echo", &marker]);
}

#[test]
fn a_program_that_exists_only_in_memory_is_named_as_proc_names_it() {
    let Some(mut sensor) = start(&SensorConfig::default()) else {
        return;
    };
    let marker = marker();
    let binary = std::env::current_exe().unwrap();
    let status = helper_command(&binary, "exec_from_memory")
        .env("INWARDEN_MARKER", &marker)
        .status()
        .unwrap();
    assert!(status.success());
    let image = exec_of(&mut sensor, &marker).process.image;
    assert_eq!(image.exe, "/memfd:inwarden-test (deleted)");
}

#[test]
fn paths_are_those_that_the_process_sees() {
    let Some(mut sensor) = start(&SensorConfig::default()) else {
        return;
    };
    let echo = fs::canonicalize("/bin/echo").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().display();
    let name = echo.file_name().unwrap().to_str().unwrap();
    let bin = echo.parent().unwrap().display();
    // Through a mount of its own namespace, then below a root of its own.
    let scripts = [
        format!("mount --bind {bin} {inside} && cd {inside} && exec {inside}/{name}"),
        format!(
            "mount --bind / {inside} && exec chroot {inside} {}",
            echo.display()
        ),
    ];
    let expected = [
        (directory.path().join(name), directory.path()),
        (echo.clone(), Path::new("/")),
    ];
    for (script, (exe, cwd)) in scripts.iter().zip(expected) {
        let marker = marker();
        let status = quiet("unshare")
            .args(["--mount", "/bin/sh", "-c", &format!("{script} {marker}")])
            .status();
        assert!(status.unwrap().success(), "{script}");
        let process = exec_of_program(&mut sensor, "echo", &marker).process;
        assert_eq!(Path::new(&process.image.exe), exe);
        assert_eq!(Path::new(&process.image.cwd), cwd);
        let own = fs::metadata("/proc/self/ns/mnt").unwrap().ino();
        assert_ne!(u64::from(process.mount_ns.unwrap().0), own);
    }
}
