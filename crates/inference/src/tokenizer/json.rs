//! The tokenizer in the `tokenizer.json` beside a safetensors model.

use std::{borrow::Cow, fmt, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    TokenId, Tokenizer,
    vocabulary::{Description, Fields},
    words::QWEN2_WORDS,
};
use crate::error::{Corruption, Fault, InferenceError};

/// Qwen2.5's has 7 MB.
const MAX_BYTES: usize = 32 << 20;
const FILE: &str = "tokenizer.json";

impl Tokenizer {
    /// Reads a `tokenizer.json` of the Qwen2 family.
    ///
    /// Its added tokens, special or not, are recognised in prompts. The format
    /// does not say which token ends an answer: that is `end_of_sequence`
    /// (`eos_token_id` in `config.json`).
    ///
    /// Allocates at most twenty times the length of `json`.
    ///
    /// # Errors
    /// [`InferenceError::Corrupt`] for anything that would be encoded otherwise
    /// than Qwen2 encodes it, and above 32 MiB.
    pub fn from_json(
        json: &[u8],
        end_of_sequence: Option<TokenId>,
    ) -> Result<Self, InferenceError> {
        Self::from_json_file(json, end_of_sequence).map_err(|fault| fault.in_file(Path::new(FILE)))
    }

    pub(crate) fn from_json_file(
        json: &[u8],
        end_of_sequence: Option<TokenId>,
    ) -> Result<Self, Fault> {
        if json.len() > MAX_BYTES {
            let (value, limit) = (json.len() as u64, MAX_BYTES as u64);
            return Err(Fault::new(FILE, 0, Corruption::OverLimit { value, limit }));
        }
        let file: File<'_> = serde_json::from_slice(json)
            .map_err(|error| Fault::unexpected(FILE, "a tokenizer of the Qwen2 family", error))?;
        file.check()?;
        let normal = by_id(file.model.vocab.0)?;
        let added: Vec<_> = file
            .added_tokens
            .into_iter()
            .map(|token| (token.content.0, token.id))
            .collect();
        let last = added.iter().map(|&(_, id)| id as usize + 1).max();
        Self::new(&Description {
            n_tokens: last.unwrap_or_default().max(normal.len()),
            normal,
            added,
            merges: file
                .model
                .merges
                .into_iter()
                .map(|merge| (merge.0, merge.1))
                .collect(),
            end_of_sequence: end_of_sequence.map(|token| token.0),
            fields: Fields {
                normal: "model.vocab",
                added: "added_tokens",
                merges: "model.merges",
            },
        })
    }
}

