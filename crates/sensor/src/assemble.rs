//! From a record to an event: keys, image, ancestors, wall time.

use inwarden_types::{
    Ancestor, BootId, BootTime, CgroupId, Event, EventData, EventId, EventKind, ExitStatus, Gid,
    Image, NamespaceInode, Process, ProcessKey, Tgid, Uid,
};

use crate::{
    clock::WallClock,
    path::{self, PathEnd},
    tree::{NodeKey, Tree},
    wire::{self, Body, Header, Record},
};

/// Most ancestors an event carries.
const MAX_ANCESTORS: usize = 8;

/// Turns records, in order, into events, and keeps the tree by them.
pub(crate) struct Assembler {
    pub(crate) boot_id: BootId,
    pub(crate) clock: WallClock,
    pub(crate) tree: Tree,
}

impl Assembler {
    /// `None` for a record that is no news: a process found running, or the
    /// second report of one end.
    pub(crate) fn accept(&mut self, record: Record) -> Option<Event> {
        let header = record.header;
        let key = node_key(header.tgid, header.leader_start_ns);
        let parent = node_key(header.parent_tgid, header.parent_start_ns);
        let comm = comm_text(&header.comm);
        let (data, image, pid_ns, net_ns) = match record.body {
            Body::Seed(_) => {
                self.tree.found(key, Some(parent), &comm);
                return None;
            }
            Body::Fork(fork) => {
                let forker = node_key(fork.forker_tgid, fork.forker_start_ns);
                let image = self.tree.forked(key, forker, &comm);
                (EventData::Fork, image, fork.pid_ns, fork.net_ns)
            }
            Body::Exec {
                fixed,
                exe,
                cwd,
                argv,
            } => {
                let image = Image {
                    exe: path::path_text(&exe, exe_end(header.flags)),
                    comm,
                    argv: path::argv(&argv, fixed.argv_true_bytes),
                    cwd: path::path_text(&cwd, cwd_end(header.flags)),
                    exec_at: Some(BootTime(header.boot_time_ns)),
                };
                let image = self.tree.execed(key, parent, image);
                (EventData::Exec, image, fixed.pid_ns, fixed.net_ns)
            }
            Body::Exit(exit) => {
                let image = self.tree.ended(key, header.boot_time_ns, &comm)?;
                let status = EventData::Exit(exit_status(exit.status));
                (status, image, exit.pid_ns, exit.net_ns)
            }
        };
        let parent = self.tree.parent(key).unwrap_or(parent);
        let process = Process {
            key: Some(self.process_key(key)),
            parent: (parent.tgid != 0).then(|| self.process_key(parent)),
            image: Image::clone(&image),
            uid: Some(Uid(header.uid)),
            gid: Some(Gid(header.gid)),
            cgroup_id: (header.cgroup_id != 0).then_some(CgroupId(header.cgroup_id)),
            mount_ns: namespace(header.mount_ns),
            pid_ns: namespace(pid_ns),
            net_ns: namespace(net_ns),
        };
        Some(self.event(&header, key, process, data))
    }

    pub(crate) fn process_key(&self, key: NodeKey) -> ProcessKey {
        ProcessKey {
            boot_id: self.boot_id,
            tgid: Tgid(key.tgid),
            start: BootTime(key.start_ns),
        }
    }

    fn event(&mut self, header: &Header, key: NodeKey, process: Process, data: EventData) -> Event {
        let at = BootTime(header.boot_time_ns);
        let ancestors = self.tree.ancestors(key, MAX_ANCESTORS);
        let kind = match data {
            EventData::Fork => EventKind::Fork,
            EventData::Exec => EventKind::Exec,
            _ => EventKind::Exit,
        };
        Event {
            id: EventId::Observed {
                process: self.process_key(key),
                kind,
                at,
                sequence: header.sequence,
            },
            at: Some(at),
            wall: Some(self.clock.wall(at)),
            process,
            ancestors: ancestors
                .into_iter()
                .map(|(key, image)| Ancestor {
                    key: Some(self.process_key(key)),
                    image: Image::clone(&image),
                })
                .collect(),
            data,
        }
    }
}

fn node_key(tgid: u32, start_ns: u64) -> NodeKey {
    NodeKey { tgid, start_ns }
}

fn namespace(inode: u32) -> Option<NamespaceInode> {
    (inode != 0).then_some(NamespaceInode(inode))
}

