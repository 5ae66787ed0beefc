//! What loads, and what an error says about what does not.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up must fail"
)]

use inwarden_policy::{EntitySource, Policy, PolicyError, PolicySource};

fn source(name: &str, text: &str) -> PolicySource {
    PolicySource {
        name: name.into(),
        text: text.into(),
    }
}

fn load(text: &str) -> Result<Policy, PolicyError> {
    Policy::load(&[source("mine.cedar", text)])
}

fn check_error(text: &str, expected: &str) {
    let error = load(text).unwrap_err().to_string();
    assert!(error.starts_with(expected), "{error}\nexpected {expected}");
}

#[test]
fn the_shipped_policies_load_and_have_sorted_ids() {
    let policy = Policy::builtin().unwrap();
    let ids: Vec<String> = policy
        .policy_ids()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        ids,
        [
            "alert-malicious",
            "alert-undetermined",
            "call-benign",
            "call-in-doubt",
            "kill-malicious",
            "never-call-malicious",
            "never-kill-protected",
            "never-kill-undetermined",
            "never-read-malicious",
            "only-alert-outside-scope",
            "text-benign",
            "text-in-doubt",
        ]
    );
}

#[test]
fn a_policy_without_id_names_source_and_line() {
    check_error(
        "@id(\"a\")\npermit (principal, action, resource);\n\n// no id\npermit (principal, action, resource);\n",
        "mine.cedar:5: a policy without @id",
    );
}

#[test]
fn an_id_is_taken_once_across_sources() {
    let text = "\n@id(\"a\")\nforbid (principal, action, resource);";
    let error = Policy::load(&[source("one", text), source("two", &format!("\n{text}"))]);
    assert_eq!(
        error.unwrap_err(),
        PolicyError::DuplicateId {
            id: "a".into(),
            source_name: "two".into(),
            line: 3,
            first_source: "one".into(),
            first_line: 2,
        }
    );
}

#[test]
fn an_id_that_is_not_a_name_is_refused() {
    for id in ["", "a b", "a\\nb", "a\\\"b", "\\u{202e}a", &"a".repeat(129)] {
        let text = format!("@id(\"{id}\") permit (principal, action, resource);");
        let error = load(&text).unwrap_err();
        assert!(
            matches!(error, PolicyError::InvalidId { line: 1, .. }),
            "{id}: {error}"
        );
    }
    assert!(load("@id permit (principal, action, resource);").is_err());
}

#[test]
fn syntax_errors_name_the_line() {
    check_error(
        "@id(\"a\")\npermit (principal, action, resource)\nwhen { context. };",
        "mine.cedar:3: ",
    );
    assert!(matches!(
        load("permit").unwrap_err(),
        PolicyError::Syntax { line: 1, .. }
    ));
}

#[test]
fn what_the_schema_does_not_know_does_not_load() {
    let when = |action: &str, condition: &str| {
        format!(
            "@id(\"a\")\npermit (principal, action == Action::\"{action}\", resource)\nwhen {{\n{condition}\n}};"
        )
    };
    for (action, condition, line) in [
        ("respond_kill", "context.labell == \"malicious\"", 4),
        ("respond_kill", "context.score_bp == \"high\"", 4),
        // An optional field without `has`.
        ("respond_kill", "context.uid == 0", 4),
        ("call_tool", "context.label == \"benign\"", 4),
        ("call_tool", "context.counters.killed == 0", 4),
        // Cedar does not say where, so it is where the policy begins.
        ("explode", "true", 1),
        ("respond_kill", "principal in Group::\"x\"", 4),
    ] {
        match load(&when(action, condition)) {
            Err(PolicyError::Schema {
                source_name,
                line: found,
                id,
                ..
            }) => {
                assert_eq!((source_name.as_str(), id.as_str()), ("mine.cedar", "a"));
                assert_eq!(found, line, "{action} {condition}");
            }
            other => panic!("{action} {condition}: {other:?}"),
        }
    }
}

#[test]
fn a_policy_that_can_never_apply_does_not_load() {
    check_error(
        "@id(\"a\")\nforbid (principal == Tool::\"x\", action == Action::\"call_tool\", resource);",
        "mine.cedar:",
    );
}

#[test]
fn templates_are_refused() {
    check_error(
        "\n@id(\"t\") permit (principal == ?principal, action, resource);",
        "mine.cedar:2: templates",
    );
}

#[test]
fn nothing_to_load_is_an_error() {
    assert_eq!(load("// nothing").unwrap_err(), PolicyError::Empty);
    assert_eq!(Policy::load(&[]).unwrap_err(), PolicyError::Empty);
}

