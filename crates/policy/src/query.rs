//! What is asked, and its translation into Cedar's words.
//!
//! Texts of the case enter as values (entity ids, strings of the context), never
//! as Cedar source, so no quote or newline in them means anything. A name over
//! [`MAX_TEXT_BYTES`] is refused instead of cut, since a cut name could be
//! somebody else's. What was observed of a process is cut and marked instead:
//! refused, it would let a program choose a path so long that nothing may be
//! done about it.

use cedar_policy::{Context, EntityId, EntityTypeName, EntityUid, RestrictedExpression};

use inwarden_types::{Action, AgentText, Event, EventData, Mode, TextGiver, ToolCall, Verdict};

/// The longest text of a case that policies see, in bytes: Linux's `PATH_MAX`.
const MAX_TEXT_BYTES: usize = 4_096;

/// Which process a response would hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The process of the event.
    Decided,
    /// Its oldest live ancestor below the root of the scope, because the process
    /// itself is gone.
    OldestLiveAncestor,
}

impl Target {
    /// The name policies see: `decided`, `ancestor`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Decided => "decided",
            Self::OldestLiveAncestor => "ancestor",
        }
    }
}

/// What happened on the same subject before, since the engine started. Counts
/// beyond `i64::MAX` reach policies as `i64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Counters {
    /// Verdicts `malicious`.
    pub malicious: u64,
    /// Verdicts `undetermined`.
    pub undetermined: u64,
    /// Calls and operations that were refused.
    pub denied: u64,
    /// Processes that were killed.
    pub killed: u64,
}

/// Asks what may be done about a judged event.
#[derive(Clone, Copy, Debug)]
pub struct ResponseQuery<'a> {
    /// What happened.
    pub event: &'a Event,
    /// What the classifier believes.
    pub verdict: &'a Verdict,
    /// Whether the target lies in the scope of actions.
    pub in_scope: bool,
    /// Whether decisions are carried out.
    pub mode: Mode,
    /// Which process would be hit.
    pub target: Target,
    /// Whether the target must survive: our own process, its ancestors, what the
    /// operator named.
    pub protected: bool,
    /// What happened on the same subject before.
    pub counters: Counters,
}

/// Asks whether a guarded tool call may go through.
#[derive(Clone, Copy, Debug)]
pub struct CallQuery<'a> {
    /// The call.
    pub call: &'a ToolCall,
    /// What the classifier believes; `None` if nothing judged the call.
    pub verdict: Option<&'a Verdict>,
    /// Whether decisions are carried out.
    pub mode: Mode,
}

/// Asks whether an agent may read a text.
#[derive(Clone, Copy, Debug)]
pub struct TextQuery<'a> {
    /// The text.
    pub text: &'a AgentText,
    /// What the classifier believes; `None` if nothing judged the text.
    pub verdict: Option<&'a Verdict>,
    /// Whether decisions are carried out.
    pub mode: Mode,
}

/// Why a query cannot be put to Cedar, in fixed words without text of the case.
pub(crate) type Unaskable = String;

/// A query in Cedar's words, but for the action.
pub(crate) struct Question {
    pub(crate) principal: EntityUid,
    pub(crate) resource: EntityUid,
    pub(crate) context: Context,
    /// The role an agent claims; counts only for agents the entities do not name.
    pub(crate) claimed_role: Option<EntityUid>,
}

impl Question {
    /// What is read here of the query stands in [`crate::remembered::Asked`], too.
    pub(crate) fn of_response(query: &ResponseQuery<'_>) -> Result<Self, Unaskable> {
        let process = &query.event.process;
        let workload = process
            .cgroup_id
            .map_or_else(|| "unknown".to_owned(), |id| format!("cgroup:{id}"));
        let workload = entity("Workload", "workload", &workload)?;
        let (principal, claimed_role) = match &query.event.data {
            EventData::ToolCall(call) => agent(&call.agent, call.role.as_deref())?,
            EventData::Text(text) => agent(&text.agent, text.role.as_deref())?,
            _ => (workload.clone(), None),
        };
        let mut pairs = verdict_pairs(query.verdict)?;
        pairs.extend([
            ("in_scope", RestrictedExpression::new_bool(query.in_scope)),
            ("target", string(query.target.name())),
            ("protected", RestrictedExpression::new_bool(query.protected)),
            ("event", string(query.event.kind().name())),
            ("counters", counters(&query.counters)?),
        ]);
        pairs.extend(observed("exe", "exe_truncated", &process.image.exe));
        pairs.extend(observed("comm", "comm_truncated", &process.image.comm));
        if let Some(uid) = process.uid {
            pairs.push(("uid", RestrictedExpression::new_long(i64::from(uid.0))));
        }
        Ok(Self {
            principal,
            resource: workload,
            context: context(pairs)?,
            claimed_role,
        })
    }

