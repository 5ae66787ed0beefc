//! Where actions may reach.

use std::collections::BTreeSet;

use crate::{CgroupId, Event, ProcessKey};

/// The processes that actions stronger than an alert may touch.
///
/// The default is [`Scope::AlertOnly`]: without a configured scope nothing is
/// ever denied, quarantined or killed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Scope {
    /// Nothing: the strongest action is an alert.
    #[default]
    AlertOnly,
    /// The members of these cgroups. Child cgroups are not members unless named.
    Cgroups(BTreeSet<CgroupId>),
    /// The descendants of this process, and the process itself only if
    /// `include_root`. An event carries 8 ancestors, so a process more than 8
    /// levels below the root counts as outside: prefer a cgroup where you can.
    ProcessTree {
        /// The root of the tree.
        root: ProcessKey,
        /// Whether the root itself may be touched.
        include_root: bool,
    },
}

impl Scope {
    /// Whether the process of `event` lies inside.
    #[must_use]
    pub fn contains(&self, event: &Event) -> bool {
        let ancestors = event.ancestors.iter().filter_map(|ancestor| ancestor.key);
        self.contains_process(event.process.key, event.process.cgroup_id, ancestors)
    }

    /// Whether a process with these facts lies inside. `ancestors` are its
    /// ancestors in any order. A process without a key is never inside.
    #[must_use]
    pub fn contains_process(
        &self,
        key: Option<ProcessKey>,
        cgroup_id: Option<CgroupId>,
        mut ancestors: impl Iterator<Item = ProcessKey>,
    ) -> bool {
        let Some(key) = key else { return false };
        match self {
            Self::AlertOnly => false,
            Self::Cgroups(ids) => cgroup_id.is_some_and(|id| ids.contains(&id)),
            Self::ProcessTree { root, include_root } => {
                (*include_root && key == *root) || ancestors.any(|ancestor| ancestor == *root)
            }
        }
    }
}
