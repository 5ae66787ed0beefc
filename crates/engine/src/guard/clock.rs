//! The thread that answers what nobody answers in time.

use std::collections::VecDeque;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use inwarden_types::UndeterminedReason;

use super::{Question, Shared};

impl Shared {
    /// All deadlines are equally far away, so questions expire in order. At most
    /// `max_open` of them are unanswered; others take no place here, so that nobody
    /// who asks waits for one that takes long.
    pub(super) fn expire_all(&self, questions: &Receiver<Question>, max_open: usize) {
        let mut open = VecDeque::new();
        let expire = |question: &Question| self.fail(question, UndeterminedReason::DeadlinePassed);
        loop {
            let next = match open.front() {
                None => questions.recv().map_err(RecvTimeoutError::from),
                Some(Question { asked, .. }) => questions.recv_deadline(*asked + self.deadline),
            };
            match next {
                Ok(question) => {
                    if open.len() >= max_open {
                        open.retain(|question: &Question| !question.slot.is_claimed());
                    }
                    open.push_back(question);
                }
                Err(RecvTimeoutError::Timeout) => {
                    open.pop_front().iter().for_each(expire);
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        for question in &open {
            question.slot.wait_filled(question.asked + self.deadline);
            expire(question);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use inwarden_models::ModelCache;
    use inwarden_types::{EventData, Mode, ToolCall};

    use super::super::{FailureMode, Guard, GuardConfig, slot::Slot};
    use super::*;
    use crate::{Analyst, AnalystConfig, MemoryPlace};

    fn rules_only(deadline: Duration) -> Guard {
        let config = AnalystConfig {
            model: None,
            memory: MemoryPlace::Off,
            ..AnalystConfig::new(ModelCache::at("unused".into()))
        };
        let analyst = Arc::new(Analyst::load(&config).unwrap());
        let config = GuardConfig {
            mode: Mode::Enforce,
            failure: FailureMode::Closed,
            deadline,
            queue: 1,
            audit_log: None,
        };
        Guard::start(analyst, config).unwrap()
    }

    /// A question that no thread works on.
    fn unanswered(guard: &Guard) -> Question {
        let question = guard.ask(EventData::ToolCall(ToolCall::default()));
        let question = Question {
            slot: Arc::new(Slot::default()),
            ..question
        };
        let deadlines = guard.deadlines.as_ref().unwrap();
        deadlines.send(question.clone()).unwrap();
        question
    }

    #[test]
    fn a_question_that_takes_long_holds_nobody_else_up() {
        let guard = rules_only(Duration::from_secs(600));
        let slow = unanswered(&guard);
        let begun = Instant::now();
        for _ in 0..100 {
            let answer = guard.check_tool_call(ToolCall::default());
            assert!(answer.verdict.undetermined != Some(UndeterminedReason::DeadlinePassed));
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert!(slow.slot.claim(), "nobody has answered it");
    }

    #[test]
    fn questions_expire_also_behind_answered_ones() {
        let guard = rules_only(Duration::from_millis(50));
        let slow = [unanswered(&guard), unanswered(&guard)];
        for question in slow {
            let patience = Instant::now() + Duration::from_secs(20);
            let report = question.slot.wait(patience).expect("the clock answers");
            let reason = report.verdict.undetermined;
            assert_eq!(reason, Some(UndeterminedReason::DeadlinePassed));
        }
    }
}
