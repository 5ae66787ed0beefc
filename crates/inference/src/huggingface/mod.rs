//! A Qwen2 model as a directory in the layout of `transformers`.
//!
//! `config.json`, `tokenizer.json`, and the weights: `model.safetensors`, or
//! several files under `model.safetensors.index.json`. Tensors are found under
//! the names that GGUF gives them, so that the loader knows one set of names.
//!
//! Source: `Qwen/Qwen2.5-7B-Instruct`; `modeling_qwen2.py` of `transformers`.

mod config;
mod shards;

use std::path::{Path, PathBuf};

use self::shards::Shards;
#[cfg(feature = "testing")]
pub(crate) use self::{config::parse as parse_config, shards::parse_index};
use crate::{
    config::ModelConfig,
    error::InferenceError,
    model_file::read_whole,
    tensor_source::{EMBEDDINGS, HEAD, StoredTensor, TensorSource},
    tokenizer::{TokenId, Tokenizer},
};

/// Far above the real files.
const MAX_CONFIG_BYTES: u64 = 1 << 16;
const MAX_TOKENIZER_BYTES: u64 = 32 << 20;

/// The files of one model, open.
pub(crate) struct Directory {
    config: ModelConfig,
    end_of_sequence: Option<TokenId>,
    shards: Shards,
    tokenizer_path: PathBuf,
}

impl Directory {
    /// Opens the weights and reads `config.json`.
    pub(crate) fn open(dir: &Path) -> Result<Self, InferenceError> {
        let path = dir.join("config.json");
        let json = read_whole(&path, MAX_CONFIG_BYTES)?;
        let (config, end_of_sequence) =
            config::parse(&json).map_err(|fault| fault.in_file(&path))?;
        Ok(Self {
            config,
            end_of_sequence,
            shards: Shards::open(dir)?,
            tokenizer_path: dir.join("tokenizer.json"),
        })
    }

    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, InferenceError> {
        let json = read_whole(&self.tokenizer_path, MAX_TOKENIZER_BYTES)?;
        Tokenizer::from_json_file(&json, self.end_of_sequence)
            .map_err(|fault| fault.in_file(&self.tokenizer_path))
    }

    /// The file to name where the tokenizer is wrong.
    pub(crate) fn tokenizer_path(&self) -> &Path {
        &self.tokenizer_path
    }
}

impl TensorSource for Directory {
    fn find(&self, name: &str) -> Result<Option<StoredTensor>, InferenceError> {
        match name_in_file(name) {
            // Some files have the shared table twice.
            Some(_) if name == HEAD && self.config.tie_word_embeddings => Ok(None),
            Some(name) => self.shards.find(&name),
            None => Ok(None),
        }
    }

    fn path(&self) -> &Path {
        self.shards.path()
    }

    fn name_in_file(&self, name: &str) -> String {
        name_in_file(name).unwrap_or_else(|| name.to_owned())
    }
}

/// What `transformers` calls the tensor that GGUF calls `name`.
fn name_in_file(name: &str) -> Option<String> {
    let fixed = match name {
        EMBEDDINGS => "model.embed_tokens.weight",
        HEAD => "lm_head.weight",
        "output_norm.weight" => "model.norm.weight",
        _ => {
            let (layer_idx, part) = name.strip_prefix("blk.")?.split_once('.')?;
            let (part, kind) = part.rsplit_once('.')?;
            let part = match part {
                "attn_norm" => "input_layernorm",
                "attn_q" => "self_attn.q_proj",
                "attn_k" => "self_attn.k_proj",
                "attn_v" => "self_attn.v_proj",
                "attn_output" => "self_attn.o_proj",
                "ffn_norm" => "post_attention_layernorm",
                "ffn_gate" => "mlp.gate_proj",
                "ffn_up" => "mlp.up_proj",
                "ffn_down" => "mlp.down_proj",
                _ => return None,
            };
            return Some(format!("model.layers.{layer_idx}.{part}.{kind}"));
        }
    };
    Some(fixed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tensor_of_a_layer_has_its_name_in_transformers() {
        for (ours, theirs) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("blk.0.attn_q.bias", "model.layers.0.self_attn.q_proj.bias"),
            (
                "blk.27.ffn_down.weight",
                "model.layers.27.mlp.down_proj.weight",
            ),
            (
                "blk.3.ffn_norm.weight",
                "model.layers.3.post_attention_layernorm.weight",
            ),
        ] {
            assert_eq!(name_in_file(ours).as_deref(), Some(theirs));
        }
        for unknown in ["", "blk.", "blk.1.attn_q", "blk.1.other.weight", "x.weight"] {
            assert_eq!(name_in_file(unknown), None, "{unknown}");
        }
    }
}
