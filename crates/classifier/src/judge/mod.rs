//! The judge: what a language model thinks of a case, as log-odds.

mod frame;
mod prompt;
mod question;
mod qwen;
mod saved_prefix;
mod texts;
mod unfinished;

pub(crate) use frame::{Frame, Framed, labels_of};
pub use prompt::{Prompt, Shot};
pub use question::Question;
pub use qwen::{HeadUse, JudgeSetupError, QwenJudge};
pub use saved_prefix::{FoundPrefix, SavedPrefixReport};
pub use texts::{CallText, PastCall, render_text};

/// Judges the text of a case. The text is untrusted and must be treated as data.
pub trait Judge: Send + Sync {
    /// Names model and prompt so precisely that equal names give equal answers.
    fn identity(&self) -> String;

    /// Judges [`crate::render_case`]'s text of a case. The same text always gets
    /// the same answer.
    ///
    /// # Errors
    /// [`JudgeError`] if there is no answer; the classifier then judges without.
    fn judge(&self, case_text: &str) -> Result<JudgeAnswer, JudgeError>;

    /// As [`Judge::judge`] for each of `case_texts`, in their order, and with the
    /// same answers. A judge that can answer several at once does.
    fn judge_all(&self, case_texts: &[String]) -> Vec<Result<JudgeAnswer, JudgeError>> {
        case_texts.iter().map(|text| self.judge(text)).collect()
    }
}

/// What the judge says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgeAnswer {
    /// Log-odds of malicious in nats, less those of a case without content; not
    /// calibrated.
    pub log_odds: f64,
    /// Log-odds of malicious in nats that a trained head reads out of the same pass.
    pub head: Option<f64>,
}

/// The judge has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JudgeError {
    /// The model failed; the message holds no text of the case.
    #[error("{judge} failed: {reason}")]
    Failed {
        /// The judge's identity.
        judge: String,
        /// What it said.
        reason: String,
    },
    /// The model's numbers are not finite.
    #[error("{judge} gave no finite score")]
    NotFinite {
        /// The judge's identity.
        judge: String,
    },
}
