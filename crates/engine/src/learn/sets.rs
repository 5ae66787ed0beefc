//! Learnt sets in place of the shipped heads, words and weights.

use std::path::{Path, PathBuf};

use inwarden_classifier::{Head, LearnedError, LearnedOrigin, LearnedSet, Question};
use inwarden_inference::{Fingerprint, LanguageModel};

use super::hex;
use crate::judge_prefix::is_ours;

/// What can be learnt.
const QUESTIONS: [Question; 4] = [
    Question::Exec,
    Question::UserText,
    Question::ToolOutput,
    Question::ToolCall,
];

/// What became of the learnt set of a question.
#[derive(Debug)]
pub enum LearnedUse {
    /// It is used in place of what is shipped.
    Used,
    /// It is there and is not used; what is shipped is.
    Refused(LearnedError),
}

/// Where the head of a question comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadSource {
    /// A learnt set, named by this file; whether it fits shows when it is loaded.
    Learned(PathBuf),
    /// It comes with this crate.
    Shipped,
    /// There is none for this model: the judge answers with labels alone until
    /// `inwarden learn` makes one.
    Absent,
}

/// The learnt sets of a directory that fit the model in use.
#[derive(Debug, Default)]
pub(crate) struct LearnedSets {
    sets: Vec<(Question, LearnedSet)>,
    /// Of each question that has a set.
    pub(crate) uses: Vec<(Question, LearnedUse)>,
}

impl LearnedSets {
    /// Reads those in `dir`. What does not fit is left out and named in a warning.
    pub(crate) fn load(
        dir: &Path,
        model_id: &str,
        fingerprint: Fingerprint,
        model: &LanguageModel,
    ) -> Self {
        let mut found = Self::default();
        for question in QUESTIONS {
            let sha256 = hex(&fingerprint.0);
            let used = LearnedOrigin::of(question, model_id, &sha256, model.arithmetic());
            let loaded = LearnedSet::load(dir, question, &used, model);
            let loaded = loaded.and_then(|set| match set {
                Some(_) if !is_private(dir) => Err(LearnedError::NotPrivate {
                    path: dir.to_owned(),
                }),
                set => Ok(set),
            });
            match loaded {
                Ok(None) => {}
                Ok(Some(set)) => {
                    found.sets.push((question, set));
                    found.uses.push((question, LearnedUse::Used));
                }
                Err(error) => {
                    let question_name = question.name();
                    tracing::warn!(
                        question = question_name,
                        dir = %dir.display(),
                        %error,
                        "a learnt set is ignored, the shipped one is used"
                    );
                    found.uses.push((question, LearnedUse::Refused(error)));
                }
            }
        }
        found
    }

    /// The set of `question`, to be used.
    pub(crate) fn take(&mut self, question: Question) -> Option<LearnedSet> {
        let at = self.sets.iter().position(|(of, _)| *of == question)?;
        Some(self.sets.swap_remove(at).1)
    }

    /// The questions with a set in use, for the audit log.
    pub(crate) fn identity(&self) -> String {
        let used = self
            .uses
            .iter()
            .filter_map(|(question, state)| match state {
                LearnedUse::Used => Some(question.name()),
                LearnedUse::Refused(_) => None,
            });
        let used: Vec<&str> = used.collect();
        match used.is_empty() {
            true => "none".to_owned(),
            false => used.join(" "),
        }
    }
}

fn is_private(dir: &Path) -> bool {
    std::fs::metadata(dir).is_ok_and(|dir| is_ours(&dir))
}

/// Where the heads for `model_id` come from, if `dir` is its directory of learnt sets.
#[must_use]
pub fn head_sources(model_id: &str, dir: Option<&Path>) -> Vec<(Question, HeadSource)> {
    let source = |question: Question| {
        let learned = dir.map(|dir| dir.join(format!("{}.toml", question.name())));
        match learned.filter(|file| file.exists()) {
            Some(file) => HeadSource::Learned(file),
            None => match Head::shipped(model_id, question) {
                Ok(Some(_)) => HeadSource::Shipped,
                _ => HeadSource::Absent,
            },
        }
    };
    QUESTIONS
        .map(|question| (question, source(question)))
        .to_vec()
}
