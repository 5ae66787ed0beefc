//! The judges of texts and tool calls, beside the one of program starts.
//!
//! All share the model and its scheduler. Each has a prompt of its own, so a prefix
//! of its own, and is made when it is first asked: who only watches programs does
//! not pay for them.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use inwarden_classifier::{
    CallText, Classifier, ClassifierError, HeadUse, Judge, JudgeAnswer, JudgeError, LearnedSet,
    LearnedWeights, Question, TermModel, TextCalibration, TextClassifier, may_run_command,
    more_severe,
};
use inwarden_inference::Scheduler;
use inwarden_types::{AgentText, Case, EventData, TextGiver, ToolCall, Verdict};

use crate::{
    EngineError, HeadChoice,
    analyst::with_head,
    judge_prefix::{PrefixCounts, start_judge},
    learn::LearnedSets,
};

/// The questions that are not about program starts.
const QUESTIONS: [Question; 3] = [Question::UserText, Question::ToolOutput, Question::ToolCall];

/// What a judge is made of.
pub(crate) struct JudgeParts {
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) model_id: String,
    pub(crate) prefix_dir: Option<PathBuf>,
    pub(crate) head: HeadChoice,
    pub(crate) counts: Arc<PrefixCounts>,
}

/// The classifiers of the questions that there are weights for.
pub(crate) struct TextJudges {
    /// `None` without a model.
    parts: Option<JudgeParts>,
    lazy: Vec<Lazy>,
}

struct Lazy {
    question: Question,
    calibration: TextCalibration,
    terms: Option<Arc<TermModel>>,
    learned: Option<LearnedSet>,
    made: OnceLock<Option<TextClassifier>>,
}

impl TextJudges {
    /// With the weights among `own` that are of the question, or those of `learned`,
    /// or the shipped ones.
    pub(crate) fn new(
        parts: Option<JudgeParts>,
        own: &[TextCalibration],
        learned: &mut LearnedSets,
    ) -> Result<Self, EngineError> {
        let mut lazy = Vec::new();
        for question in QUESTIONS {
            let named = own.iter().find(|one| one.question == question.name());
            let learned = learned.take(question);
            let calibration = match (named, &learned) {
                (Some(calibration), _) => Some(calibration.clone()),
                (
                    None,
                    Some(LearnedSet {
                        weights: LearnedWeights::Texts(weights),
                        ..
                    }),
                ) => Some((**weights).clone()),
                _ => TextCalibration::shipped(question)?,
            };
            if let Some(calibration) = calibration {
                lazy.push(Lazy {
                    question,
                    calibration,
                    terms: match &learned {
                        Some(learned) => Some(learned.terms.clone()),
                        None => TermModel::shipped(question).map_err(ClassifierError::from)?,
                    }
                    .map(Arc::new),
                    learned,
                    made: OnceLock::new(),
                });
            }
        }
        Ok(Self { parts, lazy })
    }

    /// Makes those judges that have not been asked yet.
    pub(crate) fn prepare(&self) {
        for question in QUESTIONS {
            self.of(question);
        }
    }

    /// The verdict on a case by whoever is asked about its kind; `programs` judges
    /// program starts, and whatever there are no weights for. What was said of the
    /// same text or call before goes first.
    pub(crate) fn classify(&self, case: &Case, programs: &Classifier) -> Verdict {
        if let Some(verdict) = programs.remembered(case) {
            return verdict;
        }
        let verdict = match &case.last().data {
            EventData::Text(text) => self.text(text),
            EventData::ToolCall(call) => self.call(call, case, programs),
            _ => None,
        };
        verdict.unwrap_or_else(|| programs.classify(case))
    }

    fn text(&self, text: &AgentText) -> Option<Verdict> {
        let question = match text.given_by {
            TextGiver::User => Question::UserText,
            TextGiver::Tool => Question::ToolOutput,
        };
        let (task, tool) = (text.user_task.as_deref(), text.tool.as_deref());
        Some(self.of(question)?.judge_text(&text.text, task, tool))
    }

    /// A call that runs a command is judged as that, too.
    fn call(&self, call: &ToolCall, case: &Case, programs: &Classifier) -> Option<Verdict> {
        let steered = self.of(Question::ToolCall)?.judge_call(&CallText::of(call));
        if !may_run_command(call) {
            return Some(steered);
        }
        Some(more_severe(programs.classify(case), steered))
    }

