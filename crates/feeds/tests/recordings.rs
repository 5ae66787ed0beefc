//! Recordings: the released format, bad lines in the middle, errors of the input.

use std::io::{self, BufReader, Read, Write};

use inwarden_feeds::{
    EventReader, FeedError, MAX_ANCESTORS, MAX_ARGS, MAX_ID_BYTES, MAX_LINE_BYTES, RecordingHeader,
    RecordingReader, RecordingWriter, encode_event,
};
use inwarden_types::{Event, EventData, EventId, EventKind, ExitStatus, Losses};

const GOLDEN: &str = include_str!("data/recording-v1.jsonl");
const HEADER: &str = "{\"schema\":\"inwarden.recording/1\"}\n";

fn read(recording: &[u8]) -> Vec<Result<Event, FeedError>> {
    RecordingReader::new(recording)
        .expect("the header is right")
        .collect()
}

fn header_error(recording: &[u8]) -> FeedError {
    match RecordingReader::new(recording) {
        Ok(reader) => panic!("accepted: {:?}", reader.header()),
        Err(error) => error,
    }
}

/// `Ok` as the id, `Err` as line number and message.
fn shape(results: &[Result<Event, FeedError>]) -> Vec<String> {
    results
        .iter()
        .map(|result| match result {
            Ok(event) => event.id.to_string(),
            Err(error) => format!("{error}: {}", error.root()),
        })
        .collect()
}

#[test]
fn the_committed_recording_of_version_1_is_still_read() {
    let reader = RecordingReader::new(GOLDEN.as_bytes()).unwrap();
    let header = reader.header().clone();
    assert_eq!(
        header.boot_id.unwrap().to_string(),
        "6a1f0c52-9d3e-4b7a-8c11-5f2e9b04d7a3"
    );
    assert_eq!(header.kernel.as_deref(), Some("6.12.0-test"));
    let events: Vec<Event> = reader.collect::<Result<_, _>>().unwrap();

    let kinds: Vec<_> = events.iter().map(Event::kind).collect();
    use EventKind::{Exec, Exit, Fork, Loss, ToolCall};
    assert_eq!(kinds, [Fork, Exec, Exit, Loss, ToolCall, Exec]);

    let exec = &events[1];
    let process = &exec.process;
    assert_eq!(process.image.exe, "/usr/bin/cat");
    assert_eq!(
        process.image.argv.args,
        ["cat", "/srv/app/settings \"a\"\n"]
    );
    assert_eq!(
        (process.image.argv.true_bytes, process.image.argv.truncated),
        (70_000, true)
    );
    assert_eq!(process.image.cwd, "/srv/app");
    assert_eq!(process.key.unwrap().tgid.0, 4242);
    assert_eq!(process.parent.unwrap().start.0, 1_000_000_007);
    assert_eq!(
        (process.uid.unwrap().0, process.gid.unwrap().0),
        (64_999, 64_999)
    );
    assert_eq!(process.cgroup_id.unwrap().0, 9_007_199_254_740_993);
    assert_eq!(process.mount_ns.unwrap().0, 4_026_531_841);
    assert_eq!(process.pid_ns.unwrap().0, 4_026_531_836);
    assert_eq!(process.net_ns.unwrap().0, 4_026_532_008);
    assert_eq!(exec.ancestors.len(), 2);
    assert_eq!(exec.ancestors[0].image.argv.args, ["bash", "service.sh"]);
    assert_eq!(exec.ancestors[1].image.exec_at, None);
    let EventId::Observed { at, sequence, .. } = exec.id else {
        panic!("{:?}", exec.id)
    };
    assert_eq!(
        (at.0, sequence),
        (2_000_000_123, 18_446_744_073_709_551_615)
    );
    assert_eq!(exec.wall.unwrap().0, 1_795_305_600_000_000_123);

    let killed = ExitStatus {
        code: 0,
        signal: 9,
        core_dumped: true,
    };
    assert_eq!(events[2].data, EventData::Exit(killed));
    let lost = Losses {
        seen: 21,
        emitted: 15,
        dropped: 4,
        filtered: 2,
        read: 15,
        undecodable: 1,
    };
    assert_eq!(events[3].data, EventData::Loss(lost));
    let EventData::ToolCall(call) = &events[4].data else {
        panic!("{:?}", events[4])
    };
    assert_eq!(call.args_json, "{\"to\": \"DE00\", \"amount\": 1.50}");
    assert_eq!(events[5].id, EventId::External("17".into()));
}

