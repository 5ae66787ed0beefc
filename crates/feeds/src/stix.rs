//! Techniques out of a STIX 2.1 bundle, as MITRE ATT&CK is published.
//!
//! Source: STIX Version 2.1, OASIS Standard, sections 4.1 (attack pattern) and 8
//! (bundle), with the extension fields of MITRE ATT&CK (`x_mitre_platforms`,
//! `x_mitre_deprecated`). Bundles of version 2.0 say the same in the same fields.

use std::collections::BTreeMap;

use crate::FeedError;
use crate::json::Cursor;

/// The most objects of a bundle.
pub const MAX_STIX_OBJECTS: usize = 200_000;
/// The deepest nesting of a bundle.
pub const MAX_STIX_DEPTH: usize = 32;
/// The longest name, id or list entry of an object, in bytes.
const MAX_NAME_BYTES: usize = 256;
/// The longest description, in bytes.
const MAX_DESCRIPTION_BYTES: usize = 32 * 1024;
/// The most entries of a list that is read.
const MAX_LIST: usize = 64;

/// A technique as a bundle describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttackPattern {
    /// Its number, such as `T1059.004`; the id of the object where it has none.
    pub id: String,
    /// Whether `id` is a technique's number.
    pub is_numbered: bool,
    /// What it is called.
    pub name: String,
    /// What it is, in Markdown.
    pub description: String,
    /// The phases of the kill chain it serves, such as `execution`.
    pub tactics: Vec<String>,
    /// Where it works, such as `Linux`.
    pub platforms: Vec<String>,
    /// When the object was last changed, as the bundle writes it.
    pub modified: String,
}

/// What a bundle holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StixBundle {
    /// The techniques that hold, in the order of the bundle.
    pub patterns: Vec<AttackPattern>,
    /// The ids of those that were revoked or are deprecated.
    pub withdrawn: Vec<String>,
    /// How many objects were left out, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
}

/// Reads the attack patterns of a bundle.
///
/// An object that is none, was withdrawn or does not hold what it must is left out and
/// counted; what is wrong with the bundle itself is an error.
///
/// # Errors
/// [`FeedError`] with the place in bytes: no JSON, not a bundle, more than
/// [`MAX_STIX_OBJECTS`] objects, nested deeper than [`MAX_STIX_DEPTH`].
pub fn read_stix_bundle(text: &str) -> Result<StixBundle, FeedError> {
    let mut bundle = StixBundle::default();
    let (mut is_bundle, mut has_objects, mut n_objects) = (false, false, 0);
    let mut cursor = Cursor::new(text, MAX_STIX_DEPTH);
    cursor.each_field(|cursor, name| {
        let offset = cursor.offset();
        match name {
            "type" => {
                if cursor.peek() != Some(b'"') || cursor.string()? != "bundle" {
                    return Err(FeedError::WrongType {
                        field: "type",
                        expected: "bundle",
                        offset,
                    });
                }
                is_bundle = true;
                Ok(())
            }
            "objects" => {
                has_objects = true;
                cursor.each_element(|cursor| {
                    let start = cursor.offset();
                    if n_objects == MAX_STIX_OBJECTS {
                        return Err(FeedError::TooMany {
                            field: "objects",
                            limit: MAX_STIX_OBJECTS,
                            offset: start,
                        });
                    }
                    n_objects += 1;
                    // Its end is known before it is read, so that one bad object is
                    // not the end of the others.
                    cursor.skip_value()?;
                    bundle.take(&text[start..cursor.offset()]);
                    Ok(())
                })
            }
            _ => cursor.skip_value(),
        }
    })?;
    cursor.end()?;
    match (is_bundle, has_objects) {
        (false, _) => Err(FeedError::MissingField { field: "type" }),
        (true, false) => Err(FeedError::MissingField { field: "objects" }),
        (true, true) => Ok(bundle),
    }
}

impl StixBundle {
    fn take(&mut self, object: &str) {
        let reason = match read_object(object) {
            Err(_) => "malformed object",
            Ok(object) => match object.into_pattern() {
                Ok(pattern) => return self.patterns.push(pattern),
                Err(LeftOut::Withdrawn(id, reason)) => {
                    self.withdrawn.push(id);
                    reason
                }
                Err(LeftOut::Because(reason)) => reason,
            },
        };
        *self.skipped.entry(reason).or_default() += 1;
    }
}

/// The fields of any object that are read.
#[derive(Default)]
struct Object {
    kind: String,
    id: String,
    number: Option<String>,
    name: String,
    description: String,
    tactics: Vec<String>,
    platforms: Vec<String>,
    modified: String,
    revoked: bool,
    deprecated: bool,
    is_cut: bool,
}

