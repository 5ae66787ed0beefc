//! What a case remembers, bounded.

use std::collections::{BTreeMap, VecDeque};

use sha2::{Digest as _, Sha256};

use super::secrets::SecretKind;
use crate::reading::normalised;

/// Files that are remembered as written.
const MAX_WRITTEN: usize = 128;
/// Places and questions that are told apart.
const MAX_DISTINCT: usize = 16;
/// How long reading a secret, or a question, counts: seconds of event time.
const MEMORY_S: u64 = 3_600;
const BURST_S: u64 = 120;

/// What the events of one case add up to. Texts are kept as hashes: paths of a flood
/// would fill memory otherwise.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// When the last secret of a kind was read.
    secrets: BTreeMap<SecretKind, u64>,
    written: VecDeque<u64>,
    persistence: Vec<u64>,
    questions: VecDeque<(u64, u64)>,
    /// Something was fetched from a bare address.
    pub(super) raw_fetch: bool,
    /// How much a text that a tool gave spoke like an instruction, `0.0..=1.0`.
    pub(super) instructed: f64,
    /// The highest log-odds of an own verdict so far.
    pub(super) suspicion: f64,
    pub(super) counters: CaseCounters,
}

/// What happened in one case so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaseCounters {
    /// Verdicts malicious.
    pub malicious: u64,
    /// Verdicts undetermined.
    pub undetermined: u64,
    /// Calls and operations that were refused.
    pub denied: u64,
    /// Processes that were killed.
    pub killed: u64,
}

impl Facts {
    pub(super) fn read_secret(&mut self, kind: SecretKind, now_ns: u64) {
        let at = self.secrets.entry(kind).or_default();
        *at = (*at).max(now_ns);
    }

    /// Whether a secret was read not too long ago; a clock that goes backwards makes
    /// nothing old.
    pub(super) fn knows_secret(&self, now_ns: u64) -> bool {
        self.kinds_of_secrets(now_ns) > 0
    }

    pub(super) fn kinds_of_secrets(&self, now_ns: u64) -> usize {
        let recent = |at: &&u64| now_ns.saturating_sub(**at) <= MEMORY_S * 1_000_000_000;
        self.secrets.values().filter(recent).count()
    }

    pub(super) fn wrote(&mut self, path: &str) {
        let hash = path_hash(path);
        if self.written.contains(&hash) {
            return;
        }
        if self.written.len() == MAX_WRITTEN {
            self.written.pop_front();
        }
        self.written.push_back(hash);
    }

    pub(super) fn has_written(&self, path: &str) -> bool {
        self.written.contains(&path_hash(path))
    }

    /// Remembers a place and says how many there are.
    pub(super) fn persisted(&mut self, path: &str) -> usize {
        let hash = path_hash(path);
        if !self.persistence.contains(&hash) && self.persistence.len() < MAX_DISTINCT {
            self.persistence.push(hash);
        }
        self.persistence.len()
    }

    /// Remembers a question about the machine and says how many different ones were
    /// asked in short time.
    pub(super) fn asked(&mut self, program: &str, now_ns: u64) -> usize {
        let hash = path_hash(program);
        self.questions.retain(|(known, at)| {
            *known != hash && now_ns.saturating_sub(*at) <= BURST_S * 1_000_000_000
        });
        if self.questions.len() == MAX_DISTINCT {
            self.questions.pop_front();
        }
        self.questions.push_back((hash, now_ns));
        self.questions.len()
    }
}

pub(super) fn path_hash(path: &str) -> u64 {
    let digest = Sha256::digest(normalised(path));
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_flood_of_paths_keeps_the_newest_and_stays_small() {
        let mut facts = Facts::default();
        for number in 0..1_000 {
            facts.wrote(&format!("/tmp/{number}"));
            facts.persisted(&format!("/etc/cron.d/{number}"));
            facts.asked(&format!("q{number}"), 0);
        }
        assert!(facts.has_written("/tmp/999") && facts.has_written("/tmp/./999"));
        assert!(!facts.has_written("/tmp/1"));
        assert_eq!(facts.written.len(), MAX_WRITTEN);
        assert_eq!(facts.persistence.len(), MAX_DISTINCT);
        assert_eq!(facts.questions.len(), MAX_DISTINCT);
    }

    #[test]
    fn secrets_and_questions_grow_old_and_a_backward_clock_ages_nothing() {
        let mut facts = Facts::default();
        facts.read_secret(SecretKind::Ssh, 10 * S);
        assert!(facts.knows_secret(0) && facts.knows_secret(3_610 * S));
        assert!(!facts.knows_secret(3_611 * S));
        assert_eq!(facts.asked("id", 0), 1);
        assert_eq!(facts.asked("uname", S), 2);
        assert_eq!(facts.asked("id", 2 * S), 2);
        assert_eq!(facts.asked("ps", 500 * S), 1);
    }
}
