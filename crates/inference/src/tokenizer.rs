//! Text to token ids and back, from the vocabulary in the model file.
//!
//! Two encoders over one vocabulary. The one for prompts knows the added
//! tokens (`<|im_start|>`, `<tool_call>`, …); the one for observed text has no
//! added token at all, so nothing a text contains can become one. Switching
//! off special tokens would not be enough: eight of Qwen2.5's added tokens are
//! not marked special.
//!
//! Source: `tokenizer.json` of `Qwen/Qwen2.5-0.5B-Instruct`.

use std::collections::HashMap;

use tokenizers::{
    AddedToken, SplitDelimiterBehavior,
    decoders::byte_level::ByteLevel,
    models::bpe::{BPE, Vocab},
    normalizers::unicode::NFC,
    pre_tokenizers::{
        PreTokenizerWrapper,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use crate::{
    error::{Fault, InferenceError},
    gguf::Metadata,
};

/// A token's number in the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u32);

/// The longest text that is tokenised: far above any context, and low enough
/// that the regular expression stays within its step limit.
const MAX_TEXT_BYTES: usize = 256 * 1024;

/// Splits text into words before byte-pair encoding (`tokenizer.ggml.pre` = `qwen2`).
const QWEN2_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Token kinds of `tokenizer.ggml.token_type`.
const KIND_NORMAL: i32 = 1;
const KIND_CONTROL: i32 = 3;
const KIND_USER_DEFINED: i32 = 4;
const KIND_UNUSED: i32 = 5;

/// The model's tokenizer.
pub struct Tokenizer {
    /// Knows the added tokens.
    prompts: tokenizers::Tokenizer,
    /// Has only the normal tokens.
    texts: tokenizers::Tokenizer,
    n_tokens: usize,
    first_added: u32,
    end_of_sequence: Option<TokenId>,
}

impl Tokenizer {
    pub(crate) fn from_metadata(metadata: &Metadata<'_>) -> Result<Self, Fault> {
        for (key, expected) in [
            ("tokenizer.ggml.model", "gpt2"),
            ("tokenizer.ggml.pre", "qwen2"),
        ] {
            let found = metadata.text(key)?;
            if found != expected {
                return Err(Fault::unexpected(key, expected, found));
            }
        }
        let vocabulary = Vocabulary::read(metadata)?;
        let end_of_sequence = metadata
            .optional_unsigned("tokenizer.ggml.eos_token_id")?
            .and_then(|id| u32::try_from(id).ok())
            .map(TokenId);
        let merges = read_merges(metadata, &vocabulary.normal)?;
        let texts = byte_level_bpe(vocabulary.normal.clone(), merges.clone())?;
        let mut all = vocabulary.normal;
        let added: Vec<AddedToken> = vocabulary
            .added
            .iter()
            .map(|(text, _)| AddedToken::from(text.clone(), true).normalized(false))
            .collect();
        let first_added = vocabulary.added.iter().map(|&(_, id)| id).min();
        all.extend(vocabulary.added);
        let mut prompts = byte_level_bpe(all, merges)?;
        prompts
            .add_special_tokens(added)
            .map_err(|error| unusable(&error))?;
        Ok(Self {
            prompts,
            texts,
            n_tokens: vocabulary.n_tokens,
            first_added: first_added.unwrap_or(u32::MAX),
            end_of_sequence,
        })
    }

    /// Encodes a prompt of our own; added tokens in it are recognised.
    ///
    /// `trusted` must not contain observed text: see [`Self::encode_text`].
    ///
    /// # Errors
    /// [`InferenceError::TextTooLong`] above 256 KiB.
    pub fn encode_prompt(&self, trusted: &str) -> Result<Vec<TokenId>, InferenceError> {
        encode(&self.prompts, trusted)
    }

    /// Encodes observed text; never yields an added token, whatever it contains.
    ///
    /// # Errors
    /// [`InferenceError::TextTooLong`] above 256 KiB.
    pub fn encode_text(&self, untrusted: &str) -> Result<Vec<TokenId>, InferenceError> {
        let tokens = encode(&self.texts, untrusted)?;
        debug_assert!(tokens.iter().all(|&token| !self.is_added(token)));
        Ok(tokens)
    }

    /// The text of `tokens`; ids without text are left out, and bytes that are
    /// not UTF-8 become U+FFFD.
    #[must_use]
    pub fn decode(&self, tokens: &[TokenId]) -> String {
        let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
        self.prompts.decode(&ids, false).unwrap_or_default()
    }

    /// Number of ids that have a text, counted from 0.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Whether this id is an added token, or one without a text.
    #[must_use]
    pub fn is_added(&self, token: TokenId) -> bool {
        token.0 >= self.first_added
    }

    /// The token that ends the model's answer, if the file names one.
    #[must_use]
    pub fn end_of_sequence(&self) -> Option<TokenId> {
        self.end_of_sequence
    }
}

struct Vocabulary {
    normal: HashMap<String, u32>,
    added: Vec<(String, u32)>,
    n_tokens: usize,
}

impl Vocabulary {
    fn read(metadata: &Metadata<'_>) -> Result<Self, Fault> {
        let key = "tokenizer.ggml.tokens";
        let tokens = metadata.texts(key)?;
        let kinds = metadata.integers("tokenizer.ggml.token_type")?;
        if tokens.len() != kinds.len() {
            let expected = format!("{} entries, as in {key}", tokens.len());
            let found = kinds.len();
            return Err(Fault::unexpected(
                "tokenizer.ggml.token_type",
                expected,
                found,
            ));
        }
        let mut vocabulary = Self {
            normal: HashMap::new(),
            added: Vec::new(),
            n_tokens: tokens.len(),
        };
        for (id, (text, kind)) in (0_u32..).zip(tokens.into_iter().zip(kinds)) {
            let text = text.to_owned();
            match kind {
                KIND_NORMAL if vocabulary.added.is_empty() => {
                    if vocabulary.normal.insert(text, id).is_some() {
                        return Err(Fault::unexpected(key, "distinct tokens", id));
                    }
                }
                KIND_NORMAL => {
                    return Err(Fault::unexpected(
                        key,
                        "normal tokens before added ones",
                        id,
                    ));
                }
                KIND_CONTROL | KIND_USER_DEFINED if !text.is_empty() => {
                    vocabulary.added.push((text, id));
                }
                KIND_UNUSED => {}
                other => {
                    let found = format!("{other} for token {id}");
                    let key = "tokenizer.ggml.token_type";
                    return Err(Fault::unexpected(key, "1, 3, 4 or 5", found));
                }
            }
        }
        if let Some((text, id)) = vocabulary
            .added
            .iter()
            .find(|(text, _)| vocabulary.normal.contains_key(text))
        {
            let found = format!("{text} as token {id} too");
            return Err(Fault::unexpected(key, "distinct tokens", found));
        }
        Ok(vocabulary)
    }
}

/// Each merge names two tokens whose concatenation is a token; the library
/// would panic on one that is longer than every token.
fn read_merges(
    metadata: &Metadata<'_>,
    vocabulary: &HashMap<String, u32>,
) -> Result<Vec<(String, String)>, Fault> {
    let key = "tokenizer.ggml.merges";
    let mut joined = String::new();
    let merges = metadata.texts(key)?.into_iter().map(|merge| {
        let wrong = || Fault::unexpected(key, "two tokens that form a third", merge);
        let (left, right) = merge.split_once(' ').ok_or_else(wrong)?;
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let known = [left, right, &joined].map(|token| vocabulary.contains_key(token));
        if known != [true; 3] {
            return Err(wrong());
        }
        Ok((left.to_owned(), right.to_owned()))
    });
    merges.collect()
}

fn byte_level_bpe(
    vocabulary: HashMap<String, u32>,
    merges: Vec<(String, String)>,
) -> Result<tokenizers::Tokenizer, Fault> {
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.into_iter().collect::<Vocab>(), merges)
        .build()
        .map_err(|error| unusable(&error))?;
    let words = Split::new(
        SplitPattern::Regex(QWEN2_WORDS.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    )
    .map_err(|error| unusable(&error))?;
    let bytes = ByteLevel::new(false, false, false);
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer
        .with_normalizer(Some(NFC))
        .map_err(|error| unusable(&error))?
        .with_pre_tokenizer(Some(Sequence::new(vec![
            PreTokenizerWrapper::Split(words),
            PreTokenizerWrapper::ByteLevel(bytes),
        ])))
        .with_decoder(Some(bytes));
    Ok(tokenizer)
}

fn unusable(error: &impl std::fmt::Display) -> Fault {
    Fault::unexpected("tokenizer.ggml", "a usable vocabulary", error)
}

fn encode(tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Vec<TokenId>, InferenceError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(InferenceError::TextTooLong {
            bytes: text.len(),
            limit_bytes: MAX_TEXT_BYTES,
        });
    }
    let encoding = tokenizer
        .encode_fast(text, false)
        .map_err(|error| InferenceError::Tokenizer(error.to_string()))?;
    Ok(encoding.get_ids().iter().copied().map(TokenId).collect())
}
