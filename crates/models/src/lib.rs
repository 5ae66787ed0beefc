//! Finds, fetches, checks and caches model files by id.
