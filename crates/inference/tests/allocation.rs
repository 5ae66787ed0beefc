//! No file makes loading it allocate more than a small multiple of its size.
//!
//! One test function, since the allocator counts for the whole process.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use inwarden_inference::{Embedder, InferenceError, LoadOptions, Qwen2, Tokenizer};
use peak_alloc::PeakAlloc;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Bytes that may be allocated at once for each byte of a file…
const TIMES: usize = 10;
/// …and for anything at all: threads, buffers, tables of the options.
const AT_ALL: usize = 1 << 20;

/// The same of an embedder's `tokenizer.json`, which is limited to 1 MiB.
const TIMES_OF_TOKENIZER: usize = 150;

/// Loads what lies at `path` and checks what that took.
fn check(path: &Path, what: &str) -> Result<Qwen2, InferenceError> {
    let options = LoadOptions {
        threads: NonZeroUsize::MIN,
        max_context_tokens: 256,
        ..LoadOptions::default()
    };
    let limit = TIMES * size(path) + AT_ALL;
    check_loading(what, limit, || Qwen2::load(&[path.to_owned()], &options))
}

fn check_loading<T>(
    what: &str,
    limit: usize,
    load: impl FnOnce() -> Result<T, InferenceError>,
) -> Result<T, InferenceError> {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let loaded = load();
    let taken = ALLOCATED.peak_usage().saturating_sub(before);
    assert!(
        taken <= limit,
        "{what}: {taken} bytes allocated, {limit} allowed"
    );
    if let Err(error) = &loaded {
        let typed = matches!(error, InferenceError::Corrupt { .. });
        assert!(typed, "{what}: {error}");
    }
    loaded
}

fn size(path: &Path) -> usize {
    let metadata = path.metadata().expect("the file is there");
    let sizes: Vec<PathBuf> = match metadata.is_dir() {
        true => std::fs::read_dir(path)
            .expect("the directory is readable")
            .map(|entry| entry.expect("so are its entries").path())
            .collect(),
        false => return usize::try_from(metadata.len()).expect("small files"),
    };
    sizes.iter().map(|path| size(path)).sum()
}

fn golden() -> Vec<u8> {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/golden");
    std::fs::read(PathBuf::from(golden).join("qwen2-tiny/model.gguf")).expect("golden model")
}

#[test]
fn loading_allocates_a_small_multiple_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let check_gguf = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        check(&path, what)
    };
    let golden = golden();
    check_gguf(&golden, "the golden model").unwrap();
    for len in (0..golden.len()).step_by(golden.len() / 60) {
        assert!(check_gguf(&golden[..len], "truncated").is_err());
    }
    damaged(&golden, &mut |bytes, what| drop(check_gguf(bytes, what)));
    for (what, bytes) in hostile_headers() {
        assert!(check_gguf(&bytes, what).is_err(), "{what}");
    }
    std::fs::write(&path, many_short_tokens()).unwrap();
    let limit = TIMES * size(&path) + AT_ALL;
    let tokenizer = check_loading("many short tokens", limit, || {
        Tokenizer::from_gguf(std::slice::from_ref(&path))
    });
    assert_eq!(tokenizer.unwrap().n_tokens(), 256 + 94 * 94 + 150_000);
    for (what, files) in hostile_directories() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        assert!(check(dir.path(), what).is_err(), "{what}");
    }
    for (what, json) in hostile_embedders() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), MINILM).unwrap();
        std::fs::write(dir.path().join("model.safetensors"), [0; 8]).unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), &json).unwrap();
        let limit = TIMES_OF_TOKENIZER * json.len().min(1 << 20) + AT_ALL;
        let loaded = check_loading(what, limit, || Embedder::load(dir.path()));
        assert!(loaded.is_err(), "{what}");
    }
}

const MINILM: &str = r#"{"hidden_size":4,"intermediate_size":8,"num_hidden_layers":1,
    "num_attention_heads":2,"vocab_size":5,"max_position_embeddings":256,"type_vocab_size":1,
    "layer_norm_eps":1e-12,"hidden_act":"gelu"}"#;

