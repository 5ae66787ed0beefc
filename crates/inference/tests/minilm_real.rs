//! MiniLM against a float64 reference (`models/golden/minilm`).

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside the test functions"
)]

mod common;

use inwarden_inference::{Embedder, InferenceError};
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    text: String,
    embedding: Vec<f32>,
}

fn load() -> Option<Embedder> {
    common::model_dir("all-minilm-l6-v2").map(|dir| Embedder::load(&dir).unwrap())
}

#[test]
fn embeddings_equal_the_reference_alone_and_together() {
    let Some(embedder) = load() else { return };
    let golden = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/golden/minilm/embeddings.json"
    );
    let rows: Vec<Row> = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    let together = embedder.embed(&texts).unwrap();
    assert_eq!(embedder.dimension(), 384);
    for (row, embedding) in rows.iter().zip(&together) {
        assert_eq!(embedder.embed(&[&row.text]).unwrap()[0], *embedding);
        assert_eq!(embedding.len(), 384);
        for (actual, expected) in embedding.iter().zip(&row.embedding) {
            assert!((actual - expected).abs() < 1e-5, "{:?}", row.text);
        }
    }
}

#[test]
fn texts_of_like_meaning_are_closer_than_others() {
    let Some(embedder) = load() else { return };
    let texts = [
        "a cat sleeps on the sofa",
        "a kitten naps on a couch",
        "the stock market fell",
    ];
    let embeddings = embedder.embed(&texts).unwrap();
    let cosine = |a: usize, b: usize| -> f32 {
        embeddings[a]
            .iter()
            .zip(&embeddings[b])
            .map(|(a, b)| a * b)
            .sum()
    };
    assert!(cosine(0, 1) > cosine(0, 2) + 0.3);
}

#[test]
fn a_directory_without_a_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let result = Embedder::load(dir.path());
    assert!(matches!(result, Err(InferenceError::Io { .. })));
    std::fs::write(dir.path().join("config.json"), "{\"hidden_size\":7}").unwrap();
    let result = Embedder::load(dir.path());
    assert!(matches!(result, Err(InferenceError::Corrupt { .. })));
}
