//! What an agent asks to do.

use std::fmt;

/// A tool call an agent wants to make, as its host describes it.
///
/// Every text is untrusted: the model that wrote it may follow an attacker.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct ToolCall {
    /// The agent's id; what policies name.
    pub agent: String,
    /// The agent's role, if it has one.
    pub role: Option<String>,
    /// What the user asked the agent for.
    pub user_task: Option<String>,
    /// The tool's name.
    pub tool: String,
    /// The arguments as one JSON object.
    pub args_json: String,
}

impl fmt::Debug for ToolCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolCall")
            .field("agent", &self.agent)
            .field("tool", &self.tool)
            .field("args_bytes", &self.args_json.len())
            .finish_non_exhaustive()
    }
}
