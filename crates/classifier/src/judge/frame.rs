//! Where the text of a case stands in a prompt, in tokens.
//!
//! The prefix is the same for every case. Behind it come the event, encoded as
//! plain text that can never become a control token, the question, the end of the
//! turn and the answer up to the label. The question comes last, so that the
//! position whose state is read has seen both the event and what is asked of it.

use std::ops::Range;

use inwarden_inference::{InferenceError, Normalization, TokenId, Tokenizer};

use super::Prompt;

/// Tokens of a window over an event, and of what two neighbours share.
const WINDOW_TOKENS: usize = 16;
const WINDOW_OVERLAP: usize = 8;

/// A prompt in the tokens of one model.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The chat up to the event.
    pub(crate) prefix: Vec<TokenId>,
    /// What stands where a long event is cut.
    cut_mark: Vec<TokenId>,
    max_event_tokens: usize,
    question: Vec<TokenId>,
    answer_start: Vec<TokenId>,
}

/// What follows the prefix for one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Framed {
    pub(crate) tokens: Vec<TokenId>,
    /// Which of `tokens` are the event's, at least one.
    pub(crate) event: Range<usize>,
    /// Which of those are its last line's, at least one.
    pub(crate) last_line: Range<usize>,
    /// Where the question ends and the answer begins.
    pub(crate) question_end: usize,
}

impl Framed {
    /// Windows over the event in order, at least one; together they are the event.
    pub(crate) fn windows(&self) -> Vec<Range<usize>> {
        let Range { start, end } = self.event;
        let step = WINDOW_TOKENS - WINDOW_OVERLAP;
        // The last of them begins before the last step, so that none is a
        // part of its neighbour.
        let starts = (start..end).step_by(step);
        let starts = starts.take_while(|&at| at == start || at + WINDOW_OVERLAP < end);
        starts.map(|at| at..(at + WINDOW_TOKENS).min(end)).collect()
    }
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
            max_event_tokens: prompt.max_event_tokens.max(3),
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

    /// Where the last line of `event` begins: behind the last token with a line
    /// break that something follows.
    fn last_line(tokenizer: &Tokenizer, event: &[TokenId]) -> usize {
        let body = event.len().saturating_sub(1);
        let breaks = |token: &TokenId| tokenizer.decode(&[*token]).contains('\n');
        let at = event[..body].iter().rposition(breaks);
        at.map_or(0, |at| at + 1)
    }

    /// What follows the prefix for `case_text`.
    pub(crate) fn frame(
        &self,
        tokenizer: &Tokenizer,
        case_text: &str,
    ) -> Result<Framed, InferenceError> {
        let event = tokenizer.encode_text(case_text)?;
        let behind = self.question.len() + self.answer_start.len();
        let most = self.max_event_tokens;
        let mut tokens = Vec::with_capacity(event.len().min(most) + behind + 8);
        if event.len() <= most {
            tokens.extend_from_slice(&event);
        } else {
            let tail = most / 3;
            tokens.extend_from_slice(&event[..most - tail]);
            tokens.extend_from_slice(&self.cut_mark);
            tokens.extend_from_slice(&event[event.len() - tail..]);
        }
        let event = 0..tokens.len();
        let last_line = Self::last_line(tokenizer, &tokens);
        tokens.extend_from_slice(&self.question);
        let question_end = tokens.len();
        tokens.extend_from_slice(&self.answer_start);
        Ok(Framed {
            tokens,
            last_line: last_line..event.end,
            event,
            question_end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_the_event_and_no_window_is_a_part_of_another() {
        for n_tokens in 1..80 {
            let framed = Framed {
                tokens: Vec::new(),
                event: 0..n_tokens,
                last_line: 0..n_tokens,
                question_end: n_tokens + 2,
            };
            let windows = framed.windows();
            assert_eq!(windows[0].start, 0);
            assert_eq!(windows[windows.len() - 1].end, n_tokens);
            for pair in windows.windows(2) {
                assert_eq!(
                    pair[1].start,
                    pair[0].start + WINDOW_TOKENS - WINDOW_OVERLAP
                );
                assert!(pair[0].end < pair[1].end && pair[1].start < pair[0].end);
            }
            let longest = windows.iter().map(ExactSizeIterator::len).max();
            assert_eq!(longest, Some(n_tokens.min(WINDOW_TOKENS)));
        }
    }
}
