//! Many callers of one model: the same answers as alone, in fewer passes; on the
//! processor and on a device (the tensor library's processor back end).

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside the test functions"
)]

mod common;

use std::{
    path::PathBuf,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use inwarden_inference::{
    Accelerator, CallerId, ConstrainedLimits, DeviceForm, DeviceOptions, DeviceQwen2, Ended,
    FieldKind, GenerateOptions, HiddenRequest, InferenceError, JsonShape, LabelScores,
    LanguageModel, LoadOptions, ModelConfig, Normalization, Pooling, Qwen2, Sampling, Scheduler,
    SchedulerConfig, ScoreRequest, TokenId,
};

const REAL_MODEL: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m";
const N_CALLERS: usize = 16;

fn load(file: PathBuf) -> LanguageModel {
    let options = LoadOptions {
        threads: 2.try_into().unwrap(),
        ..LoadOptions::default()
    };
    Arc::new(Qwen2::load(&[file], &options).unwrap()).into()
}

fn tiny_file() -> PathBuf {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/golden");
    PathBuf::from(golden).join("qwen2-tiny/model.gguf")
}

fn tiny_on_device() -> LanguageModel {
    let accelerator = Accelerator::processor().unwrap();
    let options = DeviceOptions {
        form: DeviceForm::AsInFile,
        kv_bytes: 1 << 20,
        ..DeviceOptions::default()
    };
    let model = DeviceQwen2::load(&[tiny_file()], &accelerator, &options).unwrap();
    Arc::new(model).try_into().unwrap()
}

/// The tiny model on the processor and on a device.
fn tiny_models() -> [LanguageModel; 2] {
    [load(tiny_file()), tiny_on_device()]
}

fn tokens(ids: impl IntoIterator<Item = u32>) -> Vec<TokenId> {
    ids.into_iter().map(TokenId).collect()
}

/// Texts of different lengths behind one prefix, for the tiny vocabulary.
fn tiny_requests(model: &LanguageModel) -> Vec<ScoreRequest> {
    let prefix = model.prefix(&tokens(1..70)).unwrap();
    let labels = [tokens([5]), tokens([6, 7]), tokens([6, 8, 9])];
    let labels = model
        .prepare_labels(&labels, Normalization::WholeVocabulary)
        .unwrap();
    let hidden = Arc::new(HiddenRequest {
        layers: vec![0, model.config().num_hidden_layers],
        pooling: Pooling::Last,
    });
    let request = |caller: u32| ScoreRequest {
        prefix: prefix.clone(),
        suffix: tokens((0..=caller * 3).map(|idx| (caller * 7 + idx) % 90)),
        labels: labels.clone(),
        hidden: caller.is_multiple_of(3).then(|| Arc::clone(&hidden)),
    };
    (0..).map(request).take(N_CALLERS).collect()
}

fn alone(model: &LanguageModel, request: &ScoreRequest) -> Result<LabelScores, InferenceError> {
    model.score(&[request]).remove(0)
}

/// All requests at the same time, each from a thread of its own.
fn together(scheduler: &Scheduler, requests: &[ScoreRequest]) -> Vec<LabelScores> {
    let start = Barrier::new(requests.len());
    let deadline = Instant::now() + Duration::from_secs(300);
    std::thread::scope(|scope| {
        let callers: Vec<_> = requests
            .iter()
            .map(|request| {
                let handle = scheduler.handle(CallerId::unique());
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    handle.score(request.clone(), Some(deadline)).unwrap()
                })
            })
            .collect();
        let scores = callers.into_iter().map(|caller| caller.join().unwrap());
        scores.collect()
    })
}

fn check_bitwise_equal(left: &LabelScores, right: &LabelScores) {
    let bits = |scores: &LabelScores| -> Vec<u64> {
        let hidden = scores.hidden.iter().map(|value| u64::from(value.to_bits()));
        let numbers = scores.log_probabilities.iter().chain(&scores.outside);
        numbers.map(|value| value.to_bits()).chain(hidden).collect()
    };
    assert_eq!(bits(left), bits(right));
}

fn config() -> SchedulerConfig {
    SchedulerConfig {
        window: Duration::from_millis(2),
        lone_window: Duration::from_millis(2),
        ..SchedulerConfig::default()
    }
}

#[test]
fn concurrent_callers_get_the_answers_they_get_alone_in_fewer_passes() {
    for model in tiny_models() {
        let requests = tiny_requests(&model);
        let expected: Vec<_> = requests
            .iter()
            .map(|request| alone(&model, request).unwrap())
            .collect();
        let scheduler = Scheduler::start(model, config()).unwrap();
        for (scores, expected) in together(&scheduler, &requests).iter().zip(&expected) {
            check_bitwise_equal(scores, expected);
        }
        let counters = scheduler.counters();
        assert_eq!(counters.completed, N_CALLERS as u64);
        assert!(counters.batches < N_CALLERS as u64, "{counters:?}");
    }
}

