//! The other way round: ordinary starts that hold the text of an attack, which
//! somebody else may have put there, to have them killed.

use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;

use super::payload::{Attempt, Payload, quoted};

/// One way to get the text of an attack into an ordinary start.
pub(crate) struct Reverse {
    pub(crate) name: &'static str,
    /// `benign` with the text of `attack` in it.
    pub(crate) rewrite: fn(&Payload, &str, &mut ChaCha8Rng) -> Attempt,
}

/// All ways.
pub(crate) const REVERSES: [Reverse; 5] = [
    Reverse {
        name: "message",
        rewrite: message,
    },
    Reverse {
        name: "search_pattern",
        rewrite: search_pattern,
    },
    Reverse {
        name: "file_name",
        rewrite: file_name,
    },
    Reverse {
        name: "comment",
        rewrite: comment,
    },
    Reverse {
        name: "printed",
        rewrite: printed,
    },
];

/// A commit message or ticket that quotes it.
fn message(benign: &Payload, attack: &str, random: &mut ChaCha8Rng) -> Attempt {
    const VERBS: [&str; 3] = ["block", "detect", "document"];
    let verb = VERBS.choose(random).copied().unwrap_or("block");
    let text = format!("rules: {verb} `{attack}`");
    let argv = ["git", "commit", "-m", &text].map(str::to_owned);
    Attempt::of(benign.with_argv(argv.to_vec()))
}

/// A search of logs for it.
fn search_pattern(benign: &Payload, attack: &str, _: &mut ChaCha8Rng) -> Attempt {
    let argv = ["grep", "-rnF", attack, "/var/log/nginx"].map(str::to_owned);
    Attempt::of(benign.with_argv(argv.to_vec()))
}

/// A file that somebody uploaded under such a name.
fn file_name(benign: &Payload, attack: &str, _: &mut ChaCha8Rng) -> Attempt {
    let path = format!("/srv/uploads/{}.txt", attack.replace('/', "_"));
    let argv = ["gzip".to_owned(), "-k".to_owned(), path];
    Attempt::of(benign.with_argv(argv.to_vec()))
}

/// A comment in a script that otherwise does ordinary work.
fn comment(benign: &Payload, attack: &str, _: &mut ChaCha8Rng) -> Attempt {
    let (_, script) = benign.shell();
    let attack = attack.replace(['\n', '\r'], " ");
    Attempt::of(benign.with_script(format!("# reported: {attack}\n{script}")))
}

/// A line that only prints it.
fn printed(benign: &Payload, attack: &str, _: &mut ChaCha8Rng) -> Attempt {
    let script = format!("echo {} >> /var/log/review.txt", quoted(attack));
    Attempt::of(benign.with_script(script))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rand::SeedableRng as _;

    use super::{super::payload::tests::payload, *};

    #[test]
    fn the_text_is_data_wherever_it_is_put() {
        let dir = tempfile::tempdir().unwrap();
        let attack = format!("touch {}/ran; echo 'it''s'", dir.path().display());
        let benign = payload(&["sh", "-c", "echo ordinary"]);
        for reverse in &REVERSES {
            let mut random = ChaCha8Rng::seed_from_u64(1);
            let attempt = (reverse.rewrite)(&benign, &attack, &mut random);
            let argv = &attempt.parts[0].argv;
            assert_ne!(*argv, benign.argv, "{}", reverse.name);
            if argv[0] == "sh" {
                let script = argv[2].replace("/var/log", &dir.path().to_string_lossy());
                let ran = Command::new("sh").arg("-c").arg(script).output();
                assert!(ran.unwrap().status.success(), "{}", reverse.name);
            }
            assert!(!dir.path().join("ran").exists(), "{}", reverse.name);
        }
    }
}
