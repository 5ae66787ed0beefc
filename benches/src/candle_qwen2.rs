//! candle's quantized Qwen2, with the cache apart from the weights.
//!
//! Operation for operation what `candle_transformers::models::quantized_qwen2`
//! does at 0.11.1, and a test holds it to that bitwise. There the cache is a
//! part of the model that can be neither copied nor cut: each event would have
//! to read the whole prefix again. With the cache as a value of its own a
//! prefix is shared, which is the strongest setup this peer can be given.

use std::{fs::File, io::BufReader, path::Path, sync::Arc};

use anyhow::Context;
use candle_core::{
    D, DType, Device, IndexOp, Module, Tensor,
    quantized::{QMatMul, QTensor, gguf_file::Content},
};
use candle_nn::Embedding;
use candle_transformers::{
    quantized_nn::RmsNorm,
    utils::{build_causal_mask, repeat_kv},
};
use inwarden_inference::TokenId;

/// How candle multiplies by a quantized matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Products {
    /// Its default: activations rounded to 8 bits.
    AsInFile,
    /// Everything dequantized to f32 first.
    Exact,
}

/// Keys and values of each layer; a clone shares them.
#[derive(Clone, Default)]
pub(crate) struct Cache {
    layers: Vec<(Tensor, Tensor)>,
    len: usize,
}

pub(crate) struct CandleQwen2 {
    embeddings: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    output: QMatMul,
    cos: Tensor,
    sin: Tensor,
    neg_inf: Tensor,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

struct Layer {
    attn_norm: RmsNorm,
    /// Queries, keys and values: weights and bias.
    qkv: [(QMatMul, Tensor); 3],
    attn_output: QMatMul,
    ffn_norm: RmsNorm,
    gate: QMatMul,
    up: QMatMul,
    down: QMatMul,
}

impl CandleQwen2 {
    pub(crate) fn load(file: &Path, products: Products) -> anyhow::Result<Self> {
        let reader = File::open(file).with_context(|| file.display().to_string())?;
        let mut reader = BufReader::new(reader);
        let content = Content::read(&mut reader)?;
        let mut source = Source {
            content,
            reader,
            products,
        };
        let n_layers = source.size("qwen2.block_count")?;
        let n_heads = source.size("qwen2.attention.head_count")?;
        let n_kv_heads = source.size("qwen2.attention.head_count_kv")?;
        let hidden_size = source.size("qwen2.embedding_length")?;
        let head_dim = hidden_size / n_heads;
        let eps = f64::from(source.number("qwen2.attention.layer_norm_rms_epsilon")?);
        let theta = source.number("qwen2.rope.freq_base")?;
        let context_length = source.size("qwen2.context_length")?;
        let (cos, sin) = rotations(head_dim, theta, context_length)?;
        let embeddings = source.tensor("token_embd.weight")?;
        let output = match source.content.tensor_infos.contains_key("output.weight") {
            true => source.matrix("output.weight")?,
            false => source.matrix("token_embd.weight")?,
        };
        let layers = (0..n_layers).map(|layer_idx| source.layer(layer_idx, eps));
        Ok(Self {
            embeddings: Embedding::new(embeddings.dequantize(&Device::Cpu)?, hidden_size),
            layers: layers.collect::<anyhow::Result<_>>()?,
            norm: source.norm("output_norm.weight", eps)?,
            output,
            cos,
            sin,
            neg_inf: Tensor::new(f32::NEG_INFINITY, &Device::Cpu)?,
            n_heads,
            n_kv_heads,
            head_dim,
        })
    }

    /// Logits after the last of `tokens`: `(vocab_size,)`.
    pub(crate) fn last_logits(
        &self,
        cache: &mut Cache,
        tokens: &[TokenId],
    ) -> anyhow::Result<Vec<f32>> {
        let hidden = self.hidden(cache, tokens)?;
        let last = hidden.i((.., tokens.len() - 1, ..))?;
        Ok(self.output.forward(&last)?.squeeze(0)?.to_vec1()?)
    }

    /// Natural logarithm of the probability of each of `labels` after `text`, all
    /// its tokens together. The text is read once for all of them.
    pub(crate) fn log_probabilities(
        &self,
        prefix: &Cache,
        text: &[TokenId],
        labels: &[Vec<TokenId>],
    ) -> anyhow::Result<Vec<f64>> {
        let mut after_text = prefix.clone();
        let hidden = self.hidden(&mut after_text, text)?;
        let last = hidden.narrow(1, text.len() - 1, 1)?;
        let mut sums = Vec::with_capacity(labels.len());
        for label in labels {
            let (last_token, before) = label.split_last().context("a label without tokens")?;
            let mut sum = self.log_probability(&last, &label[..1])?;
            if !before.is_empty() {
                let hidden = self.hidden(&mut after_text.clone(), before)?;
                sum += self.log_probability(&hidden, &[&before[1..], &[*last_token]].concat())?;
            }
            sums.push(sum);
        }
        Ok(sums)
    }

