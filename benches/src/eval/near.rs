//! Rows of the corpus that nearly are rows of the evaluation.
//!
//! Two texts are near-duplicates if their sets of 5-character runs have a Jaccard
//! index above 0.75. Found through an index from run to corpus rows, so that only
//! rows with something in common are compared.

use std::collections::{BTreeSet, HashMap};

use super::twin::hash;

const RUN: usize = 5;
const THRESHOLD: f64 = 0.75;
/// Characters of a text that are compared.
const MAX_CHARS: usize = 20_000;

/// Which rows of either side have a near-duplicate on the other, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NearDuplicates {
    pub(crate) corpus: BTreeSet<usize>,
    pub(crate) evaluated: BTreeSet<usize>,
}

pub(crate) fn find<'a>(
    corpus: impl IntoIterator<Item = &'a str>,
    evaluated: impl IntoIterator<Item = &'a str>,
) -> NearDuplicates {
    let mut index: HashMap<u64, Vec<usize>> = HashMap::new();
    let mut sizes = Vec::new();
    for (idx, text) in corpus.into_iter().enumerate() {
        let runs = runs(text);
        sizes.push(runs.len());
        for run in runs {
            index.entry(run).or_default().push(idx);
        }
    }
    let mut found = NearDuplicates::default();
    for (row, text) in evaluated.into_iter().enumerate() {
        let runs = runs(text);
        let mut shared: HashMap<usize, usize> = HashMap::new();
        for run in &runs {
            for &idx in index.get(run).into_iter().flatten() {
                *shared.entry(idx).or_default() += 1;
            }
        }
        for (idx, shared) in shared {
            let either = runs.len() + sizes[idx] - shared;
            if shared as f64 / either as f64 > THRESHOLD {
                found.corpus.insert(idx);
                found.evaluated.insert(row);
            }
        }
    }
    found
}

/// The runs of a text, white space taken as one blank; a shorter text is one run.
fn runs(text: &str) -> BTreeSet<u64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let chars: Vec<char> = words.join(" ").chars().take(MAX_CHARS).collect();
    let run = |chars: &[char]| hash(b"", chars.iter().collect::<String>().as_bytes());
    if chars.len() < RUN {
        return BTreeSet::from([run(&chars)]);
    }
    chars.windows(RUN).map(run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_above_the_index_are_found_on_both_sides() {
        let corpus = [
            "tar -czf backup.tgz /srv/app/releases/current",
            "systemctl restart nginx.service",
            "ls",
        ];
        let evaluated = [
            "systemctl restart apache2.service",
            "tar -czf  backup.tgz /srv/app/releases/current2",
            "ls",
        ];
        let found = find(corpus, evaluated);
        assert_eq!(found.corpus, BTreeSet::from([0, 2]));
        assert_eq!(found.evaluated, BTreeSet::from([1, 2]));
    }

    #[test]
    fn index_is_shared_over_either() {
        // abcdefgh: abcde bcdef cdefg defgh; abcdefghi: one more, 4 of 5 = 0.8.
        assert_eq!(find(["abcdefgh"], ["abcdefghi"]).corpus.len(), 1);
        // abcdefg: 3 of 5 = 0.6. abcdef and abcdefgh: 2 of 4.
        assert!(find(["abcdefg"], ["abcdefghi"]).corpus.is_empty());
        assert!(find(["abcdef"], ["abcdefgh"]).corpus.is_empty());
        // 3 of 4 is the border, which is not above it.
        assert!(find(["abcdefg"], ["abcdefgh"]).corpus.is_empty());
    }
}
