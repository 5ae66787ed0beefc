//! What is found, in which order, and what counts as a change.

use std::sync::Arc;

use crate::support::{HashingEmbed, document, key, precedent};
use inwarden_memory::{Embed, EmbedError, Memory, MemoryError, MemoryOptions, PrecedentQuery};
use inwarden_types::{Label, SourceKind, WallTime};

fn memory() -> Memory {
    Memory::ephemeral(HashingEmbed::new()).unwrap()
}

/// The ids that a query finds, in order.
fn ids(memory: &Memory, text: &str, query: &PrecedentQuery) -> Vec<String> {
    memory
        .precedents(text, query)
        .unwrap()
        .into_iter()
        .map(|hit| hit.precedent.id)
        .collect()
}

#[test]
fn a_hit_is_what_was_stored_with_its_provenance() {
    let memory = memory();
    let stored = precedent("p1", "bash -i tcp 192.0.2.1", Label::Malicious);
    memory
        .upsert_precedents(std::slice::from_ref(&stored))
        .unwrap();
    let hits = memory
        .precedents("bash -i tcp 192.0.2.1", &PrecedentQuery::nearest(5))
        .unwrap();
    assert_eq!(hits.len(), 1);
    assert_eq!(hits[0].precedent, stored);
    assert!((hits[0].score - 1.0).abs() < 1e-6, "{}", hits[0].score);
    let provenance = &hits[0].provenance;
    assert_eq!(provenance.kind, SourceKind::Precedent);
    assert_eq!(provenance.source_id, "p1");
    assert_eq!(provenance.version, "seed-1");
    assert_eq!(
        provenance.observed,
        Some(WallTime(1_700_000_000_123_456_789))
    );
    assert_eq!(provenance.score, Some(hits[0].score));
}

#[test]
fn scores_are_exact_cosines_from_high_to_low() {
    let memory = memory();
    let embed = HashingEmbed::new();
    let words = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let subset = |mask: usize| {
        let chosen = words
            .iter()
            .enumerate()
            .filter(|(bit, _)| mask >> bit & 1 == 1);
        chosen.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
    };
    let texts = (1..=200).map(subset).collect::<Vec<_>>();
    let stored = texts
        .iter()
        .enumerate()
        .map(|(n, text)| precedent(&format!("p{n:03}"), text, Label::Benign))
        .collect::<Vec<_>>();
    memory.upsert_precedents(&stored).unwrap();

    let question = "a b c d";
    let query_vector = embed.embed(&[question]).unwrap().remove(0);
    let cosine = |text: &str| {
        let vector = embed.embed(&[text]).unwrap().remove(0);
        let dot = |l: &[f32], r: &[f32]| {
            l.iter()
                .zip(r)
                .map(|(l, r)| f64::from(*l) * f64::from(*r))
                .sum::<f64>()
        };
        dot(&vector, &query_vector)
            / (dot(&vector, &vector) * dot(&query_vector, &query_vector)).sqrt()
    };
    let hits = memory
        .precedents(question, &PrecedentQuery::nearest(200))
        .unwrap();
    assert_eq!(hits.len(), 200);
    for hit in &hits {
        assert!((-1.0..=1.0).contains(&hit.score));
        assert!(
            (hit.score - cosine(&hit.precedent.text)).abs() < 1e-6,
            "{hit:?}"
        );
    }
    let keys = hits
        .iter()
        .map(|hit| (-hit.score, &hit.precedent.id))
        .collect::<Vec<_>>();
    assert!(
        keys.is_sorted_by(|l, r| l <= r),
        "not ordered by score, then id"
    );
}

#[test]
fn ties_at_the_cut_are_decided_by_id_in_any_order_of_writing() {
    let mut stored = (0..50)
        .map(|n| precedent(&format!("p{n:02}"), "cat notes", Label::Benign))
        .collect::<Vec<_>>();
    for round in 0..2 {
        let memory = memory();
        for chunk in stored.chunks(7) {
            memory.upsert_precedents(chunk).unwrap();
        }
        let found = ids(&memory, "cat notes", &PrecedentQuery::nearest(3));
        assert_eq!(found, ["p00", "p01", "p02"], "round {round}");
        stored.reverse();
    }
}

