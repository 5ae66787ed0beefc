//! The report card: what was learnt from, and how well it tells attacks apart.

use std::{collections::BTreeMap, fmt};

use serde_json::{Value, json};

use super::scores::SetCard;
use crate::{
    head::{LearnRow, Separation, TriedHead},
    judge::Question,
};

const FORMAT: u32 = 1;
/// Families of each label that are printed; the JSON has all.
const SHOWN_FAMILIES: usize = 8;

/// How well what was learnt works, by cross-fitted scores.
#[derive(Clone, Debug)]
pub struct ReportCard {
    /// What was learnt to be answered.
    pub question: Question,
    /// The id of the model.
    pub model: String,
    /// [`crate::rows_hash`] of the rows.
    pub corpus: String,
    /// The parts that groups of rows were dealt to.
    pub n_folds: usize,
    /// Every way to read the hidden states that was tried, and the penalty.
    pub tried: Vec<TriedHead>,
    /// How well each signal does alone.
    pub signals: Vec<(&'static str, Separation)>,
    /// With head, with labels alone, without judge.
    pub sets: [SetCard; 3],
    /// By name.
    pub families: Vec<FamilyCount>,
}

/// The rows of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyCount {
    /// Its name.
    pub family: String,
    /// Attacks in it.
    pub malicious: usize,
    /// Attacks that score at least the malicious threshold, with head.
    pub found: usize,
    /// Ordinary rows in it.
    pub benign: usize,
    /// Ordinary rows that score as much.
    pub alarms: usize,
}

/// Counts the families of `rows`, of which `is_flagged` says which are above the
/// threshold.
pub(super) fn families_of(rows: &[LearnRow], is_flagged: &[bool]) -> Vec<FamilyCount> {
    let mut families: BTreeMap<&str, FamilyCount> = BTreeMap::new();
    for (row, is_flagged) in rows.iter().zip(is_flagged) {
        let count = families.entry(&row.family).or_insert_with(|| FamilyCount {
            family: row.family.clone(),
            malicious: 0,
            found: 0,
            benign: 0,
            alarms: 0,
        });
        let (all, flagged) = match row.malicious {
            true => (&mut count.malicious, &mut count.found),
            false => (&mut count.benign, &mut count.alarms),
        };
        *all += 1;
        *flagged += usize::from(*is_flagged);
    }
    families.into_values().collect()
}

impl ReportCard {
    /// Attacks that were learnt from.
    #[must_use]
    pub fn n_malicious(&self) -> usize {
        self.families.iter().map(|family| family.malicious).sum()
    }

    /// Ordinary rows that were learnt from.
    #[must_use]
    pub fn n_benign(&self) -> usize {
        self.families.iter().map(|family| family.benign).sum()
    }

