//! The background door: watch the kernel, judge, respond.
//!
//! Four jobs, each with threads of its own and a bounded queue before it:
//!
//! * **sensor** reads the rings and never waits for anything else;
//! * **screen** runs the cheap stages; a full queue before it sends the case to
//!   the fallback at once (counted as `queue_full`);
//! * **judge** (two threads, whose cases share the model's passes) runs the model
//!   on the most suspicious case first; a full queue sends the least suspicious
//!   case to the fallback (`queue_full`);
//! * **response** decides, acts, waits for the proof and writes the audit log.
//!   A full queue before it makes the two stages before it wait: a verdict is
//!   never dropped.

mod recorder;
mod response_loop;
mod sensor_loop;
mod stages;
mod stop;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, bounded};
use inwarden_classifier::Observation;
use inwarden_response::Responder;
use inwarden_sensor::{Sensor, SensorConfig};
use inwarden_types::{Case, Losses, Mode, Scope, Verdict};
use serde_json::{Map, Value, json};

use self::{
    recorder::Recorder,
    response_loop::{ResponseLoop, losses_record},
    sensor_loop::{EventSink, Next, SensorLoop},
    stages::Stages,
    stop::Stop,
};
use crate::{
    Analyst, CaseReport, CounterSnapshot, EngineError,
    audit::AuditLog,
    casebook::CaseBook,
    counters::Counters,
    exits::ExitTable,
    forks::ForkTable,
    judge_queue::{JUDGE_THREADS, JudgeQueue},
    pipeline::{Live, Pipeline},
};

/// How a [`Warden`] runs. Mode, scope and audit log have no default: whoever
/// starts one says what it may touch and where it accounts for it.
#[derive(Clone, Debug)]
pub struct WardenConfig {
    /// Whether decisions are carried out.
    pub mode: Mode,
    /// What actions stronger than an alert may touch.
    pub scope: Scope,
    /// Where the audit log is appended.
    pub audit_log: PathBuf,
    /// Where the events are recorded, if anywhere.
    pub recording: Option<PathBuf>,
    /// What the sensor reports.
    pub sensor: SensorConfig,
    /// Its limits.
    pub limits: WardenLimits,
}

/// Limits of a [`Warden`].
#[derive(Clone, Debug)]
pub struct WardenLimits {
    /// Events that may wait for the cheap stages.
    pub screen_queue: usize,
    /// Cases that may wait for the model.
    pub judge_queue: usize,
    /// Verdicts that may wait for their response.
    pub response_queue: usize,
    /// Reports that may wait for the subscriber.
    pub report_queue: usize,
    /// From an event's arrival until its case skips the model.
    pub case_deadline: Duration,
    /// How long a kill waits for the exit events that prove it.
    pub kill_deadline: Duration,
    /// How long the open cases may take after [`Warden::stop`]; those left skip
    /// the model.
    pub drain_deadline: Duration,
    /// How long the sensor waits for events at a time.
    pub poll_timeout: Duration,
}

impl Default for WardenLimits {
    fn default() -> Self {
        Self {
            screen_queue: 8_192,
            judge_queue: 1_024,
            response_queue: 1_024,
            report_queue: 8_192,
            case_deadline: Duration::from_secs(60),
            kill_deadline: Duration::from_secs(2),
            drain_deadline: Duration::from_secs(20),
            poll_timeout: Duration::from_millis(20),
        }
    }
}

/// What a [`Warden`] has to say at its end.
#[derive(Clone, Debug)]
pub struct WardenSummary {
    /// Counts since the start.
    pub counters: CounterSnapshot,
    /// The sensor's account after its last drain.
    pub losses: Losses,
    /// Where the audit log is.
    pub audit_log: PathBuf,
}

/// A case on its way to the cheap stages.
struct Arrival {
    case: Case,
    arrived: Instant,
}

/// A case with its verdict.
struct Judged {
    case: Case,
    arrived: Instant,
    /// What its case shows; `None` if no stage had room for it.
    seen: Option<Observation>,
    /// On the event by itself.
    verdict: Verdict,
}

