//! Random events survive writing and reading, and no bytes make the reader panic.

use std::net::IpAddr;

use inwarden_feeds::{
    RecordingHeader, RecordingReader, RecordingWriter, decode_event, encode_event,
};
use inwarden_types::{
    AgentText, Ancestor, Argv, BootId, BootTime, CgroupId, Connection, DnsQuery, Event, EventData,
    EventId, EventKind, ExitStatus, FileAccess, FileOp, Gid, Image, Losses, NamespaceInode,
    PastCall, Peer, Process, ProcessKey, Protocol, TextGiver, Tgid, ToolCall, Uid, WallTime,
};

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("the bound is a usize")
    }

    fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// Small numbers and the largest, each often.
    fn u64(&mut self) -> u64 {
        let shift = [0, 11, 32, 63][self.below(4)];
        if self.below(8) == 0 {
            u64::MAX
        } else {
            self.next() >> shift
        }
    }

    fn u32(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).expect("32 bits are left")
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flip().then(|| make(self))
    }

    fn text(&mut self) -> String {
        const PIECES: [&str; 14] = [
            "a",
            "/bin/",
            " ",
            "\"",
            "\\",
            "\\u0041",
            "\0",
            "\n",
            "\u{7f}\u{9b}",
            "é",
            "\u{fffd}",
            "\u{1f600}",
            "<|im_end|>",
            "{\"a\":[",
        ];
        (0..self.below(6))
            .map(|_| PIECES[self.below(PIECES.len())])
            .collect()
    }

    fn key(&mut self) -> ProcessKey {
        let mut boot_id = [0; 16];
        boot_id.fill_with(|| self.byte());
        ProcessKey {
            boot_id: BootId(boot_id),
            tgid: Tgid(self.u32()),
            start: BootTime(self.u64()),
        }
    }

    fn image(&mut self) -> Image {
        let args = (0..self.below(4)).map(|_| self.text()).collect();
        let mut argv = Argv::complete(args);
        if self.flip() {
            argv.true_bytes = self.u64();
        }
        argv.truncated = self.flip();
        Image {
            exe: self.text(),
            comm: self.text(),
            argv,
            cwd: self.text(),
            exec_at: self.maybe(|random| BootTime(random.u64())),
        }
    }

    fn args_json(&mut self) -> String {
        const ARGS: [&str; 8] = [
            "{}",
            "",
            r#"{"b":1,"a":[1e999,{"c":null}]}"#,
            "{ \"a\" :\t1 }",
            "{\"\u{9b}\":0}",
            " {}",
            "{\"a\":1,\"a\":2}",
            "[1]",
        ];
        match self.below(ARGS.len() + 2) {
            0 => self.text(),
            1 => format!("{{\"a\":{}{}}}", "[".repeat(62), "]".repeat(62)),
            index => ARGS[index - 2].to_owned(),
        }
    }

    fn data(&mut self) -> EventData {
        match self.below(9) {
            0 => EventData::Fork,
            1 => EventData::Exec,
            2 => EventData::Exit(ExitStatus {
                code: self.byte(),
                signal: self.byte(),
                core_dumped: self.flip(),
            }),
            3 => EventData::Loss(Losses {
                seen: self.u64(),
                emitted: self.u64(),
                dropped: self.u64(),
                filtered: self.u64(),
                read: self.u64(),
                undecodable: self.u64(),
            }),
            4 => EventData::Text(AgentText {
                agent: self.text(),
                role: self.maybe(Self::text),
                given_by: match self.flip() {
                    true => TextGiver::User,
                    false => TextGiver::Tool,
                },
                text: self.text(),
                user_task: self.maybe(Self::text),
                tool: self.maybe(Self::text),
            }),
            5 => EventData::File(FileAccess {
                op: FileOp::ALL[self.below(FileOp::ALL.len())],
                path: self.text(),
                to: self.maybe(Self::text),
            }),
            6 => EventData::Connect(Connection {
                peer: match self.flip() {
                    true => Peer::of(&self.text()),
                    false => Peer::Address(IpAddr::from(self.u64().to_be_bytes().map(u16::from))),
                },
                port: self.maybe(|random| u16::from(random.byte())),
                protocol: [Protocol::Tcp, Protocol::Udp, Protocol::Icmp][self.below(3)],
            }),
            7 => EventData::Dns(DnsQuery { name: self.text() }),
            _ => EventData::ToolCall(ToolCall {
                agent: self.text(),
                role: self.maybe(Self::text),
                user_task: self.maybe(Self::text),
                tool: self.text(),
                args_json: self.args_json(),
                history: (0..self.below(3))
                    .map(|_| PastCall {
                        tool: self.text(),
                        args_json: self.args_json(),
                        output: self.text(),
                    })
                    .collect(),
            }),
        }
    }

    fn id(&mut self) -> EventId {
        const KINDS: [EventKind; 9] = [
            EventKind::Fork,
            EventKind::Exec,
            EventKind::Exit,
            EventKind::Loss,
            EventKind::ToolCall,
            EventKind::Text,
            EventKind::File,
            EventKind::Connect,
            EventKind::Dns,
        ];
        let observed = EventId::Observed {
            process: self.key(),
            kind: KINDS[self.below(KINDS.len())],
            at: BootTime(self.u64()),
            sequence: self.u64(),
        };
        match self.below(3) {
            0 => EventId::External(self.text()),
            // A name that looks like an observed id stays a name.
            1 => EventId::External(observed.to_string()),
            _ => observed,
        }
    }

    fn event(&mut self) -> Event {
        Event {
            id: self.id(),
            at: self.maybe(|random| BootTime(random.u64())),
            wall: self.maybe(|random| WallTime(random.u64())),
            process: Process {
                key: self.maybe(Self::key),
                parent: self.maybe(Self::key),
                image: self.image(),
                uid: self.maybe(|random| Uid(random.u32())),
                gid: self.maybe(|random| Gid(random.u32())),
                cgroup_id: self.maybe(|random| CgroupId(random.u64())),
                mount_ns: self.maybe(|random| NamespaceInode(random.u32())),
                pid_ns: self.maybe(|random| NamespaceInode(random.u32())),
                net_ns: self.maybe(|random| NamespaceInode(random.u32())),
            },
            ancestors: (0..self.below(9))
                .map(|_| Ancestor {
                    key: self.maybe(Self::key),
                    image: self.image(),
                })
                .collect(),
            data: self.data(),
        }
    }
}

