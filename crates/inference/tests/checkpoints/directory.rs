//! Directories in the layout of `transformers`.

use std::path::Path;

use inwarden_inference::{InferenceError, TokenId};
use serde_json::{Map, Value, json};

use crate::golden::{self, Golden, Tensor, load, logits};

/// The numbers of `make.py` beside the golden model.
fn config() -> Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "hidden_size": 56,
        "intermediate_size": 152,
        "num_hidden_layers": 2,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 276,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "use_sliding_window": false,
        "tie_word_embeddings": true,
        "eos_token_id": 268,
    })
}

fn tokenizer(golden: &Golden) -> Value {
    let words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let tokens = golden.tokens.iter().zip(&golden.kinds).enumerate();
    let (mut vocab, mut added) = (Map::new(), Vec::new());
    for (id, (text, &kind)) in tokens {
        if kind == 1 {
            vocab.insert(text.clone(), id.into());
        } else {
            added.push(json!({
                "id": id, "content": text, "special": kind == 3, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false,
            }));
        }
    }
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false,
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": false},
            bytes,
        ]},
        "post_processor": bytes,
        "decoder": bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": golden.merges,
        },
    })
}

fn name(gguf: &str) -> String {
    match gguf {
        "token_embd.weight" => "model.embed_tokens.weight".into(),
        "output_norm.weight" => "model.norm.weight".into(),
        _ => gguf
            .replace("blk.", "model.layers.")
            .replace("attn_norm", "input_layernorm")
            .replace("attn_output", "self_attn.o_proj")
            .replace("attn_q", "self_attn.q_proj")
            .replace("attn_k", "self_attn.k_proj")
            .replace("attn_v", "self_attn.v_proj")
            .replace("ffn_norm", "post_attention_layernorm")
            .replace("ffn_gate", "mlp.gate_proj")
            .replace("ffn_up", "mlp.up_proj")
            .replace("ffn_down", "mlp.down_proj"),
    }
}

fn write_safetensors<'a>(path: &Path, tensors: impl Iterator<Item = &'a Tensor>) {
    let (mut header, mut data) = (Map::new(), Vec::new());
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    for tensor in tensors {
        let dtype = if tensor.is_half { "F16" } else { "F32" };
        let offsets = [data.len(), data.len() + tensor.data.len()];
        let entry = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": offsets});
        header.insert(name(&tensor.name), entry);
        data.extend(&tensor.data);
    }
    let header = Value::from(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    let file = [&length[..], header.as_bytes(), &data].concat();
    std::fs::write(path, file).expect("a temporary directory is writable");
}

fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).expect("a temporary directory is writable");
}

/// A directory with everything but the weights.
fn directory(golden: &Golden) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    write_json(&dir.path().join("config.json"), &config());
    write_json(&dir.path().join("tokenizer.json"), &tokenizer(golden));
    dir
}

/// A directory with the weights in two files.
fn sharded(golden: &Golden) -> tempfile::TempDir {
    let dir = directory(golden);
    let mut weight_map = Map::new();
    for number in 0..2 {
        let file_name = format!("model-0000{}-of-00002.safetensors", number + 1);
        let half = || golden.tensors.iter().skip(number).step_by(2);
        write_safetensors(&dir.path().join(&file_name), half());
        weight_map.extend(half().map(|tensor| (name(&tensor.name), Value::from(&*file_name))));
    }
    let index = json!({"metadata": {"total_size": 0}, "weight_map": weight_map});
    write_json(&dir.path().join("model.safetensors.index.json"), &index);
    dir
}

#[test]
fn one_file_or_several_compute_the_same_as_gguf() {
    let golden = Golden::read();
    let single = directory(&golden);
    let path = single.path().join("model.safetensors");
    write_safetensors(&path, golden.tensors.iter());
    let expected = logits(&[golden::path()]);
    for dir in [single, sharded(&golden)] {
        assert_eq!(logits(&[dir.path().to_owned()]), expected);
    }
}

#[test]
fn the_tokenizer_beside_the_weights_is_the_one_of_gguf() {
    let golden = Golden::read();
    let dir = sharded(&golden);
    let model = load(&[dir.path().to_owned()]).unwrap();
    let expected = load(&[golden::path()]).unwrap();
    let (ours, theirs) = (model.tokenizer(), expected.tokenizer());
    for text in ["the strange <|im_start|>", "Ünïcode \u{301}e\n\n  x", ""] {
        assert_eq!(
            ours.encode_prompt(text).unwrap(),
            theirs.encode_prompt(text).unwrap()
        );
        assert_eq!(
            ours.encode_text(text).unwrap(),
            theirs.encode_text(text).unwrap()
        );
    }
    assert_eq!(ours.end_of_sequence(), Some(TokenId(268)));
    assert_eq!(theirs.end_of_sequence(), Some(TokenId(268)));
}

#[test]
fn an_absent_file_is_named() {
    let golden = Golden::read();
    for file_name in [
        "config.json",
        "tokenizer.json",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ] {
        let dir = sharded(&golden);
        std::fs::remove_file(dir.path().join(file_name)).unwrap();
        let Err(InferenceError::Io { path, .. }) = load(&[dir.path().to_owned()]) else {
            panic!("{file_name} is not missed");
        };
        let without_index = Path::new("model.safetensors");
        let absent = path.file_name().map(Path::new);
        assert!(absent == Some(Path::new(file_name)) || absent == Some(without_index));
    }
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let golden = Golden::read();
    let check = |field: &str, value: Value, expected: &str| {
        let dir = sharded(&golden);
        let mut config = config();
        config[field] = value;
        write_json(&dir.path().join("config.json"), &config);
        match load(&[dir.path().to_owned()]) {
            Err(InferenceError::Corrupt { what, .. }) => {
                assert!(what.starts_with(expected), "{field}: {what}");
            }
            other => panic!("{field}: {:?}", other.map(|_| ())),
        }
    };
    check("vocab_size", json!(277), "model.embed_tokens.weight");
    check("vocab_size", json!(7), "model.embed_tokens.weight");
    check("num_hidden_layers", json!(3), "model.layers.2.");
    check(
        "intermediate_size",
        json!(151),
        "model.layers.0.mlp.gate_proj.weight",
    );
    check("tie_word_embeddings", json!(false), "lm_head.weight");
    check("model_type", json!("llama"), "model_type");
}
