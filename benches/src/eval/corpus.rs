//! The shipped corpus, for the linear twin and the search for near-duplicates.

use std::path::{Path, PathBuf};

use super::{
    error::RowError,
    rows::{Kind, Row, read_lines},
};

/// Where the corpus lies in the source tree.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/classifier/data");

/// The labelled rows of one kind, with the files they came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Corpus {
    pub(crate) rows: Vec<Row>,
    pub(crate) files: Vec<String>,
}

/// The directory in use: `named`, or the one of the source tree.
pub(crate) fn directory(named: Option<&Path>) -> PathBuf {
    named.map_or_else(|| PathBuf::from(DATA), Path::to_owned)
}

/// The labelled rows of `kind` in `directory/corpus/KIND*.jsonl`; program starts
/// also of `precedents.jsonl` and `calibration.jsonl`.
pub(crate) fn read(directory: &Path, kind: Kind) -> Result<Corpus, RowError> {
    let mut files = named_after(&directory.join("corpus"), kind)?;
    if kind == Kind::Exec {
        files.push(directory.join("precedents.jsonl"));
        files.push(directory.join("calibration.jsonl"));
    }
    let mut corpus = Corpus::default();
    for file in files {
        let Some(lines) = read_lines(&file)? else {
            continue;
        };
        for line in lines {
            let row = line.into_row(kind)?;
            if row.is_attack.is_some() {
                corpus.rows.push(row);
            }
        }
        let name = file.file_name().unwrap_or_default();
        corpus.files.push(name.to_string_lossy().into_owned());
    }
    Ok(corpus)
}

/// The files of one kind, by name.
fn named_after(directory: &Path, kind: Kind) -> Result<Vec<PathBuf>, RowError> {
    let unreadable = |source| RowError::Unreadable {
        path: directory.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(kind.name()) && name.ends_with(".jsonl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_corpus_holds_both_labels() {
        let corpus = read(&directory(None), Kind::Exec).unwrap();
        let attacks = corpus.rows.iter().filter(|row| row.is_attack == Some(true));
        let attacks = attacks.count();
        assert!(
            attacks > 300 && attacks < corpus.rows.len() - 300,
            "{attacks}"
        );
        assert!(corpus.files.contains(&"calibration.jsonl".to_owned()));
    }

    #[test]
    fn files_are_told_apart_by_the_start_of_their_name() {
        let dir = tempfile::tempdir().unwrap();
        let corpus = dir.path().join("corpus");
        std::fs::create_dir(&corpus).unwrap();
        let write = |name: &str, line: &str| std::fs::write(corpus.join(name), line).unwrap();
        write("exec-a.jsonl", r#"{"label":"malicious","argv":["x"]}"#);
        write("prompts.jsonl", r#"{"label":"injection","text":"y"}"#);
        assert_eq!(read(dir.path(), Kind::Exec).unwrap().rows.len(), 1);
        assert_eq!(read(dir.path(), Kind::Prompts).unwrap().rows.len(), 1);
        assert!(read(dir.path(), Kind::ToolCalls).unwrap().rows.is_empty());
    }
}
