//! Texts as sparse vectors of hashed words, weighted as in BM25.
//!
//! A stored text's vector holds what depends on that text alone (how often a word
//! occurs, how long the text is); a query's vector holds how rare its words are in
//! the collection. Their dot product is BM25, with a fixed average length so that a
//! stored vector never has to be computed again, and it is the same number on every
//! backend.
//!
//! Source: Robertson, Zaragoza, "The Probabilistic Relevance Framework: BM25 and
//! Beyond", 2009, section 3.

use std::collections::HashMap;

/// How fast repetitions of a word stop to count.
const K1: f32 = 1.2;
/// How much a long text's words count for less.
const B: f32 = 0.75;
/// The length that counts as average, in words: a command line with its parent.
const AVERAGE_WORDS: f32 = 24.0;
/// The most distinct words of a text that count; the rest is left out.
const MAX_DISTINCT_WORDS: usize = 2048;
/// The longest word, in bytes; of a longer one the start counts.
const MAX_WORD_BYTES: usize = 64;

/// Word hashes, ascending and distinct, each with its weight.
pub(crate) type Words = Vec<(u32, f32)>;

/// The sparse vector of a stored text.
pub(crate) fn document(text: &str) -> Words {
    let (counts, total) = count(text);
    let length = 1.0 - B + B * small(total) / AVERAGE_WORDS;
    let mut words: Words = counts
        .into_iter()
        .map(|(word, count)| {
            let count = small(count);
            (word, count * (K1 + 1.0) / (count + K1 * length))
        })
        .collect();
    words.sort_unstable_by_key(|(word, _)| *word);
    words
}

/// The distinct words of a query, ascending.
pub(crate) fn of_query(text: &str) -> Vec<u32> {
    let mut words: Vec<u32> = count(text).0.into_keys().collect();
    words.sort_unstable();
    words
}

/// How many records of a collection hold each word.
#[derive(Default)]
pub(crate) struct DocumentFrequency {
    records: usize,
    of_word: HashMap<u32, u32>,
}

impl DocumentFrequency {
    pub(crate) fn add(&mut self, words: &Words) {
        self.records += 1;
        for (word, _) in words {
            *self.of_word.entry(*word).or_insert(0) += 1;
        }
    }

    pub(crate) fn remove(&mut self, words: &Words) {
        self.records = self.records.saturating_sub(1);
        for (word, _) in words {
            if let Some(count) = self.of_word.get_mut(word) {
                *count -= 1;
                if *count == 0 {
                    self.of_word.remove(word);
                }
            }
        }
    }

    /// The sparse vector of a query: the inverse document frequency of each of its
    /// words that some record holds.
    pub(crate) fn weigh(&self, query: &[u32]) -> Words {
        let records = small(self.records);
        query
            .iter()
            .filter_map(|word| {
                let holding = small(usize::try_from(*self.of_word.get(word)?).ok()?);
                let idf = (1.0 + (records - holding + 0.5) / (holding + 0.5)).ln();
                Some((*word, idf))
            })
            .collect()
    }
}

/// The dot product of two sparse vectors with ascending words.
pub(crate) fn dot(left: &[(u32, f32)], right: &[(u32, f32)]) -> f32 {
    let (mut l, mut r, mut sum) = (0, 0, 0.0);
    while let (Some((a, x)), Some((b, y))) = (left.get(l), right.get(r)) {
        match a.cmp(b) {
            std::cmp::Ordering::Less => l += 1,
            std::cmp::Ordering::Greater => r += 1,
            std::cmp::Ordering::Equal => {
                sum += x * y;
                l += 1;
                r += 1;
            }
        }
    }
    sum
}

/// The words of a text with their counts, and how many there are in all.
fn count(text: &str) -> (HashMap<u32, usize>, usize) {
    let mut counts = HashMap::new();
    let mut total = 0;
    let words = text
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty());
    for word in words {
        total += 1;
        let hash = hash(word);
        if counts.len() < MAX_DISTINCT_WORDS || counts.contains_key(&hash) {
            *counts.entry(hash).or_insert(0) += 1;
        }
    }
    (counts, total)
}

/// FNV-1a over the lower-case bytes, folded to 32 bits. The hashes lie in stores
/// and on servers, so they never change.
fn hash(word: &str) -> u32 {
    let hash = word
        .bytes()
        .take(MAX_WORD_BYTES)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
        });
    let [a, b, c, d, ..] = (hash ^ (hash >> 32)).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of words and records; the rounding of f32 does not matter"
)]
fn small(count: usize) -> f32 {
    count as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_words_weigh_more_and_unknown_ones_nothing() {
        let mut frequency = DocumentFrequency::default();
        for text in ["curl one", "curl two", "curl three nsenter"] {
            frequency.add(&document(text));
        }
        let weight = |frequency: &DocumentFrequency, word: &str| {
            frequency.weigh(&of_query(word)).first().map(|w| w.1)
        };
        let (rare, common) = (weight(&frequency, "NSENTER"), weight(&frequency, "curl"));
        assert!(rare > common, "case does not count");
        assert_eq!(weight(&frequency, "never"), None);
        frequency.remove(&document("curl three nsenter"));
        assert_eq!(weight(&frequency, "nsenter"), None);
    }

    #[test]
    fn repetition_saturates_and_length_costs() {
        let query = [(hash("a"), 1.0)];
        let score = |text: &str| dot(&query, &document(text));
        assert!(score("a a") > score("a b"));
        assert!(score("a a a a") < 3.0 * score("a"));
        assert!(score("a") > score("a b c d e f g h i j"));
    }

    #[test]
    fn the_words_of_a_hostile_text_are_bounded() {
        let text: String = (0..10_000).map(|n| format!("w{n} ")).collect();
        assert_eq!(document(&text).len(), MAX_DISTINCT_WORDS);
    }

    #[test]
    fn hashes_of_words_never_change_between_versions() {
        assert_eq!(hash("curl"), hash("CURL"));
        assert_eq!(of_query("-a /b/ a"), {
            let mut both = vec![hash("a"), hash("b")];
            both.sort_unstable();
            both
        });
        // FNV-1a of one byte, folded.
        assert_eq!(hash("a"), 0xaf63_dc4c ^ 0x8601_ec8c);
    }
}
