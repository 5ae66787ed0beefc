//! The bytes of every token, and the checks that a file's description passes.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ops::Range,
};

use super::{
    TokenId,
    bpe::{Merge, Merges},
};
use crate::error::{Corruption, Fault};

/// Far above the 151,643 normal tokens of Qwen2.5.
const MAX_NORMAL: usize = 1 << 20;
/// Far above its 22.
const MAX_ADDED: usize = 1 << 12;
/// Ids that a file may leave without a text behind the normal ones.
const MAX_IDS_BEYOND: usize = 1 << 16;
/// Far above its longest, of 256.
const MAX_TOKEN_BYTES: usize = 1 << 12;

/// A tokenizer as a file describes it, not yet checked.
pub(super) struct Description<'a> {
    /// Normal tokens by id, in the byte alphabet (see [`byte_of`]).
    pub(super) normal: Vec<Cow<'a, str>>,
    /// Added tokens with their ids, as plain text.
    pub(super) added: Vec<(Cow<'a, str>, u32)>,
    /// Ids that the file counts, those without a text included.
    pub(super) n_tokens: usize,
    /// Pairs of normal tokens in the order of merging.
    pub(super) merges: Vec<Pair<'a>>,
    pub(super) end_of_sequence: Option<u32>,
    /// Where the file has each, for messages.
    pub(super) fields: Fields,
}

/// The two tokens of a merge, in the byte alphabet.
pub(super) type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Names of a description's parts in its file.
#[derive(Clone, Copy)]
pub(super) struct Fields {
    pub(super) normal: &'static str,
    pub(super) added: &'static str,
    pub(super) merges: &'static str,
}

/// The bytes of every token.
pub(crate) struct Vocabulary {
    /// All tokens' bytes, by id, one behind the other.
    bytes: Vec<u8>,
    /// Where each token's bytes begin; one entry more than tokens.
    starts: Vec<u32>,
    n_normal: usize,
    /// Added tokens, the longest first.
    added: Vec<(String, TokenId)>,
}

impl Vocabulary {
    /// The bytes of a token; empty for an id without a text.
    pub(crate) fn bytes(&self, token: TokenId) -> &[u8] {
        let id = token.0 as usize;
        match self.starts.get(id..id + 2) {
            Some(range) => &self.bytes[range[0] as usize..range[1] as usize],
            None => &[],
        }
    }

    pub(crate) fn n_tokens(&self) -> usize {
        self.starts.len() - 1
    }

    /// Normal tokens have the ids below this.
    pub(crate) fn n_normal(&self) -> usize {
        self.n_normal
    }

    /// The leftmost added token in `text`, of several there the longest.
    pub(super) fn find_added(&self, text: &str) -> Option<(Range<usize>, TokenId)> {
        let starts = self.added.iter().filter_map(|(added, token)| {
            let start = text.find(added.as_str())?;
            Some((start..start + added.len(), *token))
        });
        // Of several at one place the first, which is the longest.
        starts.min_by_key(|(range, _)| range.start)
    }
}

