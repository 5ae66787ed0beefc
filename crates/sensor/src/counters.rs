//! What each kernel program counts: mirrors `struct inwarden_counters`.

use inwarden_types::{EventKind, Losses};

/// The counts of one kernel program since the sensor started.
///
/// `seen = emitted + dropped_ring_full + dropped_no_scratch + filtered_own +
/// filtered_cgroup` whenever the program is not running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramCounters {
    /// Which program: fork, exec or exit.
    pub program: EventKind,
    /// Events it saw.
    pub seen: u64,
    /// Written to the ring.
    pub emitted: u64,
    /// Lost because the ring was full.
    pub dropped_ring_full: u64,
    /// Lost because too many tasks were preempted inside the program.
    pub dropped_no_scratch: u64,
    /// Left out: of our own process.
    pub filtered_own: u64,
    /// Left out: of a cgroup that is not observed.
    pub filtered_cgroup: u64,
    /// Emitted with fewer arguments than wanted, since a page was not resident.
    pub argv_unreadable: u64,
    /// Emitted with an incomplete path (too deep, or without a root).
    pub path_incomplete: u64,
}

/// The map value as aya reads it: one number for each field, in C's order.
pub(crate) type RawCounters = [u64; 8];

/// The counters of all programs, in the order of the map.
pub(crate) type AllCounters = [ProgramCounters; 3];

/// The programs in the order of the map `counters`.
pub(crate) const PROGRAMS: [EventKind; 3] = [EventKind::Fork, EventKind::Exec, EventKind::Exit];

impl ProgramCounters {
    pub(crate) fn zero(program: EventKind) -> Self {
        Self {
            program,
            seen: 0,
            emitted: 0,
            dropped_ring_full: 0,
            dropped_no_scratch: 0,
            filtered_own: 0,
            filtered_cgroup: 0,
            argv_unreadable: 0,
            path_incomplete: 0,
        }
    }

    /// Adds what one CPU counted.
    pub(crate) fn add(&mut self, raw: &RawCounters) {
        let [
            seen,
            emitted,
            ring_full,
            no_scratch,
            own,
            cgroup,
            unreadable,
            incomplete,
        ] = raw;
        self.seen += seen;
        self.emitted += emitted;
        self.dropped_ring_full += ring_full;
        self.dropped_no_scratch += no_scratch;
        self.filtered_own += own;
        self.filtered_cgroup += cgroup;
        self.argv_unreadable += unreadable;
        self.path_incomplete += incomplete;
    }
}

/// The sums that the kernel side contributes to [`Losses`].
pub(crate) fn sum(all: &AllCounters) -> Losses {
    all.iter().fold(Losses::default(), |mut sum, program| {
        sum.seen += program.seen;
        sum.emitted += program.emitted;
        sum.dropped += program.dropped_ring_full + program.dropped_no_scratch;
        sum.filtered += program.filtered_own + program.filtered_cgroup;
        sum
    })
}
