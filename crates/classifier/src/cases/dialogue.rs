//! What a user asked an agent for and what the agent did since, for calls and texts
//! that come without it: events of different sources rarely repeat it.

use std::{collections::VecDeque, fmt};

use inwarden_types::{AgentText, EventData, PastCall, TextGiver, ToolCall};

use super::session::beginning;

/// Calls that are remembered, and bytes of each text of one.
const MAX_CALLS: usize = 4;
const MAX_TEXT_BYTES: usize = 8 * 1024;

/// The latest task of one agent, and the calls since.
#[derive(Default)]
pub(super) struct Dialogue {
    task: Option<String>,
    past: VecDeque<PastCall>,
}

// It does not show its texts: they may be secret.
impl fmt::Debug for Dialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialogue")
            .field("has_task", &self.task.is_some())
            .field("past_calls", &self.past.len())
            .finish()
    }
}

impl Dialogue {
    /// A user's text is a new task; a tool's belongs to the last call of that tool.
    pub(super) fn read(&mut self, text: &AgentText) {
        let kept = beginning(&text.text, MAX_TEXT_BYTES).to_owned();
        if text.given_by == TextGiver::User {
            self.task = Some(kept);
            self.past.clear();
            return;
        }
        let tool = text.tool.as_deref().unwrap_or_default();
        let last = self.past.back_mut();
        match last.filter(|last| last.tool == tool && last.output.is_empty()) {
            Some(last) => last.output = kept,
            None => self.push(PastCall {
                tool: beginning(tool, MAX_TEXT_BYTES).to_owned(),
                args_json: "{}".to_owned(),
                output: kept,
            }),
        }
    }

    pub(super) fn called(&mut self, call: &ToolCall) {
        self.push(PastCall {
            tool: beginning(&call.tool, MAX_TEXT_BYTES).to_owned(),
            args_json: beginning(&call.args_json, MAX_TEXT_BYTES).to_owned(),
            output: String::new(),
        });
    }

    /// Says what `data` itself does not.
    pub(super) fn complete(&self, data: &mut EventData) {
        match data {
            EventData::ToolCall(call) => {
                if call.user_task.is_none() {
                    call.user_task.clone_from(&self.task);
                }
                if call.history.is_empty() {
                    call.history = self.past.iter().cloned().collect();
                }
            }
            EventData::Text(text)
                if text.given_by == TextGiver::Tool && text.user_task.is_none() =>
            {
                text.user_task.clone_from(&self.task);
            }
            _ => {}
        }
    }

    fn push(&mut self, call: PastCall) {
        if self.past.len() == MAX_CALLS {
            self.past.pop_front();
        }
        self.past.push_back(call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(given_by: TextGiver, tool: Option<&str>, text: &str) -> AgentText {
        AgentText {
            given_by,
            tool: tool.map(str::to_owned),
            text: text.to_owned(),
            ..AgentText::default()
        }
    }

    fn call(tool: &str) -> ToolCall {
        ToolCall {
            tool: tool.to_owned(),
            args_json: "{}".to_owned(),
            ..ToolCall::default()
        }
    }

    fn completed(dialogue: &Dialogue, call: ToolCall) -> ToolCall {
        let mut data = EventData::ToolCall(call);
        dialogue.complete(&mut data);
        let EventData::ToolCall(call) = data else {
            unreachable!("it was a call")
        };
        call
    }

    #[test]
    fn a_call_is_told_the_task_and_what_came_back_since() {
        let mut dialogue = Dialogue::default();
        dialogue.called(&call("before"));
        dialogue.read(&text(TextGiver::User, None, "water the plants"));
        dialogue.called(&call("list"));
        dialogue.read(&text(TextGiver::Tool, Some("list"), "fern, ivy"));
        let told = completed(&dialogue, call("pour"));
        assert_eq!(told.user_task.as_deref(), Some("water the plants"));
        let past: Vec<(&str, &str)> = told
            .history
            .iter()
            .map(|past| (past.tool.as_str(), past.output.as_str()))
            .collect();
        assert_eq!(past, [("list", "fern, ivy")]);
    }

    #[test]
    fn what_a_call_says_itself_stays() {
        let mut dialogue = Dialogue::default();
        dialogue.read(&text(TextGiver::User, None, "one"));
        dialogue.called(&call("a"));
        let mut own = call("b");
        own.user_task = Some("two".to_owned());
        own.history = vec![PastCall::default()];
        assert_eq!(completed(&dialogue, own.clone()), own);
        // A tool's text is told the task, a user's is the task.
        for (giver, expected) in [(TextGiver::Tool, Some("one")), (TextGiver::User, None)] {
            let mut data = EventData::Text(text(giver, None, "x"));
            dialogue.complete(&mut data);
            assert!(matches!(data, EventData::Text(t) if t.user_task.as_deref() == expected));
        }
    }

    #[test]
    fn long_and_many_texts_are_kept_in_bounds() {
        let mut dialogue = Dialogue::default();
        for _ in 0..100 {
            dialogue.read(&text(TextGiver::Tool, Some("t"), &"é".repeat(100_000)));
        }
        let told = completed(&dialogue, call("u"));
        assert_eq!(told.history.len(), MAX_CALLS);
        assert!(
            told.history
                .iter()
                .all(|p| p.output.len() <= MAX_TEXT_BYTES)
        );
    }
}
