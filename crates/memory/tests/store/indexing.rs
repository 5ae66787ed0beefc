//! With an index or without one: the same answers, whatever becomes of the index.

use std::{collections::BTreeSet, fs, path::Path};

use inwarden_memory::{Memory, MemoryOptions, PrecedentQuery};
use inwarden_types::{Label, WallTime};

use crate::support::{HashingEmbed, indexing_early, key, precedent, wait_until};

const WORDS: [&str; 16] = [
    "curl", "wget", "bash", "python", "nc", "chmod", "crontab", "ssh", "tar", "dd", "id", "awk",
    "sed", "find", "kill", "mount",
];

/// The text of record `n`: four words of sixteen and a number.
fn text(n: usize) -> String {
    let word = |shift: usize| WORDS[(n >> shift) % 16];
    format!(
        "{} {} {} {} n{}",
        word(0),
        word(2),
        word(5),
        word(7),
        n % 97
    )
}

fn fill(memory: &Memory, range: std::ops::Range<usize>) {
    let stored: Vec<_> = range
        .map(|n| {
            let label = if n.is_multiple_of(3) {
                Label::Malicious
            } else {
                Label::Benign
            };
            let mut one = precedent(&format!("p{n:05}"), &text(n), label);
            one.observed = Some(WallTime(1_000_000_000 + n as u64));
            one.tenant = if n.is_multiple_of(5) { "a" } else { "b" }.to_owned();
            one
        })
        .collect();
    for batch in stored.chunks(500) {
        memory.upsert_precedents(batch).unwrap();
    }
}

fn open(dir: &Path, options: &MemoryOptions) -> Memory {
    Memory::open(dir, HashingEmbed::new(), options.clone()).unwrap()
}

fn wait_indexed(memory: &Memory) {
    wait_until("the index is built", || {
        let stats = memory.stats().unwrap();
        assert_eq!(stats.failed_index_builds, 0, "{stats:?}");
        stats.index_parts.precedents > 0 && stats.unindexed_records.precedents < 50
    });
}

fn ids(memory: &Memory, text: &str, query: &PrecedentQuery) -> Vec<String> {
    let hits = memory.precedents(text, query).unwrap();
    hits.into_iter()
        .map(|hit| format!("{}/{}", hit.precedent.tenant, hit.precedent.id))
        .collect()
}

fn queries() -> Vec<PrecedentQuery> {
    let nearest = PrecedentQuery::nearest(10);
    vec![
        nearest.clone(),
        PrecedentQuery {
            labels: Some(vec![Label::Malicious]),
            ..nearest.clone()
        },
        PrecedentQuery {
            tenants: Some(vec!["a".to_owned()]),
            kinds: Some(vec!["exec".to_owned()]),
            ..nearest.clone()
        },
        PrecedentQuery {
            observed_from: Some(WallTime(1_000_000_100)),
            observed_before: Some(WallTime(1_000_000_300)),
            ..nearest
        },
    ]
}

/// The share of the exact answer's scores that the other reaches; ids are of no use
/// where many records are equally near.
fn recall(exact: &Memory, indexed: &Memory, query: &PrecedentQuery) -> f64 {
    let (mut reached, mut wanted) = (0.0, 0.0);
    for n in (0..2000).step_by(40) {
        let question = text(n * 31 + 7);
        let best = exact.precedents(&question, query).unwrap();
        let found = indexed.precedents(&question, query).unwrap();
        for (place, hit) in best.iter().enumerate() {
            wanted += 1.0;
            let near = found
                .get(place)
                .is_some_and(|other| other.score >= hit.score - 1e-6);
            reached += if near { 1.0 } else { 0.0 };
        }
    }
    reached / wanted
}

#[test]
fn an_index_finds_what_the_exact_search_finds_with_and_without_filters() {
    let (exact_dir, indexed_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let exact = open(exact_dir.path(), &MemoryOptions::default());
    let indexed = open(indexed_dir.path(), &indexing_early());
    for memory in [&exact, &indexed] {
        fill(memory, 0..1500);
    }
    wait_indexed(&indexed);
    // Newer ones, changed ones and removed ones on top of the index.
    let gone: Vec<_> = (0..300_usize)
        .step_by(3)
        .map(|n| inwarden_memory::RecordKey {
            tenant: if n.is_multiple_of(5) { "a" } else { "b" }.to_owned(),
            id: format!("p{n:05}"),
        })
        .collect();
    for memory in [&exact, &indexed] {
        fill(memory, 1500..1540);
        assert_eq!(memory.remove_precedents(&gone).unwrap(), 100);
        let mut changed = precedent("p00001", "entirely different words", Label::Malicious);
        changed.tenant = "b".to_owned();
        memory.upsert_precedents(&[changed]).unwrap();
    }
    assert_eq!(exact.stats().unwrap().index_parts.precedents, 0);
    assert_eq!(exact.content_hash(), indexed.content_hash());
    for query in queries() {
        let recall = recall(&exact, &indexed, &query);
        assert!(recall >= 0.98, "{recall} for {query:?}");
    }
    let found = ids(
        &indexed,
        "entirely different words",
        &PrecedentQuery::nearest(1),
    );
    assert_eq!(found, ["b/p00001"]);
    let found: BTreeSet<_> = ids(&indexed, &text(0), &PrecedentQuery::nearest(256))
        .into_iter()
        .collect();
    assert!(
        gone.iter()
            .all(|key| !found.contains(&format!("{}/{}", key.tenant, key.id)))
    );
    let stats = indexed.stats().unwrap();
    assert_eq!(
        (stats.broken_index_parts, stats.failed_index_builds),
        (0, 0),
        "{stats:?}"
    );
    // Words that only one record has win a hybrid query.
    let found = ids(&indexed, "different words", &PrecedentQuery::hybrid(3));
    assert_eq!(found[0], "b/p00001");
}

#[test]
fn an_index_is_kept_over_a_reopening_and_not_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let memory = open(dir.path(), &indexing_early());
    fill(&memory, 0..600);
    wait_indexed(&memory);
    let before = memory.stats().unwrap();
    let found = ids(&memory, &text(5), &PrecedentQuery::nearest(10));
    drop(memory);
    let memory = open(dir.path(), &indexing_early());
    let after = memory.stats().unwrap();
    assert_eq!(after.index_parts, before.index_parts);
    assert_eq!(after.unindexed_records, before.unindexed_records);
    assert_eq!(
        (after.broken_index_parts, after.index_builds),
        (0, 0),
        "{after:?}"
    );
    assert_eq!(ids(&memory, &text(5), &PrecedentQuery::nearest(10)), found);
    drop(memory);
    // Once more, because the engine may write when it closes.
    let memory = open(dir.path(), &indexing_early());
    assert_eq!(memory.stats().unwrap().broken_index_parts, 0);
}

