//! Finds the real model files, or says why a test is skipped.

use std::path::PathBuf;

/// The directory of an installed model, if it is there.
///
/// # Panics
/// If it is absent although `INWARDEN_TEST_REAL=1` demands it.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub(crate) fn model_dir(id: &str) -> Option<PathBuf> {
    let dir = models_dir().join(id);
    if dir.is_dir() {
        return Some(dir);
    }
    let demanded = std::env::var("INWARDEN_TEST_REAL").is_ok_and(|value| value == "1");
    assert!(
        !demanded,
        "INWARDEN_TEST_REAL=1, but {} is absent",
        dir.display()
    );
    eprintln!(
        "SKIPPED: {} is absent (inwarden models pull {id})",
        dir.display()
    );
    None
}

fn models_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("INWARDEN_MODELS") {
        return dir.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let cache = cache.unwrap_or_else(|| home.join(".cache"));
    cache.join("inwarden/models")
}
