//! Imports into a real store, with an embedder that counts letters.

use std::{fs, os::unix::fs::symlink};

use inwarden_memory::MemoryOptions;

use super::*;
use crate::test_embedder::Letters;

const SHELL: &str = r#"{"type":"attack-pattern","id":"attack-pattern--1","name":"Unix Shell",
    "description":"Adversaries may abuse shells.","x_mitre_platforms":["Linux"],
    "kill_chain_phases":[{"kill_chain_name":"mitre-attack","phase_name":"execution"}],
    "external_references":[{"source_name":"mitre-attack","external_id":"T1059.004"}]}"#;

const CRON: &str = r#"{"type":"attack-pattern","id":"attack-pattern--2","name":"Cron",
    "description":"Schedules run programs.",
    "external_references":[{"source_name":"mitre-attack","external_id":"T1053.003"}]}"#;

const RULE: &str = "title: Queer quartz\nid: r1\ndescription: Quaint query quota\ntags: [attack.t1059.004]\nlogsource: {product: linux}\ndetection: {a: {Image: x}, condition: a}\nlevel: high\n";

struct Place {
    dir: tempfile::TempDir,
    knowledge: Knowledge,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = dir.path().join("store");
        let memory = Memory::open(&store, Arc::new(Letters), MemoryOptions::default());
        let memory = Arc::new(memory.expect("a new store opens"));
        let knowledge = Knowledge { memory };
        Self { dir, knowledge }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        let parent = path.parent().expect("it has one");
        fs::create_dir_all(parent).expect("a directory of ours");
        fs::write(&path, bytes).expect("a file of ours");
        path
    }

    fn import(&self, kind: KnowledgeKind, path: &Path) -> Result<Imported, EngineError> {
        self.knowledge.import(kind, path, &mut |_, _| {})
    }

    fn refusal(&self, kind: KnowledgeKind, path: &Path) -> String {
        match self.import(kind, path) {
            Err(EngineError::Import(error)) => {
                assert_eq!(self.knowledge.memory.knowledge_len(), 0);
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                format!("{error}: {}", cause.unwrap_or_default())
            }
            other => panic!("{other:?}"),
        }
    }
}

