//! Carries an action out and proves it: kills a process with all its
//! descendants, inside the scope and nowhere else.
//!
//! * A process is (boot, TGID, start), never a TGID: the start is compared after
//!   the pidfd is open, so a reused TGID cannot hit a stranger.
//! * The tree is stopped (SIGSTOP) from the top, searched until it no longer
//!   grows, then killed: killing a shell alone leaves its forked child at work.
//! * A signal proves nothing, since one to a zombie succeeds too.
//!   [`ActionOutcome::Killed`] is reported only on an exit event with signal 9.
//! * Ourselves, our ancestors, process 1 and kernel threads are never touched.
//!   What was stopped but not killed is continued.
//!
//! Needs Linux 5.3 (`pidfd_open`) and, for processes of other users, `CAP_KILL`;
//! with neither root nor that capability only our own user's processes can be
//! killed, the others are `refused: not_permitted`. We must run in the initial
//! pid namespace, whose TGIDs kernel events carry.
//!
//! Deciding is not done here. Log lines hold TGIDs and counts only.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use inwarden_response::{ExitEvents, KillRequest, Responder};
//! # fn example(exits: &dyn ExitEvents, event: &inwarden_types::Event, scope: &inwarden_types::Scope)
//! # -> Result<(), inwarden_response::ResponseError> {
//! let target = event.process.key.expect("the sensor gives keys");
//! let ancestors: Vec<_> = event.ancestors.iter().filter_map(|ancestor| ancestor.key).collect();
//! let responder = Responder::new(target.boot_id)?;
//! let report = responder.kill(
//!     &KillRequest {
//!         target,
//!         judged: &event.id,
//!         scope,
//!         deadline: Duration::from_millis(500),
//!         known_descendants: &[],
//!         known_ancestors: &ancestors,
//!     },
//!     exits,
//! );
//! println!("{}", report.outcome.name());
//! # Ok(()) }
//! ```
//!
//! [`ActionOutcome::Killed`]: inwarden_types::ActionOutcome::Killed

mod ancestor;
mod error;
mod host;
mod kill;
mod linux;
mod reach;
mod responder;
mod tree;

pub use error::ResponseError;
pub use responder::{ExitEvents, KillRequest, ObservedExit, Responder};

#[cfg(test)]
mod fake;
