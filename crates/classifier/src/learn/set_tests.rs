use super::*;
use crate::{
    head::{HeadOrigin, Position, Separation, StateChoice},
    learn::{ReportCard, SetCard},
    terms::TermOrigin,
};

const QUESTION: Question = Question::UserText;

fn used() -> LearnedOrigin {
    LearnedOrigin::of(QUESTION, "m", "00ff", "Int8".to_owned())
}

fn parts() -> LearnedParts {
    let origin = HeadOrigin {
        question: QUESTION.name().to_owned(),
        model: "m".to_owned(),
        compute: "Int8".to_owned(),
        prompt: "p".to_owned(),
        rendering: rendering_hash(),
        corpus: "c".to_owned(),
        rows: 2,
    };
    let choice = StateChoice {
        positions: vec![Position::EventMean],
        layers: vec![1],
    };
    let terms = TermOrigin {
        question: QUESTION.name().to_owned(),
        corpus: "c".to_owned(),
        rows: 2,
    };
    let weights = TextCalibration::shipped(QUESTION).unwrap().unwrap();
    let malicious = [true, false];
    let set = SetCard::of("with head", &[1.0, 0.0], &malicious);
    LearnedParts {
        head: Head::new(origin, choice, 0.5, vec![1.0, 2.0]),
        terms: TermModel::fit(terms, &["ignore that", "hello"], &malicious),
        weights: LearnedWeights::Texts(Box::new(weights)),
        card: ReportCard {
            question: QUESTION,
            model: "m".to_owned(),
            corpus: "c".to_owned(),
            n_folds: 2,
            tried: Vec::new(),
            signals: vec![("words", Separation::of(&[1.0, 0.0], &malicious))],
            sets: [set.clone(), set.clone(), set],
            families: Vec::new(),
        },
    }
}

fn error(dir: &Path, used: &LearnedOrigin) -> LearnedError {
    LearnedSet::read(dir, QUESTION, used).unwrap_err()
}

#[test]
fn a_set_comes_back_whole_and_the_former_one_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("a/learned");
    assert!(LearnedSet::read(&dir, QUESTION, &used()).unwrap().is_none());
    let mut former = parts();
    former.head = Head::new(
        former.head.origin().clone(),
        former.head.choice().clone(),
        0.25,
        vec![3.0, 2.0],
    );
    former.write(&dir, &used()).unwrap();
    let written = parts();
    let path = written.write(&dir, &used()).unwrap();
    assert_eq!(path, dir.join("user_text.toml"));
    let read = LearnedSet::read(&dir, QUESTION, &used()).unwrap().unwrap();
    assert_eq!(read.head, written.head);
    assert_eq!(read.terms, written.terms);
    assert_eq!(read.weights, written.weights);
    // One manifest and its three parts: nothing of the former set.
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 4);
    let other = LearnedSet::read(&dir, Question::ToolOutput, &used()).unwrap();
    assert!(other.is_none());
}

#[test]
fn a_set_of_anything_else_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    parts().write(dir.path(), &used()).unwrap();
    type Change = fn(&mut LearnedOrigin);
    let changes: [(&str, Change); 7] = [
        ("question", |used| used.question = "exec".to_owned()),
        ("model", |used| used.model = "n".to_owned()),
        ("model_sha256", |used| used.model_sha256 = "01".to_owned()),
        ("prompt", |used| used.prompt = "q".to_owned()),
        ("compute", |used| used.compute = "Bf16".to_owned()),
        ("rendering", |used| used.rendering = "r".to_owned()),
        ("features", |used| used.features = "f".to_owned()),
    ];
    for (expected, change) in changes {
        let mut other = used();
        change(&mut other);
        match error(dir.path(), &other) {
            LearnedError::Differs { what, .. } => assert_eq!(what, expected),
            refused => panic!("{expected}: {refused}"),
        }
    }
}

#[test]
fn a_damaged_or_foreign_set_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let manifest = parts().write(dir, &used()).unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    let with = |from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        fs::write(&manifest, changed).unwrap();
        error(dir, &used())
    };
    let other = with("format = 1", "format = 2");
    assert!(matches!(other, LearnedError::OtherFormat { got: 2 }));
    for (from, to) in [
        ("format = 1", "format = 1\nmore = 1"),
        ("file = \"user_text-", "file = \"../user_text-"),
        ("file = \"user_text-", "file = \"/etc/user_text-"),
        ("sha256 = \"", "sha256 = \"0"),
        ("format = 1", "format = "),
    ] {
        let refused = with(from, to);
        assert!(
            matches!(refused, LearnedError::Corrupt { .. }),
            "{to}: {refused}"
        );
    }
    fs::write(&manifest, "#".repeat(70_000)).unwrap();
    assert!(matches!(error(dir, &used()), LearnedError::Corrupt { .. }));
    fs::write(&manifest, &text).unwrap();
    let mut entries = fs::read_dir(dir).unwrap().flatten();
    let words = entries.find(|entry| entry.path().extension() == Some("bin".as_ref()));
    let words = words.unwrap().path();
    let mut bytes = fs::read(&words).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&words, bytes).unwrap();
    assert!(matches!(error(dir, &used()), LearnedError::Corrupt { .. }));
    fs::remove_file(&words).unwrap();
    assert!(matches!(error(dir, &used()), LearnedError::Io { .. }));
}

#[test]
fn each_question_has_features_of_its_own() {
    let all = [Question::Exec, Question::UserText, Question::ToolCall].map(features_hash);
    assert!(all[0] != all[1] && all[1] != all[2]);
}
