//! A small trained model on the language model's hidden states.
//!
//! The states come out of the pass that scores the labels. `states.rs` computes
//! and keeps those of many texts, `logistic.rs` fits, `windows.rs` where a text has
//! several states of which one counts.

mod logistic;
mod rows;
mod states;
mod trained;
mod training;
mod windows;

pub(crate) use logistic::{minimise, softplus};
pub use rows::{LearnRow, LearnSource, read_rows, rows_hash};
pub use states::{Position, StateChoice, StateStore, TextStates};
pub use trained::{Head, HeadError, HeadOrigin};
pub(crate) use training::in_parallel;
pub use training::{Separation, TrainedHead, TriedHead, folds_of, train_head};
