//! Sentence embeddings by MiniLM: a small BERT, mean pooled, of length one.
//!
//! Source: Devlin et al. 2018, arXiv:1810.04805; model card of
//! `sentence-transformers/all-MiniLM-L6-v2`.

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::Deserialize;
use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

use crate::{
    error::{Fault, InferenceError},
    linear::F32Panels,
    math::{layer_norm, softmax},
    model_file::read_whole,
    rows::Rows,
    safetensors::Safetensors,
    tensor_source::TensorSource,
};

/// Tokens of a text that count; the model was trained with so many.
const MAX_TOKENS: usize = 256;
/// Far above the real files.
const MAX_CONFIG_BYTES: u64 = 1 << 16;
/// Twice the real file: the library that reads it can take a hundred times its size.
const MAX_TOKENIZER_BYTES: u64 = 1 << 20;
const MAX_SIZE: usize = 1 << 16;

/// A loaded MiniLM model, with threads of its own.
///
/// The threads that a process shares for such work are absent in a forked
/// child, where waiting for them would never end; a model that is loaded in the
/// child has its own.
pub struct Embedder {
    config: BertConfig,
    tokenizer: Tokenizer,
    /// `(vocab_size, hidden_size)`, the embedding of token type 0 added.
    words: Rows,
    /// `(max_position_embeddings, hidden_size)`.
    positions: Rows,
    norm: Norm,
    layers: Vec<Layer>,
    workers: rayon::ThreadPool,
    /// The process that has the workers.
    process: u32,
}

/// The fields of `config.json` that shape the computation.
#[derive(Clone, Debug, Deserialize)]
struct BertConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    hidden_act: String,
}

struct Layer {
    query: Dense,
    key: Dense,
    value: Dense,
    output: Dense,
    attention_norm: Norm,
    intermediate: Dense,
    down: Dense,
    norm: Norm,
}

struct Dense {
    weights: F32Panels,
    bias: Vec<f32>,
}

struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl Embedder {
    /// Loads `model.safetensors`, `tokenizer.json` and `config.json` from `dir`.
    ///
    /// The weights are read, never mapped: a file that shrinks meanwhile is an error.
    ///
    /// # Errors
    /// [`InferenceError::Io`], [`InferenceError::Corrupt`],
    /// [`InferenceError::Threads`].
    pub fn load(dir: &Path) -> Result<Self, InferenceError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|thread_idx| format!("embedder-{thread_idx}"))
            .build()
            .map_err(|error| InferenceError::Threads {
                threads,
                detail: error.to_string(),
            })?;
        let config = BertConfig::load(&dir.join("config.json"))?;
        let tokenizer = load_tokenizer(&dir.join("tokenizer.json"))?;
        let file = Safetensors::open(&dir.join("model.safetensors"))?;
        let hidden = config.hidden_size;
        let table = |name: &str, n_rows| {
            let name = format!("embeddings.{name}.weight");
            file.tensor(&name, &[n_rows, hidden])?.to_f32()
        };
        let types = table("token_type_embeddings", config.type_vocab_size)?;
        let words = table("word_embeddings", config.vocab_size)?;
        let mut words = Rows::new(words, hidden);
        words.add_bias(&types[..hidden]);
        let positions = table("position_embeddings", config.max_position_embeddings)?;
        let loader = Loader {
            file: &file,
            config: &config,
        };
        let layers = workers.install(|| {
            let layers = (0..config.num_hidden_layers).map(|layer_idx| loader.layer(layer_idx));
            layers.collect::<Result<_, _>>()
        })?;
        Ok(Self {
            norm: loader.norm("embeddings.LayerNorm")?,
            words,
            positions: Rows::new(positions, hidden),
            layers,
            tokenizer,
            config,
            workers,
            process: std::process::id(),
        })
    }

    /// Embeds each text: `(dimension,)`, f32, Euclidean length 1.
    ///
    /// A text's embedding does not depend on the others. Of long texts the
    /// first 256 tokens in the first 64 KiB count.
    ///
    /// # Errors
    /// [`InferenceError::NotFinite`], [`InferenceError::UnknownToken`] if the
    /// tokenizer is one for another model, [`InferenceError::ForkedProcess`],
    /// [`InferenceError::Tokenizer`] and [`InferenceError::Tensor`], both bugs.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, InferenceError> {
        let (started, process) = (self.process, std::process::id());
        if process != started {
            return Err(InferenceError::ForkedProcess { started, process });
        }
        let embed = || texts.iter().map(|text| self.embed_one(text)).collect();
        self.workers.install(embed)
    }

    /// Length of an embedding.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.config.hidden_size
    }

    fn embed_one(&self, text: &str) -> Result<Vec<f32>, InferenceError> {
        let encoding = self
            .tokenizer
            .encode_fast(head_of(text), true)
            .map_err(|error| InferenceError::Tokenizer(error.to_string()))?;
        if encoding.is_empty() {
            let what = "no tokens, although it adds some to every text";
            return Err(InferenceError::Tokenizer(what.into()));
        }
        let mut hidden = self.embeddings(encoding.get_ids())?;
        for layer in &self.layers {
            let mixed = self.attend(layer, &hidden)?;
            hidden.add(&layer.output.forward(&mixed)?);
            layer.attention_norm.apply(&mut hidden);
            let inner = gelu(layer.intermediate.forward(&hidden)?)?;
            hidden.add(&layer.down.forward(&inner)?);
            layer.norm.apply(&mut hidden);
        }
        Ok(pooled(&hidden.finite("hidden states")?))
    }

    /// `(n_tokens, hidden_size)`.
    fn embeddings(&self, ids: &[u32]) -> Result<Rows, InferenceError> {
        let mut hidden = Vec::with_capacity(ids.len() * self.config.hidden_size);
        for (position, &id) in ids.iter().take(self.positions.n_rows()).enumerate() {
            let word_idx = id as usize;
            if word_idx >= self.words.n_rows() {
                let vocab_size = self.words.n_rows();
                return Err(InferenceError::UnknownToken { id, vocab_size });
            }
            let word = self.words.row(word_idx);
            let sum = word.iter().zip(self.positions.row(position));
            hidden.extend(sum.map(|(word, position)| word + position));
        }
        let mut hidden = Rows::new(hidden, self.config.hidden_size);
        self.norm.apply(&mut hidden);
        Ok(hidden)
    }

    /// Self-attention over all tokens before its output projection.
    fn attend(&self, layer: &Layer, hidden: &Rows) -> Result<Rows, InferenceError> {
        let n_tokens = hidden.n_rows();
        let n_heads = self.config.num_attention_heads;
        let head_dim = self.config.hidden_size / n_heads;
        let by_head = |dense: &Dense| -> Result<Tensor, InferenceError> {
            let rows = dense.forward(hidden)?.into_values();
            let rows = Tensor::from_vec(rows, (n_tokens, n_heads, head_dim), &Device::Cpu)?;
            Ok(rows.transpose(0, 1)?.contiguous()?)
        };
        let (queries, keys) = (by_head(&layer.query)?, by_head(&layer.key)?);
        let values = by_head(&layer.value)?;
        let queries = (queries * (1.0 / (head_dim as f64).sqrt()))?;
        let scores = queries.matmul(&keys.transpose(1, 2)?)?;
        let mut scores = scores.flatten_all()?.to_vec1::<f32>()?;
        scores.chunks_exact_mut(n_tokens).for_each(softmax);
        let weights = Tensor::from_vec(scores, (n_heads, n_tokens, n_tokens), &Device::Cpu)?;
        let mixed = weights.matmul(&values)?.transpose(0, 1)?.flatten_all()?;
        Ok(Rows::new(mixed.to_vec1()?, self.config.hidden_size))
    }
}

/// The start of `text` that is read at all: bounds the work on a long one.
///
/// Of usual texts it holds all tokens that count. It does not where words are
/// very long, since one of over 100 characters is a single unknown token.
fn head_of(text: &str) -> &str {
    const ENOUGH_BYTES: usize = 64 * 1024;
    &text[..text.floor_char_boundary(ENOUGH_BYTES)]
}

/// The mean over all tokens, scaled to length 1.
fn pooled(hidden: &Rows) -> Vec<f32> {
    let mut mean = vec![0.0; hidden.width()];
    for row in hidden.iter() {
        for (mean, value) in mean.iter_mut().zip(row) {
            *mean += value;
        }
    }
    let length = mean.iter().map(|value| value * value).sum::<f32>().sqrt();
    for value in &mut mean {
        *value /= length.max(f32::MIN_POSITIVE);
    }
    mean
}

/// The exact form with the error function, as the checkpoint was trained.
fn gelu(x: Rows) -> Result<Rows, InferenceError> {
    let width = x.width();
    let n_values = x.values().len();
    let x = Tensor::from_vec(x.into_values(), n_values, &Device::Cpu)?;
    Ok(Rows::new(x.gelu_erf()?.to_vec1()?, width))
}

