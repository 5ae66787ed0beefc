//! The rules of the house that a compiler does not check.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside the test functions"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Level of each crate; a crate may depend only on crates of a lower level.
const LEVELS: [(&str, u32); 17] = [
    ("inwarden-types", 0),
    ("inwarden-kernels", 0),
    ("inwarden-inference", 1),
    ("inwarden-models", 1),
    ("inwarden-memory", 1),
    ("inwarden-sensor", 1),
    ("inwarden-feeds", 1),
    ("inwarden-policy", 1),
    ("inwarden-response", 1),
    ("inwarden-classifier", 2),
    ("inwarden", 3),
    ("inwarden-gateway", 4),
    ("inwarden-server", 4),
    ("inwarden-cli", 4),
    ("inwarden-python", 4),
    ("inwarden-bench", 4),
    ("inwarden-testkit", 4),
];

/// Crates that know nothing of the shared nouns.
const WITHOUT_TYPES: [&str; 3] = ["inwarden-kernels", "inwarden-inference", "inwarden-models"];

/// Foreign crates, by the start of their name, and the one room for each.
const FOREIGN: [(&str, &str); 12] = [
    ("candle", "inwarden-inference"),
    ("llguidance", "inwarden-inference"),
    ("tokenizers", "inwarden-inference"),
    ("tree-sitter", "inwarden-classifier"),
    ("qdrant", "inwarden-memory"),
    ("aya", "inwarden-sensor"),
    ("cedar-policy", "inwarden-policy"),
    ("kube", "inwarden-response"),
    ("hf-hub", "inwarden-models"),
    ("rsigma", "inwarden-classifier"),
    ("rmcp", "inwarden-gateway"),
    ("pyo3", "inwarden-python"),
];

/// The benchmark binary runs this engine beside ours: the peer, not a part of us.
const MEASURED_IN_PROCESS: (&str, &str) = ("candle", "inwarden-bench");

/// Every feature there may be.
const FEATURES: [&str; 8] = [
    "default",
    "ebpf",
    "cuda",
    "kube",
    "qdrant-server",
    "mcp",
    "otel",
    "testing",
];

/// Crates in which a module may lift `unsafe_code`.
const MAY_BE_UNSAFE: [&str; 4] = [
    "inwarden-kernels",
    "inwarden-sensor",
    "inwarden-inference",
    "inwarden-python",
];

const MAX_PRODUCTION_LINES: usize = 600;

struct Package {
    name: String,
    dir: PathBuf,
    targets: Vec<String>,
    features: Vec<String>,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    name: String,
    is_dev: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_owned()
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--offline",
            "--no-deps",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let package = |package: &Value| Package {
        name: text(&package["name"]),
        dir: Path::new(package["manifest_path"].as_str().unwrap())
            .parent()
            .unwrap()
            .to_owned(),
        targets: package["targets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| text(&t["name"]))
            .collect(),
        features: package["features"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect(),
        dependencies: package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|dependency| Dependency {
                name: text(&dependency["name"]),
                is_dev: dependency["kind"] == "dev",
            })
            .collect(),
    };
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(package)
        .collect()
}

/// The `.rs` files of a crate's own code, tests left out.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.join("src")];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// The lines that are code: no comment lines.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("//"))
}

fn level(name: &str) -> u32 {
    let found = LEVELS.iter().find(|(known, _)| *known == name);
    found
        .unwrap_or_else(|| panic!("`{name}` has no level: add it to the map and here"))
        .1
}

fn is_ours(name: &str) -> bool {
    name == "inwarden" || name.starts_with("inwarden-")
}

#[test]
fn a_crate_depends_only_on_lower_levels() {
    for package in packages() {
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| is_ours(&d.name) && !d.is_dev)
        {
            assert!(
                level(&dependency.name) < level(&package.name),
                "{} (level {}) depends on {} (level {})",
                package.name,
                level(&package.name),
                dependency.name,
                level(&dependency.name)
            );
            assert_ne!(
                dependency.name, "inwarden-testkit",
                "{} outside tests",
                package.name
            );
        }
        if WITHOUT_TYPES.contains(&package.name.as_str()) {
            let has_types = package
                .dependencies
                .iter()
                .any(|d| d.name == "inwarden-types");
            assert!(
                !has_types,
                "{} must not know the shared nouns",
                package.name
            );
        }
    }
}

