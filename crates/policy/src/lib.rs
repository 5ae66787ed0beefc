//! Decides what may be done: a pure function from event, verdict and scope to a
//! [`Decision`](inwarden_types::Decision).
//!
//! Policies are Cedar, checked strictly against a schema ([`SCHEMA`]) when they
//! are loaded. The classifier's verdict is only one fact among others here; what
//! it leads to is written in the policies. No clock, no randomness, no I/O: the
//! same question always gets the same answer.
//!
//! What holds whatever the policies say:
//! * Outside the scope the strongest action is an alert.
//! * If a policy fails while it is evaluated, guarded calls are denied and
//!   nothing stronger than an alert is done. (Cedar skips such a policy, so a
//!   broken `forbid` alone would fail open.)
//! * What was observed of a process is never too long to ask about: policies see
//!   the first 4,096 bytes, and that it was cut.
//! * Every decision names the policies that determined it, by their `@id`.
//!
//! Nothing is logged here. Decisions carry policy ids and fixed words, never
//! text of the case.
//!
//! ```
//! use inwarden_policy::{CallQuery, Policy, PolicySource};
//! use inwarden_types::{Action, Mode, ToolCall};
//!
//! let mut sources = Policy::builtin_sources();
//! sources.push(PolicySource {
//!     name: "mine.cedar".into(),
//!     text: r#"
//!         @id("reader-may-list")
//!         permit (principal in Role::"reader", action == Action::"call_tool",
//!                 resource == Tool::"list_files");
//!     "#
//!     .into(),
//! });
//! let policy = Policy::load(&sources)?;
//!
//! let call = ToolCall {
//!     agent: "a1".into(),
//!     role: Some("reader".into()),
//!     tool: "list_files".into(),
//!     ..ToolCall::default()
//! };
//! let decision = policy.decide_call(&CallQuery { call: &call, verdict: None, mode: Mode::Enforce });
//! assert_eq!(decision.action, Action::Allow);
//! assert_eq!(decision.policies[0].to_string(), "reader-may-list");
//! # Ok::<(), inwarden_policy::PolicyError>(())
//! ```

mod authorize;
mod decide;
mod error;
mod load;
mod query;
mod remembered;

pub use decide::Policy;
pub use error::PolicyError;
pub use load::{EntitySource, PolicySource, SCHEMA};
pub use query::{CallQuery, Counters, ResponseQuery, Target, TextQuery};
