//! Text to token ids and back, from the vocabulary in the model file.
//!
//! Two ways in over one vocabulary. Prompts of our own may contain added tokens
//! (`<|im_start|>`, `<tool_call>`, …); observed text goes through an encoder
//! that has no added token at all, so nothing a text contains can become one.
//! Switching off special tokens would not be enough: eight of Qwen2.5's added
//! tokens are not marked special.
//!
//! `words.rs` normalises and splits, `bpe.rs` merges, `vocabulary.rs` knows the
//! bytes of each token; `gguf.rs` and `json.rs` read the two file formats.
//!
//! Source: `tokenizer.json` of `Qwen/Qwen2.5-0.5B-Instruct`. The encoder is our
//! own because the one of the `tokenizers` crate takes far longer to build than
//! a first verdict may; the tests compare the two.

mod bpe;
mod gguf;
mod json;
mod vocabulary;
mod words;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use self::{bpe::Merges, vocabulary::Description, words::Words};
use crate::{
    constrain::TokenTrie,
    error::{Fault, InferenceError},
    gguf::Weights,
};

pub(crate) use self::vocabulary::Vocabulary;

/// A token's number in the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u32);

/// The longest text that is tokenised: far above any context.
const MAX_TEXT_BYTES: usize = 256 * 1024;

/// The model's tokenizer; cheap to clone.
#[derive(Clone)]
pub struct Tokenizer(Arc<Parts>);

struct Parts {
    vocabulary: Vocabulary,
    merges: Merges,
    words: Words,
    end_of_sequence: Option<TokenId>,
    /// Made for the first constrained output.
    trie: OnceLock<TokenTrie>,
}

impl Tokenizer {
    /// Reads the tokenizer out of a GGUF model, given as its parts in order;
    /// no weights are read.
    ///
    /// # Errors
    /// [`InferenceError::Io`], [`InferenceError::Corrupt`], also for a
    /// `tokenizer.ggml.pre` other than `qwen2`, [`InferenceError::Empty`].
    pub fn from_gguf(files: &[PathBuf]) -> Result<Self, InferenceError> {
        let weights = Weights::open(files)?;
        Self::from_metadata(&weights.metadata()).map_err(|fault| fault.in_file(&files[0]))
    }

    fn new(description: &Description<'_>) -> Result<Self, Fault> {
        let (vocabulary, merges) = description.checked()?;
        Ok(Self(Arc::new(Parts {
            vocabulary,
            merges,
            words: Words::new(),
            end_of_sequence: description.end_of_sequence.map(TokenId),
            trie: OnceLock::new(),
        })))
    }

    /// Encodes a prompt of our own; added tokens in it are recognised.
    ///
    /// `trusted` must not contain observed text: see [`Self::encode_text`].
    ///
    /// # Errors
    /// [`InferenceError::TextTooLong`] above 256 KiB.
    pub fn encode_prompt(&self, trusted: &str) -> Result<Vec<TokenId>, InferenceError> {
        check_length(trusted.len())?;
        let mut tokens = Vec::new();
        let mut rest = trusted;
        while let Some((range, token)) = self.0.vocabulary.find_added(rest) {
            self.encode_words(&rest[..range.start], &mut tokens);
            tokens.push(token);
            rest = &rest[range.end..];
        }
        self.encode_words(rest, &mut tokens);
        Ok(tokens)
    }

    /// Encodes observed text; never yields an added token, whatever it contains.
    ///
    /// The text is brought into Unicode's composed form (NFC) first, as the
    /// model saw it in training.
    ///
    /// # Errors
    /// [`InferenceError::TextTooLong`] above 256 KiB.
    pub fn encode_text(&self, untrusted: &str) -> Result<Vec<TokenId>, InferenceError> {
        check_length(untrusted.len())?;
        let mut tokens = Vec::new();
        self.encode_words(untrusted, &mut tokens);
        debug_assert!(tokens.iter().all(|&token| !self.is_added(token)));
        Ok(tokens)
    }

    /// Encodes observed bytes like [`Self::encode_text`]; each longest run that
    /// cannot begin a character of UTF-8 counts as one U+FFFD.
    ///
    /// Different bytes can thus give the same tokens. The model never saw bytes
    /// that are not UTF-8: to tell them apart, escape them in the text.
    ///
    /// # Errors
    /// [`InferenceError::TextTooLong`] above 256 KiB.
    ///
    /// Source of the replacement: Unicode Standard 17.0, section 3.9, "U+FFFD
    /// Substitution of Maximal Subparts", as in Python's `errors="replace"`.
    pub fn encode_bytes(&self, untrusted: &[u8]) -> Result<Vec<TokenId>, InferenceError> {
        check_length(untrusted.len())?;
        let mut tokens = Vec::new();
        self.encode_words(&String::from_utf8_lossy(untrusted), &mut tokens);
        Ok(tokens)
    }

    /// Encodes these very bytes: without normalising, and without replacing
    /// what is not UTF-8. The tokens' bytes are `bytes`.
    pub(crate) fn encode_exactly(&self, bytes: &[u8]) -> Vec<TokenId> {
        let mut tokens = Vec::new();
        for chunk in bytes.utf8_chunks() {
            for word in self.0.words.split(chunk.valid()) {
                self.0.merges.encode(word.as_bytes(), &mut tokens);
            }
            self.0.merges.encode(chunk.invalid(), &mut tokens);
        }
        tokens
    }

    fn encode_words(&self, text: &str, tokens: &mut Vec<TokenId>) {
        let text = words::composed(text);
        for word in self.0.words.split(&text) {
            self.0.merges.encode(word.as_bytes(), tokens);
        }
    }

    /// The text of `tokens`; ids without text are left out, and bytes that are
    /// not UTF-8 become U+FFFD.
    #[must_use]
    pub fn decode(&self, tokens: &[TokenId]) -> String {
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|&token| self.token_bytes(token))
            .copied()
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes of one token, often only a part of a character; empty for an
    /// id without a text.
    #[must_use]
    pub fn token_bytes(&self, token: TokenId) -> &[u8] {
        self.0.vocabulary.bytes(token)
    }

    /// Number of ids that the file lists, counted from 0; not all have a text.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.0.vocabulary.n_tokens()
    }

    /// Whether this id is an added token, or one without a text.
    #[must_use]
    pub fn is_added(&self, token: TokenId) -> bool {
        token.0 as usize >= self.0.vocabulary.n_normal()
    }

    /// The token that ends the model's answer, if the file names one.
    #[must_use]
    pub fn end_of_sequence(&self) -> Option<TokenId> {
        self.0.end_of_sequence
    }

    pub(crate) fn vocabulary(&self) -> &Vocabulary {
        &self.0.vocabulary
    }

    /// The normal tokens by their bytes.
    pub(crate) fn trie(&self) -> &TokenTrie {
        let make = || TokenTrie::new(&self.0.vocabulary);
        self.0.trie.get_or_init(make)
    }
}

fn check_length(bytes: usize) -> Result<(), InferenceError> {
    if bytes > MAX_TEXT_BYTES {
        return Err(InferenceError::TextTooLong {
            bytes,
            limit_bytes: MAX_TEXT_BYTES,
        });
    }
    Ok(())
}
