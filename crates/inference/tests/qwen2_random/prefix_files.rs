//! Prefix files: kept whole, private, and refused when anything differs.

use std::{os::unix::fs::PermissionsExt, path::Path};

use inwarden_inference::{
    Fingerprint, InferenceError, KeyValueForm, LoadOptions, Prior, Qwen2, SavedPrefix, WeightForm,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::NamedTempFile;

use crate::model::{Shape, file, load_with, text, wide};

/// One layer, so that files are small.
fn small() -> Shape {
    Shape {
        layers: 1,
        ..wide()
    }
}

fn options() -> LoadOptions {
    LoadOptions {
        threads: 1.try_into().expect("not zero"),
        fingerprint: Some(Fingerprint([7; 32])),
        ..LoadOptions::default()
    }
}

fn saved(file: &NamedTempFile, path: &Path) -> Qwen2 {
    saved_with(file, path, options())
}

fn saved_with(file: &NamedTempFile, path: &Path, options: LoadOptions) -> Qwen2 {
    let model = load_with(file, options);
    let prefix = model.prefix(&text(1, 100)).expect("the tokens are right");
    let prior = Prior {
        key: [9; 32],
        values: vec![-0.25, 3.5],
    };
    model
        .save_prefix(&prefix, Some(&prior), path)
        .expect("the directory is writable");
    model
}

fn refused_as(result: Result<SavedPrefix, InferenceError>) -> String {
    match result {
        Err(InferenceError::OtherPrefixFormat { what, .. }) => what.to_owned(),
        other => panic!("not refused as another format: {other:?}"),
    }
}

#[test]
fn a_prefix_and_its_prior_come_back_as_they_were() {
    let (file, dir) = (file(&small(), 31), tempfile::tempdir().unwrap());
    let path = dir.path().join("prefix");
    let model = saved(&file, &path);
    let loaded = model.load_prefix(&path).unwrap();
    assert_eq!(loaded.prefix.tokens(), text(1, 100));
    let prior = loaded.prior.unwrap();
    assert_eq!((prior.key, &prior.values[..]), ([9; 32], &[-0.25, 3.5][..]));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    // Saved again, from what was loaded: the same bytes.
    let again = dir.path().join("again");
    model
        .save_prefix(&loaded.prefix, Some(&prior), &again)
        .unwrap();
    assert_eq!(
        std::fs::read(&path).unwrap(),
        std::fs::read(&again).unwrap()
    );
}

#[test]
fn what_lies_behind_a_prefix_in_its_block_is_not_saved() {
    let (file, dir) = (file(&small(), 31), tempfile::tempdir().unwrap());
    let model = load_with(&file, options());
    let cache = inwarden_inference::PrefixCache::new(&model, 1 << 30);
    cache.prefix(&model, &text(1, 110)).unwrap();
    let [shared, own] = [
        cache.prefix(&model, &text(1, 100)).unwrap(),
        model.prefix(&text(1, 100)).unwrap(),
    ];
    let [shared, own] = [("shared", shared), ("own", own)].map(|(name, prefix)| {
        let path = dir.path().join(name);
        model.save_prefix(&prefix, None, &path).unwrap();
        std::fs::read(path).unwrap()
    });
    assert!(shared == own);
}

#[test]
fn a_file_of_another_model_or_format_is_refused_by_name() {
    let (file, dir) = (file(&small(), 31), tempfile::tempdir().unwrap());
    let path = dir.path().join("prefix");
    saved(&file, &path);
    let load = |options| load_with(&file, options).load_prefix(&path);
    let other = LoadOptions {
        fingerprint: Some(Fingerprint([8; 32])),
        ..options()
    };
    assert_eq!(refused_as(load(other)), "fingerprint of the weights");
    let other = LoadOptions {
        weight_form: WeightForm::Int8,
        ..options()
    };
    assert_eq!(refused_as(load(other)), "format");
    let other = LoadOptions {
        key_value_form: Some(KeyValueForm::Int8),
        ..options()
    };
    assert_eq!(refused_as(load(other)), "format");
    let other = LoadOptions {
        instruction_set: Some("scalar".into()),
        ..options()
    };
    assert_eq!(refused_as(load(other)), "format");
    let none = LoadOptions {
        fingerprint: None,
        ..options()
    };
    assert!(matches!(load(none), Err(InferenceError::NoFingerprint)));
    let short = LoadOptions {
        max_context_tokens: 99,
        ..options()
    };
    assert!(matches!(
        load(short),
        Err(InferenceError::ContextOverflow {
            positions: 100,
            limit: 99
        })
    ));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] += 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(refused_as(load(options())), "version");
}

#[test]
fn damage_is_an_error_wherever_it_is() {
    for key_value_form in [KeyValueForm::Bf16, KeyValueForm::Int8] {
        check_damage(LoadOptions {
            key_value_form: Some(key_value_form),
            ..options()
        });
    }
}

fn check_damage(options: LoadOptions) {
    let (file, dir) = (file(&small(), 31), tempfile::tempdir().unwrap());
    let path = dir.path().join("prefix");
    let model = saved_with(&file, &path, options);
    let whole = std::fs::read(&path).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for round in 0..400 {
        let mut bytes = whole.clone();
        match round % 4 {
            0 => bytes.truncate(random.random_range(0..whole.len())),
            1 => bytes.push(0),
            2 => bytes[random.random_range(0..300)] ^= 1 << random.random_range(0..8),
            _ => bytes[random.random_range(0..whole.len())] ^= 1 << random.random_range(0..8),
        }
        std::fs::write(&path, bytes).unwrap();
        assert!(model.load_prefix(&path).is_err(), "round {round}");
    }
    std::fs::write(&path, &whole).unwrap();
    model.load_prefix(&path).unwrap();
}

#[test]
fn a_count_that_no_file_could_hold_is_refused_before_it_is_believed() {
    let (file, dir) = (file(&small(), 31), tempfile::tempdir().unwrap());
    let path = dir.path().join("prefix");
    let model = saved(&file, &path);
    let whole = std::fs::read(&path).unwrap();
    let count = 100_u64.to_le_bytes();
    let at = whole.windows(8).position(|window| window == count).unwrap();
    for n_tokens in [u64::MAX, 1 << 60, 1 << 40, u64::from(u32::MAX)] {
        let mut bytes = whole.clone();
        bytes[at..at + 8].copy_from_slice(&n_tokens.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let refused = model.load_prefix(&path);
        assert!(
            matches!(refused, Err(InferenceError::Corrupt { .. })),
            "{n_tokens}"
        );
    }
    let refused = model.load_prefix(dir.path());
    assert!(matches!(refused, Err(InferenceError::Io { .. })));
}

#[test]
fn a_failed_save_leaves_the_older_file_and_nothing_else() {
    let (file, dir) = (file(&small(), 31), tempfile::tempdir().unwrap());
    let model = load_with(&file, options());
    let prefix = model.prefix(&text(1, 10)).unwrap();
    // A directory in the way cannot be replaced by a file.
    let path = dir.path().join("taken");
    std::fs::create_dir(&path).unwrap();
    let refused = model.save_prefix(&prefix, None, &path);
    assert!(matches!(refused, Err(InferenceError::Io { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let foreign = load_with(&file, options());
    let refused = foreign.save_prefix(&prefix, None, &dir.path().join("foreign"));
    assert!(matches!(refused, Err(InferenceError::ForeignPrefix)));
}