#[test]
fn filters_by_label_and_tenant_hold_together() {
    let memory = memory();
    let mut stored = Vec::new();
    for (id, label, tenant) in [
        ("p1", Label::Benign, "a"),
        ("p2", Label::Malicious, "a"),
        ("p3", Label::Benign, "b"),
        ("p4", Label::Malicious, "b"),
        ("p5", Label::Malicious, "c"),
    ] {
        let mut precedent = precedent(id, "curl 192.0.2.1", label);
        precedent.tenant = tenant.to_owned();
        stored.push(precedent);
    }
    memory.upsert_precedents(&stored).unwrap();
    let find = |labels: Option<&[Label]>, tenants: Option<&[&str]>| {
        let query = PrecedentQuery {
            labels: labels.map(<[_]>::to_vec),
            tenants: tenants.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            ..PrecedentQuery::nearest(10)
        };
        ids(&memory, "curl 192.0.2.1", &query)
    };
    assert_eq!(find(None, None), ["p1", "p2", "p3", "p4", "p5"]);
    assert_eq!(find(Some(&[Label::Malicious]), None), ["p2", "p4", "p5"]);
    assert_eq!(find(None, Some(&["b", "c"])), ["p3", "p4", "p5"]);
    assert_eq!(
        find(Some(&[Label::Malicious]), Some(&["a", "b"])),
        ["p2", "p4"]
    );
    assert_eq!(find(None, Some(&["A"])), Vec::<String>::new());
}

#[test]
fn one_id_in_two_tenants_is_two_precedents() {
    let memory = memory();
    let ours = precedent("p1", "make test", Label::Benign);
    let mut theirs = ours.clone();
    theirs.tenant = "other".to_owned();
    theirs.label = Label::Malicious;
    memory.upsert_precedents(&[ours, theirs]).unwrap();
    assert_eq!(memory.precedents_len(), 2);
    assert_eq!(memory.remove_precedents(&[key("p1")]).unwrap(), 1);
    let left = memory
        .precedents("make test", &PrecedentQuery::nearest(5))
        .unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].precedent.tenant, "other");
}

#[test]
fn writing_what_is_there_neither_embeds_nor_changes_the_hash() {
    let embed = HashingEmbed::new();
    let memory = Memory::ephemeral(embed.clone()).unwrap();
    let empty = memory.content_hash();
    let first = precedent("p1", "ls", Label::Benign);
    memory
        .upsert_precedents(std::slice::from_ref(&first))
        .unwrap();
    let (hash, generation) = (memory.content_hash(), memory.generation());
    assert_ne!(hash, empty);
    assert_eq!(embed.embedded_texts(), 1);

    memory
        .upsert_precedents(std::slice::from_ref(&first))
        .unwrap();
    assert_eq!(
        (memory.content_hash(), memory.generation()),
        (hash.clone(), generation)
    );
    assert_eq!(embed.embedded_texts(), 1);

    let mut relabelled = first.clone();
    relabelled.label = Label::Malicious;
    memory.upsert_precedents(&[relabelled]).unwrap();
    assert_ne!(memory.content_hash(), hash);
    assert_ne!(memory.generation(), generation);
    assert_eq!(memory.precedents_len(), 1);

    memory.upsert_precedents(&[first]).unwrap();
    assert_eq!(
        memory.content_hash(),
        hash,
        "undoing a change returns to the hash"
    );
    assert_eq!(
        memory
            .remove_precedents(&[key("p1"), key("p1"), key("p9")])
            .unwrap(),
        1
    );
    assert_eq!(memory.content_hash(), empty);
}

#[test]
fn the_hash_tells_precedents_from_knowledge_and_ignores_the_order_of_writing() {
    let (left, right) = (memory(), memory());
    let (a, b) = (
        precedent("a", "ls", Label::Benign),
        precedent("b", "id", Label::Benign),
    );
    left.upsert_precedents(&[a.clone(), b.clone()]).unwrap();
    right.upsert_precedents(&[b]).unwrap();
    right.upsert_precedents(&[a]).unwrap();
    assert_eq!(left.content_hash(), right.content_hash());
    left.upsert_knowledge(&[document("a", "ls")]).unwrap();
    assert_ne!(left.content_hash(), right.content_hash());
}

#[test]
fn the_last_of_two_with_one_key_in_a_batch_counts() {
    let memory = memory();
    let twice = [
        precedent("p1", "first text", Label::Benign),
        precedent("p1", "second text", Label::Malicious),
    ];
    memory.upsert_precedents(&twice).unwrap();
    let hits = memory
        .precedents("second text", &PrecedentQuery::nearest(5))
        .unwrap();
    assert_eq!(hits.len(), 1);
    assert_eq!(hits[0].precedent.label, Label::Malicious);
}

#[test]
fn knowledge_is_found_apart_from_precedents() {
    let memory = memory();
    memory
        .upsert_precedents(&[precedent("p1", "dump shadow", Label::Malicious)])
        .unwrap();
    let note = document("t1003", "dump credentials from shadow");
    memory
        .upsert_knowledge(std::slice::from_ref(&note))
        .unwrap();
    let hits = memory.knowledge("dump shadow", 5).unwrap();
    assert_eq!(hits.len(), 1);
    assert_eq!(hits[0].document, note);
    assert_eq!(hits[0].provenance.kind, SourceKind::Knowledge);
    assert_eq!(memory.remove_knowledge(&[key("t1003")]).unwrap(), 1);
    assert_eq!(memory.knowledge_len(), 0);
    assert!(memory.knowledge("dump shadow", 5).unwrap().is_empty());
}

