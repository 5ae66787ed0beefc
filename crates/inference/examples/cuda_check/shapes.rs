//! The shapes that are measured.

use inwarden_inference::ModelConfig;

/// Source: `config.json` of `Qwen/Qwen2.5-0.5B-Instruct`.
pub(crate) fn shape_05b() -> ModelConfig {
    ModelConfig {
        hidden_size: 896,
        intermediate_size: 4864,
        num_hidden_layers: 24,
        num_attention_heads: 14,
        num_key_value_heads: 2,
        vocab_size: 151_936,
        max_position_embeddings: 32_768,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        tie_word_embeddings: true,
    }
}

/// Source: `config.json` of `Qwen/Qwen2.5-7B-Instruct`.
pub(crate) fn shape_7b() -> ModelConfig {
    ModelConfig {
        hidden_size: 3584,
        intermediate_size: 18_944,
        num_hidden_layers: 28,
        num_attention_heads: 28,
        num_key_value_heads: 4,
        vocab_size: 152_064,
        tie_word_embeddings: false,
        ..shape_05b()
    }
}

/// Weights that each row is multiplied with.
pub(crate) fn n_weights(config: &ModelConfig) -> f64 {
    let hidden = config.hidden_size as f64;
    let key_value = hidden * config.num_key_value_heads as f64 / config.num_attention_heads as f64;
    let layer =
        2.0 * hidden * (hidden + key_value) + 3.0 * hidden * config.intermediate_size as f64;
    layer * config.num_hidden_layers as f64
}
