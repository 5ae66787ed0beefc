//! The same bits alone or in a batch, on any number of threads, from any prefix.

use inwarden_inference::{
    Fingerprint, HiddenRequest, KeyValueForm, LabelRequest, LabelScores, LoadOptions,
    Normalization, Pooling, Prefix, PrefixCache, PreparedLabels, Qwen2, TokenId, WeightForm,
};
use tempfile::NamedTempFile;

use crate::model::{Shape, file, load, load_with, narrow, text, wide};

/// The tokens that all events stand behind: two blocks and a part.
const PREFIX_TOKENS: usize = 150;

/// Lengths of the events: one token, within a block, over a block's end.
const EVENT_TOKENS: [usize; 5] = [1, 7, 42, 43, 90];

fn labels() -> Vec<Vec<TokenId>> {
    [&[3, 4][..], &[3, 5, 6], &[3, 5, 7], &[8]]
        .map(|ids| ids.iter().copied().map(TokenId).collect())
        .to_vec()
}

fn bits(scores: &LabelScores) -> Vec<u64> {
    let hidden = scores.hidden.iter().map(|value| u64::from(value.to_bits()));
    let numbers = scores.log_probabilities.iter().chain(&scores.outside);
    numbers
        .map(|number| number.to_bits())
        .chain(hidden)
        .collect()
}

/// What one load needs to score the events.
struct Scorer {
    model: Qwen2,
    labels: Vec<std::sync::Arc<PreparedLabels>>,
}

impl Scorer {
    fn new(model: Qwen2) -> Self {
        let all = Normalization::WholeVocabulary;
        let legal = Normalization::LegalTokens { terminator: None };
        let labels = [all, legal].map(|by| model.prepare_labels(&labels(), by).unwrap());
        let labels = labels.to_vec();
        Self { model, labels }
    }

    /// Scores `n_before` tokens of the common start and each event behind them,
    /// in one call; even events among all tokens, odd ones among legal ones.
    fn score(&self, prefix: &Prefix, events: &[usize]) -> Vec<Vec<u64>> {
        let start = text(7, PREFIX_TOKENS);
        let rest = &start[prefix.len()..];
        let suffixes: Vec<Vec<TokenId>> = events
            .iter()
            .map(|&event| [rest, &text(100 + event as u64, EVENT_TOKENS[event])].concat())
            .collect();
        let n_layers = self.model.config().num_hidden_layers;
        let hidden: Vec<HiddenRequest> = suffixes
            .iter()
            .enumerate()
            .map(|(idx, suffix)| HiddenRequest {
                layers: vec![0, 1, n_layers],
                pooling: match events[idx] % 3 {
                    0 => Pooling::Last,
                    _ => Pooling::Mean(rest.len()..suffix.len()),
                },
            })
            .collect();
        let requests: Vec<LabelRequest<'_>> = suffixes
            .iter()
            .zip(&hidden)
            .enumerate()
            .map(|(idx, (suffix, hidden))| LabelRequest {
                prefix,
                suffix,
                labels: &self.labels[events[idx] % 2],
                hidden: Some(hidden),
            })
            .collect();
        let scores = self.model.score_labels_batch(&requests).unwrap();
        scores.iter().map(bits).collect()
    }

    fn prefix(&self, n_tokens: usize) -> Prefix {
        self.model.prefix(&text(7, n_tokens)).unwrap()
    }
}

fn options(form: WeightForm, key_values: KeyValueForm, threads: usize) -> LoadOptions {
    LoadOptions {
        threads: threads.try_into().unwrap(),
        weight_form: form,
        key_value_form: Some(key_values),
        ..LoadOptions::default()
    }
}

/// Each event's bits, scored alone on one thread.
fn alone(file: &NamedTempFile, form: WeightForm, key_values: KeyValueForm) -> Vec<Vec<u64>> {
    let scorer = Scorer::new(load_with(file, options(form, key_values, 1)));
    let prefix = scorer.prefix(PREFIX_TOKENS);
    let events = 0..EVENT_TOKENS.len();
    events
        .map(|event| scorer.score(&prefix, &[event]).remove(0))
        .collect()
}

fn check_batches_and_threads(shape: &Shape, form: WeightForm, key_values: KeyValueForm) {
    let file = file(shape, 11);
    let expected = alone(&file, form, key_values);
    let distinct: std::collections::HashSet<_> = expected.iter().collect();
    assert_eq!(distinct.len(), expected.len(), "the events differ");
    for threads in [1, 2, 3] {
        let scorer = Scorer::new(load_with(&file, options(form, key_values, threads)));
        let prefix = scorer.prefix(PREFIX_TOKENS);
        for order in [
            &[0, 1, 2, 3, 4][..],
            &[4, 3, 2, 1, 0],
            &[2, 2, 0],
            &[3, 1],
            &[4],
        ] {
            for (scores, &event) in scorer.score(&prefix, order).iter().zip(order) {
                assert!(
                    scores == &expected[event],
                    "{threads} threads, {event} in {order:?}"
                );
            }
        }
    }
}

