//! Case to calibrated verdict: screen, precedents, judge.
