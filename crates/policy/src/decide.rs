//! The decision: which action, and why.

use std::{collections::BTreeSet, fmt, sync::Arc};

use cedar_policy::EntityUid;
use inwarden_types::{Action, Decision, DecisionReason, Mode, PolicyId};

use crate::{
    CallQuery, EntitySource, PolicyError, PolicySource, ResponseQuery, TextQuery,
    authorize::{Answer, Authority, Session},
    load,
    query::{self, Question, Unaskable},
    remembered::Remembered,
};

/// A checked policy set. Cheap to share behind an `Arc`; `Send` and `Sync`.
///
/// # Examples
/// See the [crate].
#[derive(Clone)]
pub struct Policy {
    authority: Authority,
    ids: Vec<PolicyId>,
    content_hash: String,
    remembered: Arc<Remembered>,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("ids", &self.ids)
            .field("content_hash", &self.content_hash)
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// The shipped policies.
    ///
    /// They alert on malicious cases and on undetermined ones of at least 5,000
    /// basis points; kill the decided process when the case is malicious with at
    /// least 9,000; never kill what is undetermined or protected; let a tool call
    /// through, and a text be read, when a judge read all of it and did not find it
    /// malicious. Nobody may deny, quarantine, release, or kill an ancestor, until a
    /// policy of yours permits it.
    ///
    /// # Errors
    /// Those of [`Policy::load`]; a test shows that there are none.
    pub fn builtin() -> Result<Self, PolicyError> {
        Self::load(&Self::builtin_sources())
    }

    /// The sources of the shipped policies, to load together with others.
    #[must_use]
    pub fn builtin_sources() -> Vec<PolicySource> {
        load::builtin_sources()
    }

    /// Loads exactly `sources`; add [`Policy::builtin_sources`] to keep the
    /// shipped policies.
    ///
    /// # Errors
    /// Any [`PolicyError`]. Nothing is kept of a set of which one policy is wrong.
    pub fn load(sources: &[PolicySource]) -> Result<Self, PolicyError> {
        Self::new(sources, None)
    }

    /// As [`Policy::load`], with the groups that agents, tools and workloads
    /// belong to.
    ///
    /// An agent named there has exactly the roles named there. The role that a
    /// call states counts only for agents that are not named.
    ///
    /// # Errors
    /// Any [`PolicyError`].
    pub fn load_with_entities(
        sources: &[PolicySource],
        entities: &EntitySource,
    ) -> Result<Self, PolicyError> {
        Self::new(sources, Some(entities))
    }

    fn new(sources: &[PolicySource], entities: Option<&EntitySource>) -> Result<Self, PolicyError> {
        let authority = load::authority(sources, entities)?;
        let ids: BTreeSet<PolicyId> = authority
            .policies
            .policies()
            .map(|policy| PolicyId(AsRef::<str>::as_ref(policy.id()).to_owned()))
            .collect();
        let with_counters = authority.reads("counters");
        Ok(Self {
            authority,
            ids: ids.into_iter().collect(),
            content_hash: load::content_hash(sources, entities),
            remembered: Arc::new(Remembered::new(with_counters)),
        })
    }

    /// The ids of all policies, sorted.
    #[must_use]
    pub fn policy_ids(&self) -> Vec<PolicyId> {
        self.ids.clone()
    }

    /// SHA-256 of schema, sources and entities, 64 lower-case hexadecimal digits.
    /// The same whatever the order of the sources.
    #[must_use]
    pub fn content_hash(&self) -> &str {
        &self.content_hash
    }

    /// Rules about a judged event: the strongest action that is permitted.
    ///
    /// Asks for kill, quarantine, deny and alert in this order and takes the
    /// first that is permitted. Outside the scope only an alert can be the answer,
    /// and after a policy failed too; a failure with no alert permitted is an
    /// alert all the same, so that it cannot hide a case.
    #[must_use]
    pub fn decide_response(&self, query: &ResponseQuery<'_>) -> Decision {
        self.remembered.or_else(query, || self.respond(query))
    }

    fn respond(&self, query: &ResponseQuery<'_>) -> Decision {
        let climbed = Question::of_response(query)
            .and_then(|question| self.authority.session(question))
            .and_then(|session| Climb::down(&session, query.in_scope));
        match climbed {
            Ok(climb) => climb.decision(query.mode, query.in_scope),
            Err(error) => decision(
                Action::Alert,
                query.mode,
                DecisionReason::EvaluationFailed {
                    errors: vec![error],
                },
                BTreeSet::new(),
            ),
        }
    }

    /// Rules about a guarded tool call: [`Action::Allow`] or [`Action::Deny`].
    ///
    /// Denied unless a policy permits it; denied if any policy fails.
    #[must_use]
    pub fn decide_call(&self, query: &CallQuery<'_>) -> Decision {
        let question = Question::of_call(query);
        self.decide_passage(question, &query::call_action(), query.mode)
    }