#[test]
fn writing_the_committed_recording_again_gives_its_bytes() {
    let reader = RecordingReader::new(GOLDEN.as_bytes()).unwrap();
    let mut writer = RecordingWriter::new(Vec::new(), reader.header()).unwrap();
    for event in reader {
        writer.write(&event.unwrap()).unwrap();
    }
    assert_eq!(String::from_utf8(writer.into_inner()).unwrap(), GOLDEN);
}

#[test]
fn reading_goes_on_after_a_bad_line_and_counts_every_line() {
    let recording = format!(
        "{HEADER}{{\"id\":\"a\",\"argv\":[]}}\n\n{{\"id\":\n\
         {{\"id\":\"b\",\"argv\":[]}}\r\n\u{fffd}\n{{\"id\":\"c\",\"argv\":[]}}"
    );
    assert_eq!(
        shape(&read(recording.as_bytes())),
        [
            "a",
            "line 4: field `id` at byte 6 must be a string, an integer or an object",
            "b",
            "line 6: not JSON at byte 0: expected an object",
            "c"
        ]
    );
}

#[test]
fn a_line_over_the_cap_is_one_error_and_the_next_one_is_read() {
    let long = format!("{{\"id\":\"x\",\"argv\":[\"{}\"]}}", "y".repeat(3 << 20));
    let recording = format!("{HEADER}{long}\n{{\"id\":\"b\",\"argv\":[]}}\n{long}");
    let reader = BufReader::with_capacity(1000, recording.as_bytes());
    let results: Vec<_> = RecordingReader::new(reader).unwrap().collect();
    assert_eq!(
        shape(&results),
        [
            "line 2: line is longer than 1048576 bytes",
            "b",
            "line 4: line is longer than 1048576 bytes"
        ]
    );
}

#[test]
fn a_recording_begins_with_a_header_of_a_known_version() {
    assert!(matches!(header_error(b""), FeedError::NoHeader));
    assert!(matches!(header_error(b"\n \n"), FeedError::NoHeader));
    let no_header = header_error(b"\n{\"id\":1,\"argv\":[]}\n");
    assert_eq!(no_header.line(), Some(2));
    assert!(matches!(
        no_header.root(),
        FeedError::WrongSchema {
            expected: "inwarden.recording/1"
        }
    ));
    let event_first = header_error(b"{\"schema\":\"inwarden.event/1\",\"id\":1,\"argv\":[]}");
    assert!(matches!(event_first.root(), FeedError::WrongSchema { .. }));
    let newer = header_error(b"{\"schema\":\"inwarden.recording/2\"}");
    assert!(matches!(
        newer.root(),
        FeedError::NewerSchema {
            found: 2,
            supported: 1
        }
    ));
    let bad_boot = header_error(b"{\"schema\":\"inwarden.recording/1\",\"boot_id\":\"12\"}");
    assert!(matches!(
        bad_boot.root(),
        FeedError::WrongType {
            field: "boot_id",
            ..
        }
    ));
}

#[test]
fn unknown_fields_of_header_and_events_are_counted() {
    let recording = "{\"schema\":\"inwarden.recording/1\",\"tool\":[1]}\n\
                     {\"id\":1,\"argv\":[],\"x\":1,\"y\":2}\n{\"id\":2,\"argv\":[],\"z\":3}\n";
    let mut reader = RecordingReader::new(recording.as_bytes()).unwrap();
    assert_eq!(reader.by_ref().filter(Result::is_ok).count(), 2);
    assert_eq!(reader.ignored_fields(), 4);
}

