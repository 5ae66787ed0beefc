//! Passes over a device, on the tensor library's processor back end: everything
//! but the kernels is the code that a card runs.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside the test functions"
)]

mod decode;
mod states;

use std::{path::PathBuf, sync::Arc};

use inwarden_inference::{
    Accelerator, DeviceForm, DeviceLabelRequest, DeviceLabels, DeviceOptions, DevicePrefix,
    DeviceQwen2, GpuError, HiddenRequest, InferenceError, LabelRequest, LabelScores, LanguageModel,
    LoadOptions, ModelConfig, Normalization, Pooling, Qwen2, TokenId, WeightForm, layer_errors,
};
use serde::Deserialize;

/// Stated in `make.py` of the golden model.
const TOLERANCE: f64 = 2e-3;

#[derive(Deserialize)]
struct Reference {
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    labels: Vec<Vec<u32>>,
    log_probabilities: Vec<f64>,
}

fn golden(name: &str) -> PathBuf {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/golden");
    PathBuf::from(golden).join("qwen2-tiny").join(name)
}

fn reference() -> Reference {
    let text = std::fs::read_to_string(golden("reference.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn tokens(ids: &[u32]) -> Vec<TokenId> {
    ids.iter().copied().map(TokenId).collect()
}

fn options(form: DeviceForm) -> DeviceOptions {
    DeviceOptions {
        form,
        kv_bytes: 1 << 20,
        ..DeviceOptions::default()
    }
}

fn load(options: &DeviceOptions) -> DeviceQwen2 {
    let accelerator = Accelerator::processor().unwrap();
    DeviceQwen2::load(&[golden("model.gguf")], &accelerator, options).unwrap()
}

/// The golden model as the processor's own pass computes it, exactly.
fn processor() -> Qwen2 {
    let options = LoadOptions {
        weight_form: WeightForm::F32,
        ..LoadOptions::default()
    };
    Qwen2::load(&[golden("model.gguf")], &options).unwrap()
}

/// Labels that compete with all tokens.
fn among_all(model: &DeviceQwen2, labels: &[Vec<TokenId>]) -> Arc<DeviceLabels> {
    let normalization = Normalization::WholeVocabulary;
    model.prepare_labels(labels, normalization).unwrap()
}

/// Labels that compete with each other alone.
fn among_legal(model: &DeviceQwen2, labels: &[Vec<TokenId>]) -> Arc<DeviceLabels> {
    let terminator = Some(TokenId(2));
    let normalization = Normalization::LegalTokens { terminator };
    model.prepare_labels(labels, normalization).unwrap()
}

fn score(
    model: &DeviceQwen2,
    prefix: &DevicePrefix,
    suffix: &[TokenId],
    labels: &[Vec<TokenId>],
) -> LabelScores {
    let request = DeviceLabelRequest {
        prefix,
        suffix,
        labels: &among_all(model, labels),
        hidden: None,
    };
    model.score_labels_batch(&[request]).unwrap().remove(0)
}

/// A model with packed weights, small enough for a test.
fn tiny_shape() -> ModelConfig {
    ModelConfig {
        hidden_size: 256,
        intermediate_size: 512,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        vocab_size: 1000,
        max_position_embeddings: 2048,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        tie_word_embeddings: false,
    }
}

fn tiny(options: &DeviceOptions) -> DeviceQwen2 {
    let accelerator = Accelerator::processor().unwrap();
    DeviceQwen2::random(&tiny_shape(), &accelerator, options).unwrap()
}

/// `len` tokens of the tiny shape's vocabulary.
fn text(seed: u32, len: u32) -> Vec<TokenId> {
    (0..len)
        .map(|idx| TokenId((seed + idx * 37) % 1000))
        .collect()
}

fn labels() -> Vec<Vec<TokenId>> {
    vec![
        tokens(&[5]),
        tokens(&[6, 7, 8]),
        tokens(&[6, 9]),
        tokens(&[6]),
    ]
}

#[test]
fn label_scores_equal_the_reference_from_any_split_of_the_prompt() {
    let (model, reference) = (load(&options(DeviceForm::F32)), reference());
    let prompt = tokens(&reference.prompt);
    let labels: Vec<Vec<TokenId>> = reference.labels.iter().map(|ids| tokens(ids)).collect();
    for n_prefix in [0, 1, 17, 39] {
        let prefix = model.prefix(&prompt[..n_prefix]).unwrap();
        let scores = score(&model, &prefix, &prompt[n_prefix..], &labels);
        for (actual, expected) in scores
            .log_probabilities
            .iter()
            .zip(&reference.log_probabilities)
        {
            assert!((actual - expected).abs() < TOLERANCE, "{actual} {expected}");
        }
    }
}

#[test]
fn labels_among_themselves_score_as_on_the_processor() {
    let (device, processor) = (load(&options(DeviceForm::F32)), processor());
    let prompt = tokens(&reference().prompt);
    // Two share a first token, one begins with another, one needs no choice.
    let labels = [&[5][..], &[6, 7, 8], &[6, 9], &[6], &[10, 11, 12]].map(tokens);
    for labels in [&labels[..], &labels[..2], &labels[4..]] {
        let terminator = Some(TokenId(2));
        let normalization = Normalization::LegalTokens { terminator };
        let prepared = processor.prepare_labels(labels, normalization).unwrap();
        let request = LabelRequest {
            prefix: &processor.prefix(&prompt[..20]).unwrap(),
            suffix: &prompt[20..],
            labels: &prepared,
            hidden: None,
        };
        let expected = processor.score_labels_batch(&[request]).unwrap().remove(0);
        let prepared = among_legal(&device, labels);
        assert_eq!(prepared.n_labels(), labels.len());
        let request = DeviceLabelRequest {
            prefix: &device.prefix(&prompt[..20]).unwrap(),
            suffix: &prompt[20..],
            labels: &prepared,
            hidden: None,
        };
        let actual = device.score_labels_batch(&[request]).unwrap().remove(0);
        assert_eq!(actual.outside, None);
        let actual = actual.log_probabilities.iter();
        for (actual, expected) in actual.zip(&expected.log_probabilities) {
            assert!((actual - expected).abs() < TOLERANCE, "{actual} {expected}");
        }
        let sum: f64 = expected.log_probabilities.iter().map(|log| log.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }
}

#[test]
fn a_result_is_bitwise_the_same_in_any_company() {
    for slab_rows in [8, 128] {
        let options = DeviceOptions {
            slab_rows,
            ..options(DeviceForm::AsInFile)
        };
        let model = tiny(&options);
        let prefix = model.prefix(&text(3, 150)).unwrap();
        let other_prefix = model.prefix(&text(4, 70)).unwrap();
        let (all, legal) = (
            among_all(&model, &labels()),
            among_legal(&model, &labels()[..3]),
        );
        let hidden = [
            HiddenRequest {
                layers: vec![1],
                pooling: Pooling::Last,
            },
            HiddenRequest {
                layers: vec![0, 1, 2],
                pooling: Pooling::Means(vec![0..7, 3..4, 2..7]),
            },
        ];
        // Sizes of several buckets; the third and the last have another prefix.
        let texts: Vec<Vec<TokenId>> = [30, 7, 30, 64, 31, 25, 130, 30]
            .iter()
            .enumerate()
            .map(|(idx, &len)| text(u32::try_from(idx).unwrap() * 11, len))
            .collect();
        let requests: Vec<DeviceLabelRequest<'_>> = texts
            .iter()
            .enumerate()
            .map(|(idx, suffix)| DeviceLabelRequest {
                prefix: if idx % 5 == 2 { &other_prefix } else { &prefix },
                suffix,
                labels: if idx % 3 == 1 { &all } else { &legal },
                // With and without those of the last layer.
                hidden: hidden.get(idx % 4),
            })
            .collect();
        let together = model.score_labels_batch(&requests).unwrap();
        assert_eq!(together.len(), requests.len());
        for (request, together) in requests.iter().zip(&together) {
            let alone = model.score_labels_batch(&[*request]).unwrap();
            assert_eq!(&alone[0], together, "slab of {slab_rows}");
            let n_states = request.hidden.map_or(0, |hidden| match hidden.pooling {
                Pooling::Means(_) => 9,
                Pooling::Last | Pooling::Mean(_) => 1,
            });
            assert_eq!(together.hidden.len(), n_states * 256);
        }
    }
}

#[test]
fn a_prefix_is_bitwise_the_same_cold_warm_split_and_evicted() {
    // Room for five blocks: 2 layers, 2 key heads of 64, bf16.
    let options = DeviceOptions {
        kv_bytes: 5 * 64 * 2 * 2 * 128 * 2,
        ..options(DeviceForm::AsInFile)
    };
    let model = tiny(&options);
    let (trunk, suffix, labels) = (text(3, 150), text(9, 20), labels());
    let cold = score(&model, &model.prefix(&trunk).unwrap(), &suffix, &labels);
    let warm = score(&model, &model.prefix(&trunk).unwrap(), &suffix, &labels);
    assert_eq!(cold, warm);
    let short = model.prefix(&trunk[..100]).unwrap();
    let split = model.extend(&short, &trunk[100..]).unwrap();
    assert_eq!(cold, score(&model, &split, &suffix, &labels));
    drop((short, split));
    // All five blocks for another prefix: nothing of the first is left.
    drop(model.prefix(&text(8, 320)).unwrap());
    let again = model.prefix(&trunk).unwrap();
    assert_eq!(cold, score(&model, &again, &suffix, &labels));
    // And what is held is not taken.
    let error = model.prefix(&text(8, 320)).unwrap_err();
    let refused = GpuError::OutOfBlocks { needed: 3, free: 0 };
    assert!(matches!(error, InferenceError::Gpu(error) if error == refused));
    assert_eq!(cold, score(&model, &again, &suffix, &labels));
}

#[test]
fn a_text_longer_than_a_pass_is_scored_as_if_it_began_in_the_prefix() {
    let model = tiny(&DeviceOptions {
        kv_bytes: 1 << 22,
        ..options(DeviceForm::F32)
    });
    let (long, labels) = (text(3, 700), labels());
    let empty = model.prefix(&[]).unwrap();
    let at_once = score(&model, &empty, &long, &labels);
    let prefix = model.prefix(&long[..650]).unwrap();
    let in_two = score(&model, &prefix, &long[650..], &labels);
    for (a, b) in at_once
        .log_probabilities
        .iter()
        .zip(&in_two.log_probabilities)
    {
        assert!((a - b).abs() < TOLERANCE, "{a} {b}");
    }
}

#[test]
fn packed_layers_stay_near_the_same_layers_in_f32() {
    let accelerator = Accelerator::processor().unwrap();
    for hidden_size in [256, 128] {
        let config = ModelConfig {
            hidden_size,
            ..tiny_shape()
        };
        let errors = layer_errors(&config, &accelerator).unwrap();
        assert_eq!(errors.layers.len(), 2);
        for error in errors.layers.iter().chain([&errors.logits]) {
            assert!((1e-4..0.05).contains(error), "{error}");
        }
    }
}

#[test]
fn misuse_is_told_apart() {
    let model = tiny(&options(DeviceForm::F32));
    let other = tiny(&options(DeviceForm::F32));
    let (prefix, foreign) = (model.prefix(&[]).unwrap(), other.prefix(&[]).unwrap());
    let (suffix, labels) = (text(1, 3), among_all(&model, &labels()));
    let ask = |prefix: &DevicePrefix, suffix: &[TokenId], labels: &DeviceLabels| {
        let request = DeviceLabelRequest {
            prefix,
            suffix,
            labels,
            hidden: None,
        };
        model.score_labels_batch(&[request]).unwrap_err()
    };
    let error = ask(&foreign, &suffix, &labels);
    assert!(matches!(error, InferenceError::ForeignPrefix));
    let error = ask(&prefix, &suffix, &among_all(&other, &[tokens(&[5])]));
    assert!(matches!(error, InferenceError::ForeignPrefix));
    let error = ask(&prefix, &[], &labels);
    assert!(matches!(error, InferenceError::Empty { what: "tokens" }));
    let prepare = |labels: &[Vec<TokenId>]| {
        let normalization = Normalization::LegalTokens { terminator: None };
        model.prepare_labels(labels, normalization).unwrap_err()
    };
    for labels in [vec![], vec![vec![]]] {
        let error = prepare(&labels);
        assert!(matches!(error, InferenceError::Empty { what: "labels" }));
    }
    let error = prepare(&[tokens(&[6]), tokens(&[6, 9])]);
    assert!(matches!(
        error,
        InferenceError::AmbiguousLabel { label_idx: 0 }
    ));
    let error = prepare(&[tokens(&[5, 1000])]);
    assert!(matches!(
        error,
        InferenceError::UnknownToken { id: 1000, .. }
    ));
    let error = ask(&prefix, &tokens(&[1000]), &labels);
    assert!(matches!(
        error,
        InferenceError::UnknownToken { id: 1000, .. }
    ));
    let error = ask(&prefix, &text(0, 2046), &labels);
    assert!(matches!(
        error,
        InferenceError::ContextOverflow {
            positions: 2049,
            ..
        }
    ));
    let crowd: Vec<Vec<TokenId>> = (0..600).map(|id| tokens(&[id, 1])).collect();
    let error = ask(&prefix, &suffix, &among_all(&model, &crowd));
    assert!(matches!(
        error,
        InferenceError::InvalidOption { name: "labels", .. }
    ));
    let wrong = DeviceOptions {
        slab_rows: 100,
        ..DeviceOptions::default()
    };
    let accelerator = Accelerator::processor().unwrap();
    let error = DeviceQwen2::random(&tiny_shape(), &accelerator, &wrong).err();
    assert!(matches!(
        error,
        Some(InferenceError::InvalidOption {
            name: "slab_rows",
            ..
        })
    ));
}

#[test]
fn a_card_that_cannot_be_used_is_a_typed_error() {
    // Whatever this host has, there is no card of this number.
    let error = Accelerator::cuda(1000).unwrap_err();
    let InferenceError::Gpu(error) = error else {
        panic!("{error}");
    };
    if cfg!(feature = "cuda") {
        assert!(matches!(
            error,
            GpuError::NoDriver { .. } | GpuError::Driver { .. } | GpuError::NoSuchCard { .. }
        ));
        return;
    }
    // Asks for the right build before it asks for a driver.
    assert_eq!(error, GpuError::NotBuilt);
    assert!(error.to_string().contains("feature `cuda`"), "{error}");
    let device = "cuda:0".parse().unwrap();
    let refused = LanguageModel::load(&[golden("model.gguf")], device, &LoadOptions::default());
    assert!(matches!(
        refused,
        Err(InferenceError::Gpu(GpuError::NotBuilt))
    ));
}
