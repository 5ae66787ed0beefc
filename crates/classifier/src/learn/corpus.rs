//! The shipped corpus, which stands in the program, packed.

use std::{collections::BTreeSet, io::Read as _};

use flate2::read::GzDecoder;

use crate::{
    ClassifierError, LearnRow, LearnSource, exec_case,
    judge::Question,
    read_rows,
    render::{base_name, render_case},
};

/// The rows of `data/corpus`, one file after the other by name; `build.rs` packs them.
const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/corpus.jsonl.gz"));

/// The rows of `question` that come with this crate.
///
/// # Errors
/// [`ClassifierError::LearnLine`] or [`ClassifierError::LearnRows`]; a test makes
/// sure that there is none.
pub fn shipped_corpus(question: Question) -> Result<Vec<LearnRow>, ClassifierError> {
    let mut text = String::new();
    GzDecoder::new(PACKED)
        .read_to_string(&mut text)
        .map_err(|_| ClassifierError::LearnRows("the shipped corpus cannot be unpacked"))?;
    let mut rows = read_rows("shipped corpus", &text)?;
    rows.retain(|row| row.question == question);
    Ok(rows)
}

/// Those of `rows` that are of `question`; of those that the judge reads the same,
/// the first.
pub fn distinct_rows(
    question: Question,
    rows: impl IntoIterator<Item = LearnRow>,
) -> Vec<LearnRow> {
    let mut seen = BTreeSet::new();
    rows.into_iter()
        .filter(|row| row.question == question && seen.insert(row.text.clone()))
        .collect()
}

/// A row of ordinary work: that `argv` was started by a program of the name `parent`.
/// Its family and group are its program, named as in the shipped corpus.
#[must_use]
pub fn ordinary_exec(id: &str, argv: Vec<String>, parent: Option<&str>) -> LearnRow {
    let family = recorded_family(&argv);
    let parents: Vec<String> = parent.map(str::to_owned).into_iter().collect();
    let case = exec_case(id, argv, &parents);
    LearnRow {
        id: id.to_owned(),
        malicious: false,
        group: family.clone(),
        family,
        question: Question::Exec,
        text: render_case(&case),
        source: LearnSource::Exec(Box::new(case)),
    }
}

/// The family of recorded work: `recorded_` and the program's name in snake case.
#[must_use]
pub fn recorded_family(argv: &[String]) -> String {
    let program = argv.first().map_or("", |program| base_name(program));
    let plain = program.chars().take(40).map(|c| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_lowercase(),
        _ => '_',
    });
    format!("recorded_{}", plain.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_corpus_has_both_labels_of_each_question() {
        for question in [
            Question::Exec,
            Question::UserText,
            Question::ToolOutput,
            Question::ToolCall,
        ] {
            let rows = shipped_corpus(question).unwrap();
            let n_malicious = rows.iter().filter(|row| row.malicious).count();
            assert!(n_malicious > 100, "{question:?}: {n_malicious}");
            assert!(rows.len() > n_malicious + 100, "{question:?}");
        }
    }

    #[test]
    fn recorded_work_reads_as_the_same_row_of_a_file_would() {
        let line = r#"{"id":"a","label":"benign","family":"recorded_apt_get","argv":["/usr/bin/apt-get","update"],"parent":"sh"}"#;
        let read = read_rows("rows", line).unwrap().remove(0);
        let argv = ["/usr/bin/apt-get", "update"].map(str::to_owned).to_vec();
        assert!(ordinary_exec("a", argv, Some("sh")) == read);
    }

    #[test]
    fn of_two_rows_that_read_the_same_the_first_stays() {
        let line = |id: &str, label: &str| {
            format!(r#"{{"id":"{id}","label":"{label}","family":"f","argv":["id"]}}"#)
        };
        let text = [line("mine", "benign"), line("theirs", "malicious")].join("\n");
        let rows = distinct_rows(Question::Exec, read_rows("rows", &text).unwrap());
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].id.as_str(), rows[0].malicious), ("mine", false));
    }
}
