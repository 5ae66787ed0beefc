//! `config.json` of a Qwen2 model.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Unexpected, Visitor},
};

use crate::{config::ModelConfig, error::Fault, tokenizer::TokenId};

const FILE: &str = "config.json";

/// The fields that shape the computation; others do not matter to us.
#[derive(Debug, Deserialize)]
struct File {
    model_type: String,
    hidden_act: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    /// Newer files have it inside `rope_parameters`.
    rope_theta: Option<f32>,
    rope_parameters: Option<RopeParameters>,
    rope_scaling: Option<RopeParameters>,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
    head_dim: Option<usize>,
    eos_token_id: Option<EndOfSequence>,
}

#[derive(Debug, Deserialize)]
struct RopeParameters {
    rope_theta: Option<f32>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
}

/// A number, or the first of a list: the one that ends an answer.
#[derive(Debug)]
struct EndOfSequence(u32);

impl<'de> Deserialize<'de> for EndOfSequence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;
        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = EndOfSequence;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token id, or several")
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<EndOfSequence, E> {
                let unexpected = || E::invalid_value(Unexpected::Unsigned(id), &self);
                u32::try_from(id)
                    .map(EndOfSequence)
                    .map_err(|_| unexpected())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<EndOfSequence, A::Error> {
                let first = ids.next_element()?;
                while ids.next_element::<IgnoredAny>()?.is_some() {}
                first
                    .map(EndOfSequence)
                    .ok_or_else(|| A::Error::invalid_length(0, &self))
            }
        }
        deserializer.deserialize_any(OneOrSeveral)
    }
}

/// The model's shape and the token that ends an answer.
pub(crate) fn parse(json: &[u8]) -> Result<(ModelConfig, Option<TokenId>), Fault> {
    let file: File = serde_json::from_slice(json)
        .map_err(|error| Fault::unexpected(FILE, "the configuration of a Qwen2 model", error))?;
    for (key, expected, found) in [
        ("model_type", "qwen2", &file.model_type),
        ("hidden_act", "silu", &file.hidden_act),
    ] {
        if found != expected {
            return Err(Fault::unexpected(key, expected, found));
        }
    }
    if file.use_sliding_window {
        return Err(Fault::unexpected("use_sliding_window", "false", true));
    }
    for rope in [&file.rope_parameters, &file.rope_scaling]
        .into_iter()
        .flatten()
    {
        if let Some(kind) = &rope.rope_type
            && kind != "default"
        {
            return Err(Fault::unexpected("rope_type", "default", kind));
        }
    }
    let newer = file.rope_parameters.and_then(|rope| rope.rope_theta);
    let config = ModelConfig {
        hidden_size: file.hidden_size,
        intermediate_size: file.intermediate_size,
        num_hidden_layers: file.num_hidden_layers,
        num_attention_heads: file.num_attention_heads,
        num_key_value_heads: file.num_key_value_heads,
        vocab_size: file.vocab_size,
        max_position_embeddings: file.max_position_embeddings,
        rms_norm_eps: file.rms_norm_eps,
        rope_theta: file
            .rope_theta
            .or(newer)
            .ok_or_else(|| Fault::missing("rope_theta"))?,
        tie_word_embeddings: file.tie_word_embeddings,
    };
    let config = config.checked()?;
    if let Some(head_dim) = file.head_dim
        && head_dim != config.head_dim()
    {
        return Err(Fault::unexpected(
            "head_dim",
            config.head_dim().to_string(),
            head_dim,
        ));
    }
    let end = file.eos_token_id.map(|EndOfSequence(id)| TokenId(id));
    Ok((config, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `config.json` of `Qwen/Qwen2.5-7B-Instruct`.
    const QWEN_7B: &str = r#"{
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu",
        "hidden_size": 3584, "initializer_range": 0.02, "intermediate_size": 18944,
        "max_position_embeddings": 32768, "max_window_layers": 28,
        "model_type": "qwen2", "num_attention_heads": 28, "num_hidden_layers": 28,
        "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "sliding_window": 131072, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.43.1",
        "use_cache": true, "use_sliding_window": false, "vocab_size": 152064
    }"#;

    fn check_refused(from: &str, to: &str, expected: &str) {
        assert!(QWEN_7B.contains(from));
        let error = parse(QWEN_7B.replace(from, to).as_bytes()).unwrap_err();
        let message = format!("{}: {}", error.what, error.corruption);
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn the_7b_configuration_is_read() {
        let (config, end) = parse(QWEN_7B.as_bytes()).unwrap();
        let expected = ModelConfig {
            hidden_size: 3584,
            intermediate_size: 18944,
            num_hidden_layers: 28,
            num_attention_heads: 28,
            num_key_value_heads: 4,
            vocab_size: 152_064,
            max_position_embeddings: 32768,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            tie_word_embeddings: false,
        };
        assert_eq!(config, expected);
        assert_eq!(end, Some(TokenId(151_645)));
    }

    #[test]
    fn newer_files_have_the_rotary_base_elsewhere_and_several_ends() {
        let newer = QWEN_7B
            .replace(
                r#""rope_theta": 1000000.0"#,
                r#""rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}"#,
            )
            .replace("151645", "[7, 8]");
        let (config, end) = parse(newer.as_bytes()).unwrap();
        assert_eq!(config.rope_theta, 500.0);
        assert_eq!(end, Some(TokenId(7)));
    }

    #[test]
    fn what_would_compute_otherwise_is_refused_by_name() {
        check_refused(r#""qwen2""#, r#""qwen3""#, "model_type");
        check_refused(r#""silu""#, r#""gelu""#, "hidden_act");
        check_refused(
            r#"window": false"#,
            r#"window": true"#,
            "use_sliding_window",
        );
        check_refused(
            r#""use_cache": true"#,
            r#""rope_scaling": {"type": "yarn", "factor": 4.0}"#,
            "rope_type",
        );
        check_refused(r#""use_cache": true"#, r#""head_dim": 64"#, "head_dim");
        check_refused("151645", "[]", "configuration");
        check_refused("151645", "4294967296", "configuration");
        check_refused(r#""rope_theta": 1000000.0"#, r#""x": 1"#, "rope_theta");
    }

    #[test]
    fn absurd_sizes_are_refused() {
        check_refused("3584", "0", "hidden_size");
        check_refused("3584", "3585", "num_attention_heads");
        check_refused("152064", "18446744073709551615", "vocab_size");
        check_refused(r#"heads": 4"#, r#"heads": 3"#, "num_key_value_heads");
        check_refused("1e-06", "-1.0", "rms_norm_eps");
        check_refused("1000000.0", "0.0", "rope_theta");
        check_refused("28,\n", "1e3,\n", "configuration");
    }
}