#[test]
fn a_bad_request_fails_alone_and_as_without_a_scheduler() {
    for model in tiny_models() {
        check_bad_requests(&model);
    }
}

fn check_bad_requests(model: &LanguageModel) {
    let requests = tiny_requests(model);
    let scheduler = Scheduler::start(model.clone(), config()).unwrap();
    let vocab_size = u32::try_from(model.config().vocab_size).unwrap();
    let bad = [
        ScoreRequest {
            suffix: tokens([vocab_size]),
            ..requests[0].clone()
        },
        ScoreRequest {
            suffix: Vec::new(),
            ..requests[0].clone()
        },
        ScoreRequest {
            suffix: tokens(vec![1; model.max_context_tokens()]),
            ..requests[0].clone()
        },
        ScoreRequest {
            hidden: Some(Arc::new(HiddenRequest {
                layers: vec![99],
                pooling: Pooling::Last,
            })),
            ..requests[0].clone()
        },
    ];
    let submit = |request: &ScoreRequest| {
        let handle = scheduler.handle(CallerId::unique());
        handle.submit(request.clone(), None).unwrap()
    };
    let first = submit(&requests[1]);
    let refused = bad.each_ref().map(&submit);
    let last = submit(&requests[2]);
    check_bitwise_equal(&first.wait().unwrap(), &alone(model, &requests[1]).unwrap());
    check_bitwise_equal(&last.wait().unwrap(), &alone(model, &requests[2]).unwrap());
    for (refused, request) in refused.into_iter().zip(&bad) {
        assert_eq!(
            refused.wait().unwrap_err().to_string(),
            alone(model, request).unwrap_err().to_string()
        );
    }
    assert_eq!(scheduler.counters().failed, bad.len() as u64);
}

#[test]
fn a_prefix_of_another_model_is_refused_in_its_own_request_only() {
    // Of the same device, and of the other one.
    let models = [tiny_models(), tiny_models()];
    for (idx, model) in models[0].iter().enumerate() {
        for other in &models[1] {
            let own = tiny_requests(model).remove(3);
            let foreign = tiny_requests(other).remove(3);
            let scheduler = Scheduler::start(model.clone(), config()).unwrap();
            let [own, foreign] = [own, foreign].map(|request| {
                let handle = scheduler.handle(CallerId::unique());
                handle.submit(request, None).unwrap()
            });
            assert!(own.wait().is_ok(), "model {idx}");
            assert!(matches!(foreign.wait(), Err(InferenceError::ForeignPrefix)));
        }
    }
}

#[test]
fn handles_outlive_the_scheduler_and_say_that_it_is_gone() {
    for model in tiny_models() {
        let request = tiny_requests(&model).remove(0);
        let scheduler = Scheduler::start(model, SchedulerConfig::default()).unwrap();
        let handle = scheduler.handle(CallerId::of_this_thread());
        assert!(handle.score(request.clone(), None).is_ok());
        drop(scheduler);
        let refused = handle.score(request.clone(), None);
        assert!(matches!(refused, Err(InferenceError::SchedulerStopped)));
        let asked = (&request.prefix, &*request.suffix);
        let refused = handle.generate(asked, &greedy(1), None);
        assert!(matches!(refused, Err(InferenceError::SchedulerStopped)));
    }
}

fn greedy(max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_new_tokens,
        sampling: Sampling::Greedy,
        stop: Vec::new(),
    }
}

#[test]
fn what_is_past_its_deadline_is_not_computed() {
    for model in tiny_models() {
        let request = tiny_requests(&model).remove(5);
        let scheduler = Scheduler::start(model, config()).unwrap();
        let handle = scheduler.handle(CallerId::unique());
        let past = Some(Instant::now());
        let refused = handle.score(request.clone(), past);
        assert!(matches!(refused, Err(InferenceError::DeadlinePassed)));
        let asked = (&request.prefix, &*request.suffix);
        let written = handle.generate(asked, &greedy(9), past).unwrap();
        assert!(written.is_empty());
        assert_eq!(scheduler.counters().completed, 0);
    }
}

#[test]
fn texts_are_written_between_verdicts_as_alone() {
    for model in tiny_models() {
        let requests = tiny_requests(&model);
        let scheduler = Scheduler::start(model.clone(), config()).unwrap();
        let write = |request: &ScoreRequest| {
            let handle = scheduler.handle(CallerId::unique());
            let asked = (&request.prefix, &*request.suffix);
            handle.generate(asked, &greedy(12), None).unwrap()
        };
        let alone: Vec<_> = requests[..4].iter().map(&write).collect();
        let expected: Vec<_> = requests
            .iter()
            .map(|request| self::alone(&model, request).unwrap())
            .collect();
        std::thread::scope(|scope| {
            let writers: Vec<_> = requests[..4]
                .iter()
                .map(|request| scope.spawn(|| write(request)))
                .collect();
            for (scores, expected) in together(&scheduler, &requests).iter().zip(&expected) {
                check_bitwise_equal(scores, expected);
            }
            for (written, alone) in writers.into_iter().zip(&alone) {
                assert_eq!(&written.join().unwrap(), alone);
                assert_eq!(alone.len(), 12);
            }
        });
        // One step a token, each counted as a request of its own.
        let steps = 2 * 4 * 12;
        assert_eq!(scheduler.counters().completed, steps + N_CALLERS as u64);
    }
}

