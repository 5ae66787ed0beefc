//! Verdicts: whether company changes them, how long they take, and the floor.

use std::{ops::ControlFlow, sync::Arc, time::Instant};

use anyhow::Result;
use inwarden_inference::{
    Accelerator, DeviceLabelRequest, DeviceLabels, DevicePrefix, DeviceQwen2, GenerateOptions,
    HiddenRequest, LabelScores, Normalization, Pooling, Sampling, TokenId,
};

use crate::shapes::n_weights;

/// The most that company may change a log-probability, in nats, where it is not
/// bitwise without effect.
const COMPANY_LIMIT: f64 = 1e-3;
/// What an L4 is promised at 7B: the median verdict, and verdicts a second.
const L4_BAR: (f64, f64) = (30.0, 50.0);
const N_PREFIX: u32 = 1000;
const N_EVENT: u32 = 64;

/// Name, memory bandwidth in GB/s, 8-bit integer operations in 10^12 a second,
/// both from the vendor's data sheets, dense.
const CARDS: [(&str, f64, f64); 6] = [
    ("L40S", 864.0, 733.0),
    ("L4", 300.0, 242.0),
    ("A100", 1555.0, 624.0),
    ("H100 PCIe", 2000.0, 1513.0),
    ("H100", 3350.0, 1979.0),
    ("H200", 4800.0, 1979.0),
];

fn tokens(seed: u32, len: u32) -> Vec<TokenId> {
    (0..len)
        .map(|idx| TokenId((seed * 7919 + idx * 104_729) % 150_000))
        .collect()
}

/// Four labels of up to two tokens, which compete with each other alone.
fn labels(model: &DeviceQwen2) -> Result<Arc<DeviceLabels>> {
    let ids: [&[u32]; 4] = [&[10], &[20, 30], &[20, 40], &[50]];
    let labels = ids.map(|ids| ids.iter().copied().map(TokenId).collect());
    let normalization = Normalization::LegalTokens { terminator: None };
    Ok(model.prepare_labels(&labels, normalization)?)
}

/// One event alone and among fifteen others.
pub(crate) fn check_company(
    name: &str,
    model: &DeviceQwen2,
    missed: &mut Vec<String>,
) -> Result<()> {
    let prefix = model.prefix(&tokens(1, N_PREFIX))?;
    let events: Vec<_> = (2..18).map(|seed| tokens(seed, N_EVENT)).collect();
    let labels = labels(model)?;
    let hidden = HiddenRequest {
        layers: vec![1, model.config().num_hidden_layers],
        pooling: Pooling::Means(vec![0..1, 0..N_EVENT as usize]),
    };
    let request = |suffix| DeviceLabelRequest {
        prefix: &prefix,
        suffix,
        labels: &labels,
        hidden: Some(&hidden),
    };
    let all: Vec<_> = events
        .iter()
        .map(|event: &Vec<TokenId>| request(event))
        .collect();
    let together = model.score_labels_batch(&all)?;
    let alone = all
        .iter()
        .map(|request| model.score_labels_batch(&[*request]));
    let alone: Vec<LabelScores> = alone.collect::<Result<Vec<_>, _>>()?.concat();
    let pairs = together.iter().zip(&alone).flat_map(|(a, b)| {
        a.log_probabilities
            .iter()
            .zip(&b.log_probabilities)
            .map(|(a, b)| (a - b).abs())
    });
    let largest = pairs.fold(0.0, f64::max);
    let bitwise = if together == alone {
        "bitwise the same"
    } else {
        "not bitwise the same"
    };
    println!("alone and among 15 others: {bitwise}, largest difference {largest:e} nats");
    if largest > COMPANY_LIMIT {
        missed.push(format!("{name} company"));
    }
    Ok(())
}

pub(crate) fn measure(
    name: &str,
    model: &DeviceQwen2,
    accelerator: &Accelerator,
    missed: &mut Vec<String>,
) -> Result<()> {
    let (prefix, labels) = (model.prefix(&tokens(1, N_PREFIX))?, labels(model)?);
    let events: Vec<_> = (2..18).map(|seed| tokens(seed, N_EVENT)).collect();
    let requests: Vec<_> = events
        .iter()
        .map(|suffix| DeviceLabelRequest {
            prefix: &prefix,
            suffix,
            labels: &labels,
            hidden: None,
        })
        .collect();
    let time = |requests: &[DeviceLabelRequest<'_>]| {
        let start = Instant::now();
        model
            .score_labels_batch(requests)
            .map(|_| start.elapsed().as_secs_f64() * 1000.0)
    };
    let mut single = (0..110)
        .map(|_| time(&requests[..1]))
        .collect::<Result<Vec<_>, _>>()?;
    single.drain(..10);
    single.sort_by(f64::total_cmp);
    let mut batch = (0..12)
        .map(|_| time(&requests))
        .collect::<Result<Vec<_>, _>>()?;
    batch.drain(..2);
    batch.sort_by(f64::total_cmp);
    let (p50, p95, rate) = (single[50], single[95], 16_000.0 / batch[5]);
    println!("verdict, {N_EVENT} tokens behind {N_PREFIX}: p50 {p50:.2} ms, p95 {p95:.2} ms");
    println!("16 events waiting: {rate:.1} verdicts/s");
    measure_decode(model, &prefix, &events[0])?;

    let card = accelerator.name();
    let Some(&(_, bandwidth, tera_ops)) = CARDS.iter().find(|(known, ..)| card.contains(known))
    else {
        println!("floor: {card} is not in the table");
        return Ok(());
    };
    let read_ms = model.pass_bytes() as f64 / bandwidth / 1e6;
    let compute_ms = 2.0 * n_weights(model.config()) * f64::from(N_EVENT) / tera_ops / 1e9;
    let floor = read_ms.max(compute_ms);
    println!(
        "floor: {read_ms:.2} ms to read, {compute_ms:.2} ms to compute; p50 is {:.2} times it",
        p50 / floor
    );
    if name == "7B" && card.contains("L4") && !card.contains("L40") {
        let met = p50 <= L4_BAR.0 && rate >= L4_BAR.1;
        println!(
            "bar: {} ms and {} verdicts/s: {}",
            L4_BAR.0,
            L4_BAR.1,
            if met { "met" } else { "missed" }
        );
        if !met {
            missed.push("7B verdicts on an L4".into());
        }
    }
    Ok(())
}

fn measure_decode(model: &DeviceQwen2, prefix: &DevicePrefix, event: &[TokenId]) -> Result<()> {
    let options = GenerateOptions {
        max_new_tokens: 33,
        sampling: Sampling::Greedy,
        stop: Vec::new(),
    };
    let mut times = Vec::new();
    let generated = model.generate(prefix, event, &options, &mut |_| {
        times.push(Instant::now());
        ControlFlow::Continue(())
    })?;
    // The first token comes with the text's own pass.
    let steps = times[times.len() - 1] - times[0];
    let n_steps = generated.len() - 1;
    println!(
        "decode: {:.2} ms a token",
        steps.as_secs_f64() * 1000.0 / n_steps as f64
    );
    Ok(())
}