/// What goes to the response thread.
enum Outgoing {
    Judged(Box<Judged>),
    Losses(Losses),
}

/// Watches this machine until it is stopped.
///
/// Dropping it without [`Warden::stop`] ends the threads too, but writes no
/// `end` record and says nothing of what went wrong.
///
/// Needs Linux 6.1 with BTF, and root or `CAP_BPF` with `CAP_PERFMON`.
#[derive(Debug)]
pub struct Warden {
    stop: Arc<Stop>,
    counters: Arc<Counters>,
    sensor: Option<JoinHandle<Result<Losses, EngineError>>>,
    workers: Vec<(&'static str, JoinHandle<()>)>,
    response: Option<JoinHandle<AuditLog>>,
    audit_log: PathBuf,
}

impl Warden {
    /// Attaches the sensor and starts the threads.
    ///
    /// Reports arrive at the receiver, one per case; a full one drops reports
    /// (`reports_dropped`), which still stand in the audit log. If the audit
    /// log cannot be written the warden stops (fail closed): see
    /// [`Warden::is_running`].
    ///
    /// # Errors
    /// [`EngineError::Sensor`] names what the host lacks;
    /// [`EngineError::AuditOpen`], [`EngineError::AuditWrite`] if not even its
    /// first record can be written, [`EngineError::Recording`]. Nothing stays
    /// attached after an error.
    pub fn start(
        analyst: Arc<Analyst>,
        config: WardenConfig,
    ) -> Result<(Self, Receiver<CaseReport>), EngineError> {
        let audit = AuditLog::open(&config.audit_log)?;
        let sensor = Sensor::start(&config.sensor)?;
        let boot_id = sensor.boot_id();
        let recorder = match config.recording.clone() {
            Some(path) => Some(Recorder::create(path, boot_id)?),
            None => None,
        };
        let responder = Responder::new(boot_id)?;
        let audit = audit.begin(start_record(&analyst, &config, &sensor))?;

        let limits = &config.limits;
        let (screen_in, screen_out) = bounded(limits.screen_queue);
        let (response_in, response_out) = bounded(limits.response_queue);
        let (report_in, report_out) = bounded(limits.report_queue);
        let mut warden = Self {
            stop: Arc::default(),
            counters: Arc::new(Counters::with_model_of(&analyst)),
            sensor: None,
            workers: Vec::new(),
            response: None,
            audit_log: config.audit_log,
        };
        let exits = Arc::new(ExitTable::default());
        let forks = Arc::new(ForkTable::default());
        let book = Arc::new(CaseBook::new(&analyst));
        let response = ResponseLoop {
            pipeline: Pipeline {
                analyst: Arc::clone(&analyst),
                mode: config.mode,
                scope: config.scope,
                counters: Arc::clone(&warden.counters),
                book: Arc::clone(&book),
                live: Some(Live {
                    responder,
                    exits: Arc::clone(&exits),
                    forks: Arc::clone(&forks),
                    kill_deadline: limits.kill_deadline,
                    unrecorded: false,
                }),
            },
            audit,
            reports: report_in,
            stop: Arc::clone(&warden.stop),
        };
        warden.response = Some(spawn("response", &warden.stop, move || {
            response.run(&response_out)
        })?);

        let judge = Stages {
            analyst,
            counters: Arc::clone(&warden.counters),
            book,
            queue: Arc::new(JudgeQueue::new(limits.judge_queue)),
            out: response_in.clone(),
            stop: Arc::clone(&warden.stop),
            case_deadline: limits.case_deadline,
            drain_deadline: limits.drain_deadline,
        };
        let screen = judge.clone();
        let screen = spawn("screen", &warden.stop, move || {
            screen.run_screen(&screen_out);
        })?;
        warden.workers.push(("screen", screen));
        for _ in 0..JUDGE_THREADS {
            let judge = judge.clone();
            let judge = spawn("judge", &warden.stop, move || judge.run_judge())?;
            warden.workers.push(("judge", judge));
        }
        // Their end ends the response thread: no sender may be left here.
        drop(judge);

        let sensor_loop = SensorLoop {
            sensor,
            sink: EventSink {
                exits,
                forks,
                counters: Arc::clone(&warden.counters),
                recorder,
                closing: false,
                next: Some(Next {
                    cases: screen_in,
                    out: response_in,
                    held: VecDeque::new(),
                }),
            },
            stop: Arc::clone(&warden.stop),
            poll_timeout: limits.poll_timeout,
        };
        warden.sensor = Some(spawn("sensor", &warden.stop, move || sensor_loop.run())?);
        Ok((warden, report_out))
    }