#[test]
fn a_constrained_output_is_written_through_it_as_without() {
    for model in tiny_models() {
        let tokenizer = model.tokenizer();
        let tokens = tokenizer.encode_text("the stone").unwrap();
        let words = ["then", "there", "stone"].map(str::to_owned).to_vec();
        let shape = JsonShape::new(vec![
            ("a".to_owned(), FieldKind::OneOf(words)),
            ("n".to_owned(), FieldKind::Integer(0..=500)),
        ]);
        let compiled = shape.unwrap().compile(tokenizer);
        let scheduler = Scheduler::start(model.clone(), config()).unwrap();
        let handle = scheduler.handle(CallerId::unique());
        let prefix = model.prefix(&[]).unwrap();
        let write = |max_new_tokens, deadline| {
            let limits = ConstrainedLimits {
                max_new_tokens,
                deadline,
            };
            let asked = (&prefix, &*tokens);
            handle.generate_constrained(asked, &mut compiled.start(), &limits)
        };
        let whole = write(100, None).unwrap();
        assert_eq!(whole.ended, Ended::Complete);
        if let Some(model) = model.processor() {
            let limits = ConstrainedLimits {
                max_new_tokens: 100,
                deadline: None,
            };
            let direct = model.generate_constrained(None, &tokens, &mut compiled.start(), &limits);
            assert_eq!(direct.unwrap(), whole);
        }
        assert_eq!(write(3, None).unwrap().tokens, whole.tokens[..3]);
        let late = write(100, Some(Instant::now())).unwrap();
        assert_eq!((late.ended, late.n_passes), (Ended::Deadline, 0));
        let refused = write(model.max_context_tokens(), None);
        assert!(matches!(
            refused,
            Err(InferenceError::ContextOverflow { .. })
        ));
    }
}

#[test]
fn random_weights_are_no_language_model() {
    let config = ModelConfig {
        hidden_size: 64,
        intermediate_size: 64,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        vocab_size: 64,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        tie_word_embeddings: true,
    };
    let accelerator = Accelerator::processor().unwrap();
    let options = DeviceOptions {
        kv_bytes: 1 << 16,
        ..DeviceOptions::default()
    };
    let model = Arc::new(DeviceQwen2::random(&config, &accelerator, &options).unwrap());
    let refused = LanguageModel::try_from(model);
    assert!(matches!(refused, Err(InferenceError::NoTokenizer)));
}

#[test]
fn the_real_model_answers_concurrent_callers_as_it_answers_one() {
    let Some(dir) = common::model_dir(REAL_MODEL) else {
        return;
    };
    let file = dir.join(format!("{REAL_MODEL}.gguf"));
    let model = load(file);
    let tokenizer = model.tokenizer();
    let shared = "Each message names a thing. Say whether it is a plant or an animal. ";
    let prefix = model
        .prefix(&tokenizer.encode_text(&shared.repeat(6)).unwrap())
        .unwrap();
    let labels =
        ["plant", "animal", "malicious"].map(|label| tokenizer.encode_text(label).unwrap());
    let labels = model
        .prepare_labels(&labels, Normalization::WholeVocabulary)
        .unwrap();
    let things = ["an oak", "a sparrow", "granite, which is neither", "a fern"];
    let requests: Vec<_> = (0..N_CALLERS)
        .map(|caller| {
            let text = format!("{} ({caller}). ", things[caller % 4]).repeat(1 + caller % 5);
            ScoreRequest {
                prefix: prefix.clone(),
                suffix: tokenizer.encode_text(&format!("{text}Answer: ")).unwrap(),
                labels: labels.clone(),
                hidden: None,
            }
        })
        .collect();
    let expected: Vec<_> = requests
        .iter()
        .map(|request| alone(&model, request).unwrap())
        .collect();
    let scheduler = Scheduler::start(model.clone(), config()).unwrap();
    for (scores, expected) in together(&scheduler, &requests).iter().zip(&expected) {
        check_bitwise_equal(scores, expected);
    }
    let counters = scheduler.counters();
    eprintln!("{N_CALLERS} concurrent callers: {counters:?}");
    assert_eq!(counters.completed, N_CALLERS as u64);
    assert!(counters.batches < N_CALLERS as u64, "{counters:?}");
}
