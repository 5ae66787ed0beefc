//! The tokens that every subject is given: a shared prefix, events, labels.

use anyhow::ensure;
use inwarden_inference::{TokenId, Tokenizer};

/// The labels of a verdict.
pub(crate) const LABELS: [&str; 4] = ["benign", "suspicious", "malicious", "unknown"];

/// The text before an answer.
pub(crate) const BEFORE_ANSWER: &str = "<|im_end|>\n<|im_start|>assistant\n";

/// The part of the answer that comes before the label, whatever the label is.
pub(crate) const BEFORE_LABEL: &str = "{\"verdict\":\"";

/// The instructions that stand before every event.
pub(crate) const PREFIX: &str = include_str!("../data/prefix.txt");

/// Plain prose of our own.
pub(crate) const TEXT: &str = include_str!("../data/text.txt");

/// Some tokens, and the text they came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Piece {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) text: String,
}

impl Piece {
    pub(crate) fn of(tokenizer: &Tokenizer, tokens: &[TokenId]) -> Self {
        Self {
            tokens: tokens.to_vec(),
            text: tokenizer.decode(tokens),
        }
    }

    /// `self` and then `next`.
    pub(crate) fn followed_by(&self, next: &Self) -> Self {
        Self {
            tokens: [&self.tokens[..], &next.tokens].concat(),
            text: format!("{}{}", self.text, next.text),
        }
    }
}

/// How a question ends, and what may answer it.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// What follows an event when the answer is written out.
    pub(crate) before_answer: Piece,
    /// What follows an event when only the label is missing.
    pub(crate) before_label: Piece,
    /// The tokens of each of [`LABELS`].
    pub(crate) labels: Vec<Vec<TokenId>>,
}

/// Gives out prefixes and events.
pub(crate) struct Workload {
    prefix: Vec<TokenId>,
    text: Vec<TokenId>,
    question: Question,
    /// Where in `text` the next event is looked for.
    next: usize,
    last_first: Option<TokenId>,
}

impl Workload {
    pub(crate) fn new(tokenizer: &Tokenizer) -> anyhow::Result<Self> {
        let before_answer = tokenizer.encode_prompt(BEFORE_ANSWER)?;
        let before_label = [&before_answer[..], &tokenizer.encode_prompt(BEFORE_LABEL)?].concat();
        let labels = LABELS.map(|label| tokenizer.encode_text(label));
        Ok(Self {
            prefix: tokenizer.encode_prompt(PREFIX)?,
            text: tokenizer.encode_text(TEXT)?,
            question: Question {
                before_answer: Piece::of(tokenizer, &before_answer),
                before_label: Piece::of(tokenizer, &before_label),
                labels: labels.into_iter().collect::<Result<_, _>>()?,
            },
            next: 0,
            last_first: None,
        })
    }

    pub(crate) fn question(&self) -> &Question {
        &self.question
    }

    /// The first `n_tokens` of the instructions; prose is added where they end.
    pub(crate) fn prefix(&self, tokenizer: &Tokenizer, n_tokens: usize) -> anyhow::Result<Piece> {
        let tokens = self.prefix.iter().chain(&self.text).take(n_tokens);
        let tokens: Vec<TokenId> = tokens.copied().collect();
        ensure!(
            tokens.len() == n_tokens,
            "a prefix of {n_tokens} tokens is more than there is text for"
        );
        Ok(Piece::of(tokenizer, &tokens))
    }

    /// An event of `n_tokens` whose first token is not that of the one before:
    /// a cache that still holds the one before must not answer for it.
    pub(crate) fn event(&mut self, tokenizer: &Tokenizer, n_tokens: usize) -> Piece {
        const STEP: usize = 41;
        let last_start = self.text.len().saturating_sub(n_tokens);
        let mut start = self.next % (last_start + 1);
        while self.last_first == self.text.get(start).copied() && start < last_start {
            start += 1;
        }
        self.next = start + STEP;
        self.last_first = self.text.get(start).copied();
        Piece::of(tokenizer, &self.text[start..start + n_tokens])
    }

    pub(crate) fn events(
        &mut self,
        tokenizer: &Tokenizer,
        n_tokens: usize,
        n_events: usize,
    ) -> Vec<Piece> {
        (0..n_events)
            .map(|_| self.event(tokenizer, n_tokens))
            .collect()
    }
}
