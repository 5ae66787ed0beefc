//! What policy rules.

use std::fmt;

/// What may be done about a case, weakest first; the order is part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Let it pass.
    Allow,
    /// Tell somebody.
    Alert,
    /// Refuse the one operation.
    Deny,
    /// Isolate the workload and keep it for inspection.
    Quarantine,
    /// End the processes.
    Kill,
}

impl Action {
    /// All actions, weakest first.
    pub const ALL: [Self; 5] = [
        Self::Allow,
        Self::Alert,
        Self::Deny,
        Self::Quarantine,
        Self::Kill,
    ];

    /// The name used in files: `allow`, `alert`, `deny`, `quarantine`, `kill`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Alert => "alert",
            Self::Deny => "deny",
            Self::Quarantine => "quarantine",
            Self::Kill => "kill",
        }
    }
}

/// Whether decisions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Decisions are carried out.
    Enforce,
    /// Decisions are recorded; the strongest action carried out is an alert.
    Monitor,
}

impl Mode {
    /// The name used in files: `enforce`, `monitor`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
        }
    }
}

/// The `@id` of a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub String);

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a decision is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecisionReason {
    /// The policies named in the decision permit the action.
    Permitted,
    /// No policy permits anything stronger.
    NothingStrongerPermitted,
    /// A policy forbids what was asked.
    Forbidden,
    /// No policy permits the guarded call (default deny).
    NotPermitted,
    /// A stronger action is permitted, but the case lies outside the scope.
    OutsideScope,
    /// A policy failed while it was evaluated; the decision is fail closed.
    EvaluationFailed {
        /// What failed, without text of the case.
        errors: Vec<String>,
    },
    /// The engine failed before policy could answer; the decision is the
    /// configured failure mode.
    EngineFailed {
        /// What failed, without text of the case.
        error: String,
    },
}

impl DecisionReason {
    /// The name used in files.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Permitted => "permitted",
            Self::NothingStrongerPermitted => "nothing_stronger_permitted",
            Self::Forbidden => "forbidden",
            Self::NotPermitted => "not_permitted",
            Self::OutsideScope => "outside_scope",
            Self::EvaluationFailed { .. } => "evaluation_failed",
            Self::EngineFailed { .. } => "engine_failed",
        }
    }
}

/// What policy rules about a case. `action`, `enforced`, `mode`, `reason` and
/// `policies` are separate facts and stay separate in every record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The strongest action policy permits, inside the scope.
    pub action: Action,
    /// What is really carried out: `action`, or at most alert in monitor mode.
    pub enforced: Action,
    /// The mode the engine ran in.
    pub mode: Mode,
    /// Why.
    pub reason: DecisionReason,
    /// The policies that determined it, sorted.
    pub policies: Vec<PolicyId>,
}
