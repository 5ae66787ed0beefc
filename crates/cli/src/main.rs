//! `inwarden`: thin commands over the engine.
fn main() {}
