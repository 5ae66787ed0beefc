//! Who may open a store, and what an opening refuses.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::support::{HashingEmbed, open, precedent, snapshot};
use inwarden_memory::{Memory, MemoryError, MemoryOptions, PrecedentQuery};
use inwarden_types::{Label, Tgid};
use tempfile::TempDir;

/// A closed store with one precedent.
fn store() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let memory = open(dir.path()).unwrap();
    memory
        .upsert_precedents(&[precedent("p1", "ls -l", Label::Benign)])
        .unwrap();
    dir
}

fn open_read_only(dir: &Path) -> Result<Memory, MemoryError> {
    Memory::open_read_only(dir, HashingEmbed::new(), MemoryOptions::default())
}

/// Writes `store.json` and returns the error of the next opening.
fn error_with_store_json(contents: &str) -> MemoryError {
    let dir = store();
    fs::write(dir.path().join("store.json"), contents).unwrap();
    let read_only = open_read_only(dir.path()).unwrap_err();
    let error = open(dir.path()).unwrap_err();
    assert_eq!(error.to_string(), read_only.to_string());
    assert_eq!(
        fs::read_to_string(dir.path().join("store.json")).unwrap(),
        contents
    );
    error
}

#[test]
fn the_second_opener_in_one_process_learns_who_owns_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    for second in [open(dir.path()), open_read_only(dir.path())] {
        match second {
            Err(MemoryError::Locked { path, owner }) => {
                assert_eq!(path, dir.path());
                assert_eq!(owner, Some(Tgid(std::process::id())));
            }
            other => panic!("{other:?}"),
        }
    }
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn a_failed_opening_releases_the_lock() {
    let dir = store();
    let other = HashingEmbed::with("hashing@2", 64);
    assert!(Memory::open(dir.path(), other, MemoryOptions::default()).is_err());
    open(dir.path()).unwrap();
}

#[test]
fn a_new_store_is_readable_by_its_owner_only() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("deep").join("store");
    drop(open(&dir).unwrap());
    for path in [dir.clone(), dir.join("journal"), dir.join("store.json")] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
}

#[test]
fn another_embedder_or_dimension_is_refused() {
    let dir = store();
    let open_with = |identity, dimension| {
        let embed = HashingEmbed::with(identity, dimension);
        Memory::open(dir.path(), embed, MemoryOptions::default())
    };
    assert!(matches!(
        open_with("hashing@2", 64),
        Err(MemoryError::DifferentEmbedder { stored, given, .. })
            if stored == "hashing@1" && given == "hashing@2"
    ));
    assert!(matches!(
        open_with("hashing@1", 32),
        Err(MemoryError::DifferentDimension {
            stored: 64,
            given: 32,
            ..
        })
    ));
    assert_eq!(open(dir.path()).unwrap().precedents_len(), 1);
}

