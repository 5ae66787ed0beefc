//! Repeated measurements.

use std::time::{Duration, Instant};

/// The times of several runs, sorted.
#[derive(Clone, Debug)]
pub(crate) struct Sample(Vec<Duration>);

impl Sample {
    /// Runs `work` once to warm up, then `runs` times, at least once.
    pub(crate) fn of(
        runs: usize,
        mut work: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        work()?;
        let mut times = Vec::with_capacity(runs);
        for _ in 0..runs.max(1) {
            let started = Instant::now();
            work()?;
            times.push(started.elapsed());
        }
        times.sort();
        Ok(Self(times))
    }

    /// The time below which the given share of runs lies, `share` in `0..=100`.
    pub(crate) fn percentile(&self, share: usize) -> Duration {
        let last = self.0.len() - 1;
        self.0[(last * share).div_ceil(100).min(last)]
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    pub(crate) fn fastest(&self) -> Duration {
        self.0[0]
    }

    pub(crate) fn slowest(&self) -> Duration {
        self.0[self.0.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_in_order() {
        let sample = Sample((1..=20).map(Duration::from_millis).collect());
        assert_eq!(sample.fastest(), Duration::from_millis(1));
        assert_eq!(sample.median(), Duration::from_millis(11));
        assert_eq!(sample.percentile(95), Duration::from_millis(20));
        assert_eq!(sample.slowest(), Duration::from_millis(20));
    }

    #[test]
    fn the_warm_up_is_not_counted() {
        let mut calls = 0;
        let sample = Sample::of(3, || {
            calls += 1;
            Ok(())
        });
        assert_eq!((calls, sample.unwrap().0.len()), (4, 3));
    }
}