enum LeftOut {
    Withdrawn(String, &'static str),
    Because(&'static str),
}

impl Object {
    fn into_pattern(self) -> Result<AttackPattern, LeftOut> {
        if self.kind != "attack-pattern" {
            return Err(LeftOut::Because("not an attack-pattern"));
        }
        let is_numbered = self.number.is_some();
        let id = self.number.unwrap_or(self.id);
        if id.is_empty() {
            return Err(LeftOut::Because("without an id"));
        }
        if self.revoked {
            return Err(LeftOut::Withdrawn(id, "revoked"));
        }
        if self.deprecated {
            return Err(LeftOut::Withdrawn(id, "deprecated"));
        }
        if self.is_cut {
            return Err(LeftOut::Because("a text is too long"));
        }
        if self.name.trim().is_empty() || self.description.trim().is_empty() {
            return Err(LeftOut::Because("without a name or description"));
        }
        Ok(AttackPattern {
            id,
            is_numbered,
            name: self.name,
            description: self.description,
            tactics: self.tactics,
            platforms: self.platforms,
            modified: self.modified,
        })
    }

    /// Reads a string of at most `max` bytes; a longer one is left out and noted.
    fn text(&mut self, cursor: &mut Cursor<'_>, max: usize) -> Result<String, FeedError> {
        let text = cursor.string()?;
        if text.len() > max {
            self.is_cut = true;
            return Ok(String::new());
        }
        Ok(text.into_owned())
    }
}

fn read_object(text: &str) -> Result<Object, FeedError> {
    let mut object = Object::default();
    let mut cursor = Cursor::new(text, MAX_STIX_DEPTH);
    cursor.each_field(|cursor, name| {
        match name {
            "type" => object.kind = object.text(cursor, MAX_NAME_BYTES)?,
            "id" => object.id = object.text(cursor, MAX_NAME_BYTES)?,
            // Other kinds of objects may use these names for anything.
            _ if !object.kind.is_empty() && object.kind != "attack-pattern" => {
                cursor.skip_value()?;
            }
            "name" => object.name = object.text(cursor, MAX_NAME_BYTES)?,
            "description" => object.description = object.text(cursor, MAX_DESCRIPTION_BYTES)?,
            "modified" => object.modified = object.text(cursor, MAX_NAME_BYTES)?,
            "revoked" => object.revoked = cursor.boolean()?,
            "x_mitre_deprecated" => object.deprecated = cursor.boolean()?,
            "x_mitre_platforms" => each_entry(cursor, |cursor| {
                let platform = object.text(cursor, MAX_NAME_BYTES)?;
                object.platforms.push(platform);
                Ok(())
            })?,
            "kill_chain_phases" => each_entry(cursor, |cursor| {
                let phase = named_fields(cursor, ["phase_name", "kill_chain_name"])?;
                object.tactics.extend(phase.into_iter().next().flatten());
                Ok(())
            })?,
            "external_references" => each_entry(cursor, |cursor| {
                let [source, number] = named_fields(cursor, ["source_name", "external_id"])?;
                let is_attack = source.is_some_and(|name| name.starts_with("mitre-"));
                let is_technique = number.as_deref().is_some_and(is_technique_number);
                if is_attack && is_technique && object.number.is_none() {
                    object.number = number;
                }
                Ok(())
            })?,
            _ => cursor.skip_value()?,
        }
        Ok(())
    })?;
    Ok(object)
}

fn each_entry(
    cursor: &mut Cursor<'_>,
    mut entry: impl FnMut(&mut Cursor<'_>) -> Result<(), FeedError>,
) -> Result<(), FeedError> {
    let mut count = 0;
    cursor.each_element(|cursor| {
        count += 1;
        match count > MAX_LIST {
            true => cursor.skip_value(),
            false => entry(cursor),
        }
    })
}

/// The strings of two fields of an object; one that is too long counts as absent.
fn named_fields(
    cursor: &mut Cursor<'_>,
    names: [&str; 2],
) -> Result<[Option<String>; 2], FeedError> {
    let mut found = [None, None];
    cursor.each_field(|cursor, name| {
        let Some(idx) = names.iter().position(|wanted| *wanted == name) else {
            return cursor.skip_value();
        };
        let text = cursor.string()?;
        found[idx] = (text.len() <= MAX_NAME_BYTES).then(|| text.into_owned());
        Ok(())
    })?;
    Ok(found)
}

/// `T` and four digits, with a sub-technique of three or without.
fn is_technique_number(text: &str) -> bool {
    let all_digits =
        |text: &str, n: usize| text.len() == n && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(rest) = text.strip_prefix('T') else {
        return false;
    };
    match rest.split_once('.') {
        None => all_digits(rest, 4),
        Some((technique, sub)) => all_digits(technique, 4) && all_digits(sub, 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(objects: &str) -> String {
        format!(
            r#"{{"type":"bundle","id":"bundle--1","spec_version":"2.1","objects":[{objects}]}}"#
        )
    }

    /// An attack pattern with fields of ours in place of the ordinary ones.
    fn pattern(extra: &str) -> String {
        format!(
            r#"{{"type":"attack-pattern","spec_version":"2.1","id":"attack-pattern--7",
            "external_references":[{{"source_name":"a page","url":"x"}},
              {{"source_name":"mitre-attack","external_id":"T1059.004"}}],
            "kill_chain_phases":[{{"kill_chain_name":"mitre-attack","phase_name":"execution"}}],
            "x_mitre_platforms":["Linux","Containers"],"modified":"2025-04-15T00:00:00Z",
            "name":"Unix Shell"{extra}}}"#
        )
    }

    fn skipped(objects: &str) -> Vec<(&'static str, u64)> {
        let read = read_stix_bundle(&bundle(objects)).unwrap();
        assert!(read.patterns.is_empty(), "{objects}");
        read.skipped.into_iter().collect()
    }

    #[test]
    fn an_attack_pattern_is_read_with_its_number_tactics_and_platforms() {
        let text = bundle(&pattern(
            r#","description":"Adversaries may \u00abrun\u00bb a shell.""#,
        ));
        let read = read_stix_bundle(&text).unwrap();
        assert!(read.skipped.is_empty());
        let expected = AttackPattern {
            id: "T1059.004".into(),
            is_numbered: true,
            name: "Unix Shell".into(),
            description: "Adversaries may «run» a shell.".into(),
            tactics: vec!["execution".into()],
            platforms: vec!["Linux".into(), "Containers".into()],
            modified: "2025-04-15T00:00:00Z".into(),
        };
        assert_eq!(read.patterns, [expected]);
    }

    #[test]
    fn whatever_is_left_out_is_counted_by_reason() {
        let described = r#","description":"d""#;
        let revoked = pattern(&format!(r#"{described},"revoked":true"#));
        let deprecated = pattern(&format!(r#"{described},"x_mitre_deprecated":true"#));
        let long = pattern(&format!(r#","description":"{}""#, "d".repeat(40_000)));
        for (object, reason) in [
            (
                r#"{"type":"malware","name":7}"#.to_owned(),
                "not an attack-pattern",
            ),
            (revoked.clone(), "revoked"),
            (deprecated, "deprecated"),
            (long, "a text is too long"),
            (pattern(""), "without a name or description"),
            (pattern(r#","description":7"#), "malformed object"),
            (
                pattern(r#","description":"d","name":"twice""#),
                "malformed object",
            ),
            (
                r#"{"type":"attack-pattern","name":"x"}"#.to_owned(),
                "without an id",
            ),
            ("7".to_owned(), "malformed object"),
            ("null".to_owned(), "malformed object"),
        ] {
            assert_eq!(skipped(&object), [(reason, 1)], "{object}");
        }
        let good = pattern(described);
        let text = bundle(&format!("{revoked},[],{good},{{}},{good}"));
        let read = read_stix_bundle(&text).unwrap();
        assert_eq!(read.patterns.len(), 2);
        assert_eq!(read.withdrawn, ["T1059.004"]);
        let counts: Vec<_> = read.skipped.into_iter().collect();
        assert_eq!(
            counts,
            [
                ("malformed object", 1),
                ("not an attack-pattern", 1),
                ("revoked", 1)
            ]
        );
    }

    #[test]
    fn what_is_no_bundle_is_an_error_with_its_place() {
        for (text, named) in [
            ("", "expected an object"),
            ("[]", "expected an object"),
            ("{}", "`type` is missing"),
            (r#"{"type":"bundle"}"#, "`objects` is missing"),
            (r#"{"type":"identity","objects":[]}"#, "must be bundle"),
            (r#"{"type":["bundle"],"objects":[]}"#, "must be bundle"),
            (r#"{"type":"bundle","objects":{}}"#, "expected an array"),
            (r#"{"type":"bundle","objects":[]} x"#, "byte 31"),
            (r#"{"type":"bundle","objects":[{"a":"#, "byte 33"),
            (r#"{"type":"bundle","objects":[],"objects":[]}"#, "twice"),
        ] {
            let error = read_stix_bundle(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
        let deep = bundle(&"[".repeat(100_000));
        assert!(matches!(
            read_stix_bundle(&deep),
            Err(FeedError::TooDeep {
                limit: MAX_STIX_DEPTH,
                ..
            })
        ));
        let many = bundle(&vec!["0"; MAX_STIX_OBJECTS + 1].join(","));
        assert!(matches!(
            read_stix_bundle(&many),
            Err(FeedError::TooMany {
                limit: MAX_STIX_OBJECTS,
                ..
            })
        ));
    }

    #[test]
    fn a_number_is_one_of_attack_or_none() {
        for (text, expected) in [
            ("T1059", true),
            ("T1059.004", true),
            ("T1059.04", false),
            ("CAPEC-1", false),
            ("T105９", false),
            ("T", false),
        ] {
            assert_eq!(is_technique_number(text), expected, "{text}");
        }
        let other = pattern(r#","description":"d""#).replace("mitre-attack", "else");
        let read = read_stix_bundle(&bundle(&other)).unwrap();
        assert_eq!(read.patterns[0].id, "attack-pattern--7");
        assert!(!read.patterns[0].is_numbered);
    }
}
