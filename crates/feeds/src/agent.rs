//! The fields of what an agent asks to do, or is about to read.

use inwarden_types::{AgentText, EventKind, PastCall, TextGiver, ToolCall};

use crate::FeedError;
use crate::decode::MAX_PAST_CALLS;
use crate::json::Cursor;
use crate::values::{expect, need, raw_object, text};

/// Fields of tool calls and texts as they come, before it is known which it is.
#[derive(Default)]
pub(crate) struct AgentFields {
    agent: Option<String>,
    role: Option<String>,
    user_task: Option<String>,
    tool: Option<String>,
    args_json: Option<String>,
    history: Option<Vec<PastCall>>,
    text: Option<String>,
    given_by: Option<TextGiver>,
}

impl AgentFields {
    /// Reads the field if it is one of a tool call or a text.
    pub(crate) fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        name: &str,
        ignored: &mut u64,
    ) -> Result<bool, FeedError> {
        match name {
            "agent" => self.agent = text(cursor, "agent")?,
            "role" | "agent_role" if self.role.is_some() => {
                let offset = cursor.offset();
                return Err(FeedError::DuplicateField { offset });
            }
            "role" | "agent_role" => self.role = text(cursor, "role")?,
            "user_task" => self.user_task = text(cursor, "user_task")?,
            "tool" => self.tool = text(cursor, "tool")?,
            "args" | "args_text" => args(cursor, name, &mut self.args_json)?,
            "history" => self.history = history(cursor, ignored)?,
            "text" => self.text = text(cursor, "text")?,
            "given_by" => self.given_by = giver(cursor)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The kind of a line that names none.
    pub(crate) fn implied_kind(&self, has_argv: bool) -> EventKind {
        if self.text.is_some() && self.args_json.is_none() && !has_argv {
            return EventKind::Text;
        }
        match self.tool {
            Some(_) => EventKind::ToolCall,
            None => EventKind::Exec,
        }
    }

    pub(crate) fn take_call(&mut self) -> Result<ToolCall, FeedError> {
        Ok(ToolCall {
            tool: need(self.tool.take(), "tool")?,
            agent: self.agent.take().unwrap_or_default(),
            role: self.role.take(),
            user_task: self.user_task.take(),
            args_json: or_empty_object(self.args_json.take()),
            history: self.history.take().unwrap_or_default(),
        })
    }

    pub(crate) fn take_text(&mut self) -> Result<AgentText, FeedError> {
        let implied = match self.tool {
            Some(_) => TextGiver::Tool,
            None => TextGiver::User,
        };
        Ok(AgentText {
            text: need(self.text.take(), "text")?,
            given_by: self.given_by.take().unwrap_or(implied),
            agent: self.agent.take().unwrap_or_default(),
            role: self.role.take(),
            user_task: self.user_task.take(),
            tool: self.tool.take(),
        })
    }

    /// How many fields were not taken.
    pub(crate) fn leftovers(&self) -> u64 {
        let left = [
            self.agent.is_some(),
            self.role.is_some(),
            self.user_task.is_some(),
            self.tool.is_some(),
            self.args_json.is_some(),
            self.history.is_some(),
            self.text.is_some(),
            self.given_by.is_some(),
        ];
        left.into_iter().map(u64::from).sum()
    }
}

/// Reads `args`, an object, or `args_text`, a string; a call has one of them.
fn args(cursor: &mut Cursor<'_>, name: &str, known: &mut Option<String>) -> Result<(), FeedError> {
    if known.is_some() {
        let offset = cursor.offset();
        return Err(FeedError::DuplicateField { offset });
    }
    *known = match name {
        "args" => raw_object(cursor, "args")?,
        _ => text(cursor, "args_text")?,
    };
    Ok(())
}

fn or_empty_object(args_json: Option<String>) -> String {
    args_json.unwrap_or_else(|| "{}".to_owned())
}

fn giver(cursor: &mut Cursor<'_>) -> Result<Option<TextGiver>, FeedError> {
    let offset = cursor.offset();
    let Some(name) = text(cursor, "given_by")? else {
        return Ok(None);
    };
    match TextGiver::from_name(&name) {
        Some(giver) => Ok(Some(giver)),
        None => Err(FeedError::WrongType {
            field: "given_by",
            expected: "user or tool",
            offset,
        }),
    }
}

fn history(cursor: &mut Cursor<'_>, ignored: &mut u64) -> Result<Option<Vec<PastCall>>, FeedError> {
    if cursor.null() {
        return Ok(None);
    }
    expect(cursor, "history", b'[', "an array of objects")?;
    let mut history = Vec::new();
    cursor.each_element(|cursor| {
        let offset = expect(cursor, "history", b'{', "an array of objects")?;
        if history.len() == MAX_PAST_CALLS {
            return Err(FeedError::TooMany {
                field: "history",
                limit: MAX_PAST_CALLS,
                offset,
            });
        }
        history.push(past_call(cursor, ignored)?);
        Ok(())
    })?;
    Ok(Some(history))
}

fn past_call(cursor: &mut Cursor<'_>, ignored: &mut u64) -> Result<PastCall, FeedError> {
    let (mut tool, mut args_json, mut output) = (None, None, None);
    cursor.each_field(|cursor, name| {
        match name {
            "tool" => tool = text(cursor, "history.tool")?,
            "args" | "args_text" => args(cursor, name, &mut args_json)?,
            "output" => output = text_of_value(cursor)?,
            _ => {
                cursor.skip_value()?;
                *ignored += 1;
            }
        }
        Ok(())
    })?;
    Ok(PastCall {
        tool: need(tool, "history.tool")?,
        args_json: or_empty_object(args_json),
        output: output.unwrap_or_default(),
    })
}

/// A string, or the text of any other value.
fn text_of_value(cursor: &mut Cursor<'_>) -> Result<Option<String>, FeedError> {
    if cursor.null() {
        return Ok(None);
    }
    match cursor.peek() {
        Some(b'"') => Ok(Some(cursor.string()?.into_owned())),
        _ => Ok(Some(cursor.raw_value()?.to_owned())),
    }
}