/// Files `tokenizer.json` whose entries are as short as can be.
fn hostile_embedders() -> Vec<(&'static str, String)> {
    let file = |normalizer: Value, vocab: Value| {
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": normalizer, "pre_tokenizer": null, "decoder": null,
            "post_processor": {"type": "BertProcessing", "cls": ["0", 0], "sep": ["1", 1]},
            "model": {
                "type": "WordPiece", "unk_token": "0", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocab,
            },
        })
        .to_string()
    };
    let vocab: Value = (0..60_000).map(|id| (format!("{id:x}"), id)).collect();
    vec![
        ("an embedder's vocabulary", file(Value::Null, vocab)),
        (
            "an embedder's zeros",
            file(vec![0; 400_000].into(), json!({})),
        ),
        ("too many of them", file(vec![0; 600_000].into(), json!({}))),
    ]
}

/// Flipped bits and numbers replaced by extreme ones.
fn damaged(golden: &[u8], check: &mut dyn FnMut(&[u8], &str)) {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    for round in 0..400 {
        let mut bytes = golden.to_vec();
        let at = random.random_range(0..8_000);
        if round % 2 == 0 {
            bytes[at] ^= 1 << random.random_range(0..8);
        } else {
            let extreme = [u64::MAX, 1 << 62, 1 << 40, 1 << 31, 1 << 20, 1 << 16, 0];
            let number = extreme[random.random_range(0..extreme.len())];
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        check(&bytes, "damaged");
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn header(n_tensors: u64, n_metadata: u64, body: &[u8]) -> Vec<u8> {
    let counts = [n_tensors, n_metadata].map(u64::to_le_bytes).concat();
    [b"GGUF\x03\0\0\0", &*counts, body].concat()
}

fn entry(key: &str, value_type: u32, value: &[u8]) -> Vec<u8> {
    [&text(key), &value_type.to_le_bytes()[..], value].concat()
}

fn array(element: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&element.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

fn tensor(name: &str, shape: &[u64], offset: u64) -> Vec<u8> {
    let n_dimensions = u32::try_from(shape.len()).expect("few dimensions");
    let sizes = shape.iter().flat_map(|size| size.to_le_bytes());
    let mut bytes = [&text(name), &n_dimensions.to_le_bytes()[..]].concat();
    bytes.extend(sizes);
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

fn hostile_headers() -> Vec<(&'static str, Vec<u8>)> {
    let many_entries = (0..4_096).flat_map(|i| entry(&format!("{i:x}"), 0, &[0]));
    let many_tensors = (0..65_536).flat_map(|i| tensor(&format!("{i:x}"), &[1], 0));
    let empty_strings = vec![0; 8 << 20];
    vec![
        (
            "no alignment",
            header(0, 1, &entry("general.alignment", 4, &[0; 4])),
        ),
        ("counts", header(u64::MAX, u64::MAX, &[0; 64])),
        ("counts at their limits", header(1 << 16, 1 << 12, &[0; 64])),
        (
            "many entries",
            header(0, 4_096, &many_entries.collect::<Vec<_>>()),
        ),
        (
            "many tensors",
            header(65_536, 0, &many_tensors.collect::<Vec<_>>()),
        ),
        ("no dimensions", header(1, 0, &tensor("t", &[], 0))),
        ("many dimensions", header(1, 0, &tensor("t", &[1; 1000], 0))),
        (
            "a large shape",
            header(1, 0, &tensor("t", &[1 << 40, 1 << 20], 0)),
        ),
        ("a far tensor", header(1, 0, &tensor("t", &[1], 1 << 60))),
        (
            "a long string",
            header(0, 1, &entry("k", 8, &u64::MAX.to_le_bytes())),
        ),
        (
            "a long array",
            header(0, 1, &entry("k", 9, &array(4, 1 << 61, &[0; 8]))),
        ),
        (
            "an array of strings",
            header(0, 1, &entry("k", 9, &array(8, 1 << 40, &[0; 64]))),
        ),
        (
            "empty strings",
            header(0, 1, &entry("k", 9, &array(8, 1 << 20, &empty_strings))),
        ),
        (
            "an array of arrays",
            header(0, 1, &entry("k", 9, &array(9, 1, &[0; 64]))),
        ),
        (
            "many parts",
            header(0, 1, &entry("split.count", 4, &[0xff; 4])),
        ),
    ]
}

/// A vocabulary of nothing but tokens and merges of a few bytes each.
fn many_short_tokens() -> Vec<u8> {
    let is_plain = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (256..).take(256 - 188);
    let alphabet = (0..256_u32).filter(is_plain).chain(others);
    let mut tokens: Vec<String> = alphabet
        .map(|letter| char::from_u32(letter).expect("a letter").into())
        .collect();
    let (mut pairs, mut merges) = (Vec::new(), Vec::new());
    let letters = || ('!'..='~').map(String::from);
    for (left, right) in
        letters().flat_map(|left| letters().map(move |right| (left.clone(), right)))
    {
        pairs.push(format!("{left}{right}"));
        merges.push(format!("{left} {right}"));
    }
    let triples = pairs
        .iter()
        .flat_map(|left| letters().map(move |right| (left, right)));
    let (triples, further): (Vec<_>, Vec<_>) = triples
        .take(150_000)
        .map(|(left, right)| (format!("{left}{right}"), format!("{left} {right}")))
        .unzip();
    tokens.extend(pairs);
    tokens.extend(triples);
    merges.extend(further);
    let texts = |texts: &[String]| {
        let elements: Vec<u8> = texts.iter().flat_map(|element| text(element)).collect();
        array(8, texts.len() as u64, &elements)
    };
    let kinds = array(5, tokens.len() as u64, &[1, 0, 0, 0].repeat(tokens.len()));
    let entries = [
        entry("tokenizer.ggml.model", 8, &text("gpt2")),
        entry("tokenizer.ggml.pre", 8, &text("qwen2")),
        entry("tokenizer.ggml.tokens", 9, &texts(&tokens)),
        entry("tokenizer.ggml.token_type", 9, &kinds),
        entry("tokenizer.ggml.merges", 9, &texts(&merges)),
    ];
    header(0, 5, &entries.concat())
}

/// File names and contents.
type Files = Vec<(&'static str, Vec<u8>)>;

/// Directories of which one file is hostile.
fn hostile_directories() -> Vec<(&'static str, Files)> {
    let safetensors = |header: &str| {
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], header.as_bytes()].concat()
    };
    let config = json!({
        "model_type": "qwen2", "hidden_act": "silu", "hidden_size": 1 << 20,
        "intermediate_size": 1 << 20, "num_hidden_layers": 1 << 20, "num_attention_heads": 1,
        "num_key_value_heads": 1, "vocab_size": 1 << 20, "max_position_embeddings": 1 << 20,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "eos_token_id": vec![0; 10_000],
    });
    let with = |weights: Vec<u8>| {
        let config = config.to_string().into_bytes();
        vec![("config.json", config), ("model.safetensors", weights)]
    };
    let tensors = (0..20_000).map(|i| {
        let entry = r#"{"dtype":"F32","shape":[],"data_offsets":[0,0]}"#;
        format!(r#""{i:x}":{entry}"#)
    });
    let tensors: Vec<_> = tensors.collect();
    let sizes = vec!["0"; 1 << 20].join(",");
    let nested = "[".repeat(1 << 20);
    vec![
        ("large sizes", with(safetensors("{}"))),
        ("a long header", with(u64::MAX.to_le_bytes().to_vec())),
        (
            "a header at its limit",
            with((8_u64 << 20).to_le_bytes().to_vec()),
        ),
        (
            "many tensors",
            with(safetensors(&format!("{{{}}}", tensors.join(",")))),
        ),
        (
            "a long shape",
            with(safetensors(&format!(
                r#"{{"a":{{"dtype":"F32","shape":[{sizes}]}}}}"#
            ))),
        ),
        ("a nested header", with(safetensors(&nested))),
        (
            "nested metadata",
            with(safetensors(&format!(r#"{{"__metadata__":{nested}"#))),
        ),
        (
            "a nested index",
            vec![
                ("config.json", config.to_string().into_bytes()),
                ("model.safetensors.index.json", nested.clone().into_bytes()),
            ],
        ),
        (
            "a nested configuration",
            vec![("config.json", nested[..60_000].into())],
        ),
        (
            "a long configuration",
            vec![("config.json", vec![b' '; 1 << 20])],
        ),
    ]
}