impl Description<'_> {
    /// Everything that encoding and decoding rely on later holds of what this returns.
    pub(super) fn checked(&self) -> Result<(Vocabulary, Merges), Fault> {
        self.check_limits()?;
        let ids = self.ids()?;
        let vocabulary = self.vocabulary(&ids)?;
        let merges = self.merges(&ids, &vocabulary)?;
        Ok((vocabulary, merges))
    }

    fn check_limits(&self) -> Result<(), Fault> {
        for (what, value, limit) in [
            (self.fields.normal, self.normal.len(), MAX_NORMAL),
            (self.fields.merges, self.merges.len(), MAX_NORMAL),
            (self.fields.added, self.added.len(), MAX_ADDED),
            (
                self.fields.added,
                self.n_tokens.saturating_sub(self.normal.len()),
                MAX_IDS_BEYOND,
            ),
        ] {
            over_limit(what, value, limit)?;
        }
        let added = self.added.iter().map(|(text, _)| text);
        for text in self.normal.iter().chain(added) {
            over_limit(self.fields.normal, text.len(), MAX_TOKEN_BYTES)?;
        }
        Ok(())
    }

    /// The normal tokens' ids by their texts, which are distinct.
    fn ids(&self) -> Result<HashMap<&str, u32>, Fault> {
        let mut ids = HashMap::with_capacity(self.normal.len());
        for (id, text) in (0..).zip(&self.normal) {
            if ids.insert(&**text, id).is_some() {
                return Err(Fault::unexpected(self.fields.normal, "distinct tokens", id));
            }
        }
        Ok(ids)
    }

    fn vocabulary(&self, normal: &HashMap<&str, u32>) -> Result<Vocabulary, Fault> {
        let mut by_id: Vec<&str> = vec![""; self.n_tokens.saturating_sub(self.normal.len())];
        let mut texts = HashSet::new();
        for (text, id) in &self.added {
            let beyond = (*id as usize).checked_sub(self.normal.len());
            let place = beyond.and_then(|beyond| by_id.get_mut(beyond));
            let is_new = !text.is_empty() && texts.insert(text) && !normal.contains_key(&**text);
            match place {
                Some(place) if place.is_empty() && is_new => *place = text,
                _ => {
                    let found = format!("{text} as token {id}");
                    let expected = "other texts and ids than those of other tokens";
                    return Err(Fault::unexpected(self.fields.added, expected, found));
                }
            }
        }
        let mut bytes = Vec::new();
        let mut starts = vec![0];
        for (id, text) in self.normal.iter().enumerate() {
            for letter in text.chars() {
                let byte = byte_of(letter).ok_or_else(|| {
                    let found = format!("{letter:?} in token {id}");
                    Fault::unexpected(self.fields.normal, "letters that stand for bytes", found)
                })?;
                bytes.push(byte);
            }
            if text.is_empty() {
                return Err(Fault::unexpected(self.fields.normal, "a text", id));
            }
            starts.push(offset(&bytes, self.fields.normal)?);
        }
        for text in by_id {
            bytes.extend(text.as_bytes());
            starts.push(offset(&bytes, self.fields.added)?);
        }
        let added = self.added.iter();
        let mut added: Vec<_> = added
            .map(|(text, id)| (text.clone().into_owned(), TokenId(*id)))
            .collect();
        added.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Ok(Vocabulary {
            bytes,
            starts,
            n_normal: self.normal.len(),
            added,
        })
    }

    /// Each merge names two tokens whose concatenation is a token.
    fn merges(&self, ids: &HashMap<&str, u32>, vocabulary: &Vocabulary) -> Result<Merges, Fault> {
        let wrong = |(left, right): &Pair<'_>| {
            let expected = "distinct pairs of tokens that form a third";
            Fault::unexpected(self.fields.merges, expected, format!("{left} {right}"))
        };
        let mut joined = String::new();
        let mut merges = Vec::with_capacity(self.merges.len());
        for (rank, pair) in (0..).zip(&self.merges) {
            joined.clear();
            joined.push_str(&pair.0);
            joined.push_str(&pair.1);
            let found = [&*pair.0, &*pair.1, &*joined].map(|text| ids.get(text).copied());
            let [Some(left), Some(right), Some(merged)] = found else {
                return Err(wrong(pair));
            };
            merges.push(Merge {
                left,
                right,
                rank,
                merged,
            });
        }
        let bytes = self.byte_tokens(vocabulary)?;
        Merges::new(bytes, self.normal.len(), merges)
            .map_err(|twice| wrong(&self.merges[twice.rank as usize]))
    }

    fn byte_tokens(&self, vocabulary: &Vocabulary) -> Result<[u32; 256], Fault> {
        let mut tokens = [None; 256];
        for id in (0..).take(self.normal.len()) {
            if let &[byte] = vocabulary.bytes(TokenId(id)) {
                tokens[usize::from(byte)] = Some(id);
            }
        }
        let mut complete = [0; 256];
        for (byte, (place, token)) in complete.iter_mut().zip(tokens).enumerate() {
            *place = token.ok_or_else(|| {
                let found = format!("none for {byte}");
                Fault::unexpected(self.fields.normal, "a token for each byte", found)
            })?;
        }
        Ok(complete)
    }
}

fn over_limit(what: &str, value: usize, limit: usize) -> Result<(), Fault> {
    if value > limit {
        let (value, limit) = (value as u64, limit as u64);
        return Err(Fault::new(what, 0, Corruption::OverLimit { value, limit }));
    }
    Ok(())
}

fn offset(bytes: &[u8], what: &str) -> Result<u32, Fault> {
    u32::try_from(bytes.len()).map_err(|_| Fault::new(what, 0, Corruption::Overflow))
}

/// The byte that a letter of the byte alphabet stands for.
///
/// Printable characters of Latin-1 stand for themselves, the other bytes are
/// the letters from U+0100 on, in their order.
///
/// Source: `bytes_to_unicode` in OpenAI's GPT-2 `encoder.py`.
fn byte_of(letter: char) -> Option<u8> {
    match u32::from(letter) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_one_letter() {
        let bytes: HashSet<u8> = ('\0'..='\u{200}').filter_map(byte_of).collect();
        assert_eq!(bytes.len(), 256);
        assert_eq!(('\0'..='\u{200}').filter_map(byte_of).count(), 256);
        assert_eq!(
            ['Ġ', 'Ċ', 'ł', 'Ń'].map(byte_of),
            [b' ', b'\n', 0xa0, 0xad].map(Some)
        );
    }
}
