//! Event formats: recordings and event JSON in both directions.
