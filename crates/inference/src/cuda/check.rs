//! Products whose answers are known, computed before a device is trusted.
//!
//! The tensor library's kernels hold machine code for one kind of card and their
//! launches report nothing, so that they answer at all proves nothing.

use candle_core::{Device, Tensor};

use super::{
    error::GpuError,
    matrix::{DeviceForm, Matrix, ProductChoice},
    random,
};
use crate::{error::InferenceError, quant::BlockType};

/// Every format that may lie packed on a device.
const FORMATS: [(BlockType, &str); 8] = [
    (BlockType::Q4_0, "Q4_0"),
    (BlockType::Q4_1, "Q4_1"),
    (BlockType::Q5_0, "Q5_0"),
    (BlockType::Q5_1, "Q5_1"),
    (BlockType::Q8_0, "Q8_0"),
    (BlockType::Q4K, "Q4_K"),
    (BlockType::Q5K, "Q5_K"),
    (BlockType::Q6K, "Q6_K"),
];

/// Not a multiple of the 128 outputs of a tile.
const N_OUT: usize = 176;

/// One row, the most of the vector kernels, the least and the most of the tiled
/// ones.
const ROW_COUNTS: [usize; 4] = [1, 8, 16, 128];

/// Activations become int8 in groups of 32: that makes 0.004 to 0.008.
const PRODUCT_LIMIT: f64 = 0.03;
/// Unpacking rounds only where f16 scales are multiplied.
const ROWS_LIMIT: f64 = 1e-4;

/// Multiplies and unpacks small matrices of every format on `device` and
/// compares with f32 on the processor.
pub(super) fn known_answers(device: &Device) -> Result<(), InferenceError> {
    for (block_type, format) in FORMATS {
        // 896 is the width of the smallest model: no multiple of 256, so that
        // kernels read behind each row.
        let n_in = if block_type.block_len() == 32 {
            896
        } else {
            768
        };
        let packed = random::matrix(block_type, [N_OUT, n_in], 7);
        let weights = packed.to_f32();
        let form = DeviceForm::AsInFile;
        let matrix = Matrix::new(&packed, device, form, ProductChoice::default())?;
        for n_rows in ROW_COUNTS {
            let x = random::normal(n_rows * n_in, n_rows as u64);
            let expected = product(&weights, &x, n_in);
            let on_device = Tensor::from_vec(x, (n_rows, n_in), device)?;
            let actual = matrix.product(&on_device)?;
            let name = format!("a product of {n_rows} rows");
            judge((name, format), &actual, &expected, PRODUCT_LIMIT)?;
        }
        let ids = [3_u32, 0, 175];
        let actual = matrix.rows(&Tensor::new(&ids, device)?)?;
        let expected: Vec<f32> = ids
            .iter()
            .flat_map(|&id| weights[id as usize * n_in..][..n_in].iter().copied())
            .collect();
        judge(
            ("an unpacking".into(), format),
            &actual,
            &expected,
            ROWS_LIMIT,
        )?;
    }
    Ok(())
}

/// `weights`: `(n_out, n_in)`, `x`: `(n_rows, n_in)`; in f32 with sums in f64.
fn product(weights: &[f32], x: &[f32], n_in: usize) -> Vec<f32> {
    let rows = x.chunks_exact(n_in);
    let dot = |x: &[f32], weights: &[f32]| {
        let products = x
            .iter()
            .zip(weights)
            .map(|(x, w)| f64::from(*x) * f64::from(*w));
        #[expect(clippy::cast_possible_truncation, reason = "rounded once, at the end")]
        let sum = products.sum::<f64>() as f32;
        sum
    };
    rows.flat_map(|x| {
        weights
            .chunks_exact(n_in)
            .map(move |weights| dot(x, weights))
    })
    .collect()
}

/// Compares what the device computed with what is known.
fn judge(
    (product, format): (String, &'static str),
    actual: &Tensor,
    expected: &[f32],
    limit: f64,
) -> Result<(), InferenceError> {
    let actual = actual.flatten_all()?.to_vec1::<f32>()?;
    let relative_error = relative_error(&actual, expected);
    // Also refuses what is no number.
    if relative_error <= limit {
        return Ok(());
    }
    Err(GpuError::WrongAnswer {
        product,
        format,
        relative_error,
        limit,
    }
    .into())
}

/// Root mean square of the difference over that of `expected`; of values that
/// are no numbers, or of another number of values, no number.
pub(super) fn relative_error(actual: &[f32], expected: &[f32]) -> f64 {
    if actual.len() != expected.len() {
        return f64::NAN;
    }
    let square = |value: f64| value * value;
    let pairs = actual.iter().zip(expected);
    let error: f64 = pairs
        .map(|(actual, expected)| square(f64::from(*actual) - f64::from(*expected)))
        .sum();
    let size: f64 = expected.iter().map(|value| square(f64::from(*value))).sum();
    (error / size).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_knows_the_answers() {
        known_answers(&Device::Cpu).unwrap();
    }

    #[test]
    fn a_single_wrong_output_and_what_is_no_number_are_refused() {
        let expected = random::normal(1000, 1);
        for wrong in [30.0, f32::NAN] {
            let mut values = expected.clone();
            values[500] = wrong;
            let actual = Tensor::new(&values[..], &Device::Cpu).unwrap();
            let error = judge(("a product".into(), "Q4_K"), &actual, &expected, 0.03);
            let InferenceError::Gpu(GpuError::WrongAnswer { relative_error, .. }) =
                error.unwrap_err()
            else {
                panic!("another error");
            };
            assert!(relative_error > 0.5 || relative_error.is_nan());
        }
        let short = Tensor::new(&expected[..999], &Device::Cpu).unwrap();
        assert!(judge(("a product".into(), "Q4_K"), &short, &expected, 0.03).is_err());
    }
}
