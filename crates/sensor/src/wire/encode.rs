//! The other direction, for tests only: records as the programs write them.

use super::{Body, Exec, Exit, Fork, Header, Kind, Record, VERSION};

/// A header with distinct values in every field.
pub(crate) fn header(kind: Kind, tgid: u32, start_ns: u64, at_ns: u64) -> Header {
    Header {
        version: VERSION,
        kind: kind as u8,
        flags: 0,
        length: 0,
        sequence: 7,
        boot_time_ns: at_ns,
        leader_start_ns: start_ns,
        cgroup_id: 77,
        tgid,
        tid: tgid,
        parent_tgid: 1,
        uid: 1000,
        gid: 1001,
        cpu: 1,
        mount_ns: 41,
        verdict: 0,
        parent_start_ns: 1,
        comm: *b"task\0\0\0\0\0\0\0\0\0\0\0\0",
    }
}

/// `child` born of `parent`, both (tgid, start).
pub(crate) fn fork(child: (u32, u64), parent: (u32, u64), at_ns: u64) -> Record {
    let mut header = header(Kind::Fork, child.0, child.1, at_ns);
    (header.parent_tgid, header.parent_start_ns) = parent;
    Record {
        header,
        body: Body::Fork(Fork {
            pid_ns: 42,
            net_ns: 43,
            forker_start_ns: parent.1,
            forker_tgid: parent.0,
            reserved: 0,
        }),
    }
}

/// `process` execs `/bin/NAME` with the given argument bytes.
pub(crate) fn exec(process: (u32, u64), parent: (u32, u64), at_ns: u64, argv: &[u8]) -> Record {
    let mut header = header(Kind::Exec, process.0, process.1, at_ns);
    (header.parent_tgid, header.parent_start_ns) = parent;
    let name = argv.split(|byte| *byte == 0).next().unwrap_or(b"");
    let exe = [name, b"\0bin\0"].concat();
    let cwd = b"work\0".to_vec();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    Record {
        header,
        body: Body::Exec {
            fixed: Exec {
                pid_ns: 42,
                net_ns: 43,
                argv_true_bytes: argv.len() as u64,
                old_tid: process.0,
                exe_bytes: length(&exe),
                cwd_bytes: length(&cwd),
                argv_bytes: length(argv),
            },
            exe,
            cwd,
            argv: argv.to_vec(),
        },
    }
}

/// `process` ends with a wait(2) status.
pub(crate) fn exit(process: (u32, u64), at_ns: u64, status: u32) -> Record {
    Record {
        header: header(Kind::Exit, process.0, process.1, at_ns),
        body: Body::Exit(Exit {
            pid_ns: 42,
            net_ns: 43,
            status,
            reserved: 0,
        }),
    }
}

/// The bytes the programs would write.
pub(crate) fn bytes(record: &Record) -> Vec<u8> {
    let mut body = Vec::new();
    match &record.body {
        Body::Fork(fork) => {
            body.extend(fork.pid_ns.to_ne_bytes());
            body.extend(fork.net_ns.to_ne_bytes());
            body.extend(fork.forker_start_ns.to_ne_bytes());
            body.extend(fork.forker_tgid.to_ne_bytes());
            body.extend(fork.reserved.to_ne_bytes());
        }
        Body::Exec {
            fixed,
            exe,
            cwd,
            argv,
        } => {
            body.extend(fixed.pid_ns.to_ne_bytes());
            body.extend(fixed.net_ns.to_ne_bytes());
            body.extend(fixed.argv_true_bytes.to_ne_bytes());
            body.extend(fixed.old_tid.to_ne_bytes());
            body.extend(fixed.exe_bytes.to_ne_bytes());
            body.extend(fixed.cwd_bytes.to_ne_bytes());
            body.extend(fixed.argv_bytes.to_ne_bytes());
            body.extend([exe.as_slice(), cwd, argv].concat());
        }
        Body::Exit(exit) => {
            body.extend(exit.pid_ns.to_ne_bytes());
            body.extend(exit.net_ns.to_ne_bytes());
            body.extend(exit.status.to_ne_bytes());
            body.extend(exit.reserved.to_ne_bytes());
        }
        Body::Seed(seed) => {
            body.extend(seed.pid_ns.to_ne_bytes());
            body.extend(seed.net_ns.to_ne_bytes());
        }
    }
    let header = &record.header;
    let length = u32::try_from(96 + body.len()).unwrap();
    let mut bytes = vec![header.version, header.kind];
    bytes.extend(header.flags.to_ne_bytes());
    bytes.extend(length.to_ne_bytes());
    for number in [
        header.sequence,
        header.boot_time_ns,
        header.leader_start_ns,
        header.cgroup_id,
    ] {
        bytes.extend(number.to_ne_bytes());
    }
    for number in [
        header.tgid,
        header.tid,
        header.parent_tgid,
        header.uid,
        header.gid,
        header.cpu,
        header.mount_ns,
        header.verdict,
    ] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend(header.parent_start_ns.to_ne_bytes());
    bytes.extend(header.comm);
    bytes.extend(body);
    bytes
}
