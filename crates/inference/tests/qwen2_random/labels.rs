//! Label scores among legal tokens, among all, and hidden states beside them.

use inwarden_inference::{
    HiddenRequest, InferenceError, LabelRequest, LabelScores, Normalization, Pooling, Qwen2,
    TokenId, WeightForm,
};

use crate::model::{file, load, narrow, text, wide};

fn label(ids: &[u32]) -> Vec<TokenId> {
    ids.iter().copied().map(TokenId).collect()
}

fn score(
    model: &Qwen2,
    suffix: &[TokenId],
    labels: &[Vec<TokenId>],
    normalization: Normalization,
) -> LabelScores {
    let prefix = model.prefix(&text(1, 70)).unwrap();
    let labels = model.prepare_labels(labels, normalization).unwrap();
    let request = LabelRequest {
        prefix: &prefix,
        suffix,
        labels: &labels,
        hidden: None,
    };
    model.score_labels_batch(&[request]).unwrap().remove(0)
}

/// Log-probabilities of `next` after the tokens `before`, among themselves.
fn among(model: &Qwen2, suffix: &[TokenId], before: &[u32], next: &[u32]) -> Vec<f64> {
    let prefix = model.prefix(&text(1, 70)).unwrap();
    let tokens = [suffix, &label(before)].concat();
    let logits = model.logits(Some(&prefix), &tokens).unwrap();
    let legal: Vec<f64> = next
        .iter()
        .map(|&id| f64::from(logits[id as usize]))
        .collect();
    let sum: f64 = legal.iter().map(|logit| logit.exp()).sum();
    legal.iter().map(|logit| logit - sum.ln()).collect()
}

#[test]
fn legal_scores_are_those_of_decoding_held_to_the_labels() {
    for (shape, form) in [
        (narrow(), WeightForm::F32),
        (narrow(), WeightForm::Compact),
        (wide(), WeightForm::Compact),
    ] {
        let model = load(&file(&shape, 21), form, 2);
        let suffix = text(2, 30);
        let labels = [&[3, 9, 4][..], &[3, 9, 5], &[6, 11, 12], &[3, 10]].map(label);
        let legal = Normalization::LegalTokens { terminator: None };
        let scores = score(&model, &suffix, &labels, legal);
        let first = among(&model, &suffix, &[], &[3, 6]);
        let second = among(&model, &suffix, &[3], &[9, 10]);
        let third = among(&model, &suffix, &[3, 9], &[4, 5]);
        let expected = [
            first[0] + second[0] + third[0],
            first[0] + second[0] + third[1],
            first[1],
            first[0] + second[1],
        ];
        // Only f32 is a library's, whose numbers depend on the other rows.
        let tolerance = if form == WeightForm::F32 { 1e-4 } else { 1e-12 };
        for (actual, expected) in scores.log_probabilities.iter().zip(expected) {
            assert!((actual - expected).abs() < tolerance, "{actual} {expected}");
        }
        let sum: f64 = scores
            .log_probabilities
            .iter()
            .map(|score| score.exp())
            .sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        assert_eq!(scores.outside, None);
    }
}

#[test]
fn a_terminator_makes_a_label_out_of_the_start_of_another() {
    let model = load(&file(&narrow(), 22), WeightForm::Compact, 2);
    let suffix = text(3, 12);
    let labels = [&[3][..], &[3, 4], &[5]].map(label);
    let refused = model.prepare_labels(&labels, Normalization::LegalTokens { terminator: None });
    assert!(matches!(
        refused,
        Err(InferenceError::AmbiguousLabel { label_idx: 0 })
    ));
    let terminator = Some(TokenId(99));
    let scores = score(
        &model,
        &suffix,
        &labels,
        Normalization::LegalTokens { terminator },
    );
    let first = among(&model, &suffix, &[], &[3, 5]);
    let second = among(&model, &suffix, &[3], &[99, 4]);
    let expected = [first[0] + second[0], first[0] + second[1], first[1]];
    for (actual, expected) in scores.log_probabilities.iter().zip(expected) {
        assert!((actual - expected).abs() < 1e-12, "{actual} {expected}");
    }
}

#[test]
fn a_single_label_needs_no_choice() {
    let model = load(&file(&narrow(), 23), WeightForm::Compact, 1);
    let legal = Normalization::LegalTokens { terminator: None };
    let scores = score(&model, &text(3, 5), &[label(&[3, 4])], legal);
    assert_eq!(scores.log_probabilities, [0.0]);
}