    /// The sum over `tokens`, each after its row of `hidden`.
    fn log_probability(&self, hidden: &Tensor, tokens: &[TokenId]) -> anyhow::Result<f64> {
        let logits = self.output.forward(hidden)?.squeeze(0)?;
        let logits = logits.to_dtype(DType::F64)?;
        let normalisers: Vec<f64> = logits.log_sum_exp(D::Minus1)?.to_vec1()?;
        let mut sum = 0.0;
        for (row, (token, normaliser)) in tokens.iter().zip(normalisers).enumerate() {
            sum += logits.i((row, token.0 as usize))?.to_scalar::<f64>()? - normaliser;
        }
        Ok(sum)
    }

    /// Hidden states after the final norm: `(1, n_tokens, hidden_size)`.
    fn hidden(&self, cache: &mut Cache, tokens: &[TokenId]) -> anyhow::Result<Tensor> {
        let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
        let input = Tensor::new(&ids[..], &Device::Cpu)?.unsqueeze(0)?;
        let mask = match tokens.len() {
            1 => None,
            n_tokens => Some(build_causal_mask(n_tokens, cache.len, &Device::Cpu)?),
        };
        let mut x = self.embeddings.forward(&input)?;
        for (layer_idx, layer) in self.layers.iter().enumerate() {
            let attended = layer.attn_norm.forward(&x)?;
            let attended = self.attend(layer, layer_idx, &attended, mask.as_ref(), cache)?;
            let residual = (attended + &x)?;
            let normed = layer.ffn_norm.forward(&residual)?;
            let gate = layer.gate.forward(&normed)?;
            let up = layer.up.forward(&normed)?;
            let ffn = layer.down.forward(&(candle_nn::ops::silu(&gate)? * up)?)?;
            x = (ffn + residual)?;
        }
        cache.len += tokens.len();
        Ok(self.norm.forward(&x)?)
    }

    fn attend(
        &self,
        layer: &Layer,
        layer_idx: usize,
        x: &Tensor,
        mask: Option<&Tensor>,
        cache: &mut Cache,
    ) -> anyhow::Result<Tensor> {
        let (_, n_tokens, hidden_size) = x.dims3()?;
        let heads = |idx: usize, n_heads: usize| -> candle_core::Result<Tensor> {
            let (weight, bias) = &layer.qkv[idx];
            weight
                .forward(x)?
                .broadcast_add(bias)?
                .reshape((1, n_tokens, n_heads, self.head_dim))?
                .transpose(1, 2)?
                .contiguous()
        };
        let cos = self.cos.narrow(0, cache.len, n_tokens)?;
        let sin = self.sin.narrow(0, cache.len, n_tokens)?;
        let q = candle_nn::rotary_emb::rope(&heads(0, self.n_heads)?, &cos, &sin)?;
        let mut k = candle_nn::rotary_emb::rope(&heads(1, self.n_kv_heads)?, &cos, &sin)?;
        let mut v = heads(2, self.n_kv_heads)?;
        match cache.layers.get_mut(layer_idx) {
            Some(cached) => {
                k = Tensor::cat(&[&cached.0, &k], 2)?;
                v = Tensor::cat(&[&cached.1, &v], 2)?;
                *cached = (k.clone(), v.clone());
            }
            None => cache.layers.push((k.clone(), v.clone())),
        }
        let k = repeat_kv(k, self.n_heads / self.n_kv_heads)?;
        let v = repeat_kv(v, self.n_heads / self.n_kv_heads)?;
        let mut scores = (q.matmul(&k.t()?)? / (self.head_dim as f64).sqrt())?;
        if let Some(mask) = mask {
            let hidden = self.neg_inf.broadcast_as(scores.shape().dims())?;
            scores = mask
                .broadcast_as(scores.shape())?
                .where_cond(&hidden, &scores)?;
        }
        let weights = candle_nn::ops::softmax_last_dim(&scores)?;
        let mixed = weights.matmul(&v.contiguous()?)?;
        let mixed = mixed.transpose(1, 2)?.reshape((1, n_tokens, hidden_size))?;
        Ok(layer.attn_output.forward(&mixed)?)
    }
}

/// A file that is being read.
struct Source {
    content: Content,
    reader: BufReader<File>,
    products: Products,
}

impl Source {
    fn size(&self, key: &str) -> anyhow::Result<usize> {
        let value = self.content.metadata.get(key);
        Ok(value.with_context(|| key.to_owned())?.to_u32()? as usize)
    }

    fn number(&self, key: &str) -> anyhow::Result<f32> {
        let value = self.content.metadata.get(key);
        Ok(value.with_context(|| key.to_owned())?.to_f32()?)
    }

    fn tensor(&mut self, name: &str) -> anyhow::Result<QTensor> {
        Ok(self.content.tensor(&mut self.reader, name, &Device::Cpu)?)
    }