    pub(crate) fn of_call(query: &CallQuery<'_>) -> Result<Self, Unaskable> {
        let (principal, claimed_role) = agent(&query.call.agent, query.call.role.as_deref())?;
        Ok(Self {
            principal,
            resource: entity("Tool", "tool name", &query.call.tool)?,
            context: call_context(query.verdict)?,
            claimed_role,
        })
    }

    pub(crate) fn of_text(query: &TextQuery<'_>) -> Result<Self, Unaskable> {
        let text = query.text;
        let (principal, claimed_role) = agent(&text.agent, text.role.as_deref())?;
        Ok(Self {
            principal,
            resource: match text.given_by {
                TextGiver::User => uid("User", "user"),
                TextGiver::Tool => {
                    let tool = text.tool.as_deref().unwrap_or_default();
                    entity("Tool", "tool name", tool)?
                }
            },
            context: call_context(query.verdict)?,
            claimed_role,
        })
    }
}

/// The Cedar action that asks for `action` as a response.
pub(crate) fn response_action(action: Action) -> Option<EntityUid> {
    let id = match action {
        Action::Allow => return None,
        Action::Alert => "respond_alert",
        Action::Deny => "respond_deny",
        Action::Quarantine => "respond_quarantine",
        Action::Kill => "respond_kill",
    };
    Some(uid("Action", id))
}

/// The Cedar action of a guarded call.
pub(crate) fn call_action() -> EntityUid {
    uid("Action", "call_tool")
}

/// The Cedar action of a text that an agent is about to read.
pub(crate) fn text_action() -> EntityUid {
    uid("Action", "read_text")
}

fn agent(id: &str, role: Option<&str>) -> Result<(EntityUid, Option<EntityUid>), Unaskable> {
    let role = role.map(|role| entity("Role", "role", role)).transpose()?;
    Ok((entity("Agent", "agent id", id)?, role))
}

/// The facts about a call or a text.
fn call_context(verdict: Option<&Verdict>) -> Result<Context, Unaskable> {
    let mut pairs = verdict.map_or_else(|| Ok(Vec::new()), verdict_pairs)?;
    let judged = RestrictedExpression::new_bool(verdict.is_some());
    pairs.push(("judged", judged));
    context(pairs)
}

type Pair = (&'static str, RestrictedExpression);

fn verdict_pairs(verdict: &Verdict) -> Result<Vec<Pair>, Unaskable> {
    let score = i64::from(verdict.score.basis_points());
    let mut pairs = vec![
        ("label", string(verdict.label.name())),
        ("score_bp", RestrictedExpression::new_long(score)),
        ("settled_by", string(verdict.settled_by.name())),
    ];
    if let Some(reason) = &verdict.undetermined {
        pairs.push(("undetermined", string(reason.name())));
    }
    if let Some(technique) = &verdict.technique {
        pairs.push(("technique", text("technique", &technique.0)?));
    }
    if let Some(id) = verdict.settled_by.source_id() {
        pairs.push(("settled_by_id", text("settled_by_id", id)?));
    }
    Ok(pairs)
}

fn counters(counters: &Counters) -> Result<RestrictedExpression, Unaskable> {
    let fields = [
        ("malicious", counters.malicious),
        ("undetermined", counters.undetermined),
        ("denied", counters.denied),
        ("killed", counters.killed),
    ];
    RestrictedExpression::new_record(fields.map(|(name, count)| {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        (name.to_owned(), RestrictedExpression::new_long(count))
    }))
    .map_err(|_| "the counters are not a record".to_owned())
}

fn context(pairs: Vec<Pair>) -> Result<Context, Unaskable> {
    Context::from_pairs(
        pairs
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value)),
    )
    .map_err(|_| "the facts do not form a context".to_owned())
}

/// What was observed, as far as policies see it, and whether that is all.
fn observed(name: &'static str, truncated: &'static str, value: &str) -> [Pair; 2] {
    let seen = &value[..value.floor_char_boundary(MAX_TEXT_BYTES)];
    let is_cut = seen.len() < value.len();
    [
        (name, string(seen)),
        (truncated, RestrictedExpression::new_bool(is_cut)),
    ]
}

fn text(name: &str, value: &str) -> Result<RestrictedExpression, Unaskable> {
    bounded(name, value).map(string)
}

fn string(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn entity(type_name: &str, what: &str, id: &str) -> Result<EntityUid, Unaskable> {
    bounded(what, id).map(|id| uid(type_name, id))
}

fn bounded<'a>(what: &str, value: &'a str) -> Result<&'a str, Unaskable> {
    if value.len() > MAX_TEXT_BYTES {
        return Err(format!("{what} is longer than {MAX_TEXT_BYTES} bytes"));
    }
    Ok(value)
}

/// `type_name` is one of the words of the schema, `id` any text.
fn uid(type_name: &str, id: &str) -> EntityUid {
    let type_name: EntityTypeName = type_name
        .parse()
        .expect("the words of the schema are identifiers");
    EntityUid::from_type_name_and_id(type_name, EntityId::new(id))
}