#[test]
fn a_reader_uses_a_copy_of_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let memory = open(dir.path(), &indexing_early());
    fill(&memory, 0..600);
    wait_indexed(&memory);
    drop(memory);
    let before = crate::support::snapshot(dir.path());
    let reader = Memory::open_read_only(dir.path(), HashingEmbed::new(), indexing_early()).unwrap();
    assert!(reader.stats().unwrap().index_parts.precedents > 0);
    assert_eq!(ids(&reader, &text(5), &PrecedentQuery::nearest(3)).len(), 3);
    drop(reader);
    assert!(
        crate::support::snapshot(dir.path()) == before,
        "a file changed"
    );
}

#[test]
fn a_missing_or_broken_index_is_made_again_from_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let memory = open(dir.path(), &indexing_early());
    fill(&memory, 0..600);
    wait_indexed(&memory);
    let hash = memory.content_hash();
    let question = text(77);
    let found = ids(&memory, &question, &PrecedentQuery::nearest(5));
    drop(memory);
    let index = dir.path().join("index/precedents");
    type Breaking = (&'static str, fn(&Path));
    let breakings: [Breaking; 4] = [
        ("all of it gone", |index| fs::remove_dir_all(index).unwrap()),
        ("a manifest gone", |index| {
            fs::remove_file(part(index).join("manifest")).unwrap();
        }),
        ("a byte changed", |index| {
            let (file, mut bytes) = crate::support::snapshot(&part(index).join("segments"))
                .into_iter()
                .max_by_key(|(_, bytes)| bytes.iter().filter(|byte| **byte != 0).count())
                .unwrap();
            let place = bytes.iter().position(|byte| *byte != 0).unwrap();
            bytes[place] ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        ("a build cut off", |index| {
            fs::create_dir(index.join("building-1-1")).unwrap();
            fs::remove_file(part(index).join("manifest")).unwrap();
        }),
    ];
    for (what, breaking) in breakings {
        breaking(&index);
        let memory = open(dir.path(), &indexing_early());
        assert_eq!(memory.content_hash(), hash, "{what}");
        assert_eq!(
            ids(&memory, &question, &PrecedentQuery::nearest(5)),
            found,
            "{what}"
        );
        wait_indexed(&memory);
        assert_eq!(
            ids(&memory, &question, &PrecedentQuery::nearest(5)),
            found,
            "{what}"
        );
        assert!(!index.join("building-1-1").exists());
        drop(memory);
    }
}

/// The directory of the first part of the index.
fn part(index: &Path) -> std::path::PathBuf {
    let mut parts: Vec<_> = fs::read_dir(index)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("segments").is_dir())
        .collect();
    parts.sort();
    parts.remove(0)
}

#[test]
fn searching_and_writing_go_on_while_the_index_is_built() {
    let dir = tempfile::tempdir().unwrap();
    let memory = open(dir.path(), &indexing_early());
    fill(&memory, 0..400);
    let mut written = 400;
    wait_until("a second part is built", || {
        fill(&memory, written..written + 20);
        written += 20;
        // What was just written is found at once, whatever the index does.
        let newest = format!("p{:05}", written - 1);
        let hits = memory
            .precedents(&text(written - 1), &PrecedentQuery::nearest(256))
            .unwrap();
        assert!(hits.iter().any(|hit| hit.precedent.id == newest));
        memory.stats().unwrap().index_builds >= 2
    });
    assert_eq!(memory.precedents_len(), written);
    let stats = memory.stats().unwrap();
    assert_eq!(stats.failed_index_builds, 0, "{stats:?}");
}

#[test]
fn a_store_can_be_closed_and_opened_again_while_its_index_is_built() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let memory = open(dir.path(), &indexing_early());
        assert_eq!(memory.precedents_len(), round * 250);
        fill(&memory, round * 250..(round + 1) * 250);
        memory.remove_precedents(&[key("nobody")]).unwrap();
    }
    let memory = open(dir.path(), &indexing_early());
    wait_indexed(&memory);
    assert_eq!(memory.precedents_len(), 1250);
}