#[test]
fn the_bindings_see_only_the_engine_and_the_types() {
    for package in packages()
        .iter()
        .filter(|package| package.name == "inwarden-python")
    {
        for dependency in package.dependencies.iter().filter(|d| is_ours(&d.name)) {
            assert!(
                ["inwarden", "inwarden-types"].contains(&dependency.name.as_str()),
                "the bindings depend on {}",
                dependency.name
            );
        }
    }
}

#[test]
fn foreign_crates_stay_in_their_room() {
    for package in packages() {
        let elsewhere = |(prefix, room): &&(&str, &str)| {
            *room != package.name && (*prefix, &*package.name) != MEASURED_IN_PROCESS
        };
        for (prefix, room) in FOREIGN.iter().filter(elsewhere) {
            for dependency in &package.dependencies {
                assert!(
                    !dependency.name.starts_with(prefix),
                    "{} depends on {}, which belongs to {room}",
                    package.name,
                    dependency.name
                );
            }
            let path = prefix.replace('-', "_");
            for source in sources(&package.dir) {
                let text = fs::read_to_string(&source).unwrap();
                let named = code_lines(&text).find(|line| names_crate(line, &path));
                assert!(
                    named.is_none(),
                    "{}: {named:?} belongs to {room}",
                    source.display()
                );
            }
        }
    }
}

/// Whether the line has a path that begins with a crate of this prefix, such as
/// `candle_core::` for `candle`.
fn names_crate(line: &str, prefix: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(prefix).any(|(at, _)| {
        let starts = !line[..at].ends_with(|c: char| is_word(c) || c == ':' || c == '"');
        let rest = line[at + prefix.len()..].trim_start_matches(is_word);
        starts && rest.starts_with("::")
    })
}

#[test]
fn the_search_for_foreign_paths_finds_them() {
    assert!(names_crate("use candle_core::Tensor;", "candle"));
    assert!(names_crate("fn f(x: aya::Ebpf) {}", "aya"));
    assert!(!names_crate("use crate::candle::X;", "candle"));
    assert!(!names_crate("let malaya::x;", "aya"));
    assert!(!names_crate("let aya = 1;", "aya"));
}

#[test]
fn features_are_those_of_the_list() {
    for package in packages() {
        for feature in &package.features {
            assert!(
                FEATURES.contains(&feature.as_str()),
                "{}: {feature}",
                package.name
            );
        }
    }
}

#[test]
fn every_crate_inherits_the_lints() {
    for package in packages() {
        let manifest = fs::read_to_string(package.dir.join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{}",
            package.name
        );
    }
}

#[test]
fn nothing_is_allowed_wholesale_and_unsafe_only_in_its_rooms() {
    for package in packages() {
        for source in sources(&package.dir) {
            let text = fs::read_to_string(&source).unwrap();
            for line in code_lines(&text) {
                let allows = line.starts_with("#![allow(") || line.starts_with("#[allow(");
                assert!(
                    !allows,
                    "{}: {line}; use expect with a reason",
                    source.display()
                );
                let lifts = line.starts_with("#") && line.contains("unsafe_code");
                let may = MAY_BE_UNSAFE.contains(&package.name.as_str());
                assert!(!lifts || may, "{}: {line}", source.display());
            }
        }
    }
}

#[test]
fn files_stay_short() {
    for package in packages() {
        for source in sources(&package.dir) {
            let text = fs::read_to_string(&source).unwrap();
            let is_test = source.components().any(|part| {
                let part = part.as_os_str().to_string_lossy();
                part == "tests" || part.ends_with("tests.rs") || part == "fakes.rs"
            });
            let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
            let lines = production.lines().count();
            assert!(
                is_test || lines <= MAX_PRODUCTION_LINES,
                "{} has {lines} production lines, more than {MAX_PRODUCTION_LINES}",
                source.display()
            );
        }
    }
}

/// The words between backticks on one line, outside code blocks.
fn quoted_words(document: &str) -> BTreeSet<&str> {
    let is_plain = |word: &&str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
        !word.is_empty() && word.chars().all(legal)
    };
    let outside = document.split("```").step_by(2);
    let words = outside
        .flat_map(str::lines)
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    words.filter(is_plain).collect()
}