#[test]
fn a_newer_format_is_refused_even_with_fields_unknown_today() {
    let error = error_with_store_json(r#"{"format":3,"shards":[1,2]}"#);
    assert!(
        matches!(
            error,
            MemoryError::NewerFormat {
                found: 3,
                supported: 2,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_damaged_store_json_is_refused() {
    for contents in [
        "",
        "{",
        "[]",
        r#"{"format":0,"embedder":"hashing@1","dimension":64}"#,
        r#"{"format":1}"#,
        r#"{"format":1,"embedder":"hashing@1","dimension":64,"more":1}"#,
        r#"{"format":2,"embedder":"hashing@1","dimension":64}"#,
        r#"{"format":-1,"embedder":"hashing@1","dimension":64}"#,
    ] {
        let error = error_with_store_json(contents);
        assert!(
            matches!(error, MemoryError::Corrupt { .. }),
            "{contents}: {error:?}"
        );
    }
}

#[test]
fn a_journal_without_store_json_is_refused_not_replaced() {
    let dir = store();
    let store_json = dir.path().join("store.json");
    let contents = fs::read(&store_json).unwrap();
    fs::remove_file(&store_json).unwrap();
    assert!(matches!(open(dir.path()), Err(MemoryError::Corrupt { .. })));
    fs::write(&store_json, contents).unwrap();
    assert_eq!(open(dir.path()).unwrap().precedents_len(), 1);
}

#[test]
fn a_directory_with_other_files_is_not_made_a_store() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    assert!(matches!(
        open(dir.path()),
        Err(MemoryError::NotAStore { .. })
    ));
    assert!(!dir.path().join("store.json").exists());
}

#[test]
fn a_creation_that_was_cut_off_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    // As it is when the process dies before `store.json` is there.
    fs::remove_file(dir.path().join("store.json")).unwrap();
    assert!(matches!(
        open_read_only(dir.path()),
        Err(MemoryError::Absent { .. })
    ));
    let memory = open(dir.path()).unwrap();
    memory
        .upsert_precedents(&[precedent("p1", "ls", Label::Benign)])
        .unwrap();
}

#[test]
fn a_missing_journal_is_damage() {
    let dir = store();
    fs::remove_file(dir.path().join("journal")).unwrap();
    assert!(matches!(open(dir.path()), Err(MemoryError::Corrupt { .. })));
    assert!(matches!(
        open_read_only(dir.path()),
        Err(MemoryError::Corrupt { .. })
    ));
}

#[test]
fn a_damaged_journal_names_the_place_and_can_be_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let memory = open(dir.path()).unwrap();
    for id in ["p1", "p2", "p3"] {
        memory
            .upsert_precedents(&[precedent(id, id, Label::Benign)])
            .unwrap();
    }
    drop(memory);
    let journal = dir.path().join("journal");
    let mut bytes = fs::read(&journal).unwrap();
    let text = bytes
        .windows(11)
        .position(|w| w == b"\"text\":\"p2\"")
        .unwrap();
    bytes[text + 9] = b'9';
    fs::write(&journal, &bytes).unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert!(
        matches!(&refused, MemoryError::JournalDamaged { path, offset, .. }
            if *path == journal && *offset > 32 && *offset < text as u64),
        "{refused:?}"
    );
    assert!(fs::read(&journal).unwrap() == bytes, "nothing was changed");
    let report = Memory::repair(dir.path()).unwrap();
    assert_eq!((report.kept_entries, report.damaged_regions), (2, 1));
    let memory = open(dir.path()).unwrap();
    assert_eq!(memory.precedents_len(), 2);
    assert!(fs::read(dir.path().join("journal.damaged")).unwrap() == bytes);
}

#[test]
fn a_read_only_store_answers_and_refuses_writes() {
    let dir = store();
    let memory = open_read_only(dir.path()).unwrap();
    assert!(memory.is_read_only());
    let hits = memory
        .precedents("ls -l", &PrecedentQuery::nearest(1))
        .unwrap();
    assert_eq!(hits[0].precedent.id, "p1");
    let again = precedent("p2", "id", Label::Benign);
    let key = crate::support::key("p1");
    let document = crate::support::document("d", "text");
    for refused in [
        memory.upsert_precedents(&[again]),
        memory.upsert_knowledge(&[document]),
        memory
            .remove_precedents(std::slice::from_ref(&key))
            .map(drop),
        memory.remove_knowledge(&[key]).map(drop),
        memory.upsert_precedents(&[]),
    ] {
        assert!(
            matches!(refused, Err(MemoryError::ReadOnly { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn a_read_only_opening_leaves_every_byte_and_lets_others_in() {
    let dir = store();
    let before = snapshot(dir.path());
    let first = open_read_only(dir.path()).unwrap();
    let second = open_read_only(dir.path()).unwrap();
    assert_eq!(first.content_hash(), second.content_hash());
    assert!(
        snapshot(dir.path()) == before,
        "a file of the store changed"
    );
    let writer = open(dir.path()).unwrap();
    assert_eq!(writer.content_hash(), first.content_hash());
    writer
        .upsert_precedents(&[precedent("p2", "id", Label::Benign)])
        .unwrap();
    assert_eq!(first.precedents_len(), 1, "the copy does not follow");
}

#[test]
fn reading_what_is_not_there_is_absent_and_makes_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    assert!(matches!(
        open_read_only(&dir),
        Err(MemoryError::Absent { .. })
    ));
    assert!(!dir.exists());
}

#[test]
fn an_ephemeral_store_leaves_nothing_behind() {
    let memory = Memory::ephemeral(HashingEmbed::new()).unwrap();
    memory
        .upsert_precedents(&[precedent("p1", "ls", Label::Benign)])
        .unwrap();
    let shown = format!("{memory:?}");
    let start = shown.find("dir: \"").unwrap() + 6;
    let path = shown[start..].split('"').next().unwrap().to_owned();
    assert!(Path::new(&path).is_dir(), "{shown}");
    drop(memory);
    assert!(!Path::new(&path).exists());
}

#[test]
fn a_full_file_system_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let embed = HashingEmbed::with("wide@1", 32_768);
    let open_leaving = |min_free_bytes| {
        let options = MemoryOptions {
            min_free_bytes,
            ..MemoryOptions::default()
        };
        Memory::open(dir.path(), embed.clone(), options)
    };
    let Err(MemoryError::DiskSpace { free_bytes, .. }) = open_leaving(u64::MAX) else {
        panic!("opened on a full file system");
    };
    // What the batch itself needs counts too: by the bound these are 1 GiB, so
    // half of it would fit, whatever else writes to this disk meanwhile.
    let memory = open_leaving(free_bytes.saturating_sub(512 << 20)).unwrap();
    let batch = (0..2048)
        .map(|n| precedent(&n.to_string(), "ls", Label::Benign))
        .collect::<Vec<_>>();
    let refused = memory.upsert_precedents(&batch);
    assert!(
        matches!(refused, Err(MemoryError::DiskSpace { .. })),
        "{refused:?}"
    );
    assert_eq!(embed.embedded_texts(), 0);
    memory.upsert_precedents(&batch[..1]).unwrap();
    assert_eq!(memory.precedents_len(), 1);
}