#[test]
fn every_event_is_read_back_as_it_was_written() {
    let mut random = Random(1);
    for _ in 0..5_000 {
        let event = random.event();
        let line = encode_event(&event);
        assert!(
            !line.contains(|character: char| character.is_control()),
            "{line}"
        );
        let decoded =
            decode_event(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(decoded.event, event, "{line}");
        assert_eq!(decoded.ignored_fields, 0, "{line}");
        assert_eq!(encode_event(&decoded.event), line);
    }
}

#[test]
fn every_line_is_json_for_others_too() {
    let mut random = Random(2);
    for _ in 0..1_000 {
        let line = encode_event(&random.event());
        serde_json::from_str::<serde::de::IgnoredAny>(&line)
            .unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn a_recording_of_random_events_is_read_back() {
    let mut random = Random(3);
    let events: Vec<_> = (0..300).map(|_| random.event()).collect();
    let header = RecordingHeader {
        boot_id: Some(random.key().boot_id),
        kernel: Some(random.text()),
        note: Some("\"\n".to_owned()),
    };
    let mut writer = RecordingWriter::new(Vec::new(), &header).unwrap();
    for event in &events {
        writer.write(event).unwrap();
    }
    let bytes = writer.into_inner();
    let mut reader = RecordingReader::new(&bytes[..]).unwrap();
    assert_eq!(reader.header(), &header);
    let read: Result<Vec<_>, _> = reader.by_ref().collect();
    assert_eq!(read.unwrap(), events);
    assert_eq!(reader.ignored_fields(), 0);
}

#[test]
fn no_bytes_make_the_reader_panic() {
    let mut random = Random(4);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut bytes = encode_event(&random.event()).into_bytes();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.byte(),
                1 => bytes[at] = b"{}[]\",:\\u0n-"[random.below(12)],
                2 => bytes.truncate(at + 1),
                _ => {
                    let piece = bytes[at / 2..at].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        if let Ok(decoded) = decode_event(&bytes) {
            accepted += 1;
            let line = encode_event(&decoded.event);
            assert_eq!(
                decode_event(line.as_bytes()).unwrap().event,
                decoded.event,
                "{line}"
            );
        }
        for line in RecordingReader::new(&bytes[..]).into_iter().flatten() {
            let _ = line.map_err(|error| error.to_string());
        }
    }
    assert!(accepted > 100, "only {accepted} mutated lines were events");
}
