//! The demo, on this kernel with the real models.

#[cfg(test)]
mod plays;
