//! What Sigma rules say about what they detect, for people and for retrieval.

use std::collections::BTreeMap;

use inwarden_types::Technique;
use rsigma_parser::parse_sigma_yaml;

use super::{MAX_RULE_FILE_BYTES, RuleSource, technique_of};
use crate::ClassifierError;

/// The longest title, tag or name of a log source, in bytes.
const MAX_NAME_BYTES: usize = 256;
/// The longest description, in bytes.
const MAX_DESCRIPTION_BYTES: usize = 16 * 1024;
/// The most tags of a rule.
const MAX_TAGS: usize = 64;

/// What a rule is about; what it looks for is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleNote {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// What it is called.
    pub title: String,
    /// What it detects.
    pub description: String,
    /// `informational` to `critical`; none if the rule names none.
    pub level: Option<&'static str>,
    /// Its tags, as they are written.
    pub tags: Vec<String>,
    /// The technique of its first tag that names one.
    pub technique: Option<Technique>,
    /// Product, category and service it is for, as far as it names them.
    pub log_source: Vec<String>,
}

/// Reads the notes of one file of Sigma rules, for any log source; rules and documents
/// that give none are counted by reason in `left_out`.
///
/// # Errors
/// [`ClassifierError::RuleFileTooLarge`]; [`ClassifierError::RuleFile`] if it is no
/// YAML.
pub fn rule_notes(
    source: &RuleSource<'_>,
    left_out: &mut BTreeMap<&'static str, u64>,
) -> Result<Vec<RuleNote>, ClassifierError> {
    if source.text.len() > MAX_RULE_FILE_BYTES {
        return Err(ClassifierError::RuleFileTooLarge {
            file: source.name.to_owned(),
            bytes: source.text.len(),
            max_bytes: MAX_RULE_FILE_BYTES,
        });
    }
    let collection = parse_sigma_yaml(source.text).map_err(|error| ClassifierError::RuleFile {
        file: source.name.to_owned(),
        problem: error.to_string(),
    })?;
    let mut count = |reason, n: usize| {
        if n > 0 {
            *left_out.entry(reason).or_default() += n as u64;
        }
    };
    count("malformed rule", collection.errors.len());
    count("correlation rule", collection.correlations.len());
    count("filter", collection.filters.len());
    let mut notes = Vec::new();
    for rule in collection.rules {
        let description = rule.description.unwrap_or_default().trim().to_owned();
        let title = rule.title.trim().to_owned();
        let is_long = title.len() > MAX_NAME_BYTES
            || description.len() > MAX_DESCRIPTION_BYTES
            || rule.tags.len() > MAX_TAGS
            || rule.tags.iter().any(|tag| tag.len() > MAX_NAME_BYTES);
        if is_long {
            count("a text is too long", 1);
            continue;
        }
        if title.is_empty() || description.is_empty() {
            count("without a title or description", 1);
            continue;
        }
        let source = rule.logsource;
        let named = [source.product, source.category, source.service];
        notes.push(RuleNote {
            id: rule.id.filter(|id| !id.is_empty()),
            title,
            description,
            level: rule.level.map(|level| level.as_str()),
            technique: technique_of(&rule.tags),
            tags: rule.tags,
            log_source: named
                .into_iter()
                .flatten()
                .filter(|name| name.len() <= MAX_NAME_BYTES)
                .collect(),
        });
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::shipped::RULES;

    const RULE: &str = "title: A title\nid: r1\ndescription: >\n  Two\n  lines\ntags:\n  - attack.execution\n  - attack.T1059.004\nlogsource:\n  product: windows\n  category: process_creation\ndetection:\n  a:\n    Image: x\n  condition: a\nlevel: high\n";

    fn notes(text: &str) -> (Vec<RuleNote>, Vec<(&'static str, u64)>) {
        let mut left_out = BTreeMap::new();
        let source = RuleSource {
            name: "r.yml",
            text,
        };
        let notes = rule_notes(&source, &mut left_out).unwrap();
        (notes, left_out.into_iter().collect())
    }

    #[test]
    fn a_rule_of_any_log_source_gives_a_note() {
        let (notes, left_out) = notes(RULE);
        assert_eq!(left_out, []);
        assert_eq!(
            notes,
            [RuleNote {
                id: Some("r1".into()),
                title: "A title".into(),
                description: "Two lines".into(),
                level: Some("high"),
                tags: vec!["attack.execution".into(), "attack.T1059.004".into()],
                technique: Some(Technique("T1059.004".into())),
                log_source: vec!["windows".into(), "process_creation".into()],
            }]
        );
    }

    #[test]
    fn every_shipped_rule_gives_a_note() {
        for rule in RULES {
            let (notes, left_out) = notes(rule.text);
            assert_eq!((notes.len(), left_out.len()), (1, 0), "{}", rule.name);
        }
    }

    #[test]
    fn what_gives_no_note_is_counted_by_reason() {
        let without = RULE.replace("description: >\n  Two\n  lines\n", "");
        let long = RULE.replace("A title", &"t".repeat(300));
        let deep = RULE.replace(
            "condition: a",
            &format!("condition: {}a", "(".repeat(20_000)),
        );
        for (text, reason) in [
            (without.as_str(), "without a title or description"),
            (&long, "a text is too long"),
            ("title: only\n", "malformed rule"),
            (&deep, "malformed rule"),
        ] {
            let (notes, left_out) = notes(text);
            assert_eq!((notes.len(), left_out), (0, vec![(reason, 1)]));
        }
        let (found, left_out) = notes(&format!("{RULE}---\ntitle: only\n---\n{RULE}"));
        assert_eq!((found.len(), left_out), (2, vec![("malformed rule", 1)]));
    }

    #[test]
    fn what_is_no_yaml_is_an_error_that_names_the_file() {
        let bomb = format!(
            "a: &a [x,x,x,x,x,x,x,x,x]\n{}",
            (1..30)
                .map(|n| format!(
                    "a{n}: &a{n} [*a{p},*a{p},*a{p},*a{p},*a{p},*a{p}]\n",
                    p = if n == 1 {
                        String::new()
                    } else {
                        (n - 1).to_string()
                    }
                ))
                .collect::<String>()
        );
        for text in [
            "\t\u{1}: [",
            &"[".repeat(100_000),
            &" ".repeat(MAX_RULE_FILE_BYTES + 1),
            &bomb,
        ] {
            let mut left_out = BTreeMap::new();
            let source = RuleSource {
                name: "r.yml",
                text,
            };
            match rule_notes(&source, &mut left_out) {
                Err(error) => assert!(error.to_string().contains("r.yml"), "{error}"),
                Ok(notes) => {
                    assert!(notes.is_empty());
                    assert!(!left_out.is_empty());
                }
            }
        }
    }
}
