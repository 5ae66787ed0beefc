//! The sensor: from ring to events, with every record accounted for.

use std::time::{Duration, Instant};

use inwarden_types::{
    BootId, Event, EventData, EventId, EventKind, Image, Losses, Process, ProcessKey,
};

use crate::{
    ProgramCounters, SensorConfig, SensorError, TreeUsage,
    assemble::Assembler,
    clock::{WallClock, read_boot_id},
    counters,
    kernel::{Bpf, Kernel},
    probe,
    procfs::{ProcFs, ProcessFiles},
    reorder::Reorder,
    tree::{NodeKey, Tree},
    wire::{self, DecodeError},
};

/// Records taken from the ring before events are handed on.
const DRAIN_BATCH: usize = 4096;
/// The counters are compared with what was reported at most this often.
const LOSS_CHECK_NS: u64 = 100_000_000;
/// How long programs that run at detach may take to finish.
const SETTLE: Duration = Duration::from_millis(200);

/// Observes the births, execs and ends of processes.
///
/// Supported from Linux 6.1 on, with BTF, and tested on 6.18; from 5.17 on, which
/// has `bpf_loop`, it may start. Needs `CAP_BPF` and `CAP_PERFMON`.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
///
/// use inwarden_sensor::{Sensor, SensorConfig};
///
/// let mut sensor = Sensor::start(&SensorConfig::default())?;
/// let mut events = Vec::new();
/// sensor.poll(Duration::from_millis(100), &mut events)?;
/// let (rest, losses) = sensor.stop()?;
/// assert_eq!(losses.read, losses.emitted);
/// # drop((events, rest));
/// # Ok::<(), inwarden_sensor::SensorError>(())
/// ```
#[doc(alias = "BPF_TRACE_RAW_TP")]
pub struct Sensor {
    kernel: Box<dyn Kernel>,
    assembler: Assembler,
    reorder: Reorder,
    window_ns: u64,
    max_pending: usize,
    poll_interval: Duration,
    /// Our own process, for the events about the sensor itself.
    own: Option<ProcessKey>,
    read: u64,
    undecodable: u64,
    /// What the last loss event said, and when the counters were last looked at.
    reported_lost: u64,
    loss_checked_ns: u64,
    loss_sequence: u64,
}

impl Sensor {
    /// Loads and attaches the programs and lists the processes that run.
    ///
    /// # Errors
    /// Any variant of [`SensorError`] but `Map` and `Wait`; nothing stays
    /// attached.
    pub fn start(config: &SensorConfig) -> Result<Self, SensorError> {
        config.check()?;
        probe::require()?;
        let boot_id = read_boot_id()?;
        let kernel = Bpf::attach(config, std::process::id())?;
        let files = ProcFs::new(config.max_argv_bytes);
        Self::over(config, boot_id, Box::new(kernel), Box::new(files))
    }

    fn over(
        config: &SensorConfig,
        boot_id: BootId,
        kernel: Box<dyn Kernel>,
        files: Box<dyn ProcessFiles>,
    ) -> Result<Self, SensorError> {
        let mut sensor = Self {
            assembler: Assembler {
                boot_id,
                clock: WallClock::now(),
                tree: Tree::new(
                    config.tree_bytes,
                    nanoseconds(config.exited_retention),
                    files,
                ),
            },
            reorder: Reorder::default(),
            window_ns: nanoseconds(config.reorder_window),
            max_pending: config.max_pending_events,
            poll_interval: config.poll_interval,
            own: None,
            read: 0,
            undecodable: 0,
            reported_lost: 0,
            loss_checked_ns: 0,
            loss_sequence: 0,
            kernel,
        };
        sensor.seed()?;
        Ok(sensor)
    }

