//! Stores precedents and documents and returns the top-k with provenance.
