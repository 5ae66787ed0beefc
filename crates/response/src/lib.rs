//! Carries an action out and proves it.