    fn matrix(&mut self, name: &str) -> anyhow::Result<QMatMul> {
        let tensor = self.tensor(name)?;
        Ok(match self.products {
            Products::AsInFile => QMatMul::from_arc(Arc::new(tensor))?,
            Products::Exact => QMatMul::Tensor(tensor.dequantize(&Device::Cpu)?),
        })
    }

    fn norm(&mut self, name: &str, eps: f64) -> anyhow::Result<RmsNorm> {
        Ok(RmsNorm::from_qtensor(self.tensor(name)?, eps)?)
    }

    fn layer(&mut self, layer_idx: usize, eps: f64) -> anyhow::Result<Layer> {
        let name = |part: &str| format!("blk.{layer_idx}.{part}");
        let mut biased = |part: &str| -> anyhow::Result<(QMatMul, Tensor)> {
            let bias = self.tensor(&name(&format!("{part}.bias")))?;
            let weight = self.matrix(&name(&format!("{part}.weight")))?;
            Ok((weight, bias.dequantize(&Device::Cpu)?))
        };
        let qkv = [biased("attn_q")?, biased("attn_k")?, biased("attn_v")?];
        Ok(Layer {
            qkv,
            attn_norm: self.norm(&name("attn_norm.weight"), eps)?,
            attn_output: self.matrix(&name("attn_output.weight"))?,
            ffn_norm: self.norm(&name("ffn_norm.weight"), eps)?,
            gate: self.matrix(&name("ffn_gate.weight"))?,
            up: self.matrix(&name("ffn_up.weight"))?,
            down: self.matrix(&name("ffn_down.weight"))?,
        })
    }
}

/// Cosine and sine: `(context_length, head_dim / 2)` each.
fn rotations(
    head_dim: usize,
    theta: f32,
    context_length: usize,
) -> candle_core::Result<(Tensor, Tensor)> {
    let inverse: Vec<f32> = (0..head_dim)
        .step_by(2)
        .map(|dim| 1f32 / theta.powf(dim as f32 / head_dim as f32))
        .collect();
    let inverse = Tensor::new(&inverse[..], &Device::Cpu)?.reshape((1, head_dim / 2))?;
    let positions = Tensor::arange(
        0,
        u32::try_from(context_length).unwrap_or(u32::MAX),
        &Device::Cpu,
    )?
    .to_dtype(DType::F32)?
    .reshape((context_length, 1))?;
    let angles = positions.matmul(&inverse)?;
    Ok((angles.cos()?, angles.sin()?))
}

#[cfg(test)]
mod tests {
    use candle_transformers::models::quantized_qwen2::ModelWeights;

    use super::*;
    use crate::random_model;

    /// The prefix is run once here and read again there.
    #[test]
    fn it_computes_what_the_original_computes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.gguf");
        random_model::write_small(&file).unwrap();
        let tokens: Vec<TokenId> = (0..40).map(|idx| TokenId(idx * 7 % 300)).collect();

        let mut reader = File::open(&file).unwrap();
        let content = Content::read(&mut reader).unwrap();
        let mut original = ModelWeights::from_gguf(content, &mut reader, &Device::Cpu).unwrap();
        let mut run = |tokens: &[TokenId], position| {
            let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
            let input = Tensor::new(&ids[..], &Device::Cpu).unwrap();
            let logits = original.forward(&input.unsqueeze(0).unwrap(), position);
            logits
                .unwrap()
                .squeeze(0)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        run(&tokens[..30], 0);
        let expected = run(&tokens[30..], 30);

        let model = CandleQwen2::load(&file, Products::AsInFile).unwrap();
        let mut prefix = Cache::default();
        model.last_logits(&mut prefix, &tokens[..30]).unwrap();
        for _ in 0..2 {
            let logits = model.last_logits(&mut prefix.clone(), &tokens[30..]);
            assert_eq!(logits.unwrap(), expected);
        }
    }

    #[test]
    fn a_labels_probability_is_the_product_over_its_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.gguf");
        random_model::write_small(&file).unwrap();
        let model = CandleQwen2::load(&file, Products::Exact).unwrap();
        let ids = |ids: &[u32]| ids.iter().copied().map(TokenId).collect::<Vec<_>>();
        let of = |text: &[u32], labels: &[&[u32]]| {
            let labels: Vec<_> = labels.iter().map(|label| ids(label)).collect();
            let scores = model.log_probabilities(&Cache::default(), &ids(text), &labels);
            scores.unwrap()
        };
        let together = of(&[1, 2, 3], &[&[4, 5, 6], &[4]]);
        let first = of(&[1, 2, 3], &[&[4]])[0];
        let one_by_one = first + of(&[1, 2, 3, 4], &[&[5]])[0] + of(&[1, 2, 3, 4, 5], &[&[6]])[0];
        assert!(
            (together[0] - one_by_one).abs() < 1e-4,
            "{together:?} {one_by_one}"
        );
        assert!((together[1] - first).abs() < 1e-9);
    }
}