fn bundle(objects: &[&str]) -> String {
    let objects = objects.join(",");
    format!(r#"{{"type":"bundle","id":"bundle--1","objects":[{objects}]}}"#)
}

fn counts(imported: &Imported) -> Vec<(&str, u64)> {
    imported
        .skipped
        .iter()
        .map(|(reason, n)| (*reason, *n))
        .collect()
}

#[test]
fn techniques_are_found_again_and_withdrawn_ones_go() {
    let place = Place::new();
    let first = place.write("a.json", bundle(&[SHELL, CRON, r#"{"type":"tool"}"#]));
    let mut seen = Vec::new();
    let imported = place
        .knowledge
        .import(KnowledgeKind::Stix, &first, &mut |done, all| {
            seen.push((done, all))
        })
        .unwrap();
    assert_eq!((imported.documents, imported.removed), (2, 0));
    assert_eq!(counts(&imported), [("not an attack-pattern", 1)]);
    assert_eq!(seen, [(2, 2)]);
    let found = place
        .knowledge
        .search("abuse shells", &[KnowledgeKind::Stix], 1)
        .unwrap();
    assert_eq!(found[0].id, "T1059.004");
    assert_eq!(found[0].technique, Some(Technique("T1059.004".into())));
    assert_eq!(
        found[0].text,
        "Unix Shell\ntactics: execution\nplatforms: Linux\nAdversaries may abuse shells."
    );
    assert!(!format!("{found:?}").contains("abuse"));
    let others = place
        .knowledge
        .search("abuse shells", &[KnowledgeKind::Sigma], 5)
        .unwrap();
    assert!(others.is_empty());

    let revoked = CRON.replace("\"name\"", "\"revoked\":true,\"name\"");
    let second = place.write("b.json", bundle(&[&revoked, SHELL, SHELL]));
    let imported = place.import(KnowledgeKind::Stix, &second).unwrap();
    assert_eq!((imported.documents, imported.removed), (1, 1));
    assert_eq!(
        counts(&imported),
        [("an id that comes again", 1), ("revoked", 1)]
    );
    assert_eq!(place.knowledge.memory.knowledge_len(), 1);
}

#[test]
fn rules_of_a_directory_are_read_and_what_is_left_out_is_counted() {
    let place = Place::new();
    let root = place.dir.path().join("rules");
    place.write("rules/linux/deep/one.yml", RULE);
    place.write("rules/two.yaml", RULE.replace("id: r1\n", ""));
    place.write("rules/again.yml", RULE);
    place.write("rules/broken.yml", "title: [");
    place.write("rules/bytes.yml", b"title: \xff");
    place.write("rules/large.yml", " ".repeat(300_000));
    place.write("rules/partly.yml", "title: x\n");
    place.write("rules/README.md", "# no rule");
    symlink("/", root.join("link")).unwrap();
    let imported = place.import(KnowledgeKind::Sigma, &root).unwrap();
    assert_eq!(imported.documents, 2);
    assert_eq!(
        counts(&imported),
        [
            ("a link", 1),
            ("an id that comes again", 1),
            ("another kind of file", 1),
            ("malformed rule", 2),
            ("not UTF-8", 1),
            ("the file is too large", 1),
        ]
    );
    let named: Vec<_> = imported
        .skipped_files
        .iter()
        .map(|path| path.file_name().unwrap())
        .collect();
    assert_eq!(
        named,
        ["broken.yml", "bytes.yml", "large.yml", "partly.yml"]
    );
    let found = place.knowledge.search("quaint query", &[], 5).unwrap();
    let mut ids: Vec<&str> = found.iter().map(|note| note.id.as_str()).collect();
    // They say the same, so neither is better.
    ids.sort_unstable();
    assert_eq!(ids, ["r1", "two.yaml#1"]);
    assert_eq!(
        found[0].text,
        "Queer quartz\nlevel: high\nlog source: linux\ntags: attack.t1059.004\nQuaint query quota"
    );
    // A single file is what is asked for, so what is wrong with it is an error.
    let again = Place::new();
    let refused = again.refusal(KnowledgeKind::Sigma, &root.join("large.yml"));
    assert!(refused.contains("more than 262144 bytes"), "{refused}");
}

#[test]
fn runbooks_are_cut_at_headings_and_a_shorter_edition_replaces_all_of_the_longer() {
    let place = Place::new();
    let root = place.dir.path().join("books");
    let book = place.write(
        "books/a/restore.md",
        "intro\n# Restore\nzip zap\n## Check\nlook\n",
    );
    place.write("books/empty.md", "# only\n");
    let imported = place.import(KnowledgeKind::Runbook, &root).unwrap();
    assert_eq!(imported.documents, 3);
    assert_eq!(counts(&imported), [("without text", 1)]);
    let found = place
        .knowledge
        .search("zip zap", &[KnowledgeKind::Runbook], 1)
        .unwrap();
    assert_eq!(found[0].id, "a/restore.md#2");
    assert_eq!(found[0].text, "Restore\nzip zap");

    fs::write(&book, "# Restore\nzip\n").unwrap();
    let imported = place.import(KnowledgeKind::Runbook, &root).unwrap();
    assert_eq!((imported.documents, imported.removed), (1, 2));
    assert_eq!(place.knowledge.memory.knowledge_len(), 1);
}

#[test]
fn hostile_files_are_refused_with_their_name_and_place_and_store_nothing() {
    let place = Place::new();
    let path = place.write("deep.json", bundle(&[&"[".repeat(10_000)]));
    let refused = place.refusal(KnowledgeKind::Stix, &path);
    assert!(
        refused.contains("deep.json") && refused.contains("deeper than 32"),
        "{refused}"
    );
    let path = place.write("cut.json", &bundle(&[SHELL])[..200]);
    let refused = place.refusal(KnowledgeKind::Stix, &path);
    assert!(
        refused.contains("cut.json") && refused.contains("at byte"),
        "{refused}"
    );
    let path = place.write("bytes.json", b"{\"type\":\"bundle\xff");
    assert!(
        place
            .refusal(KnowledgeKind::Stix, &path)
            .contains("from byte 15")
    );
    let large = place.write("large.json", "");
    fs::File::options()
        .write(true)
        .open(&large)
        .unwrap()
        .set_len(MAX_BUNDLE_BYTES + 1)
        .unwrap();
    assert!(place.refusal(KnowledgeKind::Stix, &large).contains("bytes"));
    let path = place.write("many.md", "# a\nb\n".repeat(MAX_RUNBOOK_PARTS + 1));
    assert!(
        place
            .refusal(KnowledgeKind::Runbook, &path)
            .contains("more than 1000 entries")
    );
    let path = place.dir.path().join("none");
    fs::create_dir(&path).unwrap();
    for kind in [KnowledgeKind::Sigma, KnowledgeKind::Runbook] {
        assert!(place.refusal(kind, &path).contains("holds no"));
        assert!(
            place
                .refusal(kind, &path.join("absent"))
                .contains("cannot be read")
        );
    }
    let mut deep = path.clone();
    for _ in 0..40 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    assert!(
        place
            .refusal(KnowledgeKind::Sigma, &path)
            .contains("32 directories deep")
    );
    let config = AnalystConfig::new(inwarden_models::ModelCache::at("unused".into()));
    assert!(matches!(
        Knowledge::open(&config),
        Err(EngineError::Import(ImportError::NoStore))
    ));
}