#[test]
fn scores_among_all_tokens_are_those_of_one_pass_per_token() {
    let model = load(&file(&wide(), 24), WeightForm::Compact, 2);
    let suffix = text(4, 20);
    let labels = [&[3][..], &[3, 4], &[3, 4, 5], &[6]].map(label);
    let scores = score(&model, &suffix, &labels, Normalization::WholeVocabulary);
    let all: Vec<u32> = (0..u32::try_from(model.config().vocab_size).unwrap()).collect();
    for (label, actual) in labels.iter().zip(&scores.log_probabilities) {
        let ids: Vec<u32> = label.iter().map(|token| token.0).collect();
        let steps = (0..ids.len())
            .map(|step| among(&model, &suffix, &ids[..step], &all)[ids[step] as usize]);
        let expected: f64 = steps.sum();
        assert!((actual - expected).abs() < 1e-5, "{actual} {expected}");
    }
    let disjoint = scores.log_probabilities[0].exp() + scores.log_probabilities[3].exp();
    assert!((scores.outside.unwrap() - (1.0 - disjoint)).abs() < 1e-12);
}

#[test]
fn a_mean_of_hidden_states_is_that_of_the_single_ones() {
    let model = load(&file(&narrow(), 25), WeightForm::Compact, 2);
    let prefix = model.prefix(&text(1, 70)).unwrap();
    let suffix = text(5, 9);
    let labels = [label(&[3, 4]), label(&[3, 5])];
    let legal = Normalization::LegalTokens { terminator: None };
    let labels = model.prepare_labels(&labels, legal).unwrap();
    let hidden = |suffix: &[TokenId], pooling: Pooling| {
        let hidden = HiddenRequest {
            layers: vec![1, 2, 0],
            pooling,
        };
        let request = LabelRequest {
            prefix: &prefix,
            suffix,
            labels: &labels,
            hidden: Some(&hidden),
        };
        let scores = model.score_labels_batch(&[request]).unwrap().remove(0);
        assert_eq!(scores.hidden.len(), 3 * model.config().hidden_size);
        scores.hidden
    };
    let mean = hidden(&suffix, Pooling::Mean(2..6));
    let singles: Vec<Vec<f32>> = (3..=6)
        .map(|end| hidden(&suffix[..end], Pooling::Last))
        .collect();
    for (idx, mean) in mean.iter().enumerate() {
        let expected = singles.iter().map(|single| single[idx]).sum::<f32>() / 4.0;
        assert!((mean - expected).abs() < 1e-5, "{mean} {expected}");
    }
    assert_ne!(mean[..10], mean[model.config().hidden_size..][..10]);

    let (n_suffix, width) = (suffix.len(), mean.len());
    let several = Pooling::Means(vec![2..6, n_suffix - 1..n_suffix, 4..5]);
    let request = |hidden| LabelRequest {
        prefix: &prefix,
        suffix: &suffix,
        labels: &labels,
        hidden,
    };
    let several = HiddenRequest {
        layers: vec![1, 2, 0],
        pooling: several,
    };
    // In company, so that rows of others lie before and behind.
    let requests = [request(None), request(Some(&several)), request(None)];
    let scores = model.score_labels_batch(&requests).unwrap();
    let states: Vec<&[f32]> = scores[1].hidden.chunks(width).collect();
    assert_eq!(
        states,
        [
            mean,
            hidden(&suffix, Pooling::Last),
            hidden(&suffix, Pooling::Mean(4..5))
        ]
    );
    assert_eq!(scores[0].log_probabilities, scores[1].log_probabilities);
    assert!(scores[0].hidden.is_empty());
}

#[test]
fn requests_that_cannot_be_answered_are_refused_before_anything_is_computed() {
    let model = load(&file(&narrow(), 26), WeightForm::Compact, 1);
    let other = load(&file(&narrow(), 26), WeightForm::Compact, 1);
    let prefix = model.prefix(&text(1, 3)).unwrap();
    let labels = [label(&[3]), label(&[4])];
    let prepare = |model: &Qwen2| {
        let all = Normalization::WholeVocabulary;
        model.prepare_labels(&labels, all).unwrap()
    };
    let (own, foreign) = (prepare(&model), prepare(&other));
    let suffix = text(2, 5);
    let good = LabelRequest {
        prefix: &prefix,
        suffix: &suffix,
        labels: &own,
        hidden: None,
    };
    model.check_request(&good).unwrap();
    let is_foreign = |result| matches!(result, Err(InferenceError::ForeignPrefix));
    assert!(is_foreign(other.check_request(&good)));
    assert!(is_foreign(model.check_request(&LabelRequest {
        labels: &foreign,
        ..good
    })));
    for (layer, pooling) in [
        (3, Pooling::Last),
        (0, Pooling::Mean(4..6)),
        (0, Pooling::Mean(2..2)),
        (0, Pooling::Means(vec![0..1, 4..6])),
    ] {
        let hidden = HiddenRequest {
            layers: vec![layer],
            pooling,
        };
        let refused = model.check_request(&LabelRequest {
            hidden: Some(&hidden),
            ..good
        });
        assert!(matches!(refused, Err(InferenceError::InvalidOption { .. })));
    }
    let empty = LabelRequest {
        suffix: &[],
        ..good
    };
    let refused = model.score_labels_batch(&[good, empty]);
    assert!(matches!(refused, Err(InferenceError::Empty { .. })));
}
