//! A judge whose prefix is kept in a file between starts.
//!
//! What the file holds is a copy: whatever is wrong with it, the prefix is
//! computed instead and written anew. A judge answers bitwise the same either way.

use std::{io::ErrorKind, path::Path, sync::Arc, time::SystemTime};

use inwarden_inference::{InferenceError, Prior, Scheduler};
use sha2::{Digest as _, Sha256};

use super::{
    Frame, Prompt,
    qwen::{JudgeSetupError, QwenJudge},
    unfinished::remove_unfinished,
};

/// What became of the file that keeps a judge's prefix.
#[derive(Debug)]
pub struct SavedPrefixReport {
    /// What was found at the start.
    pub found: FoundPrefix,
    /// Why what was computed could not be written; `None` if it was, or if
    /// nothing had to be computed.
    pub not_saved: Option<InferenceError>,
    /// Files that processes ended while they saved have left beside it, and that were
    /// removed.
    pub unfinished_removed: usize,
}

/// What a file that keeps a judge's prefix held.
#[derive(Debug)]
#[non_exhaustive]
pub enum FoundPrefix {
    /// The prefix and the prior, which were used.
    Usable,
    /// There was no such file.
    Absent,
    /// Those of another prompt.
    OtherPrompt,
    /// It was not looked at: a prefix on a device is not kept in a file.
    NotKept,
    /// It is damaged, of another model or format, or cannot be read.
    Refused(InferenceError),
}

impl QwenJudge {
    /// As [`QwenJudge::new`], but takes prefix and prior from `file` where it
    /// holds them; otherwise they are computed and written there.
    ///
    /// The model must have been loaded with a fingerprint; on a device the prefix is
    /// always computed. `file` is read within the limits of the model's context and
    /// replaced as a whole, readable by its owner alone. Whoever may write it decides
    /// what the judge answers. What earlier processes have left unfinished beside it
    /// for more than a day is removed.
    ///
    /// # Errors
    /// As for [`QwenJudge::new`], and never because of `file`.
    pub fn with_saved_prefix(
        scheduler: Arc<Scheduler>,
        model_id: &str,
        prompt: &Prompt,
        file: &Path,
    ) -> Result<(Self, SavedPrefixReport), JudgeSetupError> {
        let unfinished_removed = remove_unfinished(file, SystemTime::now());
        let key = prior_key(prompt);
        let Some(model) = scheduler.model().processor().cloned() else {
            let report = SavedPrefixReport {
                found: FoundPrefix::NotKept,
                not_saved: None,
                unfinished_removed,
            };
            return Ok((Self::new(scheduler, model_id, prompt)?, report));
        };
        let frame = Frame::new(model.tokenizer(), prompt)?;
        let found = match model.load_prefix(file) {
            Ok(saved) if saved.prefix.tokens() == frame.prefix => {
                if let Some(prior) = value_of(saved.prior, &key) {
                    let prefix = saved.prefix.into();
                    let mut judge = Self::behind(prefix, frame, scheduler, model_id, prompt)?;
                    judge.set_prior(prior)?;
                    let report = SavedPrefixReport {
                        found: FoundPrefix::Usable,
                        not_saved: None,
                        unfinished_removed,
                    };
                    return Ok((judge, report));
                }
                FoundPrefix::OtherPrompt
            }
            Ok(_) => FoundPrefix::OtherPrompt,
            Err(InferenceError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                FoundPrefix::Absent
            }
            Err(error) => FoundPrefix::Refused(error),
        };
        let judge = Self::new(scheduler, model_id, prompt)?;
        let prior = Prior {
            key,
            values: vec![judge.prior_log_odds()],
        };
        let saved = match judge.prefix().processor() {
            Some(prefix) => model.save_prefix(prefix, Some(&prior), file),
            None => Err(InferenceError::ForeignPrefix),
        };
        let report = SavedPrefixReport {
            found,
            not_saved: saved.err(),
            unfinished_removed,
        };
        Ok((judge, report))
    }
}

/// Stands for the prompt's words and for what is computed of them.
fn prior_key(prompt: &Prompt) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(b"mean log-odds among the labels");
    hasher.update(prompt.digest());
    hasher.finalize().into()
}

/// The prior, if it is the one of the prompt that `key` stands for.
fn value_of(prior: Option<Prior>, key: &[u8; 32]) -> Option<f64> {
    let prior = prior.filter(|prior| prior.key == *key)?;
    match prior.values[..] {
        [value] if value.is_finite() => Some(value),
        _ => None,
    }
}
