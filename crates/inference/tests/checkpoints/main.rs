//! The golden model in other wrappings computes the same numbers.

mod directory;
mod golden;
mod split;
