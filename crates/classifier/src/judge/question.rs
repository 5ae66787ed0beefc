//! What the judge may be asked.

/// What a text is, and so what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// Is this program start part of an intrusion?
    Exec,
    /// Does this text of a user try to subvert the agent it is for?
    UserText,
    /// Does this output of a tool carry instructions for the agent that reads it?
    ToolOutput,
    /// Does this tool call do what somebody other than the user wants?
    ToolCall,
    /// Are these events together part of an intrusion?
    Events,
}

impl Question {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Exec,
        Self::UserText,
        Self::ToolOutput,
        Self::ToolCall,
        Self::Events,
    ];

    /// The name in files: `exec`, `user_text`, `tool_output`, `tool_call`, `events`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::UserText => "user_text",
            Self::ToolOutput => "tool_output",
            Self::ToolCall => "tool_call",
            Self::Events => "events",
        }
    }

    /// The question with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|question| question.name() == name)
    }
}
