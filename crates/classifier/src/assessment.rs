//! What the stages found out about one case, and the words for it.

use inwarden_memory::PrecedentHit;
use inwarden_types::{
    Evidence, Label, Provenance, Score, SettledBy, SourceKind, StageTimes, Technique,
    UndeterminedReason, Verdict,
};

use crate::{Signals, fusion::Shares, reading::INDICATORS, screen::ScreenHit};

/// Precedents that are named as evidence.
const MAX_NAMED_PRECEDENTS: usize = 3;

#[derive(Debug)]
pub(crate) struct Assessment {
    pub(crate) signals: Signals,
    /// Strongest first.
    pub(crate) rule_hits: Vec<ScreenHit>,
    /// Nearest first.
    pub(crate) precedent_hits: Vec<PrecedentHit>,
    pub(crate) settling_precedent: Option<String>,
    /// Why a fast stage has no answer, if one has none.
    pub(crate) failure: Option<UndeterminedReason>,
    /// Whether a part of the case's text was not read.
    pub(crate) incomplete: bool,
    /// Whether the program may be taken for the one its name says.
    pub(crate) known_program: bool,
    pub(crate) stages: StageTimes,
    /// The identity of the judge that answered.
    pub(crate) judge: Option<String>,
}

impl Assessment {
    /// The verdict if a rule or a precedent settles the case.
    ///
    /// A benign precedent settles only if neither a rule nor an indicator speaks
    /// against it, all of the case was read, and the program is no other than the
    /// precedent's by its place.
    pub(crate) fn settle(&self, settled_log_odds: f64) -> Option<Verdict> {
        if let Some(rule) = self.rule_hits.first().filter(|hit| hit.settles()) {
            let by = SettledBy::Rule(rule.rule_id.clone());
            let technique = rule.technique.clone();
            return Some(self.settled(Label::Malicious, by, technique, settled_log_odds));
        }
        let id = self.settling_precedent.as_ref()?;
        let hit = self
            .precedent_hits
            .iter()
            .find(|hit| hit.precedent.id == *id)?;
        let by = SettledBy::Precedent(id.clone());
        match hit.precedent.label {
            Label::Malicious => {
                let technique = hit.precedent.technique.clone();
                Some(self.settled(Label::Malicious, by, technique, settled_log_odds))
            }
            Label::Benign if self.is_quiet() && !self.incomplete && self.known_program => {
                Some(self.settled(Label::Benign, by, None, -settled_log_odds))
            }
            Label::Benign | Label::Undetermined => None,
        }
    }

    fn is_quiet(&self) -> bool {
        self.rule_hits.is_empty() && !self.signals.indicators.contains(&true)
    }

    fn settled(
        &self,
        label: Label,
        by: SettledBy,
        technique: Option<Technique>,
        log_odds: f64,
    ) -> Verdict {
        // All evidence is named; what settled carries the whole score.
        let mut evidence = self.evidence(&Shares::default());
        let settling = by.source_id().unwrap_or_default().to_owned();
        if let Some(idx) = evidence
            .iter()
            .position(|item| item.provenance.source_id == settling)
        {
            evidence[idx].log_odds = log_odds;
            evidence[..=idx].rotate_right(1);
        }
        Verdict {
            label,
            score: Score::from_log_odds(log_odds),
            technique,
            settled_by: by,
            undetermined: None,
            evidence,
            stages: self.stages.clone(),
        }
    }

    /// The reasons with their share in the log-odds, strongest first; a share that
    /// is missing counts as zero.
    pub(crate) fn evidence(&self, shares: &Shares) -> Vec<Evidence> {
        let mut evidence = Vec::new();
        if let Some(judge) = &self.judge {
            evidence.push(Evidence {
                provenance: origin(SourceKind::Model, judge, ""),
                log_odds: shares.model,
                summary: "the language model's reading of the case".to_owned(),
            });
        }
        if shares.terms != 0.0 {
            evidence.push(Evidence {
                provenance: origin(SourceKind::Rule, "terms", env!("CARGO_PKG_VERSION")),
                log_odds: shares.terms,
                summary: "the words of the command".to_owned(),
            });
        }
        let total: f64 = self.named_precedents().map(|hit| hit.score.max(0.0)).sum();
        for hit in self.named_precedents() {
            let label = hit.precedent.label.name();
            let part = if total > 0.0 {
                hit.score.max(0.0) / total
            } else {
                0.0
            };
            evidence.push(Evidence {
                provenance: hit.provenance.clone(),
                log_odds: shares.vote * part,
                summary: format!("resembles a {label} precedent"),
            });
        }
        // Only the strongest of those that do not settle is weighed.
        let weighed = self.rule_hits.iter().position(|hit| !hit.settles());
        for (idx, hit) in self.rule_hits.iter().enumerate() {
            evidence.push(Evidence {
                provenance: origin(SourceKind::Rule, &hit.rule_id, ""),
                log_odds: if weighed == Some(idx) {
                    shares.rule
                } else {
                    0.0
                },
                summary: hit.title.clone(),
            });
        }
        // The features are weighed together, so what explains them shares alike.
        let shown = self.signals.indicators.iter().filter(|seen| **seen).count();
        let of_each = shares.features / shown.max(1) as f64;
        if shown == 0 && shares.features != 0.0 {
            evidence.push(Evidence {
                provenance: origin(SourceKind::Rule, "features", env!("CARGO_PKG_VERSION")),
                log_odds: shares.features,
                summary: "what the reading of the command shows".to_owned(),
            });
        }
        for (idx, indicator) in INDICATORS.iter().enumerate() {
            if self.signals.indicators.get(idx) == Some(&true) {
                evidence.push(Evidence {
                    provenance: origin(
                        SourceKind::Rule,
                        &format!("indicator:{}", indicator.name),
                        env!("CARGO_PKG_VERSION"),
                    ),
                    log_odds: of_each,
                    summary: indicator.summary.to_owned(),
                });
            }
        }
        evidence.sort_by(|a, b| {
            b.log_odds
                .abs()
                .total_cmp(&a.log_odds.abs())
                .then_with(|| a.provenance.source_id.cmp(&b.provenance.source_id))
        });
        evidence
    }

    /// The likeliest technique: of the strongest rule, else of the first indicator
    /// (the table is ordered from specific to general), else of the nearest
    /// malicious precedent.
    pub(crate) fn technique(&self) -> Option<Technique> {
        if let Some(technique) = self.rule_hits.iter().find_map(|hit| hit.technique.clone()) {
            return Some(technique);
        }
        let mut indicators = INDICATORS.iter().zip(&self.signals.indicators);
        if let Some((indicator, _)) = indicators.find(|(_, seen)| **seen) {
            return Some(Technique(indicator.technique.to_owned()));
        }
        self.precedent_hits
            .iter()
            .find(|hit| hit.precedent.label == Label::Malicious)
            .and_then(|hit| hit.precedent.technique.clone())
    }

    fn named_precedents(&self) -> impl Iterator<Item = &PrecedentHit> {
        self.precedent_hits.iter().take(MAX_NAMED_PRECEDENTS)
    }
}

fn origin(kind: SourceKind, source_id: &str, version: &str) -> Provenance {
    Provenance {
        kind,
        source_id: source_id.to_owned(),
        version: version.to_owned(),
        observed: None,
        span: None,
        score: None,
    }
}
