//! Learning: from labelled rows to a head, a model of the words and weights.
//!
//! `corpus.rs` brings the shipped rows, `extract.rs` the model's hidden states,
//! which takes all the time, `fit.rs` fits, `card.rs` says how well, `set.rs` keeps
//! what was learnt in a directory and reads it back.
//!
//! Everything that is reported is cross-fitted: the score of a row comes from head,
//! words and weights that were fitted without the rows of its group. The choice
//! among heads and the thresholds are made on the scores they are reported for.

mod card;
mod corpus;
mod extract;
mod fit;
mod scores;
mod set;

pub use card::{FamilyCount, ReportCard};
pub use corpus::{distinct_rows, ordinary_exec, recorded_family, shipped_corpus};
pub use extract::{Extraction, extract_states, kept_states};
pub use fit::{LearnTask, LearnedParts, LearnedWeights, learn};
pub use scores::SetCard;
pub use set::{LearnedError, LearnedOrigin, LearnedSet};
