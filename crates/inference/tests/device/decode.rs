//! Decoding on a device.

use std::{ops::ControlFlow, time::Instant};

use inwarden_inference::{
    ConstrainedLimits, DeviceOptions, Ended, FieldKind, GenerateOptions, JsonShape, Sampling,
};

use super::{
    DeviceForm, DeviceQwen2, InferenceError, TOLERANCE, TokenId, load, options, processor,
    reference, text, tiny, tokens,
};

fn greedy(max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_new_tokens,
        sampling: Sampling::Greedy,
        stop: Vec::new(),
    }
}

fn generate(model: &DeviceQwen2, n_prefix: usize, prompt: &[TokenId], n: usize) -> Vec<TokenId> {
    let prefix = model.prefix(&prompt[..n_prefix]).unwrap();
    let keep_going = &mut |_| ControlFlow::Continue(());
    model
        .generate(&prefix, &prompt[n_prefix..], &greedy(n), keep_going)
        .unwrap()
}

#[test]
fn the_64_greedy_tokens_equal_the_reference() {
    let (model, reference) = (load(&options(DeviceForm::F32)), reference());
    let prompt = tokens(&reference.prompt);
    // The last token is the first of the 105th position: over two blocks' ends.
    for n_prefix in [0, 17, 39] {
        let generated = generate(&model, n_prefix, &prompt, 64);
        assert_eq!(generated, tokens(&reference.greedy), "prefix of {n_prefix}");
    }
}

#[test]
fn decoding_step_by_step_comes_near_reading_all_at_once() {
    let model = load(&options(DeviceForm::F32));
    let prompt = tokens(&reference().prompt);
    let empty = model.prefix(&[]).unwrap();
    let mut all = prompt.clone();
    let (mut seen, keep_going) = (Vec::new(), greedy(40));
    let generated = model.generate(&empty, &prompt, &keep_going, &mut |token| {
        seen.push(token);
        ControlFlow::Continue(())
    });
    assert_eq!(generated.unwrap(), seen);
    all.extend(&seen[..39]);
    let at_once = model.logits(&empty, &all).unwrap();
    let prefix = model.prefix(&all[..70]).unwrap();
    let in_two = model.logits(&prefix, &all[70..]).unwrap();
    let on_processor = processor().logits(None, &all).unwrap();
    for other in [&in_two, &on_processor] {
        for (a, b) in at_once.iter().zip(other) {
            assert!((f64::from(*a) - f64::from(*b)).abs() < TOLERANCE, "{a} {b}");
        }
    }
}

#[test]
fn what_is_decoded_is_the_same_beside_others_and_after_them() {
    let options = DeviceOptions {
        kv_bytes: 12 * 64 * 2 * 2 * 128 * 2,
        ..options(DeviceForm::AsInFile)
    };
    let model = tiny(&options);
    let (prompt, other) = (text(3, 100), text(8, 130));
    let alone = generate(&model, 90, &prompt, 50);
    // Another text is decoded between any two tokens, over the same blocks.
    let prefix = model.prefix(&prompt[..90]).unwrap();
    let between = model.generate(&prefix, &prompt[90..], &greedy(50), &mut |_| {
        generate(&model, 128, &other, 2);
        ControlFlow::Continue(())
    });
    assert_eq!(between.unwrap(), alone);
    let stopped = model.generate(&prefix, &prompt[90..], &greedy(50), &mut |_| {
        ControlFlow::Break(())
    });
    assert_eq!(stopped.unwrap(), alone[..1]);
}

#[test]
fn constrained_output_is_that_of_the_processor() {
    let (device, processor) = (load(&options(DeviceForm::F32)), processor());
    let tokenizer = device.tokenizer().unwrap();
    let prompt = tokenizer.encode_text("the stone").unwrap();
    let words = ["then", "there", "stone"].map(str::to_owned).to_vec();
    let shape = JsonShape::new(vec![
        ("a".to_owned(), FieldKind::OneOf(words)),
        ("n".to_owned(), FieldKind::Integer(-5..=500)),
        (
            "t".to_owned(),
            FieldKind::Text {
                max_tokens: 6.try_into().unwrap(),
            },
        ),
    ]);
    let compiled = shape.unwrap().compile(tokenizer);
    let limits = |max_new_tokens, deadline| ConstrainedLimits {
        max_new_tokens,
        deadline,
    };
    let empty = device.prefix(&[]).unwrap();
    let write = |limits: &ConstrainedLimits| {
        device
            .generate_constrained(&empty, &prompt, &mut compiled.start(), limits)
            .unwrap()
    };
    let expected = processor
        .generate_constrained(None, &prompt, &mut compiled.start(), &limits(100, None))
        .unwrap();
    assert_eq!(write(&limits(100, None)), expected);
    assert_eq!(expected.ended, Ended::Complete);
    let cut = write(&limits(5, None));
    assert_eq!((cut.ended, cut.tokens.len()), (Ended::TokenLimit, 5));
    let late = write(&limits(100, Some(Instant::now())));
    assert_eq!((late.ended, late.n_passes), (Ended::Deadline, 0));
}

#[test]
fn what_cannot_be_decoded_is_told_apart() {
    let (model, other) = (
        tiny(&options(DeviceForm::F32)),
        tiny(&options(DeviceForm::F32)),
    );
    let (empty, foreign) = (model.prefix(&[]).unwrap(), other.prefix(&[]).unwrap());
    let ask = |prefix, tokens: &[TokenId], n| {
        let keep_going = &mut |_| ControlFlow::Continue(());
        model
            .generate(prefix, tokens, &greedy(n), keep_going)
            .unwrap_err()
    };
    assert!(matches!(
        ask(&foreign, &text(1, 3), 1),
        InferenceError::ForeignPrefix
    ));
    assert!(matches!(
        ask(&empty, &[], 1),
        InferenceError::Empty { what: "tokens" }
    ));
    assert!(matches!(
        ask(&empty, &tokens(&[1000]), 1),
        InferenceError::UnknownToken { id: 1000, .. }
    ));
    assert!(matches!(
        ask(&empty, &text(1, 48), 2001),
        InferenceError::ContextOverflow {
            positions: 2049,
            ..
        }
    ));
    // Only a few blocks, all of them held.
    let small = tiny(&DeviceOptions {
        kv_bytes: 2 * 64 * 2 * 2 * 128 * 4,
        ..options(DeviceForm::F32)
    });
    let held = small.prefix(&text(1, 128)).unwrap();
    assert!(matches!(
        small.logits(&held, &text(1, 1)),
        Err(InferenceError::Gpu(_))
    ));
}
