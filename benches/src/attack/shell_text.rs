//! Where a shell line may be changed without changing what it does.

/// Programs whose names may be written otherwise: by quoting rules they stay the
/// same word wherever they stand unquoted.
const PROGRAMS: [&str; 40] = [
    "bash",
    "sh",
    "dash",
    "curl",
    "wget",
    "nc",
    "ncat",
    "socat",
    "python",
    "python3",
    "perl",
    "ruby",
    "php",
    "node",
    "base64",
    "chmod",
    "chown",
    "cat",
    "cp",
    "mv",
    "rm",
    "tar",
    "ssh",
    "scp",
    "crontab",
    "systemctl",
    "useradd",
    "usermod",
    "passwd",
    "insmod",
    "modprobe",
    "mount",
    "nsenter",
    "chroot",
    "kubectl",
    "docker",
    "tee",
    "dd",
    "find",
    "iptables",
];

/// Words that begin or join compound commands.
const KEYWORDS: [&str; 16] = [
    "if", "then", "else", "fi", "for", "while", "until", "do", "done", "case", "esac", "select",
    "function", "time", "coproc", "in",
];

/// Commands whose effect stays in the shell that runs them.
const STATEFUL: [&str; 16] = [
    "cd", "export", "set", "trap", "exec", "umask", "source", ".", "alias", "read", "local",
    "unset", "shopt", "ulimit", "wait", "eval",
];

/// A character of a line and how it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    at: usize,
    c: char,
    /// Not quoted, escaped, or in a comment.
    is_bare: bool,
}

fn places(line: &str) -> Vec<Place> {
    let mut places = Vec::with_capacity(line.len());
    let mut quote = None;
    let mut escaped = false;
    let mut in_comment = false;
    let mut before = '\n';
    for (at, c) in line.char_indices() {
        let starts_word = before.is_whitespace() || ";&|(".contains(before);
        in_comment =
            (in_comment || (quote.is_none() && !escaped && c == '#' && starts_word)) && c != '\n';
        let is_bare = quote.is_none() && !escaped && !in_comment;
        let is_mark = is_bare && matches!(c, '\'' | '"' | '\\');
        places.push(Place {
            at,
            c,
            is_bare: is_bare && !is_mark,
        });
        if escaped {
            escaped = false;
        } else if !in_comment {
            match (quote, c) {
                (None | Some('"'), '\\') => escaped = true,
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), _) if open == c => quote = None,
                _ => {}
            }
        }
        before = c;
    }
    places
}

/// Whether lines may be put behind this one: it ends where a command may begin.
pub(super) fn may_be_followed(line: &str) -> bool {
    !line.contains("<<") && !line.ends_with('\\') && {
        let all = places(line);
        all.iter()
            .filter(|place| !place.is_bare && place.c == '\'')
            .count()
            % 2
            == 0
    }
}

/// Where the names of programs stand unquoted: byte ranges, in order. None in
/// lines with here-documents, whose text is data.
pub(super) fn program_names(line: &str) -> Vec<std::ops::Range<usize>> {
    if line.contains("<<") {
        return Vec::new();
    }
    let all = places(line);
    let mut found = Vec::new();
    let mut idx = 0;
    while idx < all.len() {
        let word = all[idx..]
            .iter()
            .take_while(|place| place.is_bare && place.c.is_ascii_alphanumeric())
            .count();
        if word == 0 {
            idx += 1;
            continue;
        }
        let start = all[idx].at;
        let end = start + word;
        let before = idx.checked_sub(1).map(|before| all[before]);
        let after = all.get(idx + word);
        let begins = before.is_none_or(|place| {
            place.is_bare && (place.c.is_whitespace() || ";&|(/`".contains(place.c))
        });
        let ends = after.is_none_or(|place| {
            place.is_bare && (place.c.is_whitespace() || ";&|)`".contains(place.c))
        });
        if begins && ends && PROGRAMS.contains(&&line[start..end]) {
            found.push(start..end);
        }
        idx += word;
    }
    found
}

