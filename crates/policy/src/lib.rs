//! A pure function from event, verdict and scope to a decision; Cedar lives here.