    /// Waits for events, at most `timeout`, and appends them to `out` in the
    /// order in which they happened. Returns as soon as there is one.
    ///
    /// An event is delivered [`SensorConfig::reorder_window`] plus at most
    /// [`SensorConfig::poll_interval`] after it happened.
    ///
    /// # Errors
    /// [`SensorError::Wait`] or [`SensorError::Map`]; what is in `out` is valid,
    /// and nothing is lost.
    pub fn poll(&mut self, timeout: Duration, out: &mut Vec<Event>) -> Result<(), SensorError> {
        let before = out.len();
        let deadline = Instant::now() + timeout;
        loop {
            let full = self.collect() == DRAIN_BATCH;
            let until = self.kernel.now().0.saturating_sub(self.window_ns);
            self.release(until, out);
            self.report_loss(LOSS_CHECK_NS, out)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if out.len() > before || left.is_zero() {
                return Ok(());
            }
            if !full {
                self.kernel.wait(left.min(self.next_look()))?;
            }
        }
    }

    /// The counts so far.
    ///
    /// `seen = emitted + dropped + filtered` holds whenever no program runs at
    /// this moment, and always after [`Sensor::stop`].
    ///
    /// # Errors
    /// [`SensorError::Map`].
    pub fn losses(&self) -> Result<Losses, SensorError> {
        Ok(Losses {
            read: self.read,
            undecodable: self.undecodable,
            ..counters::sum(&self.kernel.counters()?)
        })
    }

    /// The counts of each kernel program, with the reasons.
    ///
    /// # Errors
    /// [`SensorError::Map`].
    pub fn program_counters(&self) -> Result<Vec<ProgramCounters>, SensorError> {
        self.kernel.counters().map(Vec::from)
    }

    /// The boot whose processes are observed.
    #[must_use]
    pub fn boot_id(&self) -> BootId {
        self.assembler.boot_id
    }

    /// How large the process tree is.
    #[must_use]
    pub fn tree_usage(&self) -> TreeUsage {
        self.assembler.tree.usage()
    }

    /// Detaches, then drains the ring once more. Returns the events not yet
    /// delivered and the final counts, in which `read = emitted`.
    ///
    /// # Errors
    /// [`SensorError::Rejected`] or [`SensorError::Map`]. Dropping the sensor,
    /// which this does even then, detaches as well.
    pub fn stop(mut self) -> Result<(Vec<Event>, Losses), SensorError> {
        let mut events = Vec::new();
        self.kernel.detach()?;
        let deadline = Instant::now() + SETTLE;
        let mut settled = None;
        let losses = loop {
            while self.collect() > 0 {
                self.release(0, &mut events);
            }
            let losses = self.losses()?;
            let accounted = losses.emitted + losses.dropped + losses.filtered;
            // A program that ran when it was detached may still begin to count, so
            // the counts must agree twice, unchanged.
            let agree = losses.seen == accounted && losses.read == losses.emitted;
            if (agree && settled.as_ref() == Some(&losses)) || Instant::now() >= deadline {
                break losses;
            }
            settled = agree.then_some(losses);
            self.kernel.wait(Duration::from_millis(1))?;
        };
        self.release(u64::MAX, &mut events);
        self.report_loss(0, &mut events)?;
        tracing::debug!(?losses, "sensor stopped");
        Ok((events, losses))
    }

    /// Takes the processes that run already into the tree.
    fn seed(&mut self) -> Result<(), SensorError> {
        let seeds = self.kernel.seeds()?;
        let mut rest = seeds.as_slice();
        let mut found = Vec::new();
        while !rest.is_empty() {
            match wire::decode_first(rest) {
                Ok((record, after)) => {
                    found.push(record);
                    rest = after;
                }
                Err(error) => {
                    self.count_undecodable(error);
                    break;
                }
            }
        }
        // Oldest first, so that the tree forgets the right ones if it is small.
        found.sort_by_key(|record| record.header.leader_start_ns);
        for record in found {
            self.assembler.accept(record);
        }
        let own = self.assembler.tree.living(std::process::id());
        self.own = own.map(|key: NodeKey| self.assembler.process_key(key));
        let usage = self.tree_usage();
        tracing::debug!(
            processes = usage.processes,
            bytes = usage.bytes,
            "tree seeded"
        );
        Ok(())
    }