#[test]
fn limits_are_typed_errors_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let options = MemoryOptions {
        max_text_bytes: 16,
        max_field_bytes: 8,
        max_batch_records: 2,
        max_top_k_retrieval: 4,
        ..MemoryOptions::default()
    };
    let memory = Memory::open(dir.path(), HashingEmbed::new(), options).unwrap();
    let good = precedent("p1", "ls", Label::Benign);
    let refuse = |change: fn(&mut inwarden_memory::Precedent), expected: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        match memory.upsert_precedents(&[good.clone(), bad]) {
            Err(MemoryError::Length { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    };
    refuse(|p| p.text = "x".repeat(17), "text");
    refuse(|p| p.text.clear(), "text");
    refuse(|p| p.id = "x".repeat(9), "id");
    refuse(|p| p.tenant.clear(), "tenant");
    refuse(|p| p.version = "x".repeat(9), "version");
    let three = vec![good; 3];
    assert!(matches!(
        memory.upsert_precedents(&three),
        Err(MemoryError::BatchTooLarge { records: 3, max: 2 })
    ));
    for given in [0, 5] {
        assert!(matches!(
            memory.knowledge("ls", given),
            Err(MemoryError::TopKRetrieval { max: 4, .. })
        ));
    }
    assert!(matches!(
        memory.knowledge(&"x".repeat(17), 1),
        Err(MemoryError::Length {
            field: "text",
            bytes: 17,
            ..
        })
    ));
    let query = PrecedentQuery {
        tenants: Some(Vec::new()),
        ..PrecedentQuery::nearest(1)
    };
    assert!(matches!(
        memory.precedents("ls", &query),
        Err(MemoryError::EmptyFilter { field: "tenant" })
    ));
    assert_eq!(memory.precedents_len(), 0);
}

/// Breaks the contract of [`Embed`] in a way the text names.
struct Broken;

impl Embed for Broken {
    fn dimension(&self) -> usize {
        2
    }
    fn identity(&self) -> String {
        "broken".to_owned()
    }
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        match texts[0] {
            "fails" => Err(EmbedError {
                embedder: self.identity(),
                reason: "on purpose".to_owned(),
            }),
            "short" => Ok(vec![vec![1.0]]),
            "zero" => Ok(vec![vec![0.0, 0.0]]),
            "nan" => Ok(vec![vec![f32::NAN, 1.0]]),
            "two" => Ok(vec![vec![1.0, 0.0]; 2]),
            "tiny" => Ok(vec![vec![1e-20, 0.0]]),
            _ => Ok(vec![vec![1.0, 1.0]; texts.len()]),
        }
    }
}

#[test]
fn an_embedder_that_breaks_its_contract_writes_nothing() {
    let memory = Memory::ephemeral(Arc::new(Broken)).unwrap();
    for text in ["short", "zero", "nan", "two"] {
        let result = memory.upsert_precedents(&[precedent("p1", text, Label::Benign)]);
        assert!(
            matches!(result, Err(MemoryError::EmbedderContract { .. })),
            "{text}: {result:?}"
        );
        assert!(memory.knowledge(text, 1).is_err(), "{text}");
    }
    let failed = memory.upsert_precedents(&[precedent("p1", "fails", Label::Benign)]);
    assert!(matches!(failed, Err(MemoryError::Embed(_))), "{failed:?}");
    assert_eq!(memory.precedents_len(), 0);
    // A refused write leaves the store usable, and the length of a vector does
    // not enter the score.
    memory
        .upsert_precedents(&[precedent("p1", "tiny", Label::Benign)])
        .unwrap();
    let score = memory
        .precedents("tiny", &PrecedentQuery::nearest(1))
        .unwrap()[0]
        .score;
    assert!((score - 1.0).abs() < 1e-6, "{score}");
}

#[test]
fn reads_and_writes_from_many_threads_at_once() {
    let memory = memory();
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let memory = &memory;
            scope.spawn(move || {
                for n in 0..8 {
                    let id = format!("p{writer}-{n}");
                    memory
                        .upsert_precedents(&[precedent(&id, &id, Label::Benign)])
                        .unwrap();
                    assert_eq!(ids(memory, &id, &PrecedentQuery::nearest(1)), [id]);
                }
            });
        }
        for _ in 0..2 {
            let memory = &memory;
            scope.spawn(move || {
                for _ in 0..50 {
                    memory
                        .precedents("p0-1", &PrecedentQuery::nearest(10))
                        .unwrap();
                    assert_eq!(memory.content_hash().len(), 64);
                }
            });
        }
    });
    assert_eq!(memory.precedents_len(), 16);
}
