//! The shapes of the Qwen2.5 family, and which type each tensor has in a
//! "Q4_K_M" file.
//!
//! Source: the models' `config.json`, and `llama_tensor_get_type` in
//! llama.cpp's `src/llama-quant.cpp`.

use clap::ValueEnum;

use super::blocks::{Kind, Values};

/// Whose shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Size {
    #[value(name = "0.5b")]
    B0_5,
    #[value(name = "1.5b")]
    B1_5,
    #[value(name = "7b")]
    B7,
}

/// Sizes under the names of `config.json`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_key_value_heads: usize,
    pub(crate) vocab_size: usize,
}

/// A tensor to write.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// In the file's order: inputs first.
    pub(crate) dims: Vec<usize>,
    pub(crate) kind: Kind,
    pub(crate) values: Values,
}

impl Tensor {
    pub(crate) fn n_blocks(&self) -> usize {
        self.dims.iter().product::<usize>() / self.kind.block_len()
    }
}

impl Size {
    pub(crate) fn shape(self) -> Shape {
        let (hidden_size, intermediate_size, num_hidden_layers) = match self {
            Self::B0_5 => (896, 4864, 24),
            Self::B1_5 => (1536, 8960, 28),
            Self::B7 => (3584, 18944, 28),
        };
        let (num_attention_heads, num_key_value_heads, vocab_size) = match self {
            Self::B0_5 => (14, 2, 151_936),
            Self::B1_5 => (12, 2, 151_936),
            Self::B7 => (28, 4, 152_064),
        };
        Shape {
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            vocab_size,
        }
    }
}

impl Shape {
    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let hidden = self.hidden_size;
        let mut tensors = vec![
            matrix("output.weight", hidden, self.vocab_size, Precision::More),
            embeddings(hidden, self.vocab_size),
        ];
        for layer_idx in 0..self.num_hidden_layers {
            self.layer(layer_idx, &mut tensors);
        }
        tensors.push(norm("output_norm.weight".to_owned(), hidden));
        tensors
    }

    fn layer(&self, layer_idx: usize, tensors: &mut Vec<Tensor>) {
        let hidden = self.hidden_size;
        let key_value = hidden / self.num_attention_heads * self.num_key_value_heads;
        let name = |part: &str| format!("blk.{layer_idx}.{part}");
        let more = match self.has_more_bits(layer_idx) {
            true => Precision::More,
            false => Precision::Usual,
        };
        let usual = Precision::Usual;
        tensors.push(norm(name("attn_norm.weight"), hidden));
        tensors.push(norm(name("ffn_norm.weight"), hidden));
        for (part, n_out, precision) in [
            ("attn_q", hidden, usual),
            ("attn_k", key_value, usual),
            ("attn_v", key_value, more),
        ] {
            let weight = name(&format!("{part}.weight"));
            tensors.push(matrix(&weight, hidden, n_out, precision));
            tensors.push(Tensor {
                name: name(&format!("{part}.bias")),
                dims: vec![n_out],
                kind: Kind::F32,
                values: Values::Spread(0.1),
            });
        }
        for (part, n_in, n_out, precision) in [
            ("attn_output.weight", hidden, hidden, usual),
            ("ffn_gate.weight", hidden, self.intermediate_size, usual),
            ("ffn_up.weight", hidden, self.intermediate_size, usual),
            ("ffn_down.weight", self.intermediate_size, hidden, more),
        ] {
            tensors.push(matrix(&name(part), n_in, n_out, precision));
        }
    }

    /// About half of the layers keep more bits: the first and the last eighth,
    /// and every third between.
    fn has_more_bits(&self, layer_idx: usize) -> bool {
        let eighth = self.num_hidden_layers / 8;
        layer_idx < eighth
            || layer_idx >= 7 * self.num_hidden_layers / 8
            || (layer_idx - eighth) % 3 == 2
    }
}

#[derive(Clone, Copy)]
enum Precision {
    Usual,
    More,
}

impl Precision {
    /// The K types need rows of whole blocks of 256; other rows fall back.
    fn kind(self, n_in: usize) -> Kind {
        match (self, n_in.is_multiple_of(Kind::Q4K.block_len())) {
            (Self::Usual, true) => Kind::Q4K,
            (Self::More, true) => Kind::Q6K,
            (Self::Usual, false) => Kind::Q5_0,
            (Self::More, false) => Kind::Q8_0,
        }
    }
}

/// Outputs of about the size of the inputs.
fn matrix(name: &str, n_in: usize, n_out: usize, precision: Precision) -> Tensor {
    Tensor {
        name: name.to_owned(),
        dims: vec![n_in, n_out],
        kind: precision.kind(n_in),
        values: Values::Spread(1.0 / (n_in as f32).sqrt()),
    }
}

fn embeddings(hidden_size: usize, vocab_size: usize) -> Tensor {
    Tensor {
        values: Values::Spread(0.5),
        ..matrix(
            "token_embd.weight",
            hidden_size,
            vocab_size,
            Precision::Usual,
        )
    }
}

fn norm(name: String, hidden_size: usize) -> Tensor {
    Tensor {
        name,
        dims: vec![hidden_size],
        kind: Kind::F32,
        values: Values::One,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(size: Size) -> usize {
        let tensors = size.shape().tensors();
        tensors
            .iter()
            .map(|tensor| tensor.n_blocks() * tensor.kind.block_bytes())
            .sum()
    }

    /// The published files, less what their header takes.
    #[test]
    fn sizes_are_those_of_the_published_files() {
        for (size, published) in [
            (Size::B0_5, 491_400_064.0),
            (Size::B1_5, 1_117_320_768.0),
            (Size::B7, 4_683_073_632.0),
        ] {
            let share = bytes(size) as f64 / published;
            assert!((0.98..1.0).contains(&share), "{size:?}: {share}");
        }
    }

    #[test]
    fn rows_of_896_fall_back() {
        let tensors = Size::B0_5.shape().tensors();
        let kind = |name: &str| {
            let tensor = tensors.iter().find(|tensor| tensor.name == name);
            tensor.unwrap().kind
        };
        assert_eq!(kind("output.weight"), Kind::Q8_0);
        assert_eq!(kind("blk.0.ffn_up.weight"), Kind::Q5_0);
        assert_eq!(kind("blk.0.ffn_down.weight"), Kind::Q6K);
        assert_eq!(kind("blk.12.ffn_down.weight"), Kind::Q4K);
        assert_eq!(kind("blk.12.attn_v.weight"), Kind::Q5_0);
        assert_eq!(kind("blk.11.attn_v.weight"), Kind::Q8_0);
    }
}
