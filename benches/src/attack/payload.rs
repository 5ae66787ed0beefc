//! A program start that an attacker rewrites, and what comes of rewriting it.

use inwarden::types::Event;
use serde_json::{Value, json};

use crate::eval::product::decode;

/// The cgroup of everything that is played: all of it is in scope.
pub(super) const CGROUP: u64 = 1_000;
const BOOT: &str = "00000000-0000-4000-8000-000000000001";
/// The shell or agent that starts everything.
const STARTER: u64 = 100;

/// A program start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) argv: Vec<String>,
    pub(crate) parent: Option<String>,
    /// What really runs, where `argv[0]` says otherwise.
    pub(crate) exe: Option<String>,
}

impl Payload {
    /// The shell and the script it is given: those of `sh -c SCRIPT`, and for any
    /// other program start a line that does the same.
    pub(crate) fn shell(&self) -> (String, String) {
        match &self.argv[..] {
            [shell, flag, script] if flag == "-c" && is_shell(shell) => {
                (shell.clone(), script.clone())
            }
            argv => {
                let words: Vec<String> = argv.iter().map(|word| quoted(word)).collect();
                ("sh".to_owned(), words.join(" "))
            }
        }
    }

    /// The same start, of a shell with this script.
    pub(crate) fn with_script(&self, script: String) -> Self {
        let (shell, _) = self.shell();
        self.with_argv(vec![shell, "-c".to_owned(), script])
    }

    pub(crate) fn with_argv(&self, argv: Vec<String>) -> Self {
        Self {
            argv,
            parent: self.parent.clone(),
            exe: None,
        }
    }
}

/// What an attacker starts, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Harmless starts before.
    pub(crate) before: Vec<Payload>,
    /// The attack: it succeeds if none of these is detected.
    pub(crate) parts: Vec<Payload>,
}

impl Attempt {
    pub(crate) fn of(payload: Payload) -> Self {
        Self {
            before: Vec::new(),
            parts: vec![payload],
        }
    }

    /// The events, as siblings in one cgroup.
    pub(crate) fn events(&self) -> anyhow::Result<Vec<Event>> {
        let all = self.before.iter().chain(&self.parts);
        all.enumerate()
            .map(|(idx, payload)| decode(&event_line(idx, payload)))
            .collect()
    }
}

fn event_line(idx: usize, payload: &Payload) -> Value {
    let tgid = STARTER + 1 + idx as u64;
    let key = |tgid: u64| format!("{BOOT}:{tgid}:{}", tgid * 1_000_000);
    json!({
        "id": idx.to_string(),
        "kind": "exec",
        "at_ns": tgid * 1_000_000,
        "key": key(tgid),
        "parent_key": key(STARTER),
        "cgroup_id": CGROUP,
        "exe": payload.exe,
        "argv": payload.argv,
        "parent": payload.parent,
    })
}

fn is_shell(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    matches!(name, "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash")
}

/// The word as a shell reads it back.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn payload(argv: &[&str]) -> Payload {
        Payload {
            argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
            parent: Some("bash".to_owned()),
            exe: None,
        }
    }

    #[test]
    fn any_start_has_a_shell_line() {
        let (shell, script) = payload(&["bash", "-c", "id; w"]).shell();
        assert_eq!((shell.as_str(), script.as_str()), ("bash", "id; w"));
        let (shell, script) = payload(&["grep", "-r", "it's", "/etc"]).shell();
        assert_eq!(
            (shell.as_str(), script.as_str()),
            ("sh", r"grep -r 'it'\''s' /etc")
        );
        // With arguments of its own a script is not alone.
        let (_, script) = payload(&["sh", "-c", "echo $0", "x"]).shell();
        assert_eq!(script, "sh -c 'echo $0' x");
    }

    #[test]
    fn events_are_siblings_in_order() {
        let mut attempt = Attempt::of(payload(&["ls"]));
        attempt.before.push(payload(&["date"]));
        let events = attempt.events().unwrap();
        assert_eq!(events.len(), 2);
        assert!(events[0].at < events[1].at);
        assert_eq!(events[0].process.parent, events[1].process.parent);
        assert_ne!(events[0].process.key, events[1].process.key);
    }
}
