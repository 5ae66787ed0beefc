//! Golden files for the tests of the other crates; a dev-dependency only.
//!
//! The house rules (dependency levels, foreign types, paths named in documents)
//! are this crate's own tests, in `tests/house_rules.rs`.

use std::fs;
use std::path::Path;

/// Set to `1` to rewrite golden files instead of comparing with them.
pub const UPDATE_VARIABLE: &str = "INWARDEN_UPDATE_GOLDEN";

/// Compares `got` with the golden file, or rewrites the file when the
/// environment variable [`UPDATE_VARIABLE`] is `1`.
///
/// A relative path is taken from the directory of the crate under test, which
/// is where `cargo test` runs.
///
/// # Panics
/// If they differ, naming the first line that does; if the file is missing, or
/// cannot be read or written. This is how a test fails.
pub fn check(golden: impl AsRef<Path>, got: &str) {
    let update = std::env::var_os(UPDATE_VARIABLE).is_some_and(|value| value == "1");
    if let Err(problem) = compare(golden.as_ref(), got, update) {
        panic!("{problem}");
    }
}

fn compare(golden: &Path, got: &str, update: bool) -> Result<(), String> {
    let shown = golden.display();
    if update {
        return fs::write(golden, got).map_err(|error| format!("cannot write {shown}: {error}"));
    }
    let expected = fs::read_to_string(golden)
        .map_err(|error| format!("cannot read {shown}: {error}; {UPDATE_VARIABLE}=1 writes it"))?;
    if expected == got {
        return Ok(());
    }
    let mut pairs = (1..).zip(lines(&expected).zip(lines(got)));
    let difference = pairs.find(|(_, (expected, got))| expected != got);
    let (line, expected, got) = difference.map_or((0, None, None), |(line, (e, g))| (line, e, g));
    Err(format!(
        "{shown} differs at line {line}\n  expected: {expected:?}\n  got:      {got:?}\n\
         {UPDATE_VARIABLE}=1 accepts what was got"
    ))
}

/// The lines with their ends, and then `None` for ever.
fn lines(text: &str) -> impl Iterator<Item = Option<&str>> {
    text.split_inclusive('\n')
        .map(Some)
        .chain(std::iter::repeat(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_difference(expected: &str, got: &str, line: &str) {
        let dir = tempfile::tempdir().unwrap();
        let golden = dir.path().join("golden");
        fs::write(&golden, expected).unwrap();
        let problem = compare(&golden, got, false).unwrap_err();
        assert!(problem.contains(line), "{problem}");
        // Accepting it makes the next comparison pass.
        compare(&golden, got, true).unwrap();
        compare(&golden, got, false).unwrap();
    }

    #[test]
    fn the_first_differing_line_is_named() {
        check_difference("a\nb\n", "a\nc\n", "line 2");
        check_difference("a\n", "a\nb\n", "line 2");
        check_difference("a\nb\n", "a\n", "line 2");
        check_difference("a\n", "a", "line 1");
        check_difference("", "a", "line 1");
    }

    #[test]
    fn a_missing_file_says_how_to_write_it() {
        let problem = compare(Path::new("/nonexistent/golden"), "", false).unwrap_err();
        assert!(problem.contains(UPDATE_VARIABLE), "{problem}");
    }
}
