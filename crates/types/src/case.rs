//! Events that are judged together.

use crate::{CaseId, Event};

/// The events of one subject, in order; the last is the one under judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    id: CaseId,
    /// Never empty.
    events: Vec<Event>,
}

/// A case needs at least one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a case needs at least one event")]
pub struct EmptyCase;

impl Case {
    /// A case of one event, named after it.
    #[must_use]
    pub fn of(event: Event) -> Self {
        Self {
            id: CaseId(event.id.to_string()),
            events: vec![event],
        }
    }

    /// A case of several events in order, named after the first.
    ///
    /// # Errors
    /// [`EmptyCase`] if there is none.
    pub fn of_events(events: Vec<Event>) -> Result<Self, EmptyCase> {
        let id = CaseId(events.first().ok_or(EmptyCase)?.id.to_string());
        Ok(Self { id, events })
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &CaseId {
        &self.id
    }

    /// Its events, never empty.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The event under judgement.
    #[must_use]
    pub fn last(&self) -> &Event {
        self.events.last().expect("a case is never empty")
    }
}
