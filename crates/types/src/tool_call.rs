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
    /// The calls it made before while it worked on the task, in order.
    pub history: Vec<PastCall>,
}

/// A call that an agent made, and what came back.
///
/// The output is untrusted: whoever wrote what the tool read may speak through it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct PastCall {
    /// The tool's name.
    pub tool: String,
    /// The arguments as one JSON object.
    pub args_json: String,
    /// What the tool gave.
    pub output: String,
}

impl fmt::Debug for ToolCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolCall")
            .field("agent", &self.agent)
            .field("tool", &self.tool)
            .field("args_bytes", &self.args_json.len())
            .field("past_calls", &self.history.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PastCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PastCall")
            .field("tool", &self.tool)
            .field("args_bytes", &self.args_json.len())
            .field("output_bytes", &self.output.len())
            .finish()
    }
}
