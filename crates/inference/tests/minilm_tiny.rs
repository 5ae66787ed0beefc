//! A MiniLM of a few numbers, made here: what hostile files of it may not do.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside the test functions"
)]

use std::path::Path;

use inwarden_inference::{Embedder, InferenceError};

const CONFIG: &str = r#"{"hidden_size":4,"intermediate_size":8,"num_hidden_layers":1,
    "num_attention_heads":2,"vocab_size":5,"max_position_embeddings":256,"type_vocab_size":1,
    "layer_norm_eps":1e-12,"hidden_act":"gelu"}"#;

/// Puts `[CLS]` before a text and `[SEP]` behind it.
const BERT: &str = r#"{"type":"BertProcessing","cls":["[CLS]",0],"sep":["[SEP]",1]}"#;

fn tokenizer(post_processor: &str) -> String {
    format!(
        r###"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
        "normalizer":null,"pre_tokenizer":{{"type":"WhitespaceSplit"}},
        "post_processor":{post_processor},"decoder":null,
        "model":{{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",
            "max_input_chars_per_word":100,
            "vocab":{{"[CLS]":0,"[SEP]":1,"[UNK]":2,"a":3,"b":4}}}}}}"###
    )
}

/// Names and shapes of all tensors.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![
        ("embeddings.token_type_embeddings.weight".into(), vec![1, 4]),
        ("embeddings.word_embeddings.weight".into(), vec![5, 4]),
        ("embeddings.position_embeddings.weight".into(), vec![256, 4]),
    ];
    let mut pair = |name: &str, shape: &[usize]| {
        tensors.push((format!("{name}.weight"), shape.to_vec()));
        tensors.push((format!("{name}.bias"), shape[..1].to_vec()));
    };
    pair("embeddings.LayerNorm", &[4]);
    for (name, shape) in [
        ("attention.self.query", &[4, 4][..]),
        ("attention.self.key", &[4, 4]),
        ("attention.self.value", &[4, 4]),
        ("attention.output.dense", &[4, 4]),
        ("attention.output.LayerNorm", &[4]),
        ("intermediate.dense", &[8, 4]),
        ("output.dense", &[4, 8]),
        ("output.LayerNorm", &[4]),
    ] {
        pair(&format!("encoder.layer.0.{name}"), shape);
    }
    tensors
}

/// A safetensors file whose last number is `last`.
fn weights(last: f32) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, shape) in tensors() {
        let start = data.len();
        for idx in 0..shape.iter().product::<usize>() {
            let value = ((start / 4 + idx) * 37 % 101) as f32 / 101.0 - 0.4;
            data.extend(value.to_le_bytes());
        }
        let end = data.len();
        entries.push(format!(
            r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
    }
    let at = data.len() - 4;
    data[at..].copy_from_slice(&last.to_le_bytes());
    let header = format!("{{{}}}", entries.join(","));
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_bytes(), &data].concat()
}

fn load(post_processor: &str, weights: &[u8]) -> Result<Embedder, InferenceError> {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(Path::new(dir.path()).join(name), bytes).unwrap();
    };
    write("config.json", CONFIG.as_bytes());
    write("tokenizer.json", tokenizer(post_processor).as_bytes());
    write("model.safetensors", weights);
    Embedder::load(dir.path())
}

#[test]
fn texts_of_any_length_have_an_embedding_of_length_one() {
    let embedder = load(BERT, &weights(0.25)).unwrap();
    let long = "a b ".repeat(40_000);
    for text in ["", " ", "a", "a b", &long] {
        let embedding = embedder.embed(&[text]).unwrap().remove(0);
        let length: f32 = embedding.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
}

#[test]
fn a_tokenizer_that_adds_no_tokens_or_only_its_own_is_refused() {
    let cls = r#"{"SpecialToken":{"id":"[CLS]","type_id":0}}"#;
    let template = |n_added: usize| {
        let added = vec![cls; n_added].join(",");
        format!(
            r#"{{"type":"TemplateProcessing","pair":[],
            "single":[{added},{{"Sequence":{{"id":"A","type_id":0}}}}],
            "special_tokens":{{"[CLS]":{{"id":"[CLS]","ids":[0],"tokens":["[CLS]"]}}}}}}"#
        )
    };
    load(&template(255), &weights(0.25)).unwrap();
    for post_processor in ["null", &template(256), &template(300)] {
        let result = load(post_processor, &weights(0.25));
        let Err(InferenceError::Corrupt { what, .. }) = result else {
            panic!("accepted: {post_processor}");
        };
        assert_eq!(what, "post_processor");
    }
}

#[test]
fn damaged_weights_give_an_error_and_no_embedding() {
    for last in [f32::NAN, f32::INFINITY] {
        let embedder = load(BERT, &weights(last)).unwrap();
        let result = embedder.embed(&["a"]);
        assert!(
            matches!(result, Err(InferenceError::NotFinite { .. })),
            "{result:?}"
        );
    }
}