    /// Reads a batch of the ring into the reorder window; returns how many.
    fn collect(&mut self) -> usize {
        let Self {
            kernel, reorder, ..
        } = self;
        let mut first_error = None;
        let mut undecodable = 0;
        let count = kernel.drain(DRAIN_BATCH, &mut |bytes| match wire::decode(bytes) {
            Ok(record) => reorder.push(record),
            Err(error) => {
                undecodable += 1;
                first_error.get_or_insert(error);
            }
        });
        self.read += count as u64;
        if let Some(error) = first_error {
            self.undecodable += undecodable - 1;
            self.count_undecodable(error);
        }
        count
    }

    /// How long until a waiting event is due: at most the poll interval, and at
    /// least a quarter of it, so that a stream of events comes in batches.
    fn next_look(&self) -> Duration {
        let due = self.reorder.earliest_ns().map(|at| {
            let due_ns = at.saturating_add(self.window_ns);
            Duration::from_nanos(due_ns.saturating_sub(self.kernel.now().0))
        });
        due.map_or(self.poll_interval, |due| {
            due.clamp(self.poll_interval / 4, self.poll_interval)
        })
    }

    fn count_undecodable(&mut self, error: DecodeError) {
        self.undecodable += 1;
        tracing::warn!(?error, "a record of the kernel programs is not decodable");
    }

    fn release(&mut self, until_ns: u64, out: &mut Vec<Event>) {
        while let Some(record) = self.reorder.release(until_ns, self.max_pending) {
            out.extend(self.assembler.accept(record));
        }
    }

