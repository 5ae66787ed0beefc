//! Trains the shipped head and fits `data/weights.toml` on the shipped rows.
//!
//! Needs the models in `$INWARDEN_MODELS` (default `~/.cache/inwarden/models`).
//! Usage: `fit_calibration STATES_DIR SECONDS MODEL_ID QUESTION ROWS.jsonl...`.
//! Hidden states are kept in STATES_DIR: a run that is cut off, or whose SECONDS
//! are over, goes on in the next one. When all are there it trains the head,
//! writes `data/heads/MODEL_ID.QUESTION.json`, and for program starts fits the
//! weights.
//!
//! Expected output: how many rows are missing, or: each way to read the states with
//! its cross-validated separation, that of the fused score, and the thresholds. All
//! scores are cross-fitted: head, feature model and weights were fitted without the
//! rows of the same family. The thresholds are chosen on the scores they are
//! reported for; the choice among heads and penalties is, too.

#![expect(clippy::print_stdout, reason = "this program prints a report")]

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use inwarden_classifier::{
    Calibration, Classifier, ClassifierConfig, FitRow, Fitted, LearnRow, LearnSource, MiniLmEmbed,
    Parts, Position, Prompt, Question, RuleSet, Separation, StateChoice, StateStore, TermModel,
    TermOrigin, TextCalibration, TextFitRow, TextWeights, TrainedHead, Weights, cross_fitted_terms,
    fit_calibration, fit_texts, folds_of, read_rows, rows_hash, seed_memory, train_head,
};
use inwarden_inference::{Embedder, LoadOptions, Qwen2};
use inwarden_memory::{Embed as _, Memory};

const FOLDS: usize = 8;
/// Precedents nearer than this do not vote for a row: new cases have no twin in
/// the store, so the weight of a vote must not be learnt from twins.
const TWIN_COSINE: f64 = 0.9;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [states, seconds, model_id, question, files @ ..] = args.as_slice() else {
        bail!("usage: fit_calibration STATES_DIR SECONDS MODEL_ID QUESTION ROWS.jsonl...");
    };
    let question = Question::from_name(question).context("no such question")?;
    let deadline = Instant::now() + Duration::from_secs(seconds.parse()?);
    let rows = rows_of(question, files)?;
    let gguf = models()?.join(model_id).join(format!("{model_id}.gguf"));
    let model = Arc::new(Qwen2::load(&[gguf], &LoadOptions::default())?);
    let prompt = Prompt::of(question);
    let choice = kept_states(model.config().num_hidden_layers);
    let mut store = StateStore::open(model, model_id, &prompt, choice, Path::new(states))?;
    let mut texts: Vec<String> = rows.iter().map(|row| row.text.clone()).collect();
    texts.extend_from_slice(&prompt.content_free);
    let start = Instant::now();
    let n_missing = store.extract(&texts, Some(deadline), &mut |_| {})?;
    println!(
        "{} rows, {n_missing} missing after {:?}",
        rows.len(),
        start.elapsed()
    );
    if n_missing > 0 {
        return Ok(());
    }
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let words = fit_words(question, &rows, &data)?;
    let choices = choices(&store);
    let trained = train_head(question, &rows, &mut store, &choices, FOLDS)?;
    report(&trained);
    fs::create_dir_all(data.join("heads"))?;
    let file = data
        .join("heads")
        .join(format!("{model_id}.{}.json", question.name()));
    fs::write(&file, trained.head.to_text())?;
    println!("written: {}", file.display());
    if question == Question::Exec {
        let calibration = calibrate(&rows, &trained, &words, &mut store, &prompt)?;
        fs::write(data.join("weights.toml"), calibration.to_text()?)?;
    } else {
        let calibration = calibrate_texts(question, &rows, &trained, &words, &mut store, &prompt)?;
        let file = format!("weights-{}.toml", question.name());
        fs::write(data.join(file), calibration.to_text()?)?;
    }
    Ok(())
}

/// Fits and writes the model of the words; gives its cross-fitted scores.
fn fit_words(question: Question, rows: &[LearnRow], data: &Path) -> Result<Vec<f64>> {
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    let malicious: Vec<bool> = rows.iter().map(|row| row.malicious).collect();
    let groups: Vec<&str> = rows.iter().map(|row| row.group.as_str()).collect();
    let start = Instant::now();
    let scores = cross_fitted_terms(&texts, &malicious, &folds_of(&groups, FOLDS));
    let separation = Separation::of(&scores, &malicious);
    println!("words: {separation:?}, {:?}", start.elapsed());
    let origin = TermOrigin {
        question: question.name().to_owned(),
        corpus: rows_hash(rows),
        rows: rows.len(),
    };
    let model = TermModel::fit(origin, &texts, &malicious);
    fs::create_dir_all(data.join("terms"))?;
    let file = data.join("terms").join(format!("{}.bin", question.name()));
    fs::write(&file, model.to_bytes())?;
    println!("written: {}", file.display());
    Ok(scores)
}

