//! Hidden states that are taken out of a pass on its way.

use std::ops::Range;

use candle_core::Tensor;

use super::finite;
use crate::error::InferenceError;

/// The mean of some rows' hidden states, taken after so many layers.
#[derive(Clone, Debug)]
pub(super) struct Tap {
    /// 0 is the embedding; the number of all layers means after the final norm.
    pub(super) n_layers: usize,
    /// Of what is seen there: all rows of the slab, or its wanted rows after the
    /// final norm.
    pub(super) rows: Range<usize>,
}

/// The taps of a pass, and what they have given so far.
#[derive(Default)]
pub(super) struct Taps {
    taps: Vec<Tap>,
    /// Each tap's place and its state, `(1, hidden_size)`.
    states: Vec<(usize, Tensor)>,
}

impl Taps {
    pub(super) fn new(taps: Vec<Tap>) -> Self {
        Self {
            taps,
            states: Vec::new(),
        }
    }

    /// Takes what is asked for after `n_layers` of `hidden`, `(n_rows,
    /// hidden_size)`. A state costs a launch or two, whatever else is in the pass.
    pub(super) fn take(&mut self, n_layers: usize, hidden: &Tensor) -> Result<(), InferenceError> {
        for (tap_idx, tap) in self.taps.iter().enumerate() {
            if tap.n_layers == n_layers {
                let rows = hidden.narrow(0, tap.rows.start, tap.rows.len())?;
                let state = match tap.rows.len() {
                    1 => rows,
                    _ => rows.mean_keepdim(0)?,
                };
                self.states.push((tap_idx, state));
            }
        }
        Ok(())
    }

    /// All states in the order of the taps, each `(hidden_size,)`; read back in
    /// one copy.
    pub(super) fn read(mut self) -> Result<Vec<Vec<f32>>, InferenceError> {
        if self.states.is_empty() {
            return Ok(Vec::new());
        }
        self.states.sort_by_key(|&(tap_idx, _)| tap_idx);
        let states: Vec<&Tensor> = self.states.iter().map(|(_, state)| state).collect();
        let states = Tensor::cat(&states, 0)?.to_vec2::<f32>()?;
        for state in &states {
            finite(state, "hidden states")?;
        }
        Ok(states)
    }
}
