//! A judge whose prefix is kept in a file: the same answers with and without it.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use inwarden_classifier::{FoundPrefix, Judge, Prompt, QwenJudge, SavedPrefixReport, Shot};
use inwarden_inference::{Fingerprint, LoadOptions, Qwen2, Scheduler, SchedulerConfig};

const TEXTS: [&str; 3] = ["exec: id", "exec: tar czf a.tgz /srv\nparent: cron", "x"];

/// As the shipped one, but short enough for a context of 256 positions.
fn prompt() -> Prompt {
    Prompt {
        task: "Say attack or normal.".to_owned(),
        shots: vec![Shot {
            case_text: "exec: ls".to_owned(),
            malicious: false,
        }],
        ..Prompt::shipped()
    }
}

/// The golden model, loaded as another process would.
fn scheduler() -> Arc<Scheduler> {
    let golden = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/golden/qwen2-tiny/model.gguf"
    );
    let options = LoadOptions {
        threads: 1.try_into().expect("not zero"),
        fingerprint: Some(Fingerprint([3; 32])),
        ..LoadOptions::default()
    };
    let model = Qwen2::load(&[golden.into()], &options).expect("the golden model loads");
    let scheduler = Scheduler::start(Arc::new(model), SchedulerConfig::default());
    Arc::new(scheduler.expect("threads can be started"))
}

/// A judge of a new load, and how many passes its setup took.
fn start(prompt: &Prompt, file: &Path) -> (QwenJudge, SavedPrefixReport, u64) {
    let scheduler = scheduler();
    let (judge, report) =
        QwenJudge::with_saved_prefix(Arc::clone(&scheduler), "golden", prompt, file)
            .expect("the prompt fits");
    (judge, report, scheduler.counters().completed)
}

fn answers(judge: &QwenJudge) -> Vec<u64> {
    let answers = TEXTS.map(|text| judge.judge(text).expect("the text fits").log_odds.to_bits());
    answers
        .into_iter()
        .chain([judge.prior_log_odds().to_bits()])
        .collect()
}

#[test]
fn a_saved_prefix_changes_no_bit_of_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("golden.prefix");
    let expected = answers(&QwenJudge::new(scheduler(), "golden", &prompt()).unwrap());

    let (judge, report, n_passes) = start(&prompt(), &file);
    assert!(matches!(report.found, FoundPrefix::Absent), "{report:?}");
    assert!(report.not_saved.is_none(), "{report:?}");
    assert_eq!(n_passes, 3, "the prior's texts are scored");
    assert_eq!(answers(&judge), expected);

    let (judge, report, n_passes) = start(&prompt(), &file);
    assert!(matches!(report.found, FoundPrefix::Usable), "{report:?}");
    assert_eq!(n_passes, 0, "nothing is computed again");
    assert_eq!(answers(&judge), expected);

    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_damaged_file_is_refused_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("golden.prefix");
    let (judge, ..) = start(&prompt(), &file);
    let expected = answers(&judge);
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() - 1], b"", b"INWKVPFX"] {
        std::fs::write(&file, damaged).unwrap();
        let (judge, report, _) = start(&prompt(), &file);
        assert!(
            matches!(report.found, FoundPrefix::Refused(_)),
            "{report:?}"
        );
        assert!(report.not_saved.is_none(), "{report:?}");
        assert_eq!(answers(&judge), expected);
        assert_eq!(std::fs::read(&file).unwrap(), whole);
    }
}

#[test]
fn the_prefix_or_prior_of_another_prompt_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("golden.prefix");
    let other_task = Prompt {
        task: "Say normal or attack.".to_owned(),
        ..prompt()
    };
    // The same prefix, another prior.
    let other_prior = Prompt {
        content_free: vec!["exec: nothing".to_owned()],
        ..prompt()
    };
    for other in [other_task, other_prior] {
        start(&other, &file);
        let (judge, report, _) = start(&prompt(), &file);
        assert!(
            matches!(report.found, FoundPrefix::OtherPrompt),
            "{report:?}"
        );
        let expected = QwenJudge::new(scheduler(), "golden", &prompt()).unwrap();
        assert_eq!(answers(&judge), answers(&expected));
        let (_, report, _) = start(&prompt(), &file);
        assert!(matches!(report.found, FoundPrefix::Usable), "{report:?}");
    }
}

#[test]
fn a_file_that_cannot_be_written_or_read_costs_time_only() {
    let dir = tempfile::tempdir().unwrap();
    let (judge, report, _) = start(&prompt(), &dir.path().join("absent/golden.prefix"));
    assert!(matches!(report.found, FoundPrefix::Absent), "{report:?}");
    assert!(report.not_saved.is_some());
    let expected = answers(&judge);

    let (judge, report, _) = start(&prompt(), dir.path());
    assert!(
        matches!(report.found, FoundPrefix::Refused(_)),
        "{report:?}"
    );
    assert!(report.not_saved.is_some());
    assert_eq!(answers(&judge), expected);
}