/// The rows of `question`; of those that read the same, the first.
fn rows_of(question: Question, files: &[String]) -> Result<Vec<LearnRow>> {
    let mut seen = BTreeSet::new();
    let mut rows = Vec::new();
    for file in files {
        for row in read_rows(file, &fs::read_to_string(file)?)? {
            if row.question == question && seen.insert(row.text.clone()) {
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

fn kept_states(n_layers: usize) -> StateChoice {
    StateChoice {
        positions: vec![Position::EventMean, Position::Answer],
        layers: vec![
            n_layers / 3,
            n_layers / 2,
            n_layers * 2 / 3,
            n_layers * 5 / 6,
        ],
    }
}

/// The mean over the event of one, of three and of all kept layers; one layer by
/// itself, and the answer's state, have always done worse.
fn choices(store: &StateStore) -> Vec<StateChoice> {
    let layers = &store.choice().layers;
    [&layers[1..2], &layers[..3], &layers[..]]
        .map(|layers| StateChoice {
            positions: vec![Position::EventMean],
            layers: layers.to_vec(),
        })
        .to_vec()
}

fn report(trained: &TrainedHead) {
    for tried in &trained.tried {
        let positions: Vec<&str> = tried.choice.positions.iter().map(|p| p.name()).collect();
        let Separation {
            auc,
            recall_at_1,
            recall_at_3,
        } = tried.separation;
        println!(
            "{positions:?} of layers {:?}, penalty {}: AUC {auc:.4}, recall {recall_at_1:.3} at 1 %, {recall_at_3:.3} at 3 %",
            tried.choice.layers, tried.penalty
        );
    }
}

fn calibrate(
    rows: &[LearnRow],
    trained: &TrainedHead,
    words: &[f64],
    store: &mut StateStore,
    prompt: &Prompt,
) -> Result<Calibration> {
    let prior = label_prior(store, prompt)?;
    let minilm = Embedder::load(&models()?.join("all-minilm-l6-v2"))?;
    let embed = Arc::new(MiniLmEmbed::new(minilm, "all-minilm-l6-v2"));
    let memory = Memory::ephemeral(embed.clone())?;
    seed_memory(&memory)?;
    let parts = Parts {
        judge: None,
        memory: Some(Arc::new(memory)),
        rules: Some(Arc::new(RuleSet::shipped()?)),
    };
    let config = ClassifierConfig::shipped()?;
    let classifier = Classifier::new(config.clone(), parts)?;
    let mut fit_rows = Vec::new();
    for ((row, head), words) in rows.iter().zip(&trained.scores).zip(words) {
        let LearnSource::Exec(case) = &row.source else {
            bail!("{} is no program start", row.id);
        };
        let mut signals = classifier.signals(case, &|hit| hit.score > TWIN_COSINE);
        let found = store.find(&row.text)?.context("computed above")?;
        signals.judge = Some(found.label_log_odds - prior);
        signals.head = Some(*head);
        signals.terms = Some(*words);
        fit_rows.push(FitRow {
            signals,
            malicious: row.malicious,
            group: row.group.clone(),
        });
    }
    alone(&fit_rows);
    let (features, fitted) = fit_calibration(&fit_rows, FOLDS);
    let [with_head, with_judge, without_judge] = fitted;
    let malicious: Vec<bool> = rows.iter().map(|row| row.malicious).collect();
    let n_malicious = malicious.iter().filter(|malicious| **malicious).count();
    Ok(Calibration {
        format: 3,
        judge: judge_identity(trained),
        embedder: embed.identity(),
        prior: n_malicious as f64 / rows.len() as f64,
        rows: rows.len(),
        corpus: trained.head.origin().corpus.clone(),
        settled_log_odds: config.calibration.settled_log_odds,
        with_head: with_thresholds("with head", with_head, &malicious),
        with_judge: with_thresholds("with labels", with_judge, &malicious),
        without_judge: with_thresholds("without judge", without_judge, &malicious),
        features,
    })
}

fn calibrate_texts(
    question: Question,
    rows: &[LearnRow],
    trained: &TrainedHead,
    words: &[f64],
    store: &mut StateStore,
    prompt: &Prompt,
) -> Result<TextCalibration> {
    let prior = label_prior(store, prompt)?;
    let mut fit_rows = Vec::new();
    for ((row, head), words) in rows.iter().zip(&trained.scores).zip(words) {
        let found = store.find(&row.text)?.context("computed above")?;
        fit_rows.push(TextFitRow {
            row,
            head: *head,
            labels: found.label_log_odds - prior,
            terms: *words,
        });
    }
    let malicious: Vec<bool> = rows.iter().map(|row| row.malicious).collect();
    let labels: Vec<f64> = fit_rows.iter().map(|row| row.labels).collect();
    println!(
        "head alone: {:?}",
        Separation::of(&trained.scores, &malicious)
    );
    println!("labels alone: {:?}", Separation::of(&labels, &malicious));
    let fitted = fit_texts(question, &fit_rows, FOLDS);
    let set = |name: &str, weights: TextWeights, scores: &[f64]| {
        println!("{name}: {weights:?}");
        let (malicious_threshold, benign_threshold) = thresholds(name, scores, &malicious);
        TextWeights {
            malicious_threshold,
            benign_threshold,
            ..weights
        }
    };
    let calibration = fitted.calibration;
    Ok(TextCalibration {
        judge: judge_identity(trained),
        corpus: trained.head.origin().corpus.clone(),
        with_head: set("with head", calibration.with_head, &fitted.scores),
        with_judge: set("with labels", calibration.with_judge, &fitted.with_judge),
        without_judge: set(
            "without judge",
            calibration.without_judge,
            &fitted.without_judge,
        ),
        ..calibration
    })
}

/// The labels' log-odds for texts without content.
fn label_prior(store: &mut StateStore, prompt: &Prompt) -> Result<f64> {
    let mut prior = 0.0;
    for text in &prompt.content_free {
        let found = store.find(text)?.context("computed above")?;
        prior += found.label_log_odds / prompt.content_free.len() as f64;
    }
    Ok(prior)
}

/// The identity of the judge that has this head.
fn judge_identity(trained: &TrainedHead) -> String {
    let origin = trained.head.origin();
    format!(
        "{} prompt:{} head:{}",
        origin.model,
        origin.prompt,
        trained.head.content_hash()
    )
}

/// Prints how well each signal separates by itself.
fn alone(rows: &[FitRow]) {
    let malicious: Vec<bool> = rows.iter().map(|row| row.malicious).collect();
    let print = |name: &str, of: &dyn Fn(&FitRow) -> f64| {
        let scores: Vec<f64> = rows.iter().map(of).collect();
        println!("{name} alone: {:?}", Separation::of(&scores, &malicious));
    };
    print("head", &|row| row.signals.head.unwrap_or(0.0));
    print("labels", &|row| row.signals.judge.unwrap_or(0.0));
    print("words", &|row| row.signals.terms.unwrap_or(0.0));
    print("vote", &|row| row.signals.vote);
    print("rule", &|row| f64::from(row.signals.rule_level));
}

fn with_thresholds(name: &str, fitted: Fitted, malicious: &[bool]) -> Weights {
    let Fitted { weights, scores } = fitted;
    let (malicious_threshold, benign_threshold) = thresholds(name, &scores, malicious);
    println!("{name}: {weights:?}");
    Weights {
        malicious_threshold,
        benign_threshold,
        ..weights
    }
}

/// The thresholds from the scores; prints what they do on the same rows.
fn thresholds(name: &str, scores: &[f64], malicious: &[bool]) -> (f64, f64) {
    println!("{name}: {:?}", Separation::of(scores, malicious));
    let of = |wanted: bool| -> Vec<f64> {
        let rows = scores.iter().zip(malicious);
        let picked = rows.filter(|(_, malicious)| **malicious == wanted);
        let mut picked: Vec<f64> = picked.map(|(s, _)| 1.0 / (1.0 + (-s).exp())).collect();
        picked.sort_by(f64::total_cmp);
        picked
    };
    let (attacks, ordinary) = (of(true), of(false));
    let above =
        |set: &[f64], at: f64| set.iter().filter(|p| **p >= at).count() as f64 / set.len() as f64;
    let round = |share: f64| (share * 1e3).round() / 1e3;
    // One in 100 ordinary rows may be called malicious, one in 20 attacks benign.
    let malicious = round((quantile(&ordinary, 0.99) + 0.001).clamp(0.6, 0.99));
    let benign = round(quantile(&attacks, 0.05).clamp(0.02, 0.4));
    println!(
        "{name}: malicious from {malicious:.3}: recall {:.3}, false positives {:.4}; benign up to {benign:.3}: {:.3} of ordinary, {:.3} of attacks",
        above(&attacks, malicious),
        above(&ordinary, malicious),
        1.0 - above(&ordinary, benign),
        1.0 - above(&attacks, benign),
    );
    (malicious, benign)
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    let idx = (last as f64 * share).ceil() as usize;
    sorted.get(idx).copied().unwrap_or(0.5)
}

fn models() -> Result<PathBuf> {
    Ok(match env::var_os("INWARDEN_MODELS") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?)
            .join(".cache/inwarden/models"),
    })
}
