//! The thread that owns the sensor. While it watches it never waits for another
//! thread: a kill under way waits for the exit events it delivers.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Sender, TrySendError};
use inwarden_response::ObservedExit;
use inwarden_sensor::Sensor;
use inwarden_types::{Argv, Case, Event, EventData, Image, Losses, UndeterminedReason};

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
    /// Whether new cases are opened no more.
    pub(super) closing: bool,
    /// `None` once everything is handed on after closing.
    pub(super) next: Option<Next>,
}

/// The queues that cases leave by.
pub(super) struct Next {
    pub(super) cases: Sender<Arrival>,
    pub(super) out: Sender<Outgoing>,
    /// What `out` had no room for, oldest first; at most [`HELD_BACK`].
    pub(super) held: VecDeque<Outgoing>,
}

/// How much waits here for room in the response queue. Beyond it a case that no
/// stage had room for goes unanswered, and is counted as `cases_dropped`.
const HELD_BACK: usize = 65_536;

impl Next {
    /// Hands on what is held back, as far as there is room.
    fn flush(&mut self) {
        while let Some(oldest) = self.held.pop_front() {
            if let Err(TrySendError::Full(oldest) | TrySendError::Disconnected(oldest)) =
                self.out.try_send(oldest)
            {
                self.held.push_front(oldest);
                return;
            }
        }
    }

    fn send(&mut self, outgoing: Outgoing, counters: &Counters) {
        if self.held.len() >= HELD_BACK {
            counters.cases_dropped.add_one();
            return;
        }
        self.held.push_back(outgoing);
        self.flush();
    }
}

impl SensorLoop {
    /// Runs until every case is answered. After `stop` is asked for it goes on
    /// reading, since the exit events prove the kills still under way.
    pub(super) fn run(mut self) -> Result<Losses, EngineError> {
        let mut events = Vec::new();
        let mut failed = None;
        while !self.stop.is_all_answered() && failed.is_none() {
            self.sink.closing = self.stop.is_asked();
            failed = self.sensor.poll(self.poll_timeout, &mut events).err();
            for event in events.drain(..) {
                self.sink.take(event);
            }
            if let Some(next) = &mut self.sink.next {
                next.flush();
                if self.stop.is_asked() && next.held.is_empty() {
                    self.sink.next = None;
                }
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
                    self.forks.ended(key);
                    let exit = ObservedExit {
                        status: *status,
                        // Its arguments stand in the case; here they would
                        // cost 16 KiB for each of many exits.
                        image: Some(Image {
                            argv: Argv::default(),
                            ..event.process.image.clone()
                        }),
                    };
                    self.exits.record(key, exit);
                }
            }
            EventData::Loss(losses) => {
                if let Some(next) = &mut self.next {
                    next.send(Outgoing::Losses(*losses), &self.counters);
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

    fn open_case(&mut self, event: Event) {
        let Some(next) = self.next.as_mut().filter(|_| !self.closing) else {
            self.counters.after_stop.add_one();
            return;
        };
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
            seen: None,
            verdict: unjudged(UndeterminedReason::Overloaded),
        };
        next.send(Outgoing::Judged(Box::new(unjudged)), &self.counters);
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    #[test]
    fn what_the_response_queue_has_no_room_for_waits_in_order_and_blocks_nobody() {
        let (cases, _waiting) = bounded(1);
        let (out, received) = bounded(1);
        let counters = Counters::default();
        let mut next = Next {
            cases,
            out,
            held: VecDeque::new(),
        };
        let numbered = |seen| {
            Outgoing::Losses(Losses {
                seen,
                ..Losses::default()
            })
        };
        for seen in 1..=3 {
            next.send(numbered(seen), &counters);
        }
        assert_eq!(next.held.len(), 2);
        for expected in 1..=3 {
            match received.try_recv() {
                Ok(Outgoing::Losses(losses)) => assert_eq!(losses.seen, expected),
                _ => panic!("record {expected} is missing"),
            }
            next.flush();
        }
        assert!(next.held.is_empty());
        assert_eq!(counters.snapshot().cases_dropped, 0);
    }

    #[test]
    fn what_is_held_back_is_bounded_and_the_rest_is_counted() {
        let (cases, _waiting) = bounded(1);
        let (out, _received) = bounded(1);
        let counters = Counters::default();
        let mut next = Next {
            cases,
            out,
            held: VecDeque::new(),
        };
        for _ in 0..HELD_BACK + 3 {
            next.send(Outgoing::Losses(Losses::default()), &counters);
        }
        assert_eq!(next.held.len(), HELD_BACK);
        assert_eq!(counters.snapshot().cases_dropped, 2);
    }
}
