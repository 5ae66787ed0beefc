//! Many callers of one model: the same answers as alone, in fewer passes.

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
    CallerId, HiddenRequest, InferenceError, LabelRequest, LabelScores, LoadOptions, Normalization,
    Pooling, Qwen2, Scheduler, SchedulerConfig, ScoreRequest, TokenId,
};

const REAL_MODEL: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m";
const N_CALLERS: usize = 16;

fn load(file: PathBuf) -> Arc<Qwen2> {
    let options = LoadOptions {
        threads: 2.try_into().unwrap(),
        ..LoadOptions::default()
    };
    Arc::new(Qwen2::load(&[file], &options).unwrap())
}

fn tiny() -> Arc<Qwen2> {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/golden");
    let file = PathBuf::from(golden).join("qwen2-tiny/model.gguf");
    load(file)
}

fn tokens(ids: impl IntoIterator<Item = u32>) -> Vec<TokenId> {
    ids.into_iter().map(TokenId).collect()
}

/// Texts of different lengths behind one prefix, for the tiny vocabulary.
fn tiny_requests(model: &Qwen2) -> Vec<ScoreRequest> {
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
        labels: Arc::clone(&labels),
        hidden: caller.is_multiple_of(3).then(|| Arc::clone(&hidden)),
    };
    (0..).map(request).take(N_CALLERS).collect()
}

fn alone(model: &Qwen2, request: &ScoreRequest) -> Result<LabelScores, InferenceError> {
    let request = LabelRequest {
        prefix: &request.prefix,
        suffix: &request.suffix,
        labels: &request.labels,
        hidden: request.hidden.as_deref(),
    };
    let mut scores = model.score_labels_batch(&[request])?;
    Ok(scores.pop().unwrap())
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
    let model = tiny();
    let requests = tiny_requests(&model);
    let expected: Vec<_> = requests
        .iter()
        .map(|request| alone(&model, request).unwrap())
        .collect();
    let scheduler = Scheduler::start(Arc::clone(&model), config()).unwrap();
    for (scores, expected) in together(&scheduler, &requests).iter().zip(&expected) {
        check_bitwise_equal(scores, expected);
    }
    let counters = scheduler.counters();
    assert_eq!(counters.completed, N_CALLERS as u64);
    assert!(counters.batches < N_CALLERS as u64, "{counters:?}");
}

#[test]
fn a_bad_request_fails_alone_and_as_without_a_scheduler() {
    let model = tiny();
    let requests = tiny_requests(&model);
    let scheduler = Scheduler::start(Arc::clone(&model), config()).unwrap();
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
    check_bitwise_equal(
        &first.wait().unwrap(),
        &alone(&model, &requests[1]).unwrap(),
    );
    check_bitwise_equal(&last.wait().unwrap(), &alone(&model, &requests[2]).unwrap());
    for (refused, request) in refused.into_iter().zip(&bad) {
        assert_eq!(
            refused.wait().unwrap_err().to_string(),
            alone(&model, request).unwrap_err().to_string()
        );
    }
    assert_eq!(scheduler.counters().failed, bad.len() as u64);
}

#[test]
fn a_prefix_of_another_model_is_refused_in_its_own_request_only() {
    let (model, other) = (tiny(), tiny());
    let own = tiny_requests(&model).remove(3);
    let foreign = tiny_requests(&other).remove(3);
    let scheduler = Scheduler::start(Arc::clone(&model), config()).unwrap();
    let [own, foreign] = [own, foreign].map(|request| {
        let handle = scheduler.handle(CallerId::unique());
        handle.submit(request, None).unwrap()
    });
    assert!(own.wait().is_ok());
    assert!(matches!(foreign.wait(), Err(InferenceError::ForeignPrefix)));
}

#[test]
fn handles_outlive_the_scheduler_and_say_that_it_is_gone() {
    let model = tiny();
    let request = tiny_requests(&model).remove(0);
    let scheduler = Scheduler::start(model, SchedulerConfig::default()).unwrap();
    let handle = scheduler.handle(CallerId::of_this_thread());
    assert!(handle.score(request.clone(), None).is_ok());
    drop(scheduler);
    let refused = handle.score(request, None);
    assert!(matches!(refused, Err(InferenceError::SchedulerStopped)));
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
                labels: Arc::clone(&labels),
                hidden: None,
            }
        })
        .collect();
    let expected: Vec<_> = requests
        .iter()
        .map(|request| alone(&model, request).unwrap())
        .collect();
    let scheduler = Scheduler::start(Arc::clone(&model), config()).unwrap();
    for (scores, expected) in together(&scheduler, &requests).iter().zip(&expected) {
        check_bitwise_equal(scores, expected);
    }
    let counters = scheduler.counters();
    eprintln!("{N_CALLERS} concurrent callers: {counters:?}");
    assert_eq!(counters.completed, N_CALLERS as u64);
    assert!(counters.batches < N_CALLERS as u64, "{counters:?}");
}