#[test]
fn what_architecture_names_exists() {
    let path = root().join("ARCHITECTURE.md");
    let Ok(document) = fs::read_to_string(&path) else {
        eprintln!("SKIPPED: there is no ARCHITECTURE.md yet");
        return;
    };
    let packages = packages();
    let names: BTreeSet<&str> = packages
        .iter()
        .flat_map(|package| package.targets.iter().chain([&package.name]))
        .map(String::as_str)
        .collect();
    for word in quoted_words(&document) {
        if word.starts_with("inwarden-") && !word.contains('/') {
            assert!(
                names.contains(word),
                "ARCHITECTURE.md names `{word}`, which is no crate"
            );
        }
        let first = word.split('/').next().unwrap_or("");
        let is_path = word.contains('/') && !first.is_empty() && root().join(first).exists();
        assert!(
            !is_path || root().join(word).exists(),
            "ARCHITECTURE.md names `{word}`, which does not exist"
        );
    }
    for package in packages
        .iter()
        .filter(|package| package.dir.parent().unwrap().ends_with("crates"))
    {
        let folder = package.dir.file_name().unwrap().to_string_lossy();
        let named = document.contains(&format!("`{folder}`"))
            || document.contains(&format!("`crates/{folder}`"))
            || document.contains(&format!("`crates/{folder}/"));
        assert!(named, "ARCHITECTURE.md does not name the room `{folder}`");
    }
}

#[test]
fn quoted_words_are_found_outside_code_blocks() {
    let words = quoted_words("see `crates/types` and `a b`\n```\n`crates/none`\n```\n`x-y`");
    assert_eq!(words, BTreeSet::from(["crates/types", "x-y"]));
}

#[test]
fn the_changelog_has_a_heading_for_the_version() {
    let Ok(changelog) = fs::read_to_string(root().join("CHANGELOG.md")) else {
        eprintln!("SKIPPED: there is no CHANGELOG.md yet");
        return;
    };
    let version = env!("CARGO_PKG_VERSION");
    let is_heading = |line: &str| {
        let rest = line
            .strip_prefix("## ")
            .map(|rest| rest.trim_start_matches('['));
        rest.and_then(|rest| rest.strip_prefix(version))
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit() || c == '.'))
    };
    assert!(
        changelog.lines().any(is_heading),
        "CHANGELOG.md has no heading for {version}"
    );
}

/// Files that git knows, or `None` outside a checkout.
fn tracked_files() -> Option<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output()
        .ok()?;
    let names = String::from_utf8(output.stdout).ok()?;
    let files = names.split_terminator('\0').map(|name| root().join(name));
    output.status.success().then(|| files.collect())
}

#[test]
fn no_tracked_file_names_this_machine_or_a_package_index() {
    let Some(files) = tracked_files() else {
        eprintln!("SKIPPED: this is not a git checkout");
        return;
    };
    // Data rows show what people type; sources and settings must not.
    let options = [
        "--index-url",
        "--extra-index-url",
        "--find-links",
        "replace-with =",
    ];
    let hosts = ["pythonhosted.org", "static.crates.io"];
    let mut machine = Vec::new();
    // This checkout and the homes of the tools, whatever they are here.
    let here = root();
    machine.push(format!("{}/", here.display()));
    let tools = ["CARGO_HOME", "RUSTUP_HOME"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok());
    let home = std::env::var("HOME").ok();
    let dots = home
        .iter()
        .flat_map(|home| [".cargo", ".rustup"].map(|dot| format!("{home}/{dot}")));
    machine.extend(tools.chain(dots));
    let this = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/house_rules.rs");
    for file in files.iter().filter(|file| **file != this) {
        // Deleted files are still listed; binaries are looked through as they are.
        let Ok(bytes) = fs::read(file) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let is_data = file
            .extension()
            .is_some_and(|extension| extension == "jsonl");
        let options = options.iter().filter(|_| !is_data).copied();
        let mut words = options
            .chain(hosts)
            .chain(machine.iter().map(String::as_str));
        let found = words.find(|word| text.contains(word));
        assert!(found.is_none(), "{} contains {found:?}", file.display());
    }
}

#[test]
fn every_dependency_comes_from_crates_io() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for line in lock.lines().filter(|line| line.starts_with("source = ")) {
        let expected = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
        assert_eq!(line, expected);
    }
}
