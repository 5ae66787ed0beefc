//! The limits of a scheduler.

use std::{ops::RangeInclusive, time::Duration};

use crate::error::InferenceError;

/// The longest window; more would be felt, and gains nothing.
const MAX_WINDOW: Duration = Duration::from_millis(2);

/// What a scheduler holds and how it forms passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Requests of all callers that may wait, `2..=65536`. Where one comes on
    /// top, the caller with most of them gives way: the new request is refused
    /// if that is its own caller, otherwise the newest of that caller's is.
    pub max_waiting: usize,
    /// Requests of one pass, `1..=1024`.
    pub max_batch_requests: usize,
    /// Rows (tokens that are not cached) of one pass, `1..=1048576`. A request
    /// with more is a pass of its own.
    pub max_batch_rows: usize,
    /// How long a pass that is not full waits for company where several
    /// requests wait already, at most 2 ms; counted from when the model is free
    /// and somebody waits.
    pub window: Duration,
    /// The same where one request waits alone.
    pub lone_window: Duration,
}

impl Default for SchedulerConfig {
    /// For a processor: 256 waiting requests, passes of at most 16 requests and 128
    /// rows, half a millisecond for company, and none for a request that is alone.
    ///
    /// With so many rows the products take the time, and reading the weights does
    /// not: larger passes gain some percent, and hold up who came first.
    fn default() -> Self {
        Self {
            max_waiting: 256,
            max_batch_requests: 16,
            max_batch_rows: 128,
            window: Duration::from_micros(500),
            lone_window: Duration::ZERO,
        }
    }
}

impl SchedulerConfig {
    pub(super) fn check(&self) -> Result<(), InferenceError> {
        let number = |name, allowed, range: RangeInclusive<usize>, value: usize| {
            if range.contains(&value) {
                return Ok(());
            }
            Err(InferenceError::InvalidOption {
                name,
                allowed,
                value: value.to_string(),
            })
        };
        number("max_waiting", "2 to 65536", 2..=65_536, self.max_waiting)?;
        let requests = self.max_batch_requests;
        number("max_batch_requests", "1 to 1024", 1..=1024, requests)?;
        let rows = self.max_batch_rows;
        number("max_batch_rows", "1 to 1048576", 1..=1_048_576, rows)?;
        for (name, window) in [("window", self.window), ("lone_window", self.lone_window)] {
            if window > MAX_WINDOW {
                return Err(InferenceError::InvalidOption {
                    name,
                    allowed: "at most 2 ms",
                    value: format!("{window:?}"),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_outside_its_range_is_named() {
        let check = |name: &str, change: &dyn Fn(&mut SchedulerConfig)| {
            let mut config = SchedulerConfig::default();
            assert!(config.check().is_ok());
            change(&mut config);
            let refused = config.check();
            assert!(
                matches!(&refused, Err(InferenceError::InvalidOption { name: named, .. }) if *named == name),
                "{refused:?}"
            );
        };
        check("max_waiting", &|config| config.max_waiting = 1);
        check("max_batch_requests", &|config| {
            config.max_batch_requests = 0
        });
        check("max_batch_rows", &|config| config.max_batch_rows = 0);
        check("window", &|config| {
            config.window = Duration::from_micros(2001)
        });
        check("lone_window", &|config| {
            config.lone_window = Duration::from_secs(1)
        });
    }
}