    /// Whether it still watches. False when the sensor or the audit log failed;
    /// [`Warden::stop`] then says why.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.stop.is_asked()
    }

    /// The counters now.
    #[must_use]
    pub fn counters(&self) -> CounterSnapshot {
        self.counters.snapshot()
    }

    /// Finishes every open case, detaches the sensor, flushes the audit log.
    ///
    /// # Errors
    /// What failed while it ran: the sensor, the recording, or
    /// [`EngineError::AuditWrite`] with the records that are not in the file.
    /// Everything is detached in any case.
    pub fn stop(mut self) -> Result<WardenSummary, EngineError> {
        self.stop.ask();
        let mut workers = Ok(());
        for (name, thread) in self.workers.drain(..) {
            let ended = join(name, thread);
            workers = workers.and(ended);
        }
        let response = self.response.take().map(|thread| join("response", thread));
        // Also after a panic: the sensor must not wait for answers for ever.
        self.stop.all_answered();
        let losses = match self.sensor.take() {
            Some(thread) => join("sensor", thread).and_then(|losses| losses),
            None => Ok(Losses::default()),
        };
        let counters = self.counters.snapshot();
        if let Some(audit) = response {
            let mut audit = audit?;
            let mut record = match &losses {
                Ok(losses) => losses_record(losses),
                Err(_) => Map::new(),
            };
            for (name, value) in counters.named() {
                record.insert(name.to_owned(), json!(value));
            }
            audit.append("end", record);
            audit.close()?;
        }
        workers?;
        Ok(WardenSummary {
            losses: losses?,
            counters,
            audit_log: self.audit_log.clone(),
        })
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.stop.ask();
    }
}

/// Starts a thread of the warden; when it ends, for whatever reason, the others
/// are asked to stop.
fn spawn<T: Send + 'static>(
    name: &'static str,
    stop: &Arc<Stop>,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, EngineError> {
    let ending = StopAtEnd(Arc::clone(stop));
    std::thread::Builder::new()
        .name(format!("inwarden-{name}"))
        .spawn(move || {
            let _ending = ending;
            run()
        })
        .map_err(|source| EngineError::Thread { name, source })
}

struct StopAtEnd(Arc<Stop>);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.ask();
    }
}

fn join<T>(name: &'static str, thread: JoinHandle<T>) -> Result<T, EngineError> {
    thread
        .join()
        .map_err(|_| EngineError::ThreadPanicked { name })
}

fn start_record(analyst: &Analyst, config: &WardenConfig, sensor: &Sensor) -> Map<String, Value> {
    let mut record = Map::new();
    record.insert("version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    record.insert("boot_id".to_owned(), json!(sensor.boot_id().to_string()));
    record.insert("mode".to_owned(), json!(config.mode.name()));
    record.insert("scope".to_owned(), json!(scope_text(&config.scope)));
    for (name, value) in analyst.identity() {
        record.insert((*name).to_owned(), json!(value));
    }
    record
}

fn scope_text(scope: &Scope) -> String {
    match scope {
        Scope::AlertOnly => "none: alert only".to_owned(),
        Scope::Cgroups(ids) => {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            format!("cgroups {}", ids.join(", "))
        }
        Scope::ProcessTree { root, include_root } => {
            format!("process tree of {root}, root included: {include_root}")
        }
    }
}
