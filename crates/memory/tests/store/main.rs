//! The store through its public interface: the real engine, real files, a real
//! search; only the embedder is a small one. One binary, because linking the
//! engine is what takes the time.

// `cfg(test)` always holds here; it tells clippy that these are tests.
#[cfg(test)]
mod durability;
#[cfg(test)]
mod formats;
#[cfg(test)]
mod indexing;
#[cfg(test)]
mod killing;
#[cfg(test)]
mod opening;
#[cfg(test)]
mod retrieval;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod support;
#[cfg(test)]
mod transfer;