/// The commands of a line that each could run in a process of its own, in order;
/// `None` if they share state, or there is only one.
pub(super) fn separate_commands(line: &str) -> Option<Vec<String>> {
    if line.contains("<<") || line.contains("$!") || line.contains("$?") {
        return None;
    }
    let all = places(line);
    let bare = |idx: usize, c: char| {
        all.get(idx)
            .is_some_and(|place| place.is_bare && place.c == c)
    };
    let mut commands = Vec::new();
    let mut start = 0;
    let mut idx = 0;
    while idx < all.len() {
        if all[idx].is_bare && "(){}`".contains(all[idx].c) {
            return None;
        }
        let length = match () {
            () if bare(idx, '&') && bare(idx + 1, '&') => 2,
            () if bare(idx, ';') || bare(idx, '\n') => 1,
            // Redirections have an & too.
            () if bare(idx, '&') && !follows_redirection(&all, idx) => return None,
            () if bare(idx, '|') && bare(idx + 1, '|') => return None,
            () => 0,
        };
        if length == 0 {
            idx += 1;
            continue;
        }
        commands.push(line[start..all[idx].at].trim().to_owned());
        idx += length;
        start = all.get(idx).map_or(line.len(), |place| place.at);
    }
    commands.push(line[start..].trim().to_owned());
    commands.retain(|command| !command.is_empty() && !command.starts_with('#'));
    let separate = |command: &String| {
        let first = command.split_whitespace().next().unwrap_or_default();
        !KEYWORDS.contains(&first) && !STATEFUL.contains(&first) && !first.contains('=')
    };
    (commands.len() > 1 && commands.iter().all(separate)).then_some(commands)
}

/// `A` and the shell of `A | sh`.
pub(super) fn piped_to_shell(line: &str) -> Option<(String, String)> {
    if line.contains("<<") {
        return None;
    }
    let all = places(line);
    let bars: Vec<usize> = all
        .iter()
        .filter(|place| place.is_bare && place.c == '|')
        .map(|place| place.at)
        .collect();
    let is_plain = all
        .iter()
        .all(|place| !place.is_bare || !";&(){}`\n".contains(place.c));
    let at = *bars.last()?;
    let shell = line[at + 1..].trim();
    let is_shell = matches!(shell, "sh" | "bash" | "dash");
    (is_plain && is_shell && !line.contains("||"))
        .then(|| (line[..at].trim().to_owned(), shell.to_owned()))
}

fn follows_redirection(all: &[Place], idx: usize) -> bool {
    let at = |idx: Option<usize>| idx.and_then(|idx| all.get(idx)).map(|place| place.c);
    matches!(at(idx.checked_sub(1)), Some('>' | '<')) || at(Some(idx + 1)) == Some('>')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str) -> Vec<&str> {
        program_names(line)
            .into_iter()
            .map(|range| &line[range])
            .collect()
    }

    #[test]
    fn only_unquoted_program_names_are_found() {
        assert_eq!(names("curl -s x | bash"), ["curl", "bash"]);
        assert_eq!(names("/usr/bin/curl x"), ["curl"]);
        assert_eq!(names("echo 'curl x' \"wget y\" \\curl z # sh"), [""; 0]);
        assert_eq!(names("curl=1 mycurl curl.se $(wget x)"), ["wget"]);
        assert_eq!(names("cat <<E\ncurl\nE"), [""; 0]);
        assert_eq!(names("echo $cat ${sh} sh;"), ["sh"]);
    }

    #[test]
    fn commands_that_share_state_are_not_separated() {
        let separated = |line| separate_commands(line);
        assert_eq!(
            separated("curl -o /tmp/x y; chmod +x /tmp/x && /tmp/x 2>&1"),
            Some(vec![
                "curl -o /tmp/x y".to_owned(),
                "chmod +x /tmp/x".to_owned(),
                "/tmp/x 2>&1".to_owned()
            ])
        );
        for line in [
            "cd /tmp; ls",
            "a=1; echo $a",
            "for x in 1; do id; done",
            "id",
            "a & b; c",
        ] {
            assert_eq!(separated(line), None, "{line}");
        }
        assert_eq!(separated("echo 'a;b'"), None);
    }

    #[test]
    fn a_pipe_into_a_shell_is_taken_apart() {
        let expected = ("curl -s x".to_owned(), "bash".to_owned());
        assert_eq!(piped_to_shell("curl -s x | bash"), Some(expected));
        assert_eq!(piped_to_shell("curl x | tee y"), None);
        assert_eq!(piped_to_shell("curl x; cat | sh"), None);
    }

    #[test]
    fn nothing_follows_an_open_line() {
        assert!(may_be_followed("ls -l 'a b'"));
        assert!(!may_be_followed("cat <<E\nx\nE"));
        assert!(!may_be_followed("ls \\"));
    }
}
