//! Where the text of a case stands in a prompt, in tokens.
//!
//! The prefix is the same for every case. Behind it come the event, encoded as
//! plain text that can never become a control token, the question, the end of the
//! turn and the answer up to the label. The question comes last, so that the
//! position whose state is read has seen both the event and what is asked of it.

use std::ops::Range;

use inwarden_inference::{InferenceError, Normalization, TokenId, Tokenizer};

use super::Prompt;

/// Event tokens that are read; of longer ones, both ends.
const MAX_EVENT_TOKENS: usize = 256;

/// A prompt in the tokens of one model.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The chat up to the event.
    pub(crate) prefix: Vec<TokenId>,
    /// What stands where a long event is cut.
    cut_mark: Vec<TokenId>,
    question: Vec<TokenId>,
    answer_start: Vec<TokenId>,
}

/// What follows the prefix for one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Framed {
    pub(crate) tokens: Vec<TokenId>,
    /// Which of `tokens` are the event's, at least one.
    pub(crate) event: Range<usize>,
    /// Where the question ends and the answer begins.
    pub(crate) question_end: usize,
}

/// The labels of `prompt`, malicious first, which compete with each other alone.
///
/// A head is trained on the pass in which it will answer, so both ask here.
pub(crate) fn labels_of(
    tokenizer: &Tokenizer,
    prompt: &Prompt,
) -> Result<([Vec<TokenId>; 2], Normalization), InferenceError> {
    let labels = [
        tokenizer.encode_text(&prompt.malicious_label)?,
        tokenizer.encode_text(&prompt.benign_label)?,
    ];
    let terminator = tokenizer.encode_text(&prompt.answer_end)?.first().copied();
    Ok((labels, Normalization::LegalTokens { terminator }))
}

impl Frame {
    /// The chat in Qwen2.5's template (ChatML; model card of
    /// `Qwen/Qwen2.5-0.5B-Instruct`). Examples are encoded as events are.
    pub(crate) fn new(tokenizer: &Tokenizer, prompt: &Prompt) -> Result<Self, InferenceError> {
        let question = match prompt.question.as_str() {
            "" => Vec::new(),
            text => tokenizer.encode_text(&format!("\n{text}"))?,
        };
        let answer_start = tokenizer.encode_prompt(&format!(
            "<|im_end|>\n<|im_start|>assistant\n{}",
            prompt.answer_start
        ))?;
        let mut frame = Self {
            prefix: Vec::new(),
            cut_mark: tokenizer.encode_text(" [...] ")?,
            question,
            answer_start,
        };
        frame.prefix = frame.prefix_tokens(tokenizer, prompt)?;
        Ok(frame)
    }

    fn prefix_tokens(
        &self,
        tokenizer: &Tokenizer,
        prompt: &Prompt,
    ) -> Result<Vec<TokenId>, InferenceError> {
        let mut tokens = tokenizer.encode_prompt("<|im_start|>system\n")?;
        tokens.extend(tokenizer.encode_text(&prompt.task)?);
        let next_event = tokenizer.encode_prompt("<|im_end|>\n<|im_start|>user\n")?;
        tokens.extend_from_slice(&next_event);
        let answer_end = tokenizer.encode_text(&prompt.answer_end)?;
        for shot in &prompt.shots {
            tokens.extend(tokenizer.encode_text(&shot.case_text)?);
            tokens.extend_from_slice(&self.question);
            tokens.extend_from_slice(&self.answer_start);
            tokens.extend(tokenizer.encode_text(prompt.label_of(shot))?);
            tokens.extend_from_slice(&answer_end);
            tokens.extend_from_slice(&next_event);
        }
        Ok(tokens)
    }

    /// What follows the prefix for `case_text`.
    pub(crate) fn frame(
        &self,
        tokenizer: &Tokenizer,
        case_text: &str,
    ) -> Result<Framed, InferenceError> {
        let event = tokenizer.encode_text(case_text)?;
        let behind = self.question.len() + self.answer_start.len();
        let mut tokens = Vec::with_capacity(event.len().min(MAX_EVENT_TOKENS) + behind + 8);
        if event.len() <= MAX_EVENT_TOKENS {
            tokens.extend_from_slice(&event);
        } else {
            let tail = MAX_EVENT_TOKENS / 3;
            tokens.extend_from_slice(&event[..MAX_EVENT_TOKENS - tail]);
            tokens.extend_from_slice(&self.cut_mark);
            tokens.extend_from_slice(&event[event.len() - tail..]);
        }
        let event = 0..tokens.len();
        tokens.extend_from_slice(&self.question);
        let question_end = tokens.len();
        tokens.extend_from_slice(&self.answer_start);
        Ok(Framed {
            tokens,
            event,
            question_end,
        })
    }
}
