//! Learning over the real model, with `INWARDEN_TEST_REAL=1`: few rows, from states
//! to a set in a directory that the same model then takes.

use std::{env, ops::ControlFlow, path::PathBuf, sync::Arc};

use inwarden_classifier::{
    ClassifierError, LearnTask, LearnedOrigin, LearnedSet, Prompt, Question, StateStore,
    distinct_rows, extract_states, kept_states, learn, shipped_corpus,
};
use inwarden_inference::{LanguageModel, LoadOptions, Qwen2};

const MODEL_ID: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m";

#[test]
fn few_rows_are_learnt_after_an_interruption_and_the_set_is_taken() {
    if env::var_os("INWARDEN_TEST_REAL").is_none_or(|value| value != "1") {
        eprintln!("SKIPPED: learning is tested over the real model with INWARDEN_TEST_REAL=1");
        return;
    }
    let models = env::var_os("INWARDEN_MODELS").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/inwarden/models"),
        PathBuf::from,
    );
    let gguf = models.join(MODEL_ID).join(format!("{MODEL_ID}.gguf"));
    let model = Qwen2::load(&[gguf], &LoadOptions::default());
    let model = Arc::new(model.expect("the installed model loads"));
    let question = Question::UserText;
    // The shortest of both labels: the least to compute.
    let mut all = shipped_corpus(question).unwrap();
    all.sort_by_key(|row| row.text.len());
    let (attacks, ordinary): (Vec<_>, Vec<_>) = all.into_iter().partition(|row| row.malicious);
    let rows = attacks
        .into_iter()
        .take(20)
        .chain(ordinary.into_iter().take(20));
    let rows = distinct_rows(question, rows);
    assert_eq!(rows.len(), 40);
    let prompt = Prompt::of(question);
    let mut texts: Vec<String> = rows.iter().map(|row| row.text.clone()).collect();
    texts.extend_from_slice(&prompt.content_free);

    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let choice = kept_states(model.config().num_hidden_layers);
        let model = Arc::clone(&model);
        StateStore::open(model, MODEL_ID, &prompt, choice, dir.path()).unwrap()
    };
    let task = LearnTask {
        question,
        rows: &rows,
        n_folds: 4,
        memory: None,
    };
    let mut store = open();
    let mut reports = 0;
    let left = extract_states(&mut store, &texts, &mut |_| {
        reports += 1;
        match reports > 1 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    let left = left.unwrap();
    assert!(left > 0 && left < texts.len());
    let early = learn(&task, &mut store);
    assert!(matches!(
        early,
        Err(ClassifierError::LearnRows("states are missing"))
    ));
    drop(store);

    let mut store = open();
    let mut seen = Vec::new();
    let missing = extract_states(&mut store, &texts, &mut |at| {
        seen.push(at);
        ControlFlow::Continue(())
    });
    assert_eq!(missing.unwrap(), 0);
    assert_eq!(
        seen[0].done,
        texts.len() - left,
        "the former run's states stay"
    );
    assert!(seen.last().unwrap().remaining.is_some());

    let learned = learn(&task, &mut store).unwrap();
    assert_eq!(
        (learned.card.n_malicious(), learned.card.n_benign()),
        (20, 20)
    );
    let json = learned.card.to_json();
    assert!(
        json["sets"]["with_head"]["separation"]["auc"]
            .as_f64()
            .unwrap()
            > 0.6,
        "{json}"
    );
    let compute = format!("{:?}", model.weight_form());
    let used = LearnedOrigin::of(question, MODEL_ID, "00", compute);
    let out = dir.path().join("learned");
    learned.write(&out, &used).unwrap();
    drop(store);
    let model = LanguageModel::from(Arc::clone(&model));
    let set = LearnedSet::load(&out, question, &used, &model)
        .unwrap()
        .unwrap();
    assert_eq!(set.head, learned.head);
    assert_eq!(set.weights, learned.weights);
}