    /// Rules about a text that an agent is about to read: [`Action::Allow`] or
    /// [`Action::Deny`], as about a call.
    #[must_use]
    pub fn decide_text(&self, query: &TextQuery<'_>) -> Decision {
        let question = Question::of_text(query);
        self.decide_passage(question, &query::text_action(), query.mode)
    }

    fn decide_passage(
        &self,
        question: Result<Question, Unaskable>,
        cedar_action: &EntityUid,
        mode: Mode,
    ) -> Decision {
        let answer = question
            .and_then(|question| self.authority.session(question))
            .and_then(|session| session.ask(cedar_action));
        let (action, reason, policies) = match answer {
            Ok(answer) if !answer.failed.is_empty() => {
                let (reason, failed) = evaluation_failed(answer.failed);
                let determining = answer.determining.into_iter().chain(failed);
                (Action::Deny, reason, determining.collect())
            }
            Ok(answer) if answer.permitted => {
                (Action::Allow, DecisionReason::Permitted, answer.determining)
            }
            Ok(answer) if answer.determining.is_empty() => {
                (Action::Deny, DecisionReason::NotPermitted, BTreeSet::new())
            }
            Ok(answer) => (Action::Deny, DecisionReason::Forbidden, answer.determining),
            Err(error) => {
                let errors = vec![error];
                let reason = DecisionReason::EvaluationFailed { errors };
                (Action::Deny, reason, BTreeSet::new())
            }
        };
        decision(action, mode, reason, policies)
    }
}

/// The way down from the strongest action, with what stopped it on each step.
#[derive(Default)]
struct Climb {
    action: Option<Action>,
    /// Policies that permit `action`, forbade a stronger one or failed.
    policies: BTreeSet<PolicyId>,
    failed: BTreeSet<(PolicyId, &'static str)>,
    /// Something stronger was permitted, but for a forbid or the scope.
    held_back: bool,
}

impl Climb {
    fn down(session: &Session<'_>, in_scope: bool) -> Result<Self, Unaskable> {
        let mut climb = Self::default();
        for action in Action::ALL.into_iter().rev() {
            let Some(cedar_action) = query::response_action(action) else {
                continue;
            };
            if action > Action::Alert && !climb.failed.is_empty() {
                continue;
            }
            let answer = session.ask(&cedar_action)?;
            let forbidden = !answer.permitted && !answer.determining.is_empty();
            let but_for_forbids = forbidden && session.permitted_but_for_forbids(&cedar_action)?;
            if climb.step(action, answer, but_for_forbids, in_scope) {
                break;
            }
        }
        Ok(climb)
    }

    /// Takes in one answer; true if `action` is the one.
    fn step(
        &mut self,
        action: Action,
        answer: Answer,
        but_for_forbids: bool,
        in_scope: bool,
    ) -> bool {
        let strong = action > Action::Alert;
        let failed_here = !answer.failed.is_empty();
        self.failed.extend(answer.failed);
        if strong && failed_here {
            return false;
        }
        if !answer.permitted || (strong && !in_scope) {
            if answer.permitted || but_for_forbids {
                self.held_back = true;
                self.policies.extend(answer.determining);
            }
            return false;
        }
        self.action = Some(action);
        self.policies.extend(answer.determining);
        true
    }

    fn decision(self, mode: Mode, in_scope: bool) -> Decision {
        let mut policies = self.policies;
        if !self.failed.is_empty() {
            let (reason, failed) = evaluation_failed(self.failed);
            policies.extend(failed);
            return decision(Action::Alert, mode, reason, policies);
        }
        let reason = match (self.held_back, self.action) {
            (true, _) if !in_scope => DecisionReason::OutsideScope,
            (true, _) => DecisionReason::Forbidden,
            (false, Some(_)) => DecisionReason::Permitted,
            (false, None) => DecisionReason::NothingStrongerPermitted,
        };
        decision(self.action.unwrap_or(Action::Allow), mode, reason, policies)
    }
}

fn evaluation_failed(
    failed: BTreeSet<(PolicyId, &'static str)>,
) -> (DecisionReason, Vec<PolicyId>) {
    let errors = failed
        .iter()
        .map(|(id, why)| format!("policy {id}: {why}"))
        .collect();
    let ids = failed.into_iter().map(|(id, _)| id).collect();
    (DecisionReason::EvaluationFailed { errors }, ids)
}

fn decision(
    action: Action,
    mode: Mode,
    reason: DecisionReason,
    policies: BTreeSet<PolicyId>,
) -> Decision {
    Decision {
        action,
        enforced: match mode {
            Mode::Enforce => action,
            Mode::Monitor => action.min(Action::Alert),
        },
        mode,
        reason,
        policies: policies.into_iter().collect(),
    }
}
