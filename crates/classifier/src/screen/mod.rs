//! The screen: Sigma rules, evaluated in microseconds.
//!
//! Rules are evaluated by `rsigma-eval`. A rule of our own shipped set with
//! level `high` or `critical` settles a case alone; every other hit is evidence.
//! Rules for other log sources, correlation rules and filters are left out and
//! counted: this screen sees one event at a time.

mod fields;
mod notes;
mod shipped;
mod tool_text;

use std::collections::{BTreeMap, BTreeSet};

use inwarden_types::{Case, Technique};
use rsigma_eval::Engine;
use rsigma_parser::{Level, LogSource, SigmaRule, parse_sigma_yaml};
use sha2::{Digest as _, Sha256};

pub(crate) use fields::{field_values, is_cut};
pub use notes::{RuleNote, rule_notes};
pub(crate) use tool_text::command_of;

use crate::ClassifierError;

/// The most bytes of one rule file.
const MAX_RULE_FILE_BYTES: usize = 256 * 1024;
/// The most rules of a set.
const MAX_RULES: usize = 10_000;

/// A rule file as its owner read it.
#[derive(Clone, Copy, Debug)]
pub struct RuleSource<'a> {
    /// Names the file in errors.
    pub name: &'a str,
    /// Sigma YAML, one or more documents.
    pub text: &'a str,
}

/// Compiled rules.
pub struct RuleSet {
    engine: Engine,
    shipped_ids: BTreeSet<String>,
    left_out: BTreeMap<&'static str, usize>,
    content_hash: [u8; 32],
}

/// A rule that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScreenHit {
    pub(crate) rule_id: String,
    pub(crate) title: String,
    /// 0 (informational or none) to 4 (critical).
    pub(crate) level: u8,
    pub(crate) technique: Option<Technique>,
    /// Whether it is one of ours.
    pub(crate) shipped: bool,
}

impl ScreenHit {
    /// That a program start buries the text it runs, which no text rule can say.
    pub(crate) fn buried_text() -> Self {
        Self {
            rule_id: "buried-program-text".to_owned(),
            title: "Program text behind many encodings".to_owned(),
            level: 3,
            technique: Some(Technique("T1027".to_owned())),
            shipped: true,
        }
    }

    /// Whether it settles a case alone.
    pub(crate) fn settles(&self) -> bool {
        self.shipped && self.level >= 3
    }
}

impl RuleSet {
    /// The rules that come with this crate.
    ///
    /// # Errors
    /// As [`RuleSet::shipped_with`]; a test makes sure that there are none.
    pub fn shipped() -> Result<Self, ClassifierError> {
        Self::shipped_with(&[])
    }

