//! The two clocks and the boot they count from. Boot time is turned into wall
//! time here, with one offset taken at start, so that the order of events never
//! depends on somebody setting the clock.

use std::{fs, io};

use inwarden_types::{BootId, BootTime, WallTime};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::SensorError;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of the running boot.
///
/// # Errors
/// [`SensorError::ProcFile`] if `/proc` does not give it.
pub fn read_boot_id() -> Result<BootId, SensorError> {
    let error = |source| SensorError::ProcFile {
        path: BOOT_ID,
        source,
    };
    let text = fs::read_to_string(BOOT_ID).map_err(error)?;
    text.trim()
        .parse()
        .map_err(|parse| error(io::Error::new(io::ErrorKind::InvalidData, parse)))
}

/// Now, on the clock the programs stamp events with (`CLOCK_BOOTTIME`).
pub(crate) fn boot_time_now() -> BootTime {
    BootTime(nanoseconds(clock_gettime(ClockId::Boottime)))
}

fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// Turns boot time into wall time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    /// Wall time of the boot, in nanoseconds since 1970.
    boot_wall_ns: u64,
}

impl WallClock {
    /// Reads both clocks, several times: the pair with the least time between
    /// the two boot readings is the most exact.
    pub(crate) fn now() -> Self {
        let sample = || {
            let before = boot_time_now().0;
            let wall = nanoseconds(clock_gettime(ClockId::Realtime));
            let after = boot_time_now().0;
            let middle = before + (after - before) / 2;
            (after - before, wall.saturating_sub(middle))
        };
        let best = (0..5).map(|_| sample()).min();
        Self {
            boot_wall_ns: best.map_or(0, |(_, offset)| offset),
        }
    }

    #[cfg(test)]
    pub(crate) fn fixed(boot_wall_ns: u64) -> Self {
        Self { boot_wall_ns }
    }

    pub(crate) fn wall(self, at: BootTime) -> WallTime {
        WallTime(self.boot_wall_ns.saturating_add(at.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn now_converts_to_the_wall_clock_of_the_system() {
        let ours = WallClock::now().wall(boot_time_now()).0;
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let apart = u128::from(ours).abs_diff(system.as_nanos());
        assert!(apart < 1_000_000_000, "{apart} ns apart");
    }

    #[test]
    fn boot_id_is_the_one_in_proc() {
        let text = fs::read_to_string(BOOT_ID).unwrap();
        assert_eq!(read_boot_id().unwrap().to_string(), text.trim());
    }
}
