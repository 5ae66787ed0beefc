//! One file a command.

pub(crate) mod classify;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod feedback;
pub(crate) mod import;
pub(crate) mod learn;
pub(crate) mod models;
pub(crate) mod replay;
pub(crate) mod watch;
