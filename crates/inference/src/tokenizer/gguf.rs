//! The tokenizer that a GGUF file carries.

use std::borrow::Cow;

use super::{
    Tokenizer,
    vocabulary::{Description, Fields, Pair},
};
use crate::{error::Fault, gguf::Metadata};

const MODEL: &str = "tokenizer.ggml.model";
const WORDS: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const END: &str = "tokenizer.ggml.eos_token_id";

const KIND_NORMAL: i32 = 1;
const KIND_CONTROL: i32 = 3;
const KIND_USER_DEFINED: i32 = 4;
const KIND_UNUSED: i32 = 5;

impl Tokenizer {
    pub(crate) fn from_metadata(metadata: &Metadata<'_>) -> Result<Self, Fault> {
        for (key, expected) in [(MODEL, "gpt2"), (WORDS, "qwen2")] {
            let found = metadata.text(key)?;
            if found != expected {
                return Err(Fault::unexpected(key, expected, found));
            }
        }
        let mut description = tokens(metadata)?;
        description.merges = merges(metadata)?;
        description.end_of_sequence = metadata
            .optional_unsigned(END)?
            .and_then(|id| u32::try_from(id).ok());
        Self::new(&description)
    }
}

/// The normal tokens come first; the kind of each tells which it is.
fn tokens<'a>(metadata: &Metadata<'a>) -> Result<Description<'a>, Fault> {
    let tokens = metadata.texts(TOKENS)?;
    let kinds = metadata.integers(KINDS)?;
    if tokens.len() != kinds.len() {
        let expected = format!("{} entries, as in {TOKENS}", tokens.len());
        return Err(Fault::unexpected(KINDS, expected, kinds.len()));
    }
    let mut description = Description {
        normal: Vec::new(),
        added: Vec::new(),
        n_tokens: tokens.len(),
        merges: Vec::new(),
        end_of_sequence: None,
        fields: Fields {
            normal: TOKENS,
            added: TOKENS,
            merges: MERGES,
        },
    };
    for (id, (text, kind)) in (0..).zip(tokens.into_iter().zip(kinds)) {
        match kind {
            KIND_NORMAL if description.normal.len() == id as usize => {
                description.normal.push(Cow::Borrowed(text));
            }
            KIND_NORMAL => {
                return Err(Fault::unexpected(TOKENS, "normal tokens before others", id));
            }
            KIND_CONTROL | KIND_USER_DEFINED => description.added.push((Cow::Borrowed(text), id)),
            KIND_UNUSED => {}
            other => {
                let found = format!("{other} for token {id}");
                return Err(Fault::unexpected(KINDS, "1, 3, 4 or 5", found));
            }
        }
    }
    Ok(description)
}

fn merges<'a>(metadata: &Metadata<'a>) -> Result<Vec<Pair<'a>>, Fault> {
    let merges = metadata.texts(MERGES)?.into_iter();
    merges
        .map(|merge| {
            let pair = merge.split_once(' ');
            let (left, right) =
                pair.ok_or_else(|| Fault::unexpected(MERGES, "two tokens", merge))?;
            Ok((Cow::Borrowed(left), Cow::Borrowed(right)))
        })
        .collect()
}
