//! Reads what a play left behind.

use std::{io::Read, path::Path};

use super::{Observation, ObservationKind};

/// The most that is read of one file, in bytes; a scene is not ours.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What a file said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Observed {
    /// Nothing: the file or the canary is not there, which proves nothing.
    Missing,
    /// Whether the canary stands in it.
    Canary(bool),
    /// How many lines it has.
    Lines(u64),
    /// Whether it runs from 1 to the expected number without a gap, and where
    /// it ended.
    Sequence { complete: bool, last: u64 },
}

impl Observed {
    /// In words.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Missing => "NOT OBSERVED: the file is missing".to_owned(),
            Self::Canary(true) => "yes".to_owned(),
            Self::Canary(false) => "no".to_owned(),
            Self::Lines(count) => count.to_string(),
            Self::Sequence {
                complete: true,
                last,
            } => format!("1 to {last}, no gap"),
            Self::Sequence { last, .. } => format!("BROKEN, ends at {last}"),
        }
    }
}

/// Reads `observation` from `state`.
pub(crate) fn observe(observation: &Observation, state: &Path) -> Observed {
    let Ok(text) = read_capped(&state.join(&observation.file)) else {
        return Observed::Missing;
    };
    match observation.kind {
        ObservationKind::ContainsCanary => match read_capped(&state.join("canary")) {
            Ok(canary) if !canary.trim().is_empty() => {
                Observed::Canary(text.contains(canary.trim()))
            }
            _ => Observed::Missing,
        },
        ObservationKind::CountLines => {
            let counted = match &observation.after {
                None => text.lines().count(),
                Some(marker) => text
                    .lines()
                    .skip_while(|line| !line.contains(marker))
                    .skip(1)
                    .count(),
            };
            Observed::Lines(counted as u64)
        }
        ObservationKind::Sequence => sequence(&text, observation.expected),
    }
}

fn sequence(text: &str, expected: Option<u64>) -> Observed {
    let mut last = 0;
    let mut gap = false;
    for line in text.lines() {
        let number = line.split_whitespace().next().and_then(|n| n.parse().ok());
        match number {
            Some(number) if number == last + 1 => last = number,
            _ => gap = true,
        }
    }
    Observed::Sequence {
        complete: !gap && last > 0 && expected.is_none_or(|expected| last == expected),
        last,
    }
}

fn read_capped(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<u64>, complete: bool, last: u64) {
        assert_eq!(
            sequence(text, expected),
            Observed::Sequence { complete, last }
        );
    }

    #[test]
    fn a_sequence_is_complete_only_without_a_gap_and_at_its_end() {
        check("1 a\n2 b\n3 c\n", Some(3), true, 3);
        check("1\n3\n", Some(3), false, 1);
        check("1\n2\n", Some(3), false, 2);
        check("", None, false, 0);
    }
}
