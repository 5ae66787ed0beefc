//! A recording instead of a kernel: the same way, without clock or deadline.

use std::sync::Arc;

use inwarden_feeds::FeedError;
use inwarden_types::{Case, Event, EventData, Mode, Scope};

use crate::{
    Analyst, CaseReport, CounterSnapshot, casebook::CaseBook, counters::Counters,
    pipeline::Pipeline,
};

/// How a recording is replayed.
#[derive(Clone, Debug)]
pub struct ReplayConfig {
    /// The mode decisions are made in. Nothing is carried out in either.
    pub mode: Mode,
    /// The scope decisions are made in.
    pub scope: Scope,
}

/// The cases of a recording, judged one after the other as they are asked for.
///
/// Replaying the same events twice gives the same reports, stage times aside:
/// event time stands in the events, no deadline applies, and nothing but the
/// recording's own earlier events is remembered. An event that cannot be read is an `Err` item; the next item is
/// the next event.
///
/// Created by [`crate::Warden::replay`].
pub struct Replay<I> {
    events: I,
    pipeline: Pipeline,
}

impl crate::Warden {
    /// Replays `events` through `analyst`.
    #[must_use]
    pub fn replay<I>(analyst: Arc<Analyst>, config: ReplayConfig, events: I) -> Replay<I::IntoIter>
    where
        I: IntoIterator<Item = Result<Event, FeedError>>,
    {
        Replay {
            events: events.into_iter(),
            pipeline: Pipeline {
                counters: Arc::new(Counters::with_model_of(&analyst)),
                book: Arc::new(CaseBook::new(&analyst)),
                analyst,
                mode: config.mode,
                scope: config.scope,
                live: None,
            },
        }
    }
}

impl<I> Replay<I> {
    /// The counters so far.
    #[must_use]
    pub fn counters(&self) -> CounterSnapshot {
        self.pipeline.counters.snapshot()
    }
}

impl<I: Iterator<Item = Result<Event, FeedError>>> Iterator for Replay<I> {
    type Item = Result<CaseReport, FeedError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut event = match self.events.next()? {
                Ok(event) => event,
                Err(error) => return Some(Err(error)),
            };
            self.pipeline.counters.events.add_one();
            self.pipeline.book.complete(&mut event);
            let seen = self.pipeline.book.observe(&event, &self.pipeline.counters);
            let is_judged = matches!(
                event.data,
                EventData::Exec
                    | EventData::ToolCall(_)
                    | EventData::Text(_)
                    | EventData::File(_)
                    | EventData::Connect(_)
                    | EventData::Dns(_)
            );
            if !is_judged {
                continue;
            }
            self.pipeline.counters.cases.add_one();
            let case = Case::of(event);
            let own = self.pipeline.analyst.own_verdict(&case);
            let report = self
                .pipeline
                .finish(case, own, Some(seen), std::time::Duration::ZERO);
            return Some(Ok(report));
        }
    }
}
