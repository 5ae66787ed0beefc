//! What is found, in which order, and what counts as a change.

use std::sync::Arc;

use crate::support::{HashingEmbed, document, key, precedent};
use inwarden_memory::{Embed, EmbedError, Memory, MemoryError, MemoryOptions, PrecedentQuery};
use inwarden_types::Label;

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