    /// Appends a loss event if more was lost since the last one.
    fn report_loss(&mut self, interval_ns: u64, out: &mut Vec<Event>) -> Result<(), SensorError> {
        let at = self.kernel.now();
        if at.0.saturating_sub(self.loss_checked_ns) < interval_ns {
            return Ok(());
        }
        self.loss_checked_ns = at.0;
        let losses = self.losses()?;
        let lost = losses.dropped + losses.undecodable;
        if lost <= self.reported_lost {
            return Ok(());
        }
        self.reported_lost = lost;
        self.loss_sequence += 1;
        let sequence = self.loss_sequence;
        out.push(Event {
            id: self.own.map_or_else(
                || EventId::External(format!("{}:loss:{sequence}", self.boot_id())),
                |process| EventId::Observed {
                    process,
                    kind: EventKind::Loss,
                    at,
                    sequence,
                },
            ),
            at: Some(at),
            wall: Some(self.assembler.clock.wall(at)),
            process: Process {
                key: self.own,
                image: Image {
                    comm: "inwarden".to_owned(),
                    ..Image::default()
                },
                ..Process::default()
            },
            ancestors: Vec::new(),
            data: EventData::Loss(losses),
        });
        Ok(())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use inwarden_types::BootTime;

    use super::*;
    use crate::{kernel::fake::FakeKernel, wire::encode};

    struct NoFiles;

    impl ProcessFiles for NoFiles {
        fn look_up(&self, _: u32, _: u64) -> Option<(Image, u32)> {
            None
        }
    }

    fn sensor(kernel: &FakeKernel) -> Sensor {
        let config = SensorConfig::default();
        let boot_id = BootId([1; 16]);
        Sensor::over(
            &config,
            boot_id,
            Box::new(kernel.clone()),
            Box::new(NoFiles),
        )
        .unwrap()
    }

    fn poll(sensor: &mut Sensor) -> Vec<Event> {
        let mut out = Vec::new();
        sensor.poll(Duration::from_millis(200), &mut out).unwrap();
        out
    }

    #[test]
    fn a_sensor_can_move_to_another_thread() {
        fn assert_send<T: Send>() {}
        assert_send::<Sensor>();
    }

    #[test]
    fn events_of_two_cpus_come_in_the_order_in_which_they_happened() {
        let kernel = FakeKernel::new();
        let mut sensor = sensor(&kernel);
        kernel.emit(encode::bytes(&encode::exec((3, 30), (2, 20), 20, b"id\0")));
        kernel.emit(encode::bytes(&encode::fork((3, 30), (2, 20), 10)));
        let events = [poll(&mut sensor), poll(&mut sensor)].concat();
        let kinds: Vec<EventKind> = events.iter().map(Event::kind).collect();
        assert_eq!(kinds, [EventKind::Fork, EventKind::Exec]);
    }

    #[test]
    fn stop_drains_what_the_programs_wrote_until_they_were_detached() {
        let kernel = FakeKernel::new();
        let mut sensor = sensor(&kernel);
        kernel.emit(encode::bytes(&encode::fork((3, 30), (2, 20), 10)));
        assert_eq!(poll(&mut sensor).len(), 1);
        kernel.emit(encode::bytes(&encode::exec((3, 30), (2, 20), 20, b"id\0")));
        let late = encode::bytes(&encode::exit((3, 30), u64::MAX - 5, 9));
        kernel.0.lock().unwrap().late.push(late);
        let (events, losses) = sensor.stop().unwrap();
        let kinds: Vec<EventKind> = events.iter().map(Event::kind).collect();
        assert_eq!(kinds, [EventKind::Exec, EventKind::Exit]);
        assert_eq!((losses.read, losses.emitted, losses.seen), (3, 3, 3));
        assert!(kernel.0.lock().unwrap().detached);
    }

    #[test]
    fn drops_appear_in_the_stream_once_for_each_growth() {
        let kernel = FakeKernel::new();
        let mut sensor = sensor(&kernel);
        let drop_some = |count| {
            let mut state = kernel.0.lock().unwrap();
            state.counters.seen += count;
            state.counters.dropped_ring_full += count;
        };
        drop_some(3);
        let events = poll(&mut sensor);
        let EventData::Loss(losses) = events[0].data else {
            panic!("{events:?}")
        };
        assert_eq!((losses.dropped, losses.seen), (3, 3));
        assert_eq!(poll(&mut sensor).len(), 0);
        drop_some(2);
        assert_eq!(poll(&mut sensor).len(), 1);
        let (rest, losses) = sensor.stop().unwrap();
        assert!(rest.is_empty());
        assert_eq!(losses.dropped, 5);
    }

    #[test]
    fn an_undecodable_record_is_read_counted_and_reported() {
        let kernel = FakeKernel::new();
        let mut sensor = sensor(&kernel);
        kernel.emit(vec![99; 40]);
        kernel.emit(Vec::new());
        kernel.emit(encode::bytes(&encode::fork((3, 30), (2, 20), 10)));
        let (events, losses) = {
            let first = poll(&mut sensor);
            let (rest, losses) = sensor.stop().unwrap();
            ([first, rest].concat(), losses)
        };
        assert_eq!((losses.read, losses.undecodable), (3, 2));
        assert!(events.iter().any(|event| event.kind() == EventKind::Fork));
        assert!(events.iter().any(|event| event.kind() == EventKind::Loss));
    }

    #[test]
    fn processes_found_running_are_ancestors_and_no_events() {
        let kernel = FakeKernel::new();
        let seed = |tgid: u32, start_ns, parent: (u32, u64)| {
            let mut header = encode::header(wire::Kind::Seed, tgid, start_ns, 5);
            (header.parent_tgid, header.parent_start_ns) = parent;
            let body = wire::Body::Seed(wire::Seed {
                pid_ns: 1,
                net_ns: 1,
            });
            encode::bytes(&wire::Record { header, body })
        };
        let seeds = [seed(20, 200, (1, 1)), seed(1, 1, (0, 0))].concat();
        kernel.0.lock().unwrap().seeds = seeds;
        let mut sensor = sensor(&kernel);
        assert_eq!(sensor.tree_usage().processes, 2);
        kernel.emit(encode::bytes(&encode::fork((30, 300), (20, 200), 10)));
        let events = poll(&mut sensor);
        assert_eq!(events.len(), 1);
        let line: Vec<BootTime> = events[0]
            .ancestors
            .iter()
            .filter_map(|ancestor| ancestor.key)
            .map(|key| key.start)
            .collect();
        assert_eq!(line, [BootTime(200), BootTime(1)]);
    }
}