#[test]
fn large_and_deep_sources_are_refused_before_they_are_parsed() {
    let huge = " ".repeat(256 * 1024 + 1);
    assert!(matches!(
        load(&huge).unwrap_err(),
        PolicyError::SourceTooLarge { bytes: 262_145, .. }
    ));
    let brackets = format!(
        "@id(\"a\") permit (principal, action, resource) when {{\n{}true{}\n}};",
        "(".repeat(50_000),
        ")".repeat(50_000)
    );
    assert!(matches!(
        load(&brackets).unwrap_err(),
        PolicyError::TooComplex { line: 2, .. }
    ));
    let many: String = (0..1_001)
        .map(|n| format!("@id(\"p{n}\") forbid (principal, action, resource);\n"))
        .collect();
    assert!(matches!(
        load(&many).unwrap_err(),
        PolicyError::TooManyPolicies { .. }
    ));
}

/// Cedar would overflow the stack on some of these, and call others valid.
#[test]
fn chains_of_operators_are_capped_and_below_the_cap_still_checked() {
    let when = |condition: &str| {
        format!("// don't \"count\nthis\n@id(\"a\") permit (principal, action, resource)\nwhen {{ {condition} }};")
            .replace("count\nthis", "count this")
    };
    for (head, unit, tail) in [
        ("1", " + 1", " > true"),
        ("1", " * 1", " > true"),
        ("false", " || false", " || 1"),
        ("true", " && true", " && 1"),
        ("context", ".a", ""),
        ("context", "[\"a\"]", ""),
        ("", "if \"a\" like \"a\" then true else ", "1"),
    ] {
        let chain = |length: usize| when(&format!("{head}{}{tail}", unit.repeat(length)));
        let error = load(&chain(200)).unwrap_err();
        assert!(
            matches!(error, PolicyError::Schema { .. }),
            "{unit}: {error}"
        );
        let error = load(&chain(5_000)).unwrap_err();
        assert!(
            matches!(error, PolicyError::TooComplex { line: 3, .. }),
            "{unit}: {error}"
        );
    }
    let strings = when(&format!(
        "[{}\"x\"].contains(context.exe)",
        "\"a\\\"((((((;\", ".repeat(500)
    ));
    let strings = strings.replace("action,", "action == Action::\"respond_alert\",");
    load(&strings).unwrap();
}

#[test]
fn any_prefix_and_any_flipped_byte_of_a_source_is_an_answer() {
    let good = &Policy::builtin_sources()[0].text;
    let mut state = 7u64;
    for _ in 0..300 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let at = usize::try_from(state >> 33).unwrap() % good.len();
        drop(load(good.get(..at).unwrap()));
        let mut bytes = good.clone().into_bytes();
        bytes[at] = b"(\"{;\n\0@x"[at % 8];
        drop(load(std::str::from_utf8(&bytes).unwrap()));
    }
}

#[test]
fn the_content_hash_follows_the_content_and_not_the_order() {
    let one = source("one", "@id(\"a\") permit (principal, action, resource);");
    let two = source("two", "@id(\"b\") permit (principal, action, resource);");
    let hash = |sources: &[PolicySource]| Policy::load(sources).unwrap().content_hash().to_owned();
    let both = hash(&[one.clone(), two.clone()]);
    assert_eq!(both, hash(&[two, one.clone()]));
    assert_ne!(both, hash(&[one]));
    assert_eq!(both.len(), 64);
}

#[test]
fn entities_are_checked_against_the_schema() {
    let load = |json: &str| {
        let entities = EntitySource {
            name: "groups.json".into(),
            text: json.into(),
        };
        Policy::load_with_entities(&Policy::builtin_sources(), &entities)
    };
    let good = r#"[{"uid":{"type":"Tool","id":"bash"},"attrs":{},"parents":[{"type":"ToolGroup","id":"shell"}]}]"#;
    assert!(load(good).is_ok());
    for bad in [
        "{",
        r#"[{"uid":{"type":"Spoon","id":"x"},"attrs":{},"parents":[]}]"#,
        r#"[{"uid":{"type":"Tool","id":"x"},"attrs":{"a":1},"parents":[]}]"#,
        r#"[{"uid":{"type":"Tool","id":"x"},"attrs":{},"parents":[{"type":"Role","id":"r"}]}]"#,
        r#"[{"uid":{"type":"Role","id":"a"},"attrs":{},"parents":[{"type":"Role","id":"b"}]},
            {"uid":{"type":"Role","id":"b"},"attrs":{},"parents":[{"type":"Role","id":"a"}]}]"#,
    ] {
        let error = load(bad).unwrap_err();
        assert!(
            matches!(error, PolicyError::Entities { .. }),
            "{bad}: {error}"
        );
        assert!(error.to_string().starts_with("groups.json: "), "{error}");
    }
}
