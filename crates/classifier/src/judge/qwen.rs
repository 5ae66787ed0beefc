//! The judge over Qwen2.5: label scores from one forward pass, which cases that
//! are judged at the same time share.
//!
//! The prefix is the same for every case and is computed once. The suffix is the
//! event, encoded as plain text that can never become a control token, then the
//! end of the turn and the answer up to the label. The answer is the difference
//! of the labels' log-probabilities, less the same difference for cases without
//! content (contextual calibration: Zhao et al. 2021, arXiv:2102.09690).
//!
//! Labels compete with each other alone, so the head of the model computes their
//! tokens and not a vocabulary of 151,936. Where a label is one token, what it
//! would compete with cancels out of the difference.

use std::sync::Arc;

use inwarden_inference::{
    CallerId, InferenceError, LabelScores, Normalization, Prefix, PreparedLabels, Qwen2, Scheduler,
    ScoreRequest, TokenId,
};

use super::{Judge, JudgeAnswer, JudgeError, Prompt};

/// Event tokens that are read; of longer ones, both ends.
const MAX_EVENT_TOKENS: usize = 256;

/// The judge could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JudgeSetupError {
    /// The model refused the prompt.
    #[error("judge prompt")]
    Model(#[from] InferenceError),
    /// The model's numbers for the prompt are not finite.
    #[error("the model gives no finite score for the prompt")]
    NotFinite,
}

/// Qwen2.5 with a prompt.
pub struct QwenJudge {
    scheduler: Arc<Scheduler>,
    prefix: Prefix,
    /// End of the event's turn and beginning of the answer.
    answer_start: Vec<TokenId>,
    /// What stands where a long event is cut.
    cut_mark: Vec<TokenId>,
    /// Malicious, benign.
    labels: Arc<PreparedLabels>,
    /// Log-odds of a case without content.
    prior: f64,
    identity: String,
}

impl QwenJudge {
    /// Computes the prefix and the prior; costs one prefill of the prompt.
    /// `model_id` names the weights in [`Judge::identity`].
    ///
    /// Each thread that judges is a caller of its own to `scheduler`.
    ///
    /// # Errors
    /// [`JudgeSetupError::Model`] if the model cannot take the prompt,
    /// [`JudgeSetupError::NotFinite`] if it cannot score it.
    pub fn new(
        scheduler: Arc<Scheduler>,
        model_id: &str,
        prompt: &Prompt,
    ) -> Result<Self, JudgeSetupError> {
        let model = scheduler.model();
        let prefix = model.prefix(&prefix_tokens(model, prompt)?)?;
        let mut judge = Self::behind(prefix, scheduler, model_id, prompt)?;
        let mut sum = 0.0;
        for text in &prompt.content_free {
            sum += judge.raw(text)?.log_odds;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a prompt has a handful of these"
        )]
        let count = prompt.content_free.len().max(1) as f64;
        judge.set_prior(sum / count)?;
        Ok(judge)
    }

    /// With a prefix that is there, and no prior yet.
    pub(super) fn behind(
        prefix: Prefix,
        scheduler: Arc<Scheduler>,
        model_id: &str,
        prompt: &Prompt,
    ) -> Result<Self, JudgeSetupError> {
        let model = scheduler.model();
        let tokenizer = model.tokenizer();
        let answer_start = tokenizer.encode_prompt(&format!(
            "<|im_end|>\n<|im_start|>assistant\n{}",
            prompt.answer_start
        ))?;
        let labels = [
            tokenizer.encode_text(&prompt.malicious_label)?,
            tokenizer.encode_text(&prompt.benign_label)?,
        ];
        let terminator = tokenizer.encode_text(&prompt.answer_end)?.first().copied();
        let among_labels = Normalization::LegalTokens { terminator };
        let labels = model.prepare_labels(&labels, among_labels)?;
        let cut_mark = tokenizer.encode_text(" [...] ")?;
        let identity = format!("{model_id} prompt:{}", prompt.content_hash());
        Ok(Self {
            scheduler,
            prefix,
            answer_start,
            cut_mark,
            labels,
            prior: 0.0,
            identity,
        })
    }

    pub(super) fn set_prior(&mut self, log_odds: f64) -> Result<(), JudgeSetupError> {
        if !log_odds.is_finite() {
            return Err(JudgeSetupError::NotFinite);
        }
        self.prior = log_odds;
        Ok(())
    }

    pub(super) fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The log-odds of a case without content, in nats; already taken off.
    #[must_use]
    pub fn prior_log_odds(&self) -> f64 {
        self.prior
    }

    /// How many tokens a case costs: those of its text, capped, and the frame.
    ///
    /// # Errors
    /// [`InferenceError`] if the text cannot be encoded.
    pub fn suffix_tokens(&self, case_text: &str) -> Result<usize, InferenceError> {
        Ok(self.suffix(case_text)?.len())
    }

    fn raw(&self, case_text: &str) -> Result<JudgeAnswer, InferenceError> {
        let request = ScoreRequest {
            prefix: self.prefix.clone(),
            suffix: self.suffix(case_text)?,
            labels: Arc::clone(&self.labels),
            hidden: None,
        };
        let handle = self.scheduler.handle(CallerId::of_this_thread());
        // Whoever asks keeps the deadlines; an answer that comes late is cached.
        handle.score(request, None).map(answer)
    }

    fn suffix(&self, case_text: &str) -> Result<Vec<TokenId>, InferenceError> {
        let event = self.scheduler.model().tokenizer().encode_text(case_text)?;
        let mut suffix = Vec::with_capacity(MAX_EVENT_TOKENS + self.answer_start.len() + 8);
        if event.len() <= MAX_EVENT_TOKENS {
            suffix.extend_from_slice(&event);
        } else {
            let tail = MAX_EVENT_TOKENS / 3;
            suffix.extend_from_slice(&event[..MAX_EVENT_TOKENS - tail]);
            suffix.extend_from_slice(&self.cut_mark);
            suffix.extend_from_slice(&event[event.len() - tail..]);
        }
        suffix.extend_from_slice(&self.answer_start);
        Ok(suffix)
    }
}