    fn of(&self, question: Question) -> Option<&TextClassifier> {
        let lazy = self.lazy.iter().find(|lazy| lazy.question == question)?;
        let made = lazy.made.get_or_init(|| {
            let parts = self.parts.as_ref();
            let judge = parts.map(|parts| parts.judge(question, lazy.learned.as_ref()));
            let made = TextClassifier::new(question, judge, lazy.calibration.clone());
            let made = made.map(|made| match &lazy.terms {
                Some(terms) => made.with_terms(Arc::clone(terms)),
                None => made,
            });
            made.inspect_err(|error| tracing::error!(%error, "texts are judged as programs are"))
                .ok()
        });
        made.as_ref()
    }

    /// What decides beside the model, for the audit log.
    pub(crate) fn identity(&self) -> Result<String, EngineError> {
        let mut names = Vec::new();
        for Lazy {
            question,
            calibration,
            terms,
            ..
        } in &self.lazy
        {
            let hash = calibration.content_hash()?;
            let digits: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
            let terms = terms.as_ref().map_or("none", |terms| terms.content_hash());
            names.push(format!("{}:{digits} words:{terms}", question.name()));
        }
        if names.is_empty() {
            names.push("none".to_owned());
        }
        if matches!(&self.parts, Some(parts) if parts.head == HeadChoice::Off) {
            names.push("no heads".to_owned());
        }
        Ok(names.join(" "))
    }
}

impl JudgeParts {
    /// A judge that cannot be had answers with its error, so that nothing counts
    /// as benign for want of it.
    fn judge(&self, question: Question, learned: Option<&LearnedSet>) -> Arc<dyn Judge> {
        let dir = self.prefix_dir.as_deref();
        let started = start_judge(&self.scheduler, &self.model_id, question, dir, &self.counts);
        let judge = match started {
            Ok(judge) => judge,
            Err(error) => {
                let identity = format!("{} {}", self.model_id, question.name());
                tracing::error!(judge = identity, %error, "a judge could not be set up");
                return Arc::new(Unavailable {
                    identity,
                    reason: error.to_string(),
                });
            }
        };
        let (judge, head) = with_head(judge, question, self.head, learned);
        if let HeadUse::Refused(error) = head {
            tracing::warn!(question = question.name(), %error, "a judge answers without its head");
        }
        Arc::new(judge)
    }
}

/// Stands for a judge that could not be set up.
struct Unavailable {
    identity: String,
    reason: String,
}

impl Judge for Unavailable {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn judge(&self, _: &str) -> Result<JudgeAnswer, JudgeError> {
        Err(JudgeError::Failed {
            judge: self.identity.clone(),
            reason: self.reason.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use inwarden_classifier::{ClassifierConfig, Parts, TextWeights};
    use inwarden_types::{Event, EventId, Label, Process, UndeterminedReason};

    use super::*;

    fn case() -> Case {
        Case::of(Event {
            id: EventId::External("e".into()),
            at: None,
            wall: None,
            process: Process::default(),
            ancestors: Vec::new(),
            data: EventData::Text(AgentText {
                text: "The meeting begins at nine.".into(),
                ..AgentText::default()
            }),
        })
    }

    #[test]
    fn without_weights_a_text_is_judged_as_programs_are() {
        let programs =
            Classifier::new(ClassifierConfig::shipped().unwrap(), Parts::default()).unwrap();
        let none = TextJudges {
            parts: None,
            lazy: Vec::new(),
        };
        let mut verdict = none.classify(&case(), &programs);
        let mut expected = programs.classify(&case());
        verdict.stages = inwarden_types::StageTimes::default();
        expected.stages = inwarden_types::StageTimes::default();
        assert_eq!(verdict, expected);
        assert_eq!(none.identity().unwrap(), "none");
    }

    #[test]
    fn a_judge_that_cannot_be_had_makes_nothing_benign() {
        let weights = TextWeights {
            intercept: -9.0,
            malicious_threshold: 0.9,
            benign_threshold: 0.5,
            weights: BTreeMap::new(),
        };
        let calibration = TextCalibration {
            format: 2,
            question: "tool_output".into(),
            judge: "none".into(),
            corpus: "none".into(),
            rows: 0,
            prior: 0.5,
            with_head: weights.clone(),
            with_judge: weights.clone(),
            without_judge: weights,
        };
        let judge: Arc<dyn Judge> = Arc::new(Unavailable {
            identity: "m".into(),
            reason: "no memory".into(),
        });
        let made = |judge| TextClassifier::new(Question::ToolOutput, judge, calibration.clone());
        let verdict = made(None).unwrap().judge_text("x", None, None);
        assert_eq!(verdict.label, Label::Benign);
        let verdict = made(Some(judge)).unwrap().judge_text("x", None, None);
        assert_eq!(verdict.label, Label::Undetermined);
        assert!(matches!(
            verdict.undetermined,
            Some(UndeterminedReason::StageFailed { .. })
        ));
    }
}
