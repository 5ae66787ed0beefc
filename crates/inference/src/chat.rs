//! The chat template of Qwen2.5 (`ChatML`): turns between `<|im_start|>` and `<|im_end|>`.
//!
//! Only the template's own markers become added tokens; the content of every
//! turn is encoded as plain text, so no content can open or close a turn.
//!
//! Source: `tokenizer_config.json` of `Qwen/Qwen2.5-0.5B-Instruct`, `chat_template`.

use crate::{
    error::InferenceError,
    tokenizer::{TokenId, Tokenizer},
};

/// Who speaks in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions to the model.
    System,
    /// What is asked.
    User,
    /// What the model answered.
    Assistant,
}

/// One turn of a conversation.
#[derive(Clone, Copy, Debug)]
pub struct ChatTurn<'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said; encoded as plain text.
    pub content: &'a str,
}

impl Tokenizer {
    /// Encodes `turns` and opens the assistant's answer.
    ///
    /// # Errors
    /// [`InferenceError::TextTooLong`] if one content exceeds 256 KiB.
    pub fn encode_chat(&self, turns: &[ChatTurn<'_>]) -> Result<Vec<TokenId>, InferenceError> {
        let mut tokens = Vec::new();
        for turn in turns {
            let role = match turn.role {
                Role::System => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            tokens.extend(self.encode_prompt(&format!("<|im_start|>{role}\n"))?);
            tokens.extend(self.encode_text(turn.content)?);
            tokens.extend(self.encode_prompt("<|im_end|>\n")?);
        }
        tokens.extend(self.encode_prompt("<|im_start|>assistant\n")?);
        Ok(tokens)
    }
}