impl Judge for QwenJudge {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn judge(&self, case_text: &str) -> Result<JudgeAnswer, JudgeError> {
        let answer = self.raw(case_text).map_err(|error| JudgeError::Failed {
            judge: self.identity.clone(),
            reason: error.to_string(),
        })?;
        if !answer.log_odds.is_finite() {
            return Err(JudgeError::NotFinite {
                judge: self.identity.clone(),
            });
        }
        Ok(JudgeAnswer {
            log_odds: answer.log_odds - self.prior,
        })
    }
}

fn answer(scores: LabelScores) -> JudgeAnswer {
    let log_odds = match scores.log_probabilities.as_slice() {
        [malicious, benign] => malicious - benign,
        _ => f64::NAN,
    };
    JudgeAnswer { log_odds }
}

impl std::fmt::Debug for QwenJudge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QwenJudge")
            .field("identity", &self.identity)
            .field("prior", &self.prior)
            .finish_non_exhaustive()
    }
}

/// The chat up to the event, in Qwen2.5's template (ChatML; model card of
/// `Qwen/Qwen2.5-0.5B-Instruct`). Examples are encoded as events are.
pub(super) fn prefix_tokens(
    model: &Qwen2,
    prompt: &Prompt,
) -> Result<Vec<TokenId>, InferenceError> {
    let tokenizer = model.tokenizer();
    let mut tokens = tokenizer.encode_prompt("<|im_start|>system\n")?;
    tokens.extend(tokenizer.encode_text(&prompt.task)?);
    let next_event = tokenizer.encode_prompt("<|im_end|>\n<|im_start|>user\n")?;
    tokens.extend_from_slice(&next_event);
    let answer_start = tokenizer.encode_prompt(&format!(
        "<|im_end|>\n<|im_start|>assistant\n{}",
        prompt.answer_start
    ))?;
    let answer_end = tokenizer.encode_text(&prompt.answer_end)?;
    for shot in &prompt.shots {
        tokens.extend(tokenizer.encode_text(&shot.case_text)?);
        tokens.extend_from_slice(&answer_start);
        tokens.extend(tokenizer.encode_text(prompt.label_of(shot))?);
        tokens.extend_from_slice(&answer_end);
        tokens.extend_from_slice(&next_event);
    }
    Ok(tokens)
}