fn comm_text(comm: &[u8; 16]) -> String {
    let name = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

fn exe_end(flags: u16) -> PathEnd {
    path_end(flags, wire::EXE_TRUNCATED, wire::EXE_DETACHED)
}

fn cwd_end(flags: u16) -> PathEnd {
    path_end(flags, wire::CWD_TRUNCATED, wire::CWD_DETACHED)
}

fn path_end(flags: u16, truncated: u16, detached: u16) -> PathEnd {
    if flags & truncated != 0 {
        PathEnd::Truncated
    } else if flags & detached != 0 {
        PathEnd::Detached
    } else {
        PathEnd::Complete
    }
}

/// Splits a wait(2) status: signal in bits 0 to 6, core in 7, code in 8 to 15.
fn exit_status(status: u32) -> ExitStatus {
    let [low, code, ..] = status.to_le_bytes();
    ExitStatus {
        code,
        signal: low & 0x7f,
        core_dumped: low & 0x80 != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{procfs::ProcessFiles, wire::encode};

    struct NoFiles;

    impl ProcessFiles for NoFiles {
        fn look_up(&self, _: u32, _: u64) -> Option<(Image, u32)> {
            None
        }
    }

    fn assembler() -> Assembler {
        Assembler {
            boot_id: BootId([7; 16]),
            clock: WallClock::fixed(1_000_000),
            tree: Tree::new(1 << 20, 1000, Box::new(NoFiles)),
        }
    }

    #[test]
    fn three_nested_subshells_have_the_right_ancestors() {
        let mut assembler = assembler();
        assembler.accept(encode::exec((10, 100), (1, 1), 1, b"bash\0script\0"));
        for (child, parent) in [(11, 10), (12, 11), (13, 12)] {
            let pair = |tgid: u32| (tgid, u64::from(tgid) * 10);
            let event = assembler.accept(encode::fork(pair(child), pair(parent), 2));
            assert_eq!(event.unwrap().process.image.argv.args, ["bash", "script"]);
        }
        let exec = encode::exec((13, 130), (12, 120), 3, b"id\0-u\0");
        let event = assembler.accept(exec).unwrap();
        assert_eq!(event.process.image.exe, "/bin/id");
        assert_eq!(event.process.image.exec_at, Some(BootTime(3)));
        let line: Vec<(u32, &str)> = event
            .ancestors
            .iter()
            .map(|ancestor| (ancestor.key.unwrap().tgid.0, ancestor.image.comm.as_str()))
            .collect();
        assert_eq!(line, [(12, "task"), (11, "task"), (10, "task"), (1, "")]);
        assert_eq!(event.ancestors[0].image.exe, "/bin/bash");
    }

    #[test]
    fn all_header_fields_reach_the_event() {
        let exec = encode::exec((10, 100), (9, 90), 5, b"id\0");
        let event = assembler().accept(exec).unwrap();
        let process = &event.process;
        assert_eq!(process.key.unwrap().start, BootTime(100));
        assert_eq!(process.parent.unwrap().tgid, Tgid(9));
        assert_eq!(process.uid, Some(Uid(1000)));
        assert_eq!(process.gid, Some(Gid(1001)));
        assert_eq!(process.cgroup_id, Some(CgroupId(77)));
        assert_eq!(process.mount_ns, Some(NamespaceInode(41)));
        assert_eq!(process.pid_ns, Some(NamespaceInode(42)));
        assert_eq!(process.net_ns, Some(NamespaceInode(43)));
        assert_eq!(process.image.cwd, "/work");
        assert_eq!(event.wall.unwrap().0, 1_000_005);
        let EventId::Observed { sequence, kind, .. } = event.id else {
            panic!("{:?}", event.id)
        };
        assert_eq!((sequence, kind), (7, EventKind::Exec));
    }

    #[test]
    fn a_second_report_of_one_end_is_no_event() {
        let mut assembler = assembler();
        assembler.accept(encode::exec((10, 100), (1, 1), 1, b"sh\0"));
        let event = assembler.accept(encode::exit((10, 100), 2, 9)).unwrap();
        assert_eq!(event.process.image.exe, "/bin/sh");
        let EventData::Exit(status) = event.data else {
            panic!("{event:?}")
        };
        assert_eq!((status.signal, status.code), (9, 0));
        assert!(assembler.accept(encode::exit((10, 100), 3, 9)).is_none());
    }

    #[test]
    fn wait_status_is_split_as_the_manual_says() {
        let check = |status, code, signal, core_dumped| {
            let expected = ExitStatus {
                code,
                signal,
                core_dumped,
            };
            assert_eq!(exit_status(status), expected);
        };
        check(0x0300, 3, 0, false);
        check(9, 0, 9, false);
        check(0x8b, 0, 11, true);
    }
}