#[test]
fn an_event_gives_the_same_in_any_batch_on_any_number_of_threads() {
    for key_values in [KeyValueForm::Bf16, KeyValueForm::Int8] {
        check_batches_and_threads(&narrow(), WeightForm::Compact, key_values);
        check_batches_and_threads(&wide(), WeightForm::Compact, key_values);
    }
    check_batches_and_threads(&wide(), WeightForm::Int8, KeyValueForm::Bf16);
}

fn check_prefixes(shape: &Shape, key_values: KeyValueForm) {
    let file = file(shape, 12);
    let expected = alone(&file, WeightForm::Compact, key_values);
    let options = LoadOptions {
        fingerprint: Some(Fingerprint::of_files(&[file.path().to_owned()]).unwrap()),
        ..options(WeightForm::Compact, key_values, 2)
    };
    let scorer = Scorer::new(load_with(&file, options.clone()));
    let all = [0, 1, 2, 3, 4];
    let check = |prefix: &Prefix, what: &str| {
        assert!(scorer.score(prefix, &all) == expected, "{what}");
    };
    for n_tokens in [0, 1, 63, 64, 65, 127, 128, 149] {
        check(
            &scorer.prefix(n_tokens),
            &format!("{n_tokens} tokens before"),
        );
    }
    let start = text(7, PREFIX_TOKENS);
    for steps in [&[10, 54, 86][..], &[64, 86], &[1, 149], &[50, 50, 50]] {
        let mut prefix = scorer.model.prefix(&[]).unwrap();
        for &step in steps {
            let tokens = &start[prefix.len()..prefix.len() + step];
            prefix = scorer.model.extend(&prefix, tokens).unwrap();
        }
        check(&prefix, &format!("in steps of {steps:?}"));
    }
    let mut session = scorer.model.session(None).unwrap();
    session.advance(&start[..100]).unwrap();
    session.advance(&text(9, 30)).unwrap();
    session.truncate(100);
    session.advance(&start[100..]).unwrap();
    check(&session.to_prefix(), "out of a session that was cut");
    check_cache(&scorer, &check);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prefix");
    let whole = scorer.prefix(PREFIX_TOKENS);
    scorer.model.save_prefix(&whole, None, &path).unwrap();
    check(
        &scorer.model.load_prefix(&path).unwrap().prefix,
        "from disk",
    );
    let other = Scorer::new(load_with(&file, options));
    let loaded = other.model.load_prefix(&path).unwrap().prefix;
    assert!(
        other.score(&loaded, &all) == expected,
        "from disk, in another load"
    );
}

fn check_cache(scorer: &Scorer, check: &dyn Fn(&Prefix, &str)) {
    let model = &scorer.model;
    let start = text(7, PREFIX_TOKENS);
    // Another policy with the same trunk, so that ours branches off inside a block.
    let other = [&start[..100], &text(8, 60)].concat();
    let cache = PrefixCache::new(model, 1 << 30);
    cache.prefix(model, &other).unwrap();
    check(
        &cache.prefix(model, &start).unwrap(),
        "beside another with the same trunk",
    );
    let counters = cache.counters();
    assert_eq!((counters.hits, counters.misses), (0, 2));
    assert_eq!(
        (counters.reused_tokens, counters.computed_tokens),
        (100, 210)
    );
    check(&cache.prefix(model, &start).unwrap(), "warm");
    assert_eq!(cache.counters().hits, 1);

    let small = PrefixCache::new(model, 0);
    drop(small.prefix(model, &start).unwrap());
    small.pin(&model.prefix(&[]).unwrap()).unwrap();
    let counters = small.counters();
    assert_eq!((counters.evictions, counters.size_bytes), (3, 0));
    check(
        &small.prefix(model, &start).unwrap(),
        "evicted and computed again",
    );
}

#[test]
fn an_event_gives_the_same_from_any_prefix() {
    for key_values in [KeyValueForm::Bf16, KeyValueForm::Int8] {
        check_prefixes(&narrow(), key_values);
        check_prefixes(&wide(), key_values);
    }
}

#[test]
fn keys_and_values_are_bf16_unless_another_form_is_asked_for() {
    let file = file(&narrow(), 12);
    let bits = |options: LoadOptions| {
        let scorer = Scorer::new(load_with(&file, options));
        let prefix = scorer.prefix(PREFIX_TOKENS);
        (prefix.size_bytes(), scorer.score(&prefix, &[2]))
    };
    let [default, (bf16_bytes, bf16), (int8_bytes, int8)] = [
        LoadOptions::default(),
        options(WeightForm::Compact, KeyValueForm::Bf16, 1),
        options(WeightForm::Compact, KeyValueForm::Int8, 1),
    ]
    .map(bits);
    assert!(default == (bf16_bytes, bf16.clone()));
    assert!(bf16 != int8);
    // A byte a number and a scale for 64 of them, against two bytes a number.
    let expected = bf16_bytes * (64 + 4) / 128;
    assert!(
        int8_bytes.abs_diff(expected) < 100 * 3,
        "{int8_bytes} {expected}"
    );
}

#[test]
fn a_truncated_model_file_is_an_error_in_a_running_model_and_no_crash() {
    let file = file(&narrow(), 13);
    let model = load(&file, WeightForm::Compact, 1);
    let tokens = text(1, 20);
    let before = model.logits(None, &tokens).unwrap();
    file.as_file().set_len(1000).unwrap();
    assert!(model.logits(None, &tokens).is_err());
    drop(before);
}