/// Gives `bytes`, then fails once and would go on.
struct Failing<'a>(&'a [u8], bool);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() && !self.1 {
            self.1 = true;
            return Err(io::Error::other("disk gone"));
        }
        self.0.read(buffer)
    }
}

#[test]
fn an_error_of_the_input_ends_the_reading() {
    let input = BufReader::new(Failing(b"{\"id\":1,\"argv\":[]}\n{\"id\"", false));
    let outcomes: Vec<_> = EventReader::new(input).collect();
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes[0].outcome.is_ok());
    assert!(matches!(outcomes[1].outcome, Err(FeedError::Io(_))));
    assert_eq!(outcomes[1].number, 2);
}

/// Takes `room` bytes and is then full, like a disk.
struct Full {
    room: usize,
    flushes: usize,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(self.room);
        self.room -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushes += 1;
        Ok(())
    }
}

#[test]
fn each_event_is_flushed_and_a_full_disk_is_an_error() {
    let event = read(GOLDEN.as_bytes()).remove(0).unwrap();
    let room = HEADER.len() + encode_event(&event).len() + 10;
    let disk = Full { room, flushes: 0 };
    let mut writer = RecordingWriter::new(disk, &RecordingHeader::default()).unwrap();
    writer.write(&event).unwrap();
    let error = writer.write(&event).unwrap_err();
    assert!(matches!(error, FeedError::Io(_)), "{error:?}");
    assert_eq!(writer.into_inner().flushes, 2);
}

#[test]
fn an_event_that_could_not_be_read_back_is_refused_and_not_written() {
    let good = read(GOLDEN.as_bytes()).remove(1).unwrap();
    let changed = |change: &dyn Fn(&mut Event)| {
        let mut event = good.clone();
        change(&mut event);
        event
    };
    let mut writer = RecordingWriter::new(Vec::new(), &RecordingHeader::default()).unwrap();
    let mut refused = |event: &Event| writer.write(event).expect_err("over a cap");

    let args = vec![String::new(); MAX_ARGS + 1];
    let error = refused(&changed(&|event| {
        event.process.image.argv.args = args.clone()
    }));
    assert!(matches!(error, FeedError::TooMany { field: "argv", .. }));
    let error = refused(&changed(&|event| {
        event.ancestors[1].image.argv.args = args.clone()
    }));
    assert!(matches!(error, FeedError::TooMany { field: "argv", .. }));
    let error = refused(&changed(&|event| {
        event.ancestors = vec![event.ancestors[0].clone(); MAX_ANCESTORS + 1];
    }));
    assert!(matches!(
        error,
        FeedError::TooMany {
            field: "ancestors",
            ..
        }
    ));
    let error = refused(&changed(&|event| {
        event.id = EventId::External("x".repeat(MAX_ID_BYTES + 1));
    }));
    assert!(matches!(error, FeedError::TooLong { field: "id", .. }));
    let error = refused(&changed(&|event| {
        event.process.image.cwd = "x".repeat(MAX_LINE_BYTES)
    }));
    assert!(matches!(error, FeedError::LineTooLong { .. }));

    let full = changed(&|event| event.process.image.argv.args = args[1..].to_vec());
    writer.write(&full).unwrap();
    writer.write(&good).unwrap();
    let events: Vec<Event> = read(&writer.into_inner())
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(events, [full, good]);
}

#[test]
fn a_header_that_could_not_be_read_back_is_refused() {
    let header = RecordingHeader {
        note: Some("x".repeat(MAX_LINE_BYTES)),
        ..RecordingHeader::default()
    };
    let mut output = Vec::new();
    let error = RecordingWriter::new(&mut output, &header).expect_err("over the cap");
    assert!(matches!(error, FeedError::LineTooLong { .. }));
    assert!(output.is_empty());
}