    /// The shipped rules and `sources`, whose hits are evidence and settle nothing.
    ///
    /// # Errors
    /// [`ClassifierError::RuleFile`], [`ClassifierError::RuleFileTooLarge`] and
    /// [`ClassifierError::DuplicateRule`] name the file;
    /// [`ClassifierError::TooManyRules`] if all together are too many.
    pub fn shipped_with(sources: &[RuleSource<'_>]) -> Result<Self, ClassifierError> {
        Self::build(shipped::RULES, sources)
    }

    /// Only `sources`, whose hits are evidence and settle nothing.
    ///
    /// # Errors
    /// As [`RuleSet::shipped_with`].
    pub fn only(sources: &[RuleSource<'_>]) -> Result<Self, ClassifierError> {
        Self::build(&[], sources)
    }

    fn build(
        shipped: &[RuleSource<'_>],
        sources: &[RuleSource<'_>],
    ) -> Result<Self, ClassifierError> {
        let mut ids = BTreeSet::new();
        let mut shipped_ids = BTreeSet::new();
        let mut left_out = BTreeMap::new();
        let mut rules = Vec::new();
        let mut hasher = Sha256::new();
        for (idx, source) in shipped.iter().chain(sources).enumerate() {
            for rule in parse(source, &mut left_out)? {
                let id = rule.id.clone().ok_or_else(|| ClassifierError::RuleFile {
                    file: source.name.to_owned(),
                    problem: format!("rule \"{}\" has no id", rule.title),
                })?;
                if !ids.insert(id.clone()) {
                    return Err(ClassifierError::DuplicateRule {
                        file: source.name.to_owned(),
                        id,
                    });
                }
                if idx < shipped.len() {
                    shipped_ids.insert(id);
                }
                rules.push((source.name, rule));
            }
            hasher.update((source.text.len() as u64).to_le_bytes());
            hasher.update(source.text);
            hasher.update([u8::from(idx < shipped.len())]);
        }
        if rules.len() > MAX_RULES {
            return Err(ClassifierError::TooManyRules {
                max_rules: MAX_RULES,
            });
        }
        let mut engine = Engine::new();
        let errors = engine.add_rules(rules.iter().map(|(_, rule)| rule));
        if let Some((idx, error)) = errors.first() {
            return Err(ClassifierError::RuleFile {
                file: rules
                    .get(*idx)
                    .map_or_else(String::new, |(name, _)| (*name).to_owned()),
                problem: error.to_string(),
            });
        }
        Ok(Self {
            engine,
            shipped_ids,
            left_out,
            content_hash: hasher.finalize().into(),
        })
    }

    /// How many rules are evaluated.
    #[must_use]
    pub fn len(&self) -> usize {
        self.engine.rule_count()
    }

    /// Whether no rule is evaluated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many rules were left out, by reason: `other log source`,
    /// `correlation rule`, `filter`.
    #[must_use]
    pub fn left_out(&self) -> &BTreeMap<&'static str, usize> {
        &self.left_out
    }

    pub(crate) fn content_hash(&self) -> &[u8; 32] {
        &self.content_hash
    }

    /// The rules that match the case's last event, strongest first, then by id.
    pub(crate) fn screen(&self, case: &Case) -> Vec<ScreenHit> {
        let Some(fields) = field_values(case.last()) else {
            return Vec::new();
        };
        let mut hits: Vec<ScreenHit> = self
            .engine
            .evaluate(&rsigma_eval::MapEvent::new(fields))
            .into_iter()
            .map(|result| {
                let header = result.header;
                let rule_id = header.rule_id.unwrap_or_default();
                ScreenHit {
                    shipped: self.shipped_ids.contains(&rule_id),
                    rule_id,
                    title: header.rule_title,
                    level: level_number(header.level),
                    technique: technique_of(&header.tags),
                }
            })
            .collect();
        hits.sort_by(|a, b| {
            (b.settles(), b.level, &a.rule_id).cmp(&(a.settles(), a.level, &b.rule_id))
        });
        hits
    }
}

impl std::fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleSet")
            .field("rules", &self.len())
            .field("left_out", &self.left_out)
            .finish_non_exhaustive()
    }
}

fn parse(
    source: &RuleSource<'_>,
    left_out: &mut BTreeMap<&'static str, usize>,
) -> Result<Vec<SigmaRule>, ClassifierError> {
    if source.text.len() > MAX_RULE_FILE_BYTES {
        return Err(ClassifierError::RuleFileTooLarge {
            file: source.name.to_owned(),
            bytes: source.text.len(),
            max_bytes: MAX_RULE_FILE_BYTES,
        });
    }
    let problem = |problem: String| ClassifierError::RuleFile {
        file: source.name.to_owned(),
        problem,
    };
    let collection = parse_sigma_yaml(source.text).map_err(|error| problem(error.to_string()))?;
    if let Some(error) = collection.errors.first() {
        return Err(problem(error.clone()));
    }
    let mut count = |reason, n| {
        if n > 0 {
            *left_out.entry(reason).or_insert(0) += n;
        }
    };
    count("correlation rule", collection.correlations.len());
    count("filter", collection.filters.len());
    let n_rules = collection.rules.len();
    let rules: Vec<SigmaRule> = collection
        .rules
        .into_iter()
        .filter(|rule| fits(&rule.logsource))
        .collect();
    count("other log source", n_rules - rules.len());
    Ok(rules)
}

/// Whether rules of a log source speak about executions on Linux.
fn fits(source: &LogSource) -> bool {
    source
        .product
        .as_deref()
        .is_none_or(|product| product == "linux")
        && source
            .category
            .as_deref()
            .is_none_or(|category| category == "process_creation")
        && source.service.is_none()
}

fn level_number(level: Option<Level>) -> u8 {
    match level {
        None | Some(Level::Informational) => 0,
        Some(Level::Low) => 1,
        Some(Level::Medium) => 2,
        Some(Level::High) => 3,
        Some(Level::Critical) => 4,
    }
}

/// The technique of the first tag like `attack.t1059.004`.
fn technique_of(tags: &[String]) -> Option<Technique> {
    tags.iter().find_map(|tag| {
        let id = tag.to_lowercase().strip_prefix("attack.t")?.to_owned();
        id.starts_with(|c: char| c.is_ascii_digit())
            .then(|| Technique(format!("T{id}")))
    })
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "rule_tests.rs"]
mod rule_tests;
