//! Recordings, golden-file helper and house-rule tests; a dev-dependency only.
