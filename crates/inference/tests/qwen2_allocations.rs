//! A warm model allocates nothing to score labels or to decode.
//!
//! In a process of its own, because allocations are counted for all threads.

#![expect(unsafe_code, reason = "a counting allocator")]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside the test functions"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use inwarden_inference::{
    HiddenRequest, KeyValueForm, LabelRequest, LoadOptions, Normalization, Pooling, Qwen2, TokenId,
    WeightForm,
};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises hold for the system's allocator too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises hold for the system's allocator too.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_of(work: &mut dyn FnMut()) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    work();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// In two of twenty rounds, a worker that the system had kept waiting may take its
/// first task and make its own buffers; what allocates at all does so in every round.
fn assert_steady(work: &mut dyn FnMut()) {
    let rounds = std::iter::repeat_with(|| allocations_of(work)).take(20);
    let allocations: Vec<usize> = rounds.collect();
    let n_rounds = allocations.iter().filter(|n| **n > 0).count();
    assert!(n_rounds <= 2, "{allocations:?}");
}

fn tokens(n_tokens: u32, step: u32) -> Vec<TokenId> {
    (0..n_tokens)
        .map(|idx| TokenId(3 + idx * step % 200))
        .collect()
}

/// One test, so that no other one allocates meanwhile.
#[test]
fn a_warm_model_allocates_nothing_to_score_or_to_decode() {
    for key_value_form in [KeyValueForm::Bf16, KeyValueForm::Int8] {
        check(key_value_form);
    }
}

fn check(key_value_form: KeyValueForm) {
    let golden = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/golden/qwen2-tiny/model.gguf"
    );
    let options = LoadOptions {
        threads: 2.try_into().unwrap(),
        weight_form: WeightForm::Int8,
        key_value_form: Some(key_value_form),
        ..LoadOptions::default()
    };
    let model = Qwen2::load(&[golden.into()], &options).unwrap();
    let prefix = model.prefix(&tokens(100, 7)).unwrap();
    let labels = [vec![TokenId(3), TokenId(4)], vec![TokenId(3), TokenId(5)]];
    let prepare = |normalization| model.prepare_labels(&labels, normalization).unwrap();
    let all = prepare(Normalization::WholeVocabulary);
    let legal = prepare(Normalization::LegalTokens { terminator: None });
    let hidden = HiddenRequest {
        layers: vec![1, model.config().num_hidden_layers],
        pooling: Pooling::Mean(1..3),
    };
    let suffixes = [tokens(40, 3), tokens(5, 11), tokens(64, 5)];
    let request = |suffix, labels, hidden| LabelRequest {
        prefix: &prefix,
        suffix,
        labels,
        hidden,
    };
    let requests = [
        request(&suffixes[0], &all, None),
        request(&suffixes[1], &legal, Some(&hidden)),
        request(&suffixes[2], &legal, None),
    ];
    let mut scores = Vec::new();
    let mut score = || {
        for _ in 0..10 {
            model.score_labels_into(&requests, &mut scores).unwrap();
        }
    };
    assert!(allocations_of(&mut score) > 0, "the counter counts");
    assert_steady(&mut score);

    // Over the ends of two blocks; the second time, all memory is there.
    let mut session = model.session(Some(&prefix)).unwrap();
    let mut decode = || {
        for idx in 0..140 {
            let logits = session.advance(&[TokenId(3 + idx)]).unwrap();
            assert!(logits[0].is_finite());
        }
        session.truncate(100);
    };
    assert!(allocations_of(&mut decode) > 0, "the counter counts");
    assert_steady(&mut decode);
}
