//! Many texts that look like those of the corpus.

use std::collections::HashSet;

use anyhow::ensure;
use rand::{
    Rng as _, SeedableRng as _,
    seq::{IndexedRandom as _, SliceRandom as _},
};
use rand_chacha::ChaCha8Rng;

use super::MemoryOptions;
use crate::eval::{
    corpus,
    rows::{Kind, Question},
};

/// The longest text, in characters: most command lines are shorter, and embedding takes
/// time with the length.
const MAX_CHARS: usize = 240;

/// How often a draw may repeat a text before the corpus counts as too small.
const MAX_REPEATS: usize = 50;

/// A text to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) text: String,
    pub(crate) is_attack: bool,
    pub(crate) kind: Kind,
}

/// What is stored and what is asked for.
pub(crate) struct Texts {
    pub(crate) stored: Vec<Stored>,
    /// None of them is stored.
    pub(crate) queries: Vec<String>,
}

impl Texts {
    pub(crate) fn of_corpus(options: &MemoryOptions) -> anyhow::Result<Self> {
        let directory = corpus::directory(options.corpus.as_deref());
        let mut rows = Vec::new();
        for kind in Kind::ALL {
            for row in corpus::read(&directory, kind)?.rows {
                rows.push(Stored {
                    text: shown(&row.question).chars().take(MAX_CHARS).collect(),
                    is_attack: row.is_attack == Some(true),
                    kind,
                });
            }
        }
        ensure!(!rows.is_empty(), "the corpus is empty");
        // So that fewer records are a sample of all kinds.
        rows.shuffle(&mut ChaCha8Rng::seed_from_u64(options.seed));
        let mut draw = Draw::new(rows, options.seed);
        let mut stored = Vec::with_capacity(options.records);
        for row in draw.rows.clone() {
            if stored.len() < options.records && draw.seen.insert(row.text.clone()) {
                stored.push(row);
            }
        }
        while stored.len() < options.records {
            stored.push(draw.next()?);
        }
        let queries = (0..options.queries)
            .map(|_| draw.next().map(|query| query.text))
            .collect::<Result<_, _>>()?;
        Ok(Self { stored, queries })
    }
}

/// A program start as the product stores it: with its kind and parent.
fn shown(question: &Question) -> String {
    match question {
        Question::Exec { argv, parent } => {
            let parent = parent.as_deref().unwrap_or("unknown");
            format!("exec: {} parent: {parent}", argv.join(" "))
        }
        other => other.text(),
    }
}

/// Draws variations: a row in which some words are those of other rows.
struct Draw {
    rows: Vec<Stored>,
    words: Vec<String>,
    seen: HashSet<String>,
    rng: ChaCha8Rng,
}

impl Draw {
    fn new(rows: Vec<Stored>, seed: u64) -> Self {
        let words: HashSet<&str> = rows
            .iter()
            .flat_map(|row| row.text.split(' '))
            .filter(|word| is_exchanged(word))
            .collect();
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        words.sort_unstable();
        Self {
            rows,
            words,
            seen: HashSet::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    fn next(&mut self) -> anyhow::Result<Stored> {
        for _ in 0..MAX_REPEATS {
            let Some(mut row) = self.rows.choose(&mut self.rng).cloned() else {
                break;
            };
            let mut words = Vec::new();
            for (idx, word) in row.text.split(' ').enumerate() {
                // The first two say what kind of case it is and which program it was.
                let is_kept = idx < 2 || !is_exchanged(word) || self.rng.random_bool(0.6);
                let other = self.words.choose(&mut self.rng);
                words.push(match other {
                    Some(other) if !is_kept => other.as_str(),
                    _ => word,
                });
            }
            row.text = words.join(" ");
            if self.seen.insert(row.text.clone()) {
                return Ok(row);
            }
        }
        anyhow::bail!("the corpus is too small for so many texts")
    }
}

/// Whether a word is one of the many that name a thing: a path, a host, an option's
/// value.
fn is_exchanged(word: &str) -> bool {
    word.len() >= 4 && !word.starts_with('-') && word.chars().any(char::is_alphanumeric)
}