    /// The card as JSON, format 1.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let separation = |of: &Separation| {
            json!({
                "auc": of.auc,
                "recall_at_1": of.recall_at_1,
                "recall_at_3": of.recall_at_3,
            })
        };
        let tried = self.tried.iter().map(|tried| {
            let positions = tried.choice.positions.iter().map(|at| at.name());
            json!({
                "positions": positions.collect::<Vec<_>>(),
                "layers": tried.choice.layers,
                "penalty": tried.penalty,
                "separation": separation(&tried.separation),
            })
        });
        let signals = self.signals.iter();
        let signals = signals.map(|(name, of)| ((*name).to_owned(), separation(of)));
        let sets = self.sets.iter().map(|set| {
            let card = json!({
                "separation": separation(&set.separation),
                "malicious_threshold": set.malicious_threshold,
                "benign_threshold": set.benign_threshold,
                "recall": set.recall,
                "false_positive_rate": set.false_positive_rate,
                "missed": set.missed,
                "calibration_error": set.calibration_error,
            });
            (set.name.replace(' ', "_"), card)
        });
        let families = self.families.iter().map(|family| {
            json!({
                "family": family.family,
                "malicious": family.malicious,
                "found": family.found,
                "benign": family.benign,
                "alarms": family.alarms,
            })
        });
        json!({
            "format": FORMAT,
            "question": self.question.name(),
            "model": self.model,
            "corpus": self.corpus,
            "folds": self.n_folds,
            "rows": { "malicious": self.n_malicious(), "benign": self.n_benign() },
            "heads": tried.collect::<Vec<_>>(),
            "signals": signals.collect::<serde_json::Map<_, _>>(),
            "sets": sets.collect::<serde_json::Map<_, _>>(),
            "families": families.collect::<Vec<_>>(),
        })
    }

    fn write_families(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
        let mut missed: Vec<&FamilyCount> = self.families.iter().collect();
        missed.retain(|family| family.found < family.malicious);
        missed.sort_by(|a, b| share(a.found, a.malicious).total_cmp(&share(b.found, b.malicious)));
        let mut alarmed: Vec<&FamilyCount> = self.families.iter().collect();
        alarmed.retain(|family| family.alarms > 0);
        alarmed.sort_by_key(|family| std::cmp::Reverse(family.alarms));
        for family in missed.into_iter().take(SHOWN_FAMILIES) {
            let (found, of) = (family.found, family.malicious);
            writeln!(
                f,
                "  found {found} of {of} attacks of {}",
                printable(&family.family)
            )?;
        }
        for family in alarmed.into_iter().take(SHOWN_FAMILIES) {
            let (alarms, of) = (family.alarms, family.benign);
            writeln!(
                f,
                "  {alarms} of {of} ordinary {} called malicious",
                printable(&family.family)
            )?;
        }
        Ok(())
    }
}

/// A name that whoever wrote the rows chose.
fn printable(name: &str) -> String {
    let shown = name.chars().take(60);
    shown
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

impl fmt::Display for ReportCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} for {}: {} attacks, {} ordinary rows, {} families, {} folds",
            self.question.name(),
            self.model,
            self.n_malicious(),
            self.n_benign(),
            self.families.len(),
            self.n_folds
        )?;
        let mut row = |name: &str, of: &Separation| {
            writeln!(
                f,
                "  {name}: AUC {:.4}, recall {:.3} at 1 %, {:.3} at 3 %",
                of.auc, of.recall_at_1, of.recall_at_3
            )
        };
        for tried in &self.tried {
            let positions: Vec<&str> = tried.choice.positions.iter().map(|at| at.name()).collect();
            let name = format!(
                "head on {} of layers {:?}, penalty {}",
                positions.join(","),
                tried.choice.layers,
                tried.penalty
            );
            row(&name, &tried.separation)?;
        }
        for (name, separation) in &self.signals {
            row(&format!("{name} alone"), separation)?;
        }
        for set in &self.sets {
            row(set.name, &set.separation)?;
        }
        for set in &self.sets {
            writeln!(
                f,
                "  {}: malicious from {:.3}: recall {:.3}, false positives {:.4}; \
                 benign up to {:.3}: {:.3} of attacks; calibration error {:.3}",
                set.name,
                set.malicious_threshold,
                set.recall,
                set.false_positive_rate,
                set.benign_threshold,
                set.missed,
                set.calibration_error
            )?;
        }
        self.write_families(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_rows;

    #[test]
    fn families_count_what_was_found_and_what_was_called_malicious() {
        let row = |id: &str, label: &str, family: &str| {
            format!(r#"{{"id":"{id}","label":"{label}","family":"{family}","argv":["{id}"]}}"#)
        };
        let text = [
            row("a", "malicious", "f"),
            row("b", "benign", "f"),
            row("c", "malicious", "f"),
            row("d", "benign", "g"),
        ];
        let rows = read_rows("rows", &text.join("\n")).unwrap();
        let families = families_of(&rows, &[true, true, false, false]);
        assert_eq!(families.len(), 2);
        let FamilyCount {
            malicious,
            found,
            benign,
            alarms,
            ..
        } = families[0];
        assert_eq!((malicious, found, benign, alarms), (2, 1, 1, 1));
        assert_eq!((families[1].benign, families[1].alarms), (1, 0));
        assert_eq!(printable("a\u{1b}[31m"), "a?[31m");
    }
}
