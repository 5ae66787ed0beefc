//! The vocabulary's normal tokens in the order of their bytes.

use crate::tokenizer::{TokenId, Vocabulary};

/// Normal tokens sorted by their bytes: a trie without nodes.
///
/// Tokens that share a prefix lie side by side, so a walk over the order visits
/// each shared prefix once, and skips all tokens behind an illegal one.
pub(crate) struct TokenTrie {
    sorted: Vec<TokenId>,
    /// Bytes that each token shares with the one before it.
    shared: Vec<u16>,
    /// Where the tokens of each first byte begin in `sorted`; the end at last.
    starts: [usize; 257],
}

impl TokenTrie {
    pub(crate) fn new(vocabulary: &Vocabulary) -> Self {
        let normal = (0..).take(vocabulary.n_normal()).map(TokenId);
        let mut sorted: Vec<TokenId> = normal.collect();
        sorted.sort_unstable_by_key(|&token| vocabulary.bytes(token));
        let mut shared = vec![0];
        shared.extend(sorted.windows(2).map(|pair| {
            let pairs = vocabulary
                .bytes(pair[0])
                .iter()
                .zip(vocabulary.bytes(pair[1]));
            let n_shared = pairs.take_while(|(left, right)| left == right).count();
            u16::try_from(n_shared).expect("tokens are checked to be shorter")
        }));
        let mut starts = [sorted.len(); 257];
        for byte in 0..=u8::MAX {
            starts[usize::from(byte)] =
                sorted.partition_point(|&token| vocabulary.bytes(token) < &[byte][..]);
        }
        Self {
            sorted,
            shared,
            starts,
        }
    }

    /// The tokens all bytes of which `step` allows from `start`, ascending.
    pub(super) fn legal<S: Copy>(
        &self,
        vocabulary: &Vocabulary,
        start: S,
        step: impl Fn(S, u8) -> Option<S>,
    ) -> Vec<TokenId> {
        let mut legal = Vec::new();
        // The states after each byte of the token before.
        let mut states = Vec::new();
        for byte in 0..=u8::MAX {
            let Some(first) = step(start, byte) else {
                continue;
            };
            states.clear();
            states.push(first);
            let range = self.starts[usize::from(byte)]..self.starts[usize::from(byte) + 1];
            for idx in range {
                let shared = usize::from(self.shared[idx]).max(1);
                if shared > states.len() {
                    // Begins with what was illegal in the token before.
                    continue;
                }
                states.truncate(shared);
                let token = self.sorted[idx];
                let bytes = vocabulary.bytes(token);
                for &byte in &bytes[shared..] {
                    match step(states[states.len() - 1], byte) {
                        Some(state) => states.push(state),
                        None => break,
                    }
                }
                if states.len() == bytes.len() {
                    legal.push(token);
                }
            }
        }
        legal.sort_unstable();
        legal
    }

    /// Whether a token begins with `prefix` and goes on with bytes, at least
    /// one, that `step` allows from `start`.
    pub(super) fn has_extension<S: Copy>(
        &self,
        vocabulary: &Vocabulary,
        prefix: &[u8],
        start: S,
        step: impl Fn(S, u8) -> Option<S>,
    ) -> bool {
        let at = self
            .sorted
            .partition_point(|&token| vocabulary.bytes(token) <= prefix);
        self.sorted[at..]
            .iter()
            .map_while(|&token| vocabulary.bytes(token).strip_prefix(prefix))
            .any(|rest| {
                rest.iter()
                    .try_fold(start, |state, &byte| step(state, byte))
                    .is_some()
            })
    }
}
