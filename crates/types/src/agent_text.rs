//! What an agent is about to read.

use std::fmt;

/// A text that an agent meets, as its host describes it.
///
/// It is untrusted, and so is everything that came with it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct AgentText {
    /// The agent's id; what policies name.
    pub agent: String,
    /// The agent's role, if it has one.
    pub role: Option<String>,
    /// Who gave the text.
    pub given_by: TextGiver,
    /// The text.
    pub text: String,
    /// What the user asked the agent for.
    pub user_task: Option<String>,
    /// The tool that gave it.
    pub tool: Option<String>,
}

/// Who gives an agent a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum TextGiver {
    /// Its user.
    User,
    /// A tool that it called: a mail, a page, a file, an answer.
    #[default]
    Tool,
}

impl TextGiver {
    /// The name in files: `user`, `tool`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Tool => "tool",
        }
    }

    /// The giver with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::User, Self::Tool]
            .into_iter()
            .find(|giver| giver.name() == name)
    }
}

impl fmt::Debug for AgentText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentText")
            .field("agent", &self.agent)
            .field("given_by", &self.given_by)
            .field("tool", &self.tool)
            .field("text_bytes", &self.text.len())
            .finish_non_exhaustive()
    }
}
