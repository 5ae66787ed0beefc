//! What a device is measured and checked by, for whoever has one.
//!
//! Called by `examples/cuda_check.rs`; the numbers it prints are compared with
//! nothing here.

use std::time::{Duration, Instant};

use candle_core::{DType, Tensor};

use super::{
    accelerator::Accelerator,
    buckets::MAX_ROWS,
    check::relative_error,
    forward::{Pass, RotaryTables, Tables},
    kv::KvLayer,
    layers::Loader,
    matrix::{DeviceForm, Matrix, ProductChoice},
    random::{self, RandomWeights},
    slab::{NewRows, Places, Shape, Slab, index},
};
use crate::{config::ModelConfig, error::InferenceError, quant::BlockType, tokenizer::TokenId};

/// How far packed weights are from the same weights in f32, on the same device.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerErrors {
    /// After each layer, errors of all layers before it included: root mean
    /// square of the difference over that of the f32 values.
    pub layers: Vec<f64>,
    /// Of the logits, likewise.
    pub logits: f64,
}

/// Runs 128 rows of a model with random weights through packed layers and, side
/// by side, through the same layers expanded to f32 on the processor.
///
/// Holds one layer of each at a time. Keys and values are bf16 beside the packed
/// layers, f32 beside the others.
///
/// # Errors
/// [`InferenceError::Tensor`] if the device's memory does not suffice.
pub fn layer_errors(
    config: &ModelConfig,
    accelerator: &Accelerator,
) -> Result<LayerErrors, InferenceError> {
    const N_ROWS: usize = 128;
    let device = accelerator.device();
    let weights = RandomWeights { seed: 1 };
    let loader = |form| Loader {
        weights: &weights,
        config,
        device,
        form,
        choice: ProductChoice::default(),
    };
    let (packed, exact) = (loader(DeviceForm::AsInFile), loader(DeviceForm::F32));
    let vocab_size = u32::try_from(config.vocab_size).unwrap_or(u32::MAX);
    let tokens: Vec<TokenId> = (0..index(N_ROWS))
        .map(|idx| TokenId(idx * 97 % vocab_size))
        .collect();
    let rows = NewRows::run(&tokens, 0, Vec::new());
    let places = Places {
        prefix: &[],
        first_own: 0,
        zeros: index(N_ROWS),
    };
    let slab = Slab::new(Shape::of(&rows, 0, N_ROWS), &[&rows], places);
    let rotary = RotaryTables::new(config, N_ROWS, device)?;
    let tables = Tables::new(slab, &rotary, device)?;
    let pass = Pass {
        config,
        tables: &tables,
    };
    let kv = |dtype| KvLayer::new(config, N_ROWS + 1, dtype, device);
    let (packed_kv, exact_kv) = (kv(DType::BF16)?, kv(DType::F32)?);

    let ends = packed.ends()?;
    let mut hidden = ends.embeddings.rows(&tables.tokens)?;
    let mut exact_hidden = hidden.clone();
    let mut layers = Vec::new();
    for layer_idx in 0..config.num_hidden_layers {
        hidden = pass.layer(&packed.layer(layer_idx)?, &packed_kv, &hidden)?;
        exact_hidden = pass.layer(&exact.layer(layer_idx)?, &exact_kv, &exact_hidden)?;
        layers.push(difference(&hidden, &exact_hidden)?);
    }
    // Few rows: the exact head of the largest shape takes over 2 GB by itself.
    let last = |hidden: &Tensor| {
        let rows = hidden.narrow(0, N_ROWS - 8, 8)?;
        pass.normalised(&rows.contiguous()?, &ends.final_norm)
    };
    let logits = ends.head.product(&last(&hidden)?)?;
    let exact_head = exact.ends()?.head;
    let exact_logits = exact_head.product(&last(&exact_hidden)?)?;
    Ok(LayerErrors {
        layers,
        logits: difference(&logits, &exact_logits)?,
    })
}

fn difference(actual: &Tensor, expected: &Tensor) -> Result<f64, InferenceError> {
    let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    Ok(relative_error(&values(actual)?, &values(expected)?))
}

/// What one product takes either way; see [`ProductChoice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProductTime {
    /// Rows of activations.
    pub n_rows: usize,
    /// With the quantised kernels.
    pub packed: Duration,
    /// With weights unpacked to bf16 for this product.
    pub unpacked: Duration,
}

/// Times both ways to multiply a Q4_K matrix of `shape`, `(n_out, n_in)`, for
/// each number of rows that passes have: the median of 15 runs each, launched
/// and waited for.
///
/// # Errors
/// [`InferenceError::Tensor`] if the device's memory does not suffice.
pub fn product_times(
    shape: [usize; 2],
    accelerator: &Accelerator,
) -> Result<Vec<ProductTime>, InferenceError> {
    const N_RUNS: usize = 15;
    let device = accelerator.device();
    let packed = random::matrix(BlockType::Q4K, shape, 1);
    let matrix = |unpack_from_rows| {
        let choice = ProductChoice { unpack_from_rows };
        Matrix::new(&packed, device, DeviceForm::AsInFile, choice)
    };
    let (quantised, unpacking) = (matrix(None)?, matrix(Some(1))?);
    let time = |matrix: &Matrix, x: &Tensor| {
        let mut times = Vec::new();
        for _ in 0..=N_RUNS {
            device.synchronize()?;
            let start = Instant::now();
            matrix.product(x)?;
            device.synchronize()?;
            times.push(start.elapsed());
        }
        // The first run loads kernels.
        times.remove(0);
        times.sort();
        Ok::<_, InferenceError>(times[N_RUNS / 2])
    };
    let sizes = [1, 8, 16, 32, 64, 128, 256, MAX_ROWS];
    let times = sizes.into_iter().map(|n_rows| {
        let x = random::normal(n_rows * shape[1], 1);
        let x = Tensor::from_vec(x, (n_rows, shape[1]), device)?;
        Ok(ProductTime {
            n_rows,
            packed: time(&quantised, &x)?,
            unpacked: time(&unpacking, &x)?,
        })
    });
    times.collect()
}
