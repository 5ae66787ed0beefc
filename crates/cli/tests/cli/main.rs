//! The binary through its arguments, inputs, outputs and exit codes.

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod classify;
#[cfg(test)]
mod feedback;
#[cfg(test)]
mod import;
#[cfg(test)]
mod learn;
#[cfg(test)]
mod support;
#[cfg(test)]
mod watch;
