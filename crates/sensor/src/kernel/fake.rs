//! A kernel made of queues.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use inwarden_types::BootTime;

use super::Kernel;
use crate::{
    SensorError,
    counters::{AllCounters, PROGRAMS, ProgramCounters},
};

/// What the test and the sensor share.
pub(crate) struct State {
    pub(crate) seeds: Vec<u8>,
    pub(crate) ring: VecDeque<Vec<u8>>,
    /// Appears in the ring at detach: what programs that still run write.
    pub(crate) late: Vec<Vec<u8>>,
    pub(crate) counters: ProgramCounters,
    pub(crate) now_ns: u64,
    pub(crate) detached: bool,
}

/// A kernel whose clock advances by every wait.
#[derive(Clone)]
pub(crate) struct FakeKernel(pub(crate) Arc<Mutex<State>>);

impl FakeKernel {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            seeds: Vec::new(),
            ring: VecDeque::new(),
            late: Vec::new(),
            counters: ProgramCounters::zero(PROGRAMS[0]),
            now_ns: 0,
            detached: false,
        })))
    }

    pub(crate) fn emit(&self, bytes: Vec<u8>) {
        let mut state = self.0.lock().unwrap();
        state.counters.seen += 1;
        state.counters.emitted += 1;
        state.ring.push_back(bytes);
    }
}

impl Kernel for FakeKernel {
    fn seeds(&mut self) -> Result<Vec<u8>, SensorError> {
        Ok(self.0.lock().unwrap().seeds.clone())
    }

    fn drain(&mut self, limit: usize, each: &mut dyn FnMut(&[u8])) -> usize {
        let mut state = self.0.lock().unwrap();
        let count = limit.min(state.ring.len());
        state.ring.drain(..count).for_each(|bytes| each(&bytes));
        count
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), SensorError> {
        let waited = u64::try_from(timeout.as_nanos()).unwrap();
        self.0.lock().unwrap().now_ns += waited;
        Ok(())
    }

    fn counters(&self) -> Result<AllCounters, SensorError> {
        let mut all = PROGRAMS.map(ProgramCounters::zero);
        all[0] = self.0.lock().unwrap().counters;
        Ok(all)
    }

    fn now(&self) -> BootTime {
        BootTime(self.0.lock().unwrap().now_ns)
    }

    fn detach(&mut self) -> Result<(), SensorError> {
        let mut state = self.0.lock().unwrap();
        state.detached = true;
        let late = std::mem::take(&mut state.late);
        for bytes in late {
            state.counters.seen += 1;
            state.counters.emitted += 1;
            state.ring.push_back(bytes);
        }
        Ok(())
    }
}
