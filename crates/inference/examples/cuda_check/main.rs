//! Checks and measures an NVIDIA card with random weights, without any file.
//!
//! Usage: `cuda_check [CARD]`, CARD being its number from 0. Built and run by
//! `make test-cuda`. Prints the card, the error of each layer against f32,
//! whether company changes a result, the times of products, and for the 0.5B
//! and the 7B shape the latency and rate of verdicts beside the card's floor.
//! Leaves with 1 if a bar is missed.

#![expect(clippy::print_stdout, reason = "a report for people")]

mod shapes;
mod verdicts;

use anyhow::{Context, Result, ensure};
use inwarden_inference::{
    Accelerator, DeviceOptions, DeviceQwen2, ModelConfig, gpus, layer_errors, product_times,
};

use shapes::{shape_05b, shape_7b};
use verdicts::{check_company, measure};

/// The most that packed weights and bf16 keys may change a layer's output.
const LAYER_LIMIT: f64 = 0.10;

fn main() -> Result<()> {
    let ordinal: usize = std::env::args().nth(1).map_or(Ok(0), |arg| arg.parse())?;
    let gpu = gpus()?.into_iter().nth(ordinal).context("no such card")?;
    println!("card {ordinal}: {gpu}");
    let accelerator = Accelerator::cuda(ordinal)?;
    println!("compute capability and known products of 8 formats: right");

    println!("\nQ4_K product of (18944, 3584), microseconds: rows, packed, unpacked");
    for time in product_times([18944, 3584], &accelerator)? {
        let (packed, unpacked) = (time.packed.as_micros(), time.unpacked.as_micros());
        println!("  {:4} {packed:8} {unpacked:8}", time.n_rows);
    }
    let mut missed = Vec::new();
    for (name, config) in [("0.5B", shape_05b()), ("7B", shape_7b())] {
        println!("\n{name} shape, random weights");
        check_errors(name, &config, &accelerator, &mut missed)?;
        let model = DeviceQwen2::random(&config, &accelerator, &DeviceOptions::default())?;
        check_company(name, &model, &mut missed)?;
        measure(name, &model, &accelerator, &mut missed)?;
    }
    ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

fn check_errors(
    name: &str,
    config: &ModelConfig,
    accelerator: &Accelerator,
    missed: &mut Vec<String>,
) -> Result<()> {
    let errors = layer_errors(config, accelerator)?;
    println!("relative error against f32 after each layer:");
    for (layer_idx, error) in errors.layers.iter().enumerate() {
        println!("  {layer_idx:2} {error:.5}");
    }
    println!("  logits {:.5}", errors.logits);
    let all = errors.layers.iter().chain([&errors.logits]);
    let largest = all
        .copied()
        .fold(0.0, |a: f64, b| if b > a || b.is_nan() { b } else { a });
    println!("largest {largest:.5}, accepted {LAYER_LIMIT}");
    // Also missed by what is no number.
    if largest.is_nan() || largest > LAYER_LIMIT {
        missed.push(format!("{name} layers"));
    }
    Ok(())
}