/// The tokens in the order of their ids, which are all from 0 up.
fn by_id(entries: Vec<(Cow<'_, str>, u32)>) -> Result<Vec<Cow<'_, str>>, Fault> {
    let mut tokens = vec![None; entries.len()];
    for (text, id) in entries {
        match tokens.get_mut(id as usize) {
            Some(place @ None) => *place = Some(text),
            _ => {
                return Err(Fault::unexpected(
                    "model.vocab",
                    "ids from 0 up, once each",
                    id,
                ));
            }
        }
    }
    Ok(tokens.into_iter().flatten().collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    #[serde(rename = "version")]
    _version: Option<IgnoredAny>,
    truncation: Option<IgnoredAny>,
    padding: Option<IgnoredAny>,
    #[serde(borrow)]
    added_tokens: Vec<Added<'a>>,
    normalizer: Normalizer<'a>,
    pre_tokenizer: PreTokenizer<'a>,
    /// Adds tokens only where asked to, and nobody here asks.
    #[serde(rename = "post_processor")]
    _post_processor: Option<IgnoredAny>,
    #[serde(rename = "decoder")]
    _decoder: Option<IgnoredAny>,
    model: Model<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Added<'a> {
    id: u32,
    #[serde(borrow)]
    content: Text<'a>,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    #[serde(rename = "special")]
    _special: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Normalizer<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PreTokenizer<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    pretokenizers: Vec<Step<'a>>,
}

/// A `Split` or a `ByteLevel`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    pattern: Option<Pattern<'a>>,
    behavior: Option<Text<'a>>,
    invert: Option<bool>,
    add_prefix_space: Option<bool>,
    /// Concerns offsets, which nobody here reads.
    #[serde(rename = "trim_offsets")]
    _trim_offsets: Option<bool>,
    use_regex: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pattern<'a> {
    #[serde(borrow, rename = "Regex")]
    regex: Text<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    dropout: Option<f32>,
    unk_token: Option<Text<'a>>,
    continuing_subword_prefix: Option<Text<'a>>,
    end_of_word_suffix: Option<Text<'a>>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: Entries<'a>,
    merges: Vec<Merge<'a>>,
}

impl File<'_> {
    /// Every setting that changes how text is encoded has Qwen2's value.
    fn check(&self) -> Result<(), Fault> {
        let expect = |what: &str, holds: bool| {
            let wrong = || Fault::unexpected(what, "the value in Qwen2's own file", "another");
            if holds { Ok(()) } else { Err(wrong()) }
        };
        expect("truncation", self.truncation.is_none())?;
        expect("padding", self.padding.is_none())?;
        expect("normalizer", self.normalizer.kind.0 == "NFC")?;
        expect("pre_tokenizer", self.pre_tokenizer.is_qwen2())?;
        let model = &self.model;
        let is_empty = |text: &Option<Text<'_>>| text.as_ref().is_none_or(|text| text.0.is_empty());
        expect("model.type", model.kind.0 == "BPE")?;
        expect(
            "model.dropout",
            model.dropout.is_none_or(|rate| rate == 0.0),
        )?;
        expect("model.unk_token", model.unk_token.is_none())?;
        let affixes = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
        expect(
            "model.continuing_subword_prefix",
            affixes.into_iter().all(is_empty),
        )?;
        let switches = [model.fuse_unk, model.byte_fallback, model.ignore_merges];
        expect("model.byte_fallback", switches == [false; 3])?;
        let plain = |token: &Added<'_>| {
            ![
                token.single_word,
                token.lstrip,
                token.rstrip,
                token.normalized,
            ]
            .contains(&true)
        };
        expect("added_tokens", self.added_tokens.iter().all(plain))
    }
}

impl PreTokenizer<'_> {
    fn is_qwen2(&self) -> bool {
        let [split, bytes] = &*self.pretokenizers else {
            return false;
        };
        let pattern = split.pattern.as_ref().map(|pattern| &*pattern.regex.0);
        self.kind.0 == "Sequence"
            && split.kind.0 == "Split"
            && pattern == Some(QWEN2_WORDS)
            && split
                .behavior
                .as_ref()
                .is_some_and(|behavior| behavior.0 == "Isolated")
            && split.invert == Some(false)
            && bytes.kind.0 == "ByteLevel"
            && bytes.add_prefix_space == Some(false)
            && bytes.use_regex == Some(false)
    }
}

/// A string, borrowed from the file where it has no escapes.
#[derive(Clone)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A map as the list of its entries, so that a key that occurs twice is seen.
struct Entries<'a>(Vec<(Cow<'a, str>, u32)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from token to id")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((Text(text), id)) = map.next_entry()? {
                    entries.push((text, id));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

/// `"left right"`, or `["left", "right"]` in newer files.
struct Merge<'a>(Cow<'a, str>, Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Merge<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MergeVisitor;
        impl<'de> Visitor<'de> for MergeVisitor {
            type Value = Merge<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two tokens")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                let (left, right) = text.split_once(' ').ok_or_else(|| E::custom("one token"))?;
                Ok(Merge(Cow::Borrowed(left), Cow::Borrowed(right)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                let (left, right) = text.split_once(' ').ok_or_else(|| E::custom("one token"))?;
                Ok(Merge(
                    Cow::Owned(left.to_owned()),
                    Cow::Owned(right.to_owned()),
                ))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let too_short = || A::Error::custom("fewer than two tokens");
                let Text(left) = list.next_element()?.ok_or_else(too_short)?;
                let Text(right) = list.next_element()?.ok_or_else(too_short)?;
                match list.next_element::<IgnoredAny>()? {
                    None => Ok(Merge(left, right)),
                    Some(_) => Err(A::Error::custom("more than two tokens")),
                }
            }
        }
        deserializer.deserialize_any(MergeVisitor)
    }
}
