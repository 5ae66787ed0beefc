//! The programs on the kernel this runs on. Needs root; without it each test
//! says loudly that it was skipped, or fails if `INWARDEN_TEST_REAL=1`.

#[cfg(test)]
mod accounting;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod support;
