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
    CallerId, InferenceError, LabelScores, ModelLabels, ModelPrefix, PendingScores, Scheduler,
    ScoreRequest,
};

use super::{Frame, Judge, JudgeAnswer, JudgeError, Prompt, Question, labels_of};
use crate::head::{Head, HeadError};

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

/// Whether a judge answers with a trained head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadUse {
    /// It does.
    Used,
    /// There is none for its model: it answers with labels alone until one is
    /// trained.
    Absent,
    /// There is one, but it does not fit.
    Refused(HeadError),
}

/// Qwen2.5 with a prompt.
pub struct QwenJudge {
    scheduler: Arc<Scheduler>,
    prefix: ModelPrefix,
    frame: Frame,
    /// Malicious, benign.
    labels: ModelLabels,
    /// Log-odds of a case without content.
    prior: f64,
    head: Option<Head>,
    model_id: String,
    prompt: Prompt,
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
        let frame = Frame::new(model.tokenizer(), prompt)?;
        let prefix = model.prefix(&frame.prefix)?;
        let mut judge = Self::behind(prefix, frame, scheduler, model_id, prompt)?;
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
        prefix: ModelPrefix,
        frame: Frame,
        scheduler: Arc<Scheduler>,
        model_id: &str,
        prompt: &Prompt,
    ) -> Result<Self, JudgeSetupError> {
        let model = scheduler.model();
        let (labels, normalization) = labels_of(model.tokenizer(), prompt)?;
        let labels = model.prepare_labels(&labels, normalization)?;
        // A device's numbers differ a little from the processor's.
        let place = match model.processor() {
            Some(_) => "",
            None => " on:device",
        };
        let identity = format!("{model_id} prompt:{}{place}", prompt.content_hash());
        Ok(Self {
            scheduler,
            prefix,
            frame,
            labels,
            prior: 0.0,
            head: None,
            model_id: model_id.to_owned(),
            prompt: prompt.clone(),
            identity,
        })
    }

    /// This judge with a head, which then answers in the same pass as the labels.
    ///
    /// # Errors
    /// [`HeadError::Differs`] if the head was trained with another model, prompt,
    /// way of computing or rendering of cases.
    pub fn with_head(self, head: Head) -> Result<Self, HeadError> {
        head.check(self.scheduler.model(), &self.model_id, &self.prompt)?;
        Ok(self.having(head))
    }

    /// This judge with the head that comes with this crate for its model and
    /// `question`, where there is one that fits; and what became of it.
    #[must_use]
    pub fn with_shipped_head(self, question: Question) -> (Self, HeadUse) {
        let head = match Head::shipped(&self.model_id, question) {
            Ok(Some(head)) => head,
            Ok(None) => return (self, HeadUse::Absent),
            Err(error) => return (self, HeadUse::Refused(error)),
        };
        self.with_fitting_head(head)
    }

    /// This judge with `head` if it fits; and what became of it.
    #[must_use]
    pub fn with_fitting_head(self, head: Head) -> (Self, HeadUse) {
        match head.check(self.scheduler.model(), &self.model_id, &self.prompt) {
            Ok(()) => (self.having(head), HeadUse::Used),
            Err(error) => (self, HeadUse::Refused(error)),
        }
    }

    fn having(mut self, head: Head) -> Self {
        self.identity = format!("{} head:{}", self.identity, head.content_hash());
        self.head = Some(head);
        self
    }

    /// The head that answers beside the labels, if there is one.
    #[must_use]
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    pub(super) fn set_prior(&mut self, log_odds: f64) -> Result<(), JudgeSetupError> {
        if !log_odds.is_finite() {
            return Err(JudgeSetupError::NotFinite);
        }
        self.prior = log_odds;
        Ok(())
    }

    pub(super) fn prefix(&self) -> &ModelPrefix {
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
        let tokenizer = self.scheduler.model().tokenizer();
        Ok(self.frame.frame(tokenizer, case_text)?.tokens.len())
    }

    fn raw(&self, case_text: &str) -> Result<JudgeAnswer, InferenceError> {
        let pending = self.submit(case_text)?;
        Ok(self.answer(&pending.wait()?))
    }

    fn submit(&self, case_text: &str) -> Result<PendingScores, InferenceError> {
        let tokenizer = self.scheduler.model().tokenizer();
        let framed = self.frame.frame(tokenizer, case_text)?;
        let hidden = self
            .head
            .as_ref()
            .map(|head| head.choice().request(&framed));
        let request = ScoreRequest {
            prefix: self.prefix.clone(),
            suffix: framed.tokens,
            labels: self.labels.clone(),
            hidden: hidden.map(Arc::new),
        };
        let handle = self.scheduler.handle(CallerId::of_this_thread());
        // Whoever asks keeps the deadlines; an answer that comes late is cached.
        handle.submit(request, None)
    }

    fn answer(&self, scores: &LabelScores) -> JudgeAnswer {
        let log_odds = match scores.log_probabilities.as_slice() {
            [malicious, benign] => malicious - benign,
            _ => f64::NAN,
        };
        let head = self.head.as_ref().map(|head| head.log_odds(&scores.hidden));
        JudgeAnswer { log_odds, head }
    }

    fn checked(
        &self,
        answer: Result<JudgeAnswer, InferenceError>,
    ) -> Result<JudgeAnswer, JudgeError> {
        let answer = answer.map_err(|error| JudgeError::Failed {
            judge: self.identity.clone(),
            reason: error.to_string(),
        })?;
        let head_is_finite = answer.head.is_none_or(f64::is_finite);
        if !answer.log_odds.is_finite() || !head_is_finite {
            return Err(JudgeError::NotFinite {
                judge: self.identity.clone(),
            });
        }
        Ok(JudgeAnswer {
            log_odds: answer.log_odds - self.prior,
            ..answer
        })
    }
}

impl Judge for QwenJudge {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn judge(&self, case_text: &str) -> Result<JudgeAnswer, JudgeError> {
        self.checked(self.raw(case_text))
    }

    fn judge_all(&self, case_texts: &[String]) -> Vec<Result<JudgeAnswer, JudgeError>> {
        // All are handed in before one is waited for, so that they share passes.
        let pending: Vec<_> = case_texts.iter().map(|text| self.submit(text)).collect();
        let answers = pending.into_iter().map(|pending| {
            let scores = pending.and_then(PendingScores::wait);
            self.checked(scores.map(|scores| self.answer(&scores)))
        });
        answers.collect()
    }
}

impl std::fmt::Debug for QwenJudge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QwenJudge")
            .field("identity", &self.identity)
            .field("prior", &self.prior)
            .finish_non_exhaustive()
    }
}
