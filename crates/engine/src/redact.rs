//! Redaction of secrets in command lines before they are written anywhere.
//!
//! Redaction is by shape (an option or variable whose name says secret, URL
//! user info, bearer tokens, well-known key prefixes), so it is a reduction of
//! harm, not a guarantee: an unmarked secret passes.

const MARK: &str = "[redacted]";

const SECRET_NAMES: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "credential",
];

const KEY_PREFIXES: [&str; 8] = [
    "AKIA",
    "ASIA",
    "ghp_",
    "gho_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "sk-",
];

/// The arguments with what looks like a secret replaced by `[redacted]`.
#[must_use]
pub fn redact_argv(args: &[String]) -> Vec<String> {
    let mut hide_next = false;
    args.iter()
        .map(|arg| {
            if std::mem::take(&mut hide_next) && !arg.starts_with('-') {
                return MARK.to_owned();
            }
            if arg.starts_with('-') && !arg.contains(['=', ' ']) && names_secret(arg) {
                hide_next = true;
                return arg.clone();
            }
            redact_text(arg)
        })
        .collect()
}

/// One text with what looks like a secret replaced by `[redacted]`.
#[must_use]
pub fn redact_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut hide_next = false;
    for piece in text.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        let space = &piece[word.len()..];
        if word.is_empty() {
            out.push_str(space);
            continue;
        }
        if std::mem::take(&mut hide_next) && !word.starts_with('-') {
            out.push_str(MARK);
        } else {
            hide_next = word.eq_ignore_ascii_case("bearer")
                || word.to_ascii_lowercase().ends_with(":bearer")
                || (word.starts_with("--") && !word.contains('=') && names_secret(word));
            out.push_str(&redact_word(word));
        }
        out.push_str(space);
    }
    out
}

fn names_secret(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|name| lower.ends_with(name))
}

fn redact_word(word: &str) -> String {
    if let Some((name, value)) = word.split_once('=')
        && names_secret(name)
        && !value.is_empty()
        && !value.starts_with('$')
    {
        return format!("{name}={MARK}");
    }
    if let Some((scheme, rest)) = word.split_once("://")
        && let Some((user_info, host)) = rest.split_once('@')
        && user_info.contains(':')
        && !user_info.contains('/')
    {
        return format!("{scheme}://{MARK}@{host}");
    }
    let bare = word.trim_start_matches(['"', '\'']);
    if KEY_PREFIXES.iter().any(|p| bare.starts_with(p)) && bare.len() >= 20 {
        return MARK.to_owned();
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str], expected: &[&str]) {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        assert_eq!(redact_argv(&args), expected);
    }

    #[test]
    fn secrets_in_options_variables_and_urls_are_hidden() {
        check(
            &["psql", "--password", "hunter2"],
            &["psql", "--password", MARK],
        );
        check(&["x", "--api-key=abc"], &["x", "--api-key=[redacted]"]);
        check(
            &["sh", "-c", "DB_PASSWORD=abc run --token xyz now"],
            &[
                "sh",
                "-c",
                "DB_PASSWORD=[redacted] run --token [redacted] now",
            ],
        );
        check(
            &["git", "clone", "https://me:pw@host.example/r"],
            &["git", "clone", "https://[redacted]@host.example/r"],
        );
        check(
            &["curl", "-H", "Authorization: Bearer abc.def"],
            &["curl", "-H", "Authorization: Bearer [redacted]"],
        );
    }

    #[test]
    fn ordinary_words_stay() {
        check(
            &["cat", "/etc/passwd", "a=b"],
            &["cat", "/etc/passwd", "a=b"],
        );
        check(
            &["sh", "-c", "X_TOKEN=$T  go"],
            &["sh", "-c", "X_TOKEN=$T  go"],
        );
    }
}
