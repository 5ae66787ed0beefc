//! Scripts written so that they do not stand there in plain text.

use std::fmt::Write as _;

use base64::Engine as _;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::payload::{Attempt, Payload, quoted};

pub(super) fn base64(payload: &Payload, random: &mut ChaCha8Rng) -> Option<Attempt> {
    let (shell, script) = payload.shell();
    let text = base64::engine::general_purpose::STANDARD.encode(&script);
    decoded(payload, random, &shell, &format!("echo {text} | base64 -d"))
}

pub(super) fn hex(payload: &Payload, random: &mut ChaCha8Rng) -> Option<Attempt> {
    let (shell, script) = payload.shell();
    let text = each_byte(&script, |text, byte| write!(text, "{byte:02x}"));
    decoded(payload, random, &shell, &format!("echo {text} | xxd -r -p"))
}

pub(super) fn octal(payload: &Payload, random: &mut ChaCha8Rng) -> Option<Attempt> {
    let (shell, script) = payload.shell();
    let text = each_byte(&script, |text, byte| write!(text, "\\{byte:03o}"));
    decoded(payload, random, &shell, &format!("printf '{text}'"))
}

/// One line only: `rev` turns each line around by itself.
pub(super) fn reversed(payload: &Payload, random: &mut ChaCha8Rng) -> Option<Attempt> {
    let (shell, script) = payload.shell();
    let text: String = script.chars().rev().collect();
    let line = format!("printf '%s\\n' {} | rev", quoted(&text));
    let is_one_line = !script.contains('\n');
    is_one_line
        .then(|| decoded(payload, random, &shell, &line))
        .flatten()
}

pub(super) fn here_document(payload: &Payload, _: &mut ChaCha8Rng) -> Option<Attempt> {
    let (shell, script) = payload.shell();
    if reads_input(&script) {
        return None;
    }
    let script = format!("{shell} <<'END_OF_INPUT'\n{script}\nEND_OF_INPUT");
    Some(Attempt::of(payload.with_script(script)))
}

/// Runs what `decoder` prints: in the same shell, or in one that reads it.
fn decoded(
    payload: &Payload,
    random: &mut ChaCha8Rng,
    shell: &str,
    decoder: &str,
) -> Option<Attempt> {
    let is_piped = random.random_bool(0.5) && !reads_input(&payload.shell().1);
    let script = match is_piped {
        true => format!("{decoder} | {shell}"),
        false => format!("eval \"$({decoder})\""),
    };
    Some(Attempt::of(payload.with_script(script)))
}

/// Whether a script may read its standard input, which would then be the script.
fn reads_input(script: &str) -> bool {
    ["read", "stdin", "cat", " -i", "<&0", "sh -s", "- "]
        .iter()
        .any(|word| script.contains(word))
}

fn each_byte(script: &str, write: impl Fn(&mut String, u8) -> std::fmt::Result) -> String {
    let mut text = String::new();
    for byte in script.bytes() {
        // Writing to a string cannot fail.
        let _infallible = write(&mut text, byte);
    }
    text
}