impl Dense {
    fn forward(&self, x: &Rows) -> Result<Rows, InferenceError> {
        let mut y = self.weights.forward(x)?;
        y.add_bias(&self.bias);
        Ok(y)
    }
}

impl Norm {
    fn apply(&self, rows: &mut Rows) {
        for row in rows.iter_mut() {
            layer_norm(row, &self.weight, &self.bias, self.eps);
        }
    }
}

impl BertConfig {
    fn load(path: &Path) -> Result<Self, InferenceError> {
        let bytes = read_whole(path, MAX_CONFIG_BYTES)?;
        let config: Self = serde_json::from_slice(&bytes).map_err(|error| {
            Fault::unexpected("config", "a BERT configuration", error).in_file(path)
        })?;
        config.check().map_err(|fault| fault.in_file(path))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Fault> {
        for (name, size) in [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ] {
            if !(1..=MAX_SIZE).contains(&size) {
                return Err(Fault::unexpected(name, format!("1..={MAX_SIZE}"), size));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of {}", self.hidden_size);
            let found = self.num_attention_heads;
            return Err(Fault::unexpected("num_attention_heads", expected, found));
        }
        if self.hidden_act != "gelu" {
            return Err(Fault::unexpected("hidden_act", "gelu", &self.hidden_act));
        }
        if self.max_position_embeddings < MAX_TOKENS {
            let expected = format!("at least {MAX_TOKENS}");
            let found = self.max_position_embeddings;
            return Err(Fault::unexpected(
                "max_position_embeddings",
                expected,
                found,
            ));
        }
        Ok(())
    }
}

fn load_tokenizer(path: &Path) -> Result<Tokenizer, InferenceError> {
    let bytes = read_whole(path, MAX_TOKENIZER_BYTES)?;
    let unusable = |error: tokenizers::Error| {
        Fault::unexpected("tokenizer", "a usable tokenizer.json", error).in_file(path)
    };
    let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(unusable)?;
    // Without added tokens an empty text would have none; with as many as count
    // no text would be left, and the library would subtract below 0.
    let post_processor = tokenizer.get_post_processor();
    let n_added = post_processor.map_or(0, |processor| processor.added_tokens(false));
    if !(1..MAX_TOKENS).contains(&n_added) {
        let expected = format!("1 to {} added tokens", MAX_TOKENS - 1);
        return Err(Fault::unexpected("post_processor", expected, n_added).in_file(path));
    }
    let truncation = TruncationParams {
        max_length: MAX_TOKENS,
        ..TruncationParams::default()
    };
    tokenizer
        .with_truncation(Some(truncation))
        .map_err(unusable)?
        .with_padding(None);
    Ok(tokenizer)
}

struct Loader<'a> {
    file: &'a Safetensors,
    config: &'a BertConfig,
}

impl Loader<'_> {
    fn layer(&self, layer_idx: usize) -> Result<Layer, InferenceError> {
        let name = |part: &str| format!("encoder.layer.{layer_idx}.{part}");
        let hidden = self.config.hidden_size;
        let intermediate = self.config.intermediate_size;
        Ok(Layer {
            query: self.dense(&name("attention.self.query"), hidden, hidden)?,
            key: self.dense(&name("attention.self.key"), hidden, hidden)?,
            value: self.dense(&name("attention.self.value"), hidden, hidden)?,
            output: self.dense(&name("attention.output.dense"), hidden, hidden)?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"))?,
            intermediate: self.dense(&name("intermediate.dense"), intermediate, hidden)?,
            down: self.dense(&name("output.dense"), hidden, intermediate)?,
            norm: self.norm(&name("output.LayerNorm"))?,
        })
    }

    fn dense(&self, name: &str, n_out: usize, n_in: usize) -> Result<Dense, InferenceError> {
        let weights = self
            .file
            .tensor(&format!("{name}.weight"), &[n_out, n_in])?
            .to_f32()?;
        Ok(Dense {
            weights: F32Panels::new(&weights, n_in)?,
            bias: self.file.vector(&format!("{name}.bias"), n_out)?,
        })
    }

    fn norm(&self, name: &str) -> Result<Norm, InferenceError> {
        let len = self.config.hidden_size;
        Ok(Norm {
            weight: self.file.vector(&format!("{name}.weight"), len)?,
            bias: self.file.vector(&format!("{name}.bias"), len)?,
            eps: self.config.layer_norm_eps,
        })
    }
}
