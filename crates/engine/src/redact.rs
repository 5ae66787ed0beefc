//! Redaction of secrets in command lines and tool arguments before they are
//! written anywhere.
//!
//! Redaction is by shape (an option, variable, header or key whose name says
//! secret, URL user info, bearer tokens, well-known key prefixes), so it is a
//! reduction of harm, not a guarantee: an unmarked secret passes.

use serde_json::Value;

const MARK: &str = "[redacted]";

const SECRET_NAMES: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "credential",
    "credentials",
    "access_key",
    "access-key",
    "private_key",
    "authorization",
];

/// Words that name a secret wherever they stand in a name.
const SECRET_PARTS: [&str; 3] = ["secret", "password", "api_key"];

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

/// The JSON of a tool call's arguments with what looks like a secret replaced by
/// `[redacted]`. What is not JSON is redacted as text; where nothing is replaced, it
/// stays as it was, to the last byte.
#[must_use]
pub fn redact_json(json: &str) -> String {
    let Ok(value) = serde_json::from_str::<Value>(json) else {
        return redact_text(json);
    };
    let mut redacted = value.clone();
    redact_value(&mut redacted);
    // Of a field that is given twice, only the last was looked at.
    match redacted == value && n_fields(&value) == n_colons(json) {
        true => json.to_owned(),
        false => redacted.to_string(),
    }
}

/// Fields of all objects in `value`; depth is bounded as in [`redact_value`].
fn n_fields(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(n_fields).sum(),
        Value::Object(fields) => fields.len() + fields.values().map(n_fields).sum::<usize>(),
        _ => 0,
    }
}

/// Colons outside of strings: one for each field that is written in `json`.
fn n_colons(json: &str) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b':' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// Depth is bounded by the parser, which accepts 128 levels.
fn redact_value(value: &mut Value) {
    match value {
        Value::String(text) => *text = redact_text(text),
        Value::Array(items) => {
            let words: Option<Vec<String>> = items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect();
            match words {
                // It may be an argument vector.
                Some(words) => {
                    let redacted = redact_argv(&words);
                    *items = redacted.into_iter().map(Value::String).collect();
                }
                None => items.iter_mut().for_each(redact_value),
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                if names_secret(name) && !value.is_null() {
                    *value = Value::String(MARK.to_owned());
                } else {
                    redact_value(value);
                }
            }
        }
        _ => {}
    }
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
        let bare = word.trim_matches(['"', '\'']);
        let says_bearer = bare.eq_ignore_ascii_case("bearer") || bare.eq_ignore_ascii_case("basic");
        if std::mem::take(&mut hide_next) && !word.starts_with('-') && !says_bearer {
            out.push_str(MARK);
        } else {
            hide_next = says_bearer
                || bare.to_ascii_lowercase().ends_with(":bearer")
                || bare.strip_suffix(':').is_some_and(names_secret)
                || (word.starts_with("--") && !word.contains('=') && names_secret(word));
            out.push_str(&redact_word(word));
        }
        out.push_str(space);
    }
    out
}

fn names_secret(word: &str) -> bool {
    let lower = word.trim_matches(['"', '\'']).to_ascii_lowercase();
    SECRET_NAMES.iter().any(|name| lower.ends_with(name))
        || SECRET_PARTS.iter().any(|part| lower.contains(part))
}

fn redact_word(word: &str) -> String {
    for separator in ['=', ':'] {
        if let Some((name, value)) = word.split_once(separator)
            && names_secret(name)
            && !value.is_empty()
            && !value.starts_with(['$', '/'])
        {
            return format!("{name}{separator}{MARK}");
        }
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
    fn secrets_in_options_variables_headers_and_urls_are_hidden() {
        check(
            &["psql", "--password", "hunter2"],
            &["psql", "--password", MARK],
        );
        check(&["x", "--api-key=abc"], &["x", "--api-key=[redacted]"]);
        check(&["x", "--secret-key", "abc"], &["x", "--secret-key", MARK]);
        check(
            &["env", "AWS_SECRET_ACCESS_KEY=abc", "run"],
            &["env", "AWS_SECRET_ACCESS_KEY=[redacted]", "run"],
        );
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
        check(
            &["curl", "-H", "X-Api-Key: abc"],
            &["curl", "-H", "X-Api-Key: [redacted]"],
        );
    }

    #[test]
    fn secrets_in_tool_arguments_are_hidden() {
        let redacted = |json: &str| serde_json::from_str::<Value>(&redact_json(json)).unwrap();
        let shapes = [
            r#"{"password":"hunter2"}"#,
            r#"{"headers":{"Authorization":"Bearer hunter2"}}"#,
            r#"{"key":"sk-hunter2hunter2hunter2"}"#,
            r#"{"argv":["x","--token","hunter2"]}"#,
            r#"{"command":"x --token hunter2"}"#,
            r#"{"deep":[{"api_key":{"value":"hunter2"}}]}"#,
        ];
        for json in shapes {
            let text = redacted(json).to_string();
            assert!(!text.contains("hunter2"), "{json}: {text}");
            assert!(text.contains(MARK), "{json}: {text}");
        }
    }

    #[test]
    fn arguments_without_a_secret_stay_as_they_are_written() {
        for json in [
            r#"{"path":"/srv","n":1}"#,
            r#"{ "n": 1.50, "a:b": "c\":d", "deep": [{"x": {}}] }"#,
        ] {
            assert_eq!(redact_json(json), json);
        }
    }

    #[test]
    fn a_secret_in_a_field_that_is_given_twice_is_hidden() {
        for json in [
            r#"{"a":{"password":"hunter2"},"a":1}"#,
            r#"{"password":"hunter2","password":null}"#,
            r#"{"x":[{"command":"x --token hunter2","command":"ls"}]}"#,
        ] {
            assert!(!redact_json(json).contains("hunter2"), "{json}");
        }
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
