//! Loads the eBPF programs, reads the rings, keeps the process tree, decodes to events.
