//! Repeated measurements.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How often and how long a measurement is repeated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) runs: usize,
    /// No further run begins after this long.
    pub(crate) limit: Duration,
}

/// The values of several runs, in the order they were taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    values: Vec<f64>,
}

impl Sample {
    /// The values of `work`: run once to warm up, then as often as `effort`
    /// says, at least once.
    pub(crate) fn of(
        effort: &Effort,
        mut work: impl FnMut() -> anyhow::Result<f64>,
    ) -> anyhow::Result<Self> {
        work()?;
        let started = Instant::now();
        let mut sample = Self::default();
        for run in 0..effort.runs.max(1) {
            if run > 0 && started.elapsed() > effort.limit {
                break;
            }
            sample.push(work()?);
        }
        Ok(sample)
    }

    pub(crate) fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    /// The value below which the given share of runs lies, `share` in
    /// `0..=100`, the higher one between two runs; 0 without runs.
    pub(crate) fn percentile(&self, share: usize) -> f64 {
        let sorted = self.sorted();
        let Some(last) = sorted.len().checked_sub(1) else {
            return 0.0;
        };
        sorted[(last * share).div_ceil(100).min(last)]
    }

    /// The middle of the runs; of two in the middle the mean, so that neither
    /// side of a ratio gains by an even number of runs. 0 without runs.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let Some(last) = sorted.len().checked_sub(1) else {
            return 0.0;
        };
        f64::midpoint(sorted[last / 2], sorted[last.div_ceil(2)])
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    pub(crate) fn smallest(&self) -> f64 {
        self.percentile(0)
    }

    pub(crate) fn largest(&self) -> f64 {
        self.percentile(100)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Each run of `self` by the run of `other` that stands beside it.
    pub(crate) fn ratios(&self, other: &Self) -> Self {
        let pairs = self.values.iter().zip(&other.values);
        Self {
            values: pairs.map(|(ours, theirs)| ours / theirs).collect(),
        }
    }

    /// Median with the spread beside it.
    pub(crate) fn figures(&self) -> Value {
        json!({
            "p50": self.median(),
            "p95": self.percentile(95),
            "min": self.smallest(),
            "max": self.largest(),
            "runs": self.values.len(),
        })
    }
}

/// What `work` takes.
pub(crate) fn time_of<T>(
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(Duration, T)> {
    let started = Instant::now();
    let result = work()?;
    Ok((started.elapsed(), result))
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: impl IntoIterator<Item = u32>) -> Sample {
        Sample {
            values: values.into_iter().map(f64::from).collect(),
        }
    }

    #[test]
    fn percentiles_lie_in_order() {
        let sample = sample((1..=20).rev());
        assert_eq!(sample.smallest(), 1.0);
        assert_eq!(sample.median(), 10.5);
        assert_eq!(sample.percentile(95), 20.0);
        assert_eq!(sample.largest(), 20.0);
        assert_eq!(Sample::default().median(), 0.0);
    }

    #[test]
    fn the_warm_up_is_not_counted() {
        let mut calls = 0;
        let effort = Effort {
            runs: 3,
            limit: Duration::MAX,
        };
        let sample = Sample::of(&effort, || {
            calls += 1;
            Ok(f64::from(calls))
        });
        let values = sample.unwrap().values;
        assert_eq!((calls, values), (4, vec![2.0, 3.0, 4.0]));
    }

    #[test]
    fn no_run_begins_after_the_limit() {
        let effort = Effort {
            runs: 1000,
            limit: Duration::ZERO,
        };
        let sample = Sample::of(&effort, || {
            std::thread::sleep(Duration::from_millis(1));
            Ok(1.0)
        });
        assert_eq!(sample.unwrap().values.len(), 1);
    }

    #[test]
    fn ratios_are_taken_run_by_run() {
        let ratios = sample([2, 9]).ratios(&sample([1, 3]));
        assert_eq!(ratios.values, [2.0, 3.0]);
    }
}
