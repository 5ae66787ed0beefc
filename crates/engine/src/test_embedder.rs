//! An embedder for tests of stores: it counts letters.

use inwarden_memory::{Embed, EmbedError};

pub(crate) struct Letters;

impl Embed for Letters {
    fn dimension(&self) -> usize {
        26
    }
    fn identity(&self) -> String {
        "letters@1".to_owned()
    }
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let counts = |text: &&str| {
            let mut counts = vec![0.01; 26];
            for letter in text.bytes().filter(u8::is_ascii_lowercase) {
                counts[usize::from(letter - b'a')] += 1.0;
            }
            counts
        };
        Ok(texts.iter().map(counts).collect())
    }
}
