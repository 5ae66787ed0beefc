//! Export, import, retention, listing, baselines.

use std::fs;

use inwarden_memory::{
    Baseline, BaselineQuery, Memory, MemoryError, MemoryOptions, PrecedentQuery, Retention,
};
use inwarden_types::{Label, WallTime};

use crate::support::{HashingEmbed, document, open, precedent};

fn baseline(id: &str, workload: &str, text: &str) -> Baseline {
    Baseline {
        id: id.to_owned(),
        text: text.to_owned(),
        workload: workload.to_owned(),
        kind: Some("exec".to_owned()),
        seen: 3,
        tenant: "shared".to_owned(),
        observed: Some(WallTime(5)),
        version: "1".to_owned(),
    }
}

fn filled() -> Memory {
    let memory = Memory::ephemeral(HashingEmbed::new()).unwrap();
    let precedents: Vec<_> = (0..700)
        .map(|n| {
            precedent(
                &format!("p{n}"),
                &format!("word{n} \"quoted\" \u{1f600}"),
                Label::Benign,
            )
        })
        .collect();
    memory.upsert_precedents(&precedents).unwrap();
    memory.upsert_knowledge(&[document("d", "a note")]).unwrap();
    memory
        .upsert_baselines(&[baseline("b", "web", "nginx reload")])
        .unwrap();
    memory
}

#[test]
fn an_export_imported_elsewhere_is_the_same_store() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("export.jsonl");
    let memory = filled();
    assert_eq!(memory.export(&file).unwrap().records, 702);
    let embed = HashingEmbed::new();
    let other = Memory::ephemeral(embed.clone()).unwrap();
    assert_eq!(other.import(&file).unwrap().records, 702);
    assert_eq!(other.content_hash(), memory.content_hash());
    assert_eq!(embed.embedded_texts(), 0, "the vectors were in the file");
    let question = "word17 \"quoted\"";
    let (left, right) = (
        memory
            .precedents(question, &PrecedentQuery::hybrid(5))
            .unwrap(),
        other
            .precedents(question, &PrecedentQuery::hybrid(5))
            .unwrap(),
    );
    assert_eq!(left, right);
    // Another embedder's vectors are of no use; the texts are.
    let embed = HashingEmbed::with("hashing@2", 32);
    let third = Memory::ephemeral(embed.clone()).unwrap();
    third.import(&file).unwrap();
    assert_eq!((third.precedents_len(), embed.embedded_texts()), (700, 702));
    assert!(matches!(memory.export(&file), Err(MemoryError::Io { .. })));
}

#[test]
fn a_changed_cut_or_foreign_file_imports_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("export.jsonl");
    filled().export(&file).unwrap();
    let good = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let cases = [
        String::new(),
        "{}\n".to_owned(),
        good.replacen("word17 ", "word18 ", 1),
        good.replacen("\"version\":1", "\"version\":2", 1),
        lines[..lines.len() - 1].join("\n"),
        [&lines[..5], &lines[6..]].concat().join("\n"),
        good[..good.len() / 2].to_owned(),
    ];
    for (case, contents) in cases.iter().enumerate() {
        let bad = dir.path().join(format!("bad-{case}"));
        fs::write(&bad, contents).unwrap();
        let memory = Memory::ephemeral(HashingEmbed::new()).unwrap();
        let refused = memory.import(&bad);
        assert!(
            matches!(refused, Err(MemoryError::Import { .. })),
            "case {case}: {refused:?}"
        );
        assert_eq!(memory.precedents_len(), 0, "case {case}");
    }
}

#[test]
fn retention_removes_the_oldest_and_never_what_has_no_time() {
    let memory = Memory::ephemeral(HashingEmbed::new()).unwrap();
    let mut stored: Vec<_> = (0..10_u64)
        .map(|n| {
            let mut one = precedent(&format!("p{n}"), &format!("t{n}"), Label::Benign);
            one.observed = Some(WallTime(n));
            one
        })
        .collect();
    stored[9].observed = None;
    stored[8].tenant = "other".to_owned();
    memory.upsert_precedents(&stored).unwrap();
    let by_age = Retention {
        tenants: Some(vec!["shared".to_owned()]),
        observed_from: Some(WallTime(2)),
        max_records: None,
    };
    assert_eq!(memory.retain_precedents(&by_age).unwrap(), 2);
    let by_count = Retention {
        max_records: Some(3),
        ..by_age.clone()
    };
    assert_eq!(memory.retain_precedents(&by_count).unwrap(), 3);
    assert_eq!(memory.retain_precedents(&by_count).unwrap(), 0);
    let (left, more) = memory
        .list_precedents(&PrecedentQuery::nearest(100), None)
        .unwrap();
    assert!(more.is_none());
    let mut ids: Vec<_> = left.iter().map(|one| one.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["p5", "p6", "p7", "p8", "p9"]);
}

#[test]
fn pages_of_a_listing_hold_each_precedent_once() {
    let memory = filled();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let (page, next) = memory
            .list_precedents(&PrecedentQuery::nearest(64), after)
            .unwrap();
        assert!(page.len() <= 64);
        seen.extend(page.into_iter().map(|one| one.id));
        match next {
            Some(_) => after = next,
            None => break,
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 700);
}

#[test]
fn baselines_are_kept_by_workload_and_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let memory = open(dir.path()).unwrap();
    let stored = [
        baseline("b1", "web", "nginx reload"),
        baseline("b2", "db", "nginx reload"),
    ];
    memory.upsert_baselines(&stored).unwrap();
    drop(memory);
    let memory = open(dir.path()).unwrap();
    let hits = memory
        .baselines("nginx reload", &BaselineQuery::of_workload("web", 5))
        .unwrap();
    assert_eq!(hits.len(), 1);
    assert_eq!(hits[0].baseline, stored[0]);
    assert_eq!(memory.precedents_len(), 0);
}

#[test]
fn the_journal_is_compacted_and_refuses_to_grow_past_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let options = MemoryOptions {
        max_journal_bytes: 64 * 1024,
        compact_min_bytes: 8 * 1024,
        ..MemoryOptions::default()
    };
    let open = || Memory::open(dir.path(), HashingEmbed::new(), options.clone()).unwrap();
    let memory = open();
    // The same ten records, changed over and over: far more than fits at once.
    for round in 0..100 {
        let precedents: Vec<_> = (0..10)
            .map(|n| {
                precedent(
                    &format!("p{n}"),
                    &format!("text {round} {n}"),
                    Label::Benign,
                )
            })
            .collect();
        memory.upsert_precedents(&precedents).unwrap();
        let stats = memory.stats().unwrap();
        assert!(stats.journal_bytes <= 64 * 1024, "{stats:?}");
    }
    assert!(memory.stats().unwrap().compactions > 0);
    let hash = memory.content_hash();
    drop(memory);
    let memory = open();
    assert_eq!(memory.content_hash(), hash);
    let mut refused = 0;
    for n in 0..200 {
        match memory.upsert_precedents(&[precedent(&format!("more{n}"), "x", Label::Benign)]) {
            Ok(()) => {}
            Err(MemoryError::JournalFull { max: 65_536, .. }) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused > 0);
    // Removing makes room again.
    let keys: Vec<_> = (0..50)
        .map(|n| crate::support::key(&format!("more{n}")))
        .collect();
    assert_eq!(memory.remove_precedents(&keys).unwrap(), 50);
    memory
        .upsert_precedents(&[precedent("again", "x", Label::Benign)])
        .unwrap();
}
