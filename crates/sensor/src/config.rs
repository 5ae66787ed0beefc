//! What a sensor may use, and what it leaves out.

use std::{collections::BTreeSet, time::Duration};

use inwarden_types::CgroupId;

use crate::{SensorError, wire};

/// The limits and filters of one sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensorConfig {
    /// Bytes of the ring between kernel and user space: a power of two,
    /// `4096..=1 GiB`. When it is full, events are dropped and counted.
    pub ring_bytes: u32,
    /// Most bytes of arguments captured from one exec, `1..=16384`. Longer ones
    /// are flagged and carry their true length.
    pub max_argv_bytes: u32,
    /// Most bytes of the process tree. When it is full the processes that ended
    /// longest ago are forgotten, then the oldest ones.
    pub tree_bytes: usize,
    /// How long a process that ended stays in the tree, so that its children
    /// keep their ancestors.
    pub exited_retention: Duration,
    /// How long an event waits for an earlier one from another CPU, at most 1 s.
    pub reorder_window: Duration,
    /// Most events that wait in the reorder window. Beyond it the oldest are
    /// delivered early, never dropped.
    pub max_pending_events: usize,
    /// How often the ring is read; the kernel wakes the reader earlier when a
    /// quarter of the ring is full. `1 ms..=1 s`.
    pub poll_interval: Duration,
    /// If given, only events of members of these cgroups are reported (child
    /// cgroups are not members unless named), at most 4096. The others are
    /// counted as filtered. `None` reports the whole machine.
    pub cgroups: Option<BTreeSet<CgroupId>>,
}

impl Default for SensorConfig {
    /// The whole machine, every argument up to 16 KiB, 8 MiB ring, 32 MiB tree.
    fn default() -> Self {
        Self {
            ring_bytes: 8 << 20,
            max_argv_bytes: 16 << 10,
            tree_bytes: 32 << 20,
            exited_retention: Duration::from_secs(30),
            reorder_window: Duration::from_millis(15),
            max_pending_events: 65_536,
            poll_interval: Duration::from_millis(10),
            cgroups: None,
        }
    }
}

impl SensorConfig {
    pub(crate) fn check(&self) -> Result<(), SensorError> {
        let invalid = |field, value, allowed| {
            Err(SensorError::InvalidConfig {
                field,
                value,
                allowed,
            })
        };
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        if !self.ring_bytes.is_power_of_two() || !(4096..=1 << 30).contains(&self.ring_bytes) {
            let allowed = "a power of two, 4096..=1073741824";
            return invalid("ring_bytes", self.ring_bytes.into(), allowed);
        }
        if !(1..=wire::MAX_ARGV_BYTES).contains(&self.max_argv_bytes) {
            return invalid("max_argv_bytes", self.max_argv_bytes.into(), "1..=16384");
        }
        if self.tree_bytes == 0 {
            return invalid("tree_bytes", 0, "1 or more");
        }
        if self.max_pending_events == 0 {
            return invalid("max_pending_events", 0, "1 or more");
        }
        if self.reorder_window > Duration::from_secs(1) {
            let window = millis(self.reorder_window);
            return invalid("reorder_window (ms)", window, "0..=1000");
        }
        if !(1..=1000).contains(&millis(self.poll_interval)) {
            let interval = millis(self.poll_interval);
            return invalid("poll_interval (ms)", interval, "1..=1000");
        }
        match &self.cgroups {
            Some(cgroups) if cgroups.len() > wire::MAX_CGROUPS => {
                invalid("cgroups", cgroups.len() as u64, "at most 4096")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert!(SensorConfig::default().check().is_ok());
    }

    #[test]
    fn values_out_of_range_name_the_field() {
        let field = |change: fn(&mut SensorConfig)| {
            let mut config = SensorConfig::default();
            change(&mut config);
            match config.check() {
                Err(SensorError::InvalidConfig { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(field(|c| c.ring_bytes = 5000), "ring_bytes");
        assert_eq!(field(|c| c.ring_bytes = 1 << 31), "ring_bytes");
        assert_eq!(field(|c| c.max_argv_bytes = 0), "max_argv_bytes");
        assert_eq!(field(|c| c.max_argv_bytes = 16_385), "max_argv_bytes");
        assert_eq!(field(|c| c.tree_bytes = 0), "tree_bytes");
        assert_eq!(field(|c| c.max_pending_events = 0), "max_pending_events");
        assert_eq!(
            field(|c| c.poll_interval = Duration::ZERO),
            "poll_interval (ms)"
        );
        assert_eq!(
            field(|c| c.reorder_window = Duration::from_secs(2)),
            "reorder_window (ms)"
        );
        assert_eq!(
            field(|c| c.cgroups = Some((0..5000).map(CgroupId).collect())),
            "cgroups"
        );
    }
}
