//! The thread that owns the sensor. It never waits for another thread.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Sender, TrySendError};
use inwarden_response::ObservedExit;
use inwarden_sensor::Sensor;
use inwarden_types::{Case, Event, EventData, Losses, UndeterminedReason};

use super::{Arrival, Judged, Outgoing, recorder::Recorder, stop::Stop};
use crate::{
    EngineError, counters::Counters, exits::ExitTable, forks::ForkTable, pipeline::unjudged,
};

pub(super) struct SensorLoop {
    pub(super) sensor: Sensor,
    pub(super) sink: EventSink,
    pub(super) stop: Arc<Stop>,
    pub(super) poll_timeout: Duration,
}

/// Where events go.
pub(super) struct EventSink {
    pub(super) exits: Arc<ExitTable>,
    pub(super) forks: Arc<ForkTable>,
    pub(super) counters: Arc<Counters>,
    pub(super) recorder: Option<Recorder>,
    /// `None` once no new case is taken.
    pub(super) next: Option<Next>,
}

/// The queues that cases leave by.
pub(super) struct Next {
    pub(super) cases: Sender<Arrival>,
    pub(super) out: Sender<Outgoing>,
}

impl SensorLoop {
    /// Runs until every case is answered. After `stop` is asked for it goes on
    /// reading, since the exit events prove the kills still under way.
    pub(super) fn run(mut self) -> Result<Losses, EngineError> {
        let mut events = Vec::new();
        let mut failed = None;
        while !self.stop.is_all_answered() && failed.is_none() {
            failed = self.sensor.poll(self.poll_timeout, &mut events).err();
            for event in events.drain(..) {
                self.sink.take(event);
            }
            if self.stop.is_asked() {
                self.sink.next = None;
            }
        }
        self.stop.ask();
        let stopped = self.sensor.stop();
        if let Some(error) = failed {
            return Err(error.into());
        }
        let (rest, losses) = stopped?;
        for event in rest {
            self.sink.take(event);
        }
        if let Some(recorder) = self.sink.recorder {
            recorder.close()?;
        }
        Ok(losses)
    }
}

impl EventSink {
    fn take(&mut self, event: Event) {
        self.counters.events.add_one();
        if let Some(recorder) = &mut self.recorder {
            recorder.write(&event, &self.counters);
        }
        match &event.data {
            EventData::Exit(status) => {
                if let Some(key) = event.process.key {
                    let exit = ObservedExit {
                        status: *status,
                        image: Some(event.process.image.clone()),
                    };
                    self.exits.record(key, exit);
                }
            }
            EventData::Loss(losses) => {
                if let Some(next) = &self.next {
                    // Its receiver lives as long as this sender.
                    let _closed = next.out.send(Outgoing::Losses(*losses));
                }
            }
            EventData::Fork => {
                if let (Some(parent), Some(child)) = (event.process.parent, event.process.key) {
                    self.forks.record(parent, child);
                }
            }
            EventData::Exec => self.open_case(event),
            _ => {}
        }
    }

    fn open_case(&self, event: Event) {
        let Some(next) = &self.next else { return };
        self.counters.cases.add_one();
        let arrival = Arrival {
            case: Case::of(event),
            arrived: Instant::now(),
        };
        let Err(TrySendError::Full(arrival) | TrySendError::Disconnected(arrival)) =
            next.cases.try_send(arrival)
        else {
            return;
        };
        self.counters.queue_full.add_one();
        let unjudged = Judged {
            case: arrival.case,
            arrived: arrival.arrived,
            verdict: unjudged(UndeterminedReason::Overloaded),
        };
        // Its receiver lives as long as this sender.
        let _closed = next.out.send(Outgoing::Judged(Box::new(unjudged)));
    }
}
