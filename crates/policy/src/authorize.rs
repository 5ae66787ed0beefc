//! One question to Cedar.

use std::collections::{BTreeSet, HashSet};

use cedar_policy::{
    AuthorizationError, Authorizer, Decision, Entities, Entity, EntityUid, EvaluationError,
    PolicySet, Request, Response, Schema,
};

use inwarden_types::PolicyId;

use crate::query::{Question, Unaskable};

/// A checked policy set with what it is evaluated against.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    pub(crate) schema: Schema,
    pub(crate) policies: PolicySet,
    /// The permits among `policies`: tells what a forbid took away.
    pub(crate) permits: PolicySet,
    pub(crate) entities: Entities,
}

/// What Cedar says to one action.
pub(crate) struct Answer {
    pub(crate) permitted: bool,
    /// The satisfied permits if permitted, else the satisfied forbids.
    pub(crate) determining: BTreeSet<PolicyId>,
    /// The policies that failed, each with why, without text of the case.
    pub(crate) failed: BTreeSet<(PolicyId, &'static str)>,
}

/// A question whose entities are complete.
pub(crate) struct Session<'a> {
    authority: &'a Authority,
    question: Question,
    /// Only if an entity had to be added.
    entities: Option<Entities>,
}

impl Authority {
    /// Whether any policy names this attribute, however it is written; also where
    /// it cannot be told.
    pub(crate) fn reads(&self, attribute: &str) -> bool {
        let quoted = format!("\"{attribute}\"");
        let names = |policy: &cedar_policy::Policy| {
            // Written out, an attribute is a string without escapes.
            let written = policy.to_json();
            written.is_err() || written.is_ok_and(|json| json.to_string().contains(&quoted))
        };
        self.policies.policies().any(names)
    }

    /// Prepares `question` to be asked for several actions.
    pub(crate) fn session(&self, question: Question) -> Result<Session<'_>, Unaskable> {
        let entities = match &question.claimed_role {
            Some(role) if self.entities.get(&question.principal).is_none() => {
                Some(self.with_member(&question.principal, role)?)
            }
            _ => None,
        };
        Ok(Session {
            authority: self,
            question,
            entities,
        })
    }

    fn with_member(&self, agent: &EntityUid, role: &EntityUid) -> Result<Entities, Unaskable> {
        let agent = Entity::new_no_attrs(agent.clone(), HashSet::from([role.clone()]));
        self.entities
            .clone()
            .add_entities([agent], Some(&self.schema))
            .map_err(|_| "the agent and its role do not fit the schema".to_owned())
    }
}

impl Session<'_> {
    /// What all policies say.
    pub(crate) fn ask(&self, action: &EntityUid) -> Result<Answer, Unaskable> {
        self.evaluate(&self.authority.policies, action)
            .map(|response| answer(&response))
    }

    /// Whether the permits alone would permit `action`, forbids aside.
    pub(crate) fn permitted_but_for_forbids(&self, action: &EntityUid) -> Result<bool, Unaskable> {
        self.evaluate(&self.authority.permits, action)
            .map(|response| response.decision() == Decision::Allow)
    }

    fn evaluate(&self, policies: &PolicySet, action: &EntityUid) -> Result<Response, Unaskable> {
        let Question {
            principal,
            resource,
            context,
            ..
        } = &self.question;
        let request = Request::new(
            principal.clone(),
            action.clone(),
            resource.clone(),
            context.clone(),
            Some(&self.authority.schema),
        )
        .map_err(|_| "the request does not fit the schema".to_owned())?;
        let entities = self.entities.as_ref().unwrap_or(&self.authority.entities);
        Ok(Authorizer::new().is_authorized(&request, policies, entities))
    }
}

fn answer(response: &Response) -> Answer {
    let diagnostics = response.diagnostics();
    Answer {
        permitted: response.decision() == Decision::Allow,
        determining: diagnostics.reason().map(policy_id).collect(),
        failed: diagnostics.errors().map(failure).collect(),
    }
}

fn failure(error: &AuthorizationError) -> (PolicyId, &'static str) {
    let AuthorizationError::PolicyEvaluationError(error) = error;
    // Cedar's own text can quote values of the request.
    let why = match error.inner() {
        EvaluationError::EntityDoesNotExist(_) => "an entity does not exist",
        EvaluationError::EntityAttrDoesNotExist(_) => "an entity lacks an attribute",
        EvaluationError::RecordAttrDoesNotExist(_) => "a record lacks an attribute",
        EvaluationError::TypeError(_) => "type error",
        EvaluationError::IntegerOverflow(_) => "integer overflow",
        EvaluationError::FailedExtensionFunctionExecution(_) => "an extension function failed",
        EvaluationError::RecursionLimit(_) => "recursion limit",
        _ => "evaluation error",
    };
    (policy_id(error.policy_id()), why)
}

fn policy_id(id: &cedar_policy::PolicyId) -> PolicyId {
    let id: &str = id.as_ref();
    PolicyId(id.to_owned())
}
