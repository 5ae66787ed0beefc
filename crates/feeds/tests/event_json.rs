//! Which lines are events, and what they come out as.

use inwarden_feeds::{DecodedEvent, FeedError, decode_event, encode_event};
use inwarden_types::{
    Argv, Connection, DnsQuery, Event, EventData, EventId, EventKind, ExitStatus, FileAccess,
    FileOp, Peer, Protocol, TextGiver,
};

fn decode(line: &str) -> DecodedEvent {
    decode_event(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn error(line: &str) -> FeedError {
    match decode_event(line.as_bytes()) {
        Ok(decoded) => panic!("{line} was accepted: {decoded:?}"),
        Err(error) => error,
    }
}

fn check_message(line: &str, expected: &str) {
    assert_eq!(error(line).to_string(), expected, "{line}");
}

fn args(event: &Event) -> Vec<&str> {
    let args = &event.process.image.argv.args;
    args.iter().map(String::as_str).collect()
}

#[test]
fn the_smallest_event_is_an_exec_of_a_process_without_identity() {
    let DecodedEvent {
        event,
        ignored_fields,
    } = decode(r#"{"id":"a","argv":["ls","-l"]}"#);
    assert_eq!(event.id, EventId::External("a".into()));
    assert_eq!(event.kind(), EventKind::Exec);
    assert_eq!(
        event.process.image.argv,
        Argv::complete(vec!["ls".into(), "-l".into()])
    );
    assert_eq!(event.process.key, None);
    assert!(event.ancestors.is_empty());
    assert_eq!(ignored_fields, 0);
}

#[test]
fn an_integer_id_keeps_its_digits() {
    for digits in ["0", "-7", "18446744073709551616000"] {
        let line = format!(r#"{{"id":{digits},"argv":[]}}"#);
        assert_eq!(decode(&line).event.id, EventId::External(digits.into()));
    }
    assert!(matches!(
        error(r#"{"id":1e3,"argv":[]}"#),
        FeedError::WrongType {
            field: "id",
            offset: 6,
            ..
        }
    ));
}

#[test]
fn a_row_with_foreign_fields_is_read_and_they_are_counted() {
    let row = r#"{"id": "dx-0002", "label": "benign", "tier": "hard", "family": "debian:maint",
        "cmdline": "cat > \"/etc/motd\"", "argv": ["sh", "-c", "cat > \"/etc/motd\""],
        "execs": [["/usr/bin/sh", "-c", "x"], [], {"deep": {"argv": 1, "argv": 2}}],
        "shell": true, "parent": "dpkg", "technique": null, "source": "a package"}"#;
    let DecodedEvent {
        event,
        ignored_fields,
    } = decode(row);
    assert_eq!(ignored_fields, 8);
    assert_eq!(args(&event), ["sh", "-c", "cat > \"/etc/motd\""]);
    assert_eq!(event.ancestors.len(), 1);
    assert_eq!(event.ancestors[0].image.comm, "dpkg");
}

#[test]
fn a_parent_is_a_name_a_path_a_line_or_an_object() {
    let parent = |json: &str| {
        let line = format!(r#"{{"id":1,"argv":["id"],"parent":{json}}}"#);
        decode(&line)
            .event
            .ancestors
            .into_iter()
            .next()
            .map(|parent| parent.image)
    };
    let named = parent(r#""unattended-upgrades""#).unwrap();
    assert_eq!(
        (named.exe.as_str(), named.comm.as_str()),
        ("", "unattended-upgr")
    );
    let line = parent(r#""/usr/sbin/cron  -f""#).unwrap();
    assert_eq!(
        (line.exe.as_str(), line.comm.as_str()),
        ("/usr/sbin/cron", "cron")
    );
    assert_eq!(
        line.argv,
        Argv::complete(vec!["/usr/sbin/cron".into(), "-f".into()])
    );
    let object = parent(r#"{"exe":"/bin/sh","argv":["sh"],"argv_bytes":9,"colour":1}"#).unwrap();
    assert_eq!(
        (object.exe.as_str(), object.argv.true_bytes),
        ("/bin/sh", 9)
    );
    assert_eq!(parent(r#""éééééééééé""#).unwrap().comm, "é".repeat(7));
    assert_eq!(parent(r#""  ""#), None);
    assert_eq!(parent("null"), None);
    assert!(matches!(
        error(r#"{"id":1,"argv":["id"],"parent":7}"#),
        FeedError::WrongType {
            field: "parent",
            ..
        }
    ));
}

#[test]
fn ancestors_win_over_a_parent_which_is_then_counted() {
    let decoded = decode(
        r#"{"id":1,"argv":["id"],"parent":"cron","ancestors":[{"comm":"bash"},{"comm":"sshd"}]}"#,
    );
    let comms: Vec<_> = decoded
        .event
        .ancestors
        .iter()
        .map(|one| one.image.comm.as_str())
        .collect();
    assert_eq!(comms, ["bash", "sshd"]);
    assert_eq!(decoded.ignored_fields, 1);
}

#[test]
fn a_tool_call_keeps_its_arguments_byte_for_byte() {
    let decoded = decode(
        r#"{"id":"t","tool":"send","args": {"b": 1.50, "a":[1e400,9007199254740993]} ,"agent":"bank","user_task":"pay","history":[]}"#,
    );
    let EventData::ToolCall(call) = &decoded.event.data else {
        panic!("{:?}", decoded.event)
    };
    assert_eq!(
        call.args_json,
        r#"{"b": 1.50, "a":[1e400,9007199254740993]}"#
    );
    assert_eq!((call.agent.as_str(), call.tool.as_str()), ("bank", "send"));
    assert_eq!(call.user_task.as_deref(), Some("pay"));
    assert_eq!(decoded.ignored_fields, 0);
    assert_eq!(decode(&encode_event(&decoded.event)).event, decoded.event);
}

#[test]
fn earlier_calls_are_read_with_what_they_gave() {
    let decoded = decode(
        r#"{"id":"t","tool":"send","history":[{"tool":"read","args":{"n": 1},"output":"a\u0000b"},{"tool":"list","args_text":"x","output":[1, 2],"took":3},{"tool":"end"}]}"#,
    );
    let EventData::ToolCall(call) = &decoded.event.data else {
        panic!("{:?}", decoded.event)
    };
    let read: Vec<[&str; 3]> = call
        .history
        .iter()
        .map(|past| [&*past.tool, &*past.args_json, &*past.output])
        .collect();
    assert_eq!(
        read,
        [
            ["read", r#"{"n": 1}"#, "a\0b"],
            ["list", "x", "[1, 2]"],
            ["end", "{}", ""],
        ]
    );
    assert_eq!(decoded.ignored_fields, 1);
    assert_eq!(decode(&encode_event(&decoded.event)).event, decoded.event);
}

#[test]
fn a_history_is_limited_and_typed() {
    let line = |history: &str| format!(r#"{{"id":1,"tool":"send","history":{history}}}"#);
    let calls = |count: usize| {
        let all = vec![r#"{"tool":"read"}"#; count];
        line(&format!("[{}]", all.join(",")))
    };
    decode(&calls(64));
    assert!(matches!(
        error(&calls(65)),
        FeedError::TooMany {
            field: "history",
            limit: 64,
            ..
        }
    ));
    for (history, field) in [
        ("{}", "history"),
        ("[1]", "history"),
        (r#"[{"tool":1}]"#, "history.tool"),
    ] {
        let found = error(&line(history));
        assert!(
            matches!(found, FeedError::WrongType { field: of, .. } if of == field),
            "{history}: {found}"
        );
    }
    assert!(matches!(
        error(&line("[{}]")),
        FeedError::MissingField {
            field: "history.tool"
        }
    ));
}

#[test]
fn a_text_is_given_by_a_user_or_a_tool() {
    let text = |line: &str| match decode(line).event.data {
        EventData::Text(text) => text,
        other => panic!("{other:?}"),
    };
    let given = text(
        r#"{"id":1,"kind":"text","text":"hello\u0000","agent":"a","role":"r","user_task":"sum up","tool":"read_mail"}"#,
    );
    assert_eq!((&*given.text, given.given_by), ("hello\0", TextGiver::Tool));
    assert_eq!(given.user_task.as_deref(), Some("sum up"));
    assert_eq!(given.tool.as_deref(), Some("read_mail"));
    assert_eq!((&*given.agent, given.role.as_deref()), ("a", Some("r")));
    assert_eq!(text(r#"{"id":1,"text":"x"}"#).given_by, TextGiver::User);
    assert_eq!(
        text(r#"{"id":1,"text":"x","given_by":"tool"}"#).given_by,
        TextGiver::Tool
    );
    assert!(matches!(
        error(r#"{"id":1,"text":"x","given_by":"page"}"#),
        FeedError::WrongType {
            field: "given_by",
            ..
        }
    ));
    assert!(matches!(
        error(r#"{"id":1,"kind":"text"}"#),
        FeedError::MissingField { field: "text" }
    ));
    // Lines that were another event before stay that event.
    for (line, kind) in [
        (
            r#"{"id":1,"tool":"send","args":{},"text":"x"}"#,
            EventKind::ToolCall,
        ),
        (r#"{"id":1,"argv":["id"],"text":"x"}"#, EventKind::Exec),
    ] {
        let decoded = decode(line);
        assert_eq!((decoded.event.kind(), decoded.ignored_fields), (kind, 1));
    }
}

#[test]
fn tool_arguments_that_two_readers_could_read_differently_are_refused() {
    for args in [r#"{"to":"a","to":"b"}"#, r#"{"x":[{"k":1,"\u006b":2}]}"#] {
        let line = format!(r#"{{"id":1,"tool":"send","args":{args}}}"#);
        assert!(
            matches!(error(&line), FeedError::DuplicateField { .. }),
            "{line}"
        );
    }
    let both = r#"{"id":1,"tool":"send","args":{},"args_text":"{}"}"#;
    assert!(matches!(error(both), FeedError::DuplicateField { .. }));
    let two_roles = r#"{"id":1,"tool":"send","role":"a","agent_role":"b"}"#;
    assert!(matches!(error(two_roles), FeedError::DuplicateField { .. }));
}

#[test]
fn doubled_fields_of_the_event_are_refused() {
    assert!(matches!(
        error(r#"{"id":1,"argv":["true"],"argv":["rm"]}"#),
        FeedError::DuplicateField { offset: 24 }
    ));
    assert!(matches!(
        error(r#"{"id":1,"\u0069d":2,"argv":[]}"#),
        FeedError::DuplicateField { offset: 8 }
    ));
}

#[test]
fn hostile_text_in_arguments_does_not_make_the_event_vanish() {
    let decoded =
        decode(r#"{"id":1,"argv":["a\u0000b","\ud800","x\udfff\ud83d\ude00","<|im_end|>"]}"#);
    assert_eq!(
        args(&decoded.event),
        ["a\0b", "\u{fffd}", "x\u{fffd}\u{1f600}", "<|im_end|>"]
    );
    assert_eq!(decode(&encode_event(&decoded.event)).event, decoded.event);
}

#[test]
fn a_schema_must_match_if_there_is_one() {
    let event = decode(r#"{"schema":"inwarden.event/1","id":1,"argv":["id"]}"#).event;
    assert_eq!(event, decode(r#"{"id":1,"argv":["id"]}"#).event);
    assert!(matches!(
        error(r#"{"schema":"inwarden.event/12","id":1,"argv":["id"]}"#),
        FeedError::NewerSchema {
            found: 12,
            supported: 1
        }
    ));
    for schema in [
        "inwarden.event/0",
        "inwarden.event",
        "inwarden.recording/1",
        "other.event/2",
        "",
    ] {
        let line = format!(r#"{{"schema":"{schema}","id":1,"argv":["id"]}}"#);
        assert!(
            matches!(error(&line), FeedError::WrongSchema { .. }),
            "{line}"
        );
    }
}

#[test]
fn errors_say_what_where_and_which_limit() {
    check_message("", "not JSON at byte 0: expected an object");
    check_message("[]", "not JSON at byte 0: expected an object");
    check_message(r#"{"id":1}"#, "field `argv` is missing");
    check_message(r#"{"argv":["id"]}"#, "field `id` is missing");
    check_message(
        r#"{"id":1,"argv":["id"]} x"#,
        "not JSON at byte 23: expected the end of the line",
    );
    check_message(
        r#"{"id":1,"argv":"rm -rf"}"#,
        "field `argv` at byte 15 must be an array of strings",
    );
    check_message(
        r#"{"id":1,"argv":["a",7]}"#,
        "field `argv` at byte 20 must be an array of strings",
    );
    check_message(
        r#"{"id":1,"argv":[],"uid":4294967296}"#,
        "field `uid` at byte 24 must be in 0..=4294967295",
    );
    check_message(
        r#"{"id":1,"argv":[],"cgroup_id":-1}"#,
        "field `cgroup_id` at byte 30 must be in 0..=18446744073709551615",
    );
    check_message(
        r#"{"id":1,"argv":[],"at_ns":1e5}"#,
        "field `at_ns` at byte 26 must be an integer",
    );
    check_message(
        r#"{"id":1,"kind":"ptrace"}"#,
        "field `kind` at byte 15 must be fork, exec, exit, loss, tool_call, text, file, connect or dns",
    );
    check_message(
        r#"{"id":1,"kind":"exit","exit":{"signal":9}}"#,
        "field `exit.code` is missing",
    );
    check_message(
        r#"{"id":1,"argv":[],"key":"1:2:3"}"#,
        "field `key` at byte 24 must be a process key: boot id, tgid and start in ns, joined by `:`",
    );
}

#[test]
fn caps_hold_at_their_edge() {
    let with_args = |count: usize| {
        let args = vec![r#""""#; count].join(",");
        format!(r#"{{"id":1,"argv":[{args}]}}"#)
    };
    assert_eq!(
        decode(&with_args(16_384))
            .event
            .process
            .image
            .argv
            .args
            .len(),
        16_384
    );
    assert!(matches!(
        error(&with_args(16_385)),
        FeedError::TooMany {
            field: "argv",
            limit: 16_384,
            ..
        }
    ));

    let of_length = |bytes: usize| {
        let empty = r#"{"id":1,"argv":[""]}"#.len();
        format!(r#"{{"id":1,"argv":["{}"]}}"#, "a".repeat(bytes - empty))
    };
    decode(&of_length(1 << 20));
    assert!(matches!(
        error(&of_length((1 << 20) + 1)),
        FeedError::LineTooLong {
            limit_bytes: 1_048_576
        }
    ));

    let nested = |levels: usize| {
        format!(
            r#"{{"id":1,"argv":[],"x":{}{}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    decode(&nested(63));
    assert!(matches!(
        error(&nested(64)),
        FeedError::TooDeep { limit: 64, .. }
    ));
    assert!(matches!(
        error(&nested(400_000)),
        FeedError::TooDeep { limit: 64, .. }
    ));

    let with_ancestors = |count: usize| {
        format!(
            r#"{{"id":1,"argv":[],"ancestors":[{}]}}"#,
            vec!["{}"; count].join(",")
        )
    };
    assert_eq!(decode(&with_ancestors(8)).event.ancestors.len(), 8);
    assert!(matches!(
        error(&with_ancestors(9)),
        FeedError::TooMany {
            field: "ancestors",
            limit: 8,
            ..
        }
    ));

    let with_id = |bytes: usize| format!(r#"{{"id":"{}","argv":[]}}"#, "i".repeat(bytes));
    decode(&with_id(1024));
    assert!(matches!(
        error(&with_id(1025)),
        FeedError::TooLong {
            field: "id",
            limit_bytes: 1024,
            offset: 6
        }
    ));
}

#[test]
fn a_line_that_is_not_utf8_is_refused_where_it_stops_being() {
    let error = decode_event(b"{\"id\":1,\"argv\":[\"\xff\"]}").unwrap_err();
    assert!(
        matches!(error, FeedError::NotUtf8 { offset: 17 }),
        "{error:?}"
    );
}

#[test]
fn fields_of_another_kind_are_counted_not_used() {
    let decoded = decode(
        r#"{"id":1,"kind":"exit","exit":{"code":0,"signal":9,"by":1},"tool":"x","loss":null}"#,
    );
    let status = ExitStatus {
        code: 0,
        signal: 9,
        core_dumped: false,
    };
    assert_eq!(decoded.event.data, EventData::Exit(status));
    assert_eq!(decoded.ignored_fields, 2);
}

#[test]
fn equal_events_have_equal_lines_with_the_fields_in_order() {
    let line = r#"{"argv":["id"],"uid":0,"id":7,"parent":"bash"}"#;
    assert_eq!(
        encode_event(&decode(line).event),
        r#"{"schema":"inwarden.event/1","id":"7","kind":"exec","uid":0,"argv":["id"],"ancestors":[{"comm":"bash","argv":["bash"]}]}"#
    );
}

#[test]
fn files_connections_and_queries_are_events() {
    let data = |line: &str| {
        let decoded = decode(line);
        assert_eq!(decoded.ignored_fields, 0, "{line}");
        decoded.event.data
    };
    let renamed = r#"{"id":1,"kind":"file","exe":"/bin/mv","op":"rename","path":"/a","to":"/b"}"#;
    assert_eq!(
        data(renamed),
        EventData::File(FileAccess {
            op: FileOp::Rename,
            path: "/a".into(),
            to: Some("/b".into()),
        })
    );
    let connect = |dst: &str| {
        let line = format!(r#"{{"id":1,"kind":"connect","dst":"{dst}","port":65535}}"#);
        match data(&line) {
            EventData::Connect(connection) => connection,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        connect("192.0.2.7"),
        Connection {
            peer: Peer::Address([192, 0, 2, 7].into()),
            port: Some(65535),
            protocol: Protocol::Tcp,
        }
    );
    assert_eq!(connect("db.test").peer, Peer::Name("db.test".into()));
    let name = "a.test".to_owned();
    assert_eq!(
        data(r#"{"id":1,"kind":"dns","query":"a.test"}"#),
        EventData::Dns(DnsQuery { name })
    );
}

#[test]
fn what_is_no_operation_no_port_or_too_long_is_refused() {
    check_message(
        r#"{"id":1,"kind":"file","op":"sniff","path":"/a"}"#,
        "field `op` at byte 27 must be the name of an operation on files",
    );
    check_message(
        r#"{"id":1,"kind":"file","op":"read"}"#,
        "field `path` is missing",
    );
    check_message(
        r#"{"id":1,"kind":"connect","dst":"a","port":65536}"#,
        "field `port` at byte 42 must be in 0..=65535",
    );
    check_message(
        r#"{"id":1,"kind":"connect","dst":"a","proto":"http"}"#,
        "field `proto` at byte 43 must be tcp, udp, icmp or sctp",
    );
    let with_path = |bytes: usize| {
        let path = "x".repeat(bytes);
        format!(r#"{{"id":1,"kind":"file","op":"read","path":"{path}"}}"#)
    };
    decode(&with_path(4096));
    check_message(
        &with_path(4097),
        "field `path` at byte 41 is longer than 4096 bytes",
    );
    let ignored = decode(r#"{"id":1,"argv":[],"op":"read","port":1}"#).ignored_fields;
    assert_eq!(ignored, 2);
}
