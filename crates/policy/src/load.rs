//! From source text to a checked policy set.
//!
//! Sources come from an operator, but a mistake in them must not take the
//! process down: size, number and nesting are capped before Cedar reads them.

use std::collections::BTreeMap;

use cedar_policy::{
    Effect, Entities, PolicyId, PolicySet, Schema, ValidationMode, ValidationWarning, Validator,
};
use miette::Diagnostic;
use sha2::{Digest, Sha256};

use crate::{PolicyError, authorize::Authority};

/// The schema that policies, entities and requests are checked against, in
/// Cedar's schema language.
pub const SCHEMA: &str = include_str!("schema.cedarschema");

const MAX_SOURCE_BYTES: usize = 256 * 1024;
const MAX_POLICIES: usize = 1_000;
const MAX_ENTITIES: usize = 10_000;
const MAX_ID_BYTES: usize = 128;
/// What can nest within one policy: brackets, operators, attributes, `if`. The
/// shipped policies need 12.
const MAX_OPERATORS: usize = 256;

/// One text with Cedar policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySource {
    /// What errors call it, such as its path.
    pub name: String,
    /// Cedar policies; each needs a unique `@id`.
    pub text: String,
}

/// One text with the agents, tools and workloads that policies put in groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntitySource {
    /// What errors call it, such as its path.
    pub name: String,
    /// Entities in Cedar's JSON form:
    /// `[{"uid":{"type":"Tool","id":"bash"},"attrs":{},"parents":[{"type":"ToolGroup","id":"shell"}]}]`.
    pub text: String,
}

/// Where a policy begins.
struct Origin {
    source: usize,
    line: usize,
}

pub(crate) fn builtin_sources() -> Vec<PolicySource> {
    [
        (
            "builtin/response.cedar",
            include_str!("defaults/response.cedar"),
        ),
        ("builtin/calls.cedar", include_str!("defaults/calls.cedar")),
        ("builtin/texts.cedar", include_str!("defaults/texts.cedar")),
    ]
    .map(|(name, text)| PolicySource {
        name: name.to_owned(),
        text: text.to_owned(),
    })
    .to_vec()
}

pub(crate) fn authority(
    sources: &[PolicySource],
    entities: Option<&EntitySource>,
) -> Result<Authority, PolicyError> {
    let schema = schema()?;
    let (policies, origins) = parse_all(sources)?;
    if policies.is_empty() {
        return Err(PolicyError::Empty);
    }
    validate(&policies, &origins, sources, &schema)?;
    let permits = policies
        .policies()
        .filter(|policy| policy.effect() == Effect::Permit)
        .cloned();
    let permits = PolicySet::from_policies(permits).map_err(internal)?;
    Ok(Authority {
        entities: match entities {
            Some(source) => parse_entities(source, &schema)?,
            None => Entities::empty(),
        },
        schema,
        policies,
        permits,
    })
}

/// SHA-256 over schema, sources and entities, in hexadecimal; the order of the
/// sources does not matter.
pub(crate) fn content_hash(sources: &[PolicySource], entities: Option<&EntitySource>) -> String {
    let mut parts: Vec<[&str; 2]> = sources
        .iter()
        .map(|source| [source.name.as_str(), source.text.as_str()])
        .collect();
    parts.sort_unstable();
    parts.insert(0, ["schema", SCHEMA]);
    if let Some(entities) = entities {
        parts.push(["entities", &entities.text]);
    }
    let mut hash = Sha256::new();
    for text in parts.into_iter().flatten() {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn schema() -> Result<Schema, PolicyError> {
    let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(internal)?;
    Ok(schema)
}

fn internal(error: impl std::fmt::Display) -> PolicyError {
    PolicyError::Internal {
        message: error.to_string(),
    }
}

fn parse_all(
    sources: &[PolicySource],
) -> Result<(PolicySet, BTreeMap<String, Origin>), PolicyError> {
    let mut all = PolicySet::new();
    let mut origins: BTreeMap<String, Origin> = BTreeMap::new();
    for (index, source) in sources.iter().enumerate() {
        for (line, policy) in parse(source)? {
            let source_name = source.name.clone();
            let Some(id) = policy.annotation("id") else {
                return Err(PolicyError::MissingId { source_name, line });
            };
            if !is_id(id) {
                return Err(PolicyError::InvalidId {
                    source_name,
                    line,
                    max_bytes: MAX_ID_BYTES,
                });
            }
            if let Some(first) = origins.get(id) {
                return Err(PolicyError::DuplicateId {
                    id: id.to_owned(),
                    source_name,
                    line,
                    first_source: sources[first.source].name.clone(),
                    first_line: first.line,
                });
            }
            if origins.len() == MAX_POLICIES {
                return Err(PolicyError::TooManyPolicies {
                    source_name,
                    max_policies: MAX_POLICIES,
                });
            }
            let origin = Origin {
                source: index,
                line,
            };
            origins.insert(id.to_owned(), origin);
            all.add(policy.new_id(PolicyId::new(id)))
                .map_err(internal)?;
        }
    }
    Ok((all, origins))
}

/// The policies of one source with the lines they begin at, in order.
fn parse(source: &PolicySource) -> Result<Vec<(usize, cedar_policy::Policy)>, PolicyError> {
    check_size(&source.name, &source.text)?;
    check_operators(source)?;
    let parsed: PolicySet = source
        .text
        .parse()
        .map_err(|error: cedar_policy::ParseErrors| PolicyError::Syntax {
            source_name: source.name.clone(),
            line: line_of_error(&source.text, &error).unwrap_or(1),
            message: error.to_string(),
        })?;
    if let Some(template) = parsed.templates().next() {
        let start = template.as_ref().loc().map_or(0, |loc| loc.start());
        return Err(PolicyError::Template {
            source_name: source.name.clone(),
            line: line_at(&source.text, start),
        });
    }
    let mut policies: Vec<(usize, cedar_policy::Policy)> = parsed
        .policies()
        .map(|policy| {
            let start = policy.as_ref().loc().map_or(0, |loc| loc.start());
            (start, policy.clone())
        })
        .collect();
    policies.sort_by_key(|(start, _)| *start);
    for (position, _) in &mut policies {
        *position = line_at(&source.text, *position);
    }
    Ok(policies)
}

fn validate(
    policies: &PolicySet,
    origins: &BTreeMap<String, Origin>,
    sources: &[PolicySource],
    schema: &Schema,
) -> Result<(), PolicyError> {
    let result = Validator::new(schema.clone()).validate(policies, ValidationMode::Strict);
    let errors = result
        .validation_errors()
        .map(|error| finding(error.policy_id(), error, origins, sources));
    // A policy that can never apply, or that does not read as it acts, is a
    // mistake too. Words of two scripts in one string are only a style.
    let warnings = result
        .validation_warnings()
        .filter(|warning| !matches!(warning, ValidationWarning::MixedScriptString(_)))
        .map(|warning| finding(warning.policy_id(), warning, origins, sources));
    let first = errors
        .chain(warnings)
        .min_by(|(left, _), (right, _)| left.cmp(right));
    match first {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// A finding of the validator with the position it is sorted by.
fn finding(
    id: &PolicyId,
    diagnostic: &(impl Diagnostic + ?Sized),
    origins: &BTreeMap<String, Origin>,
    sources: &[PolicySource],
) -> ((usize, usize, String), PolicyError) {
    let id: &str = id.as_ref();
    let origin = origins.get(id);
    let source = origin.and_then(|origin| sources.get(origin.source));
    let line = source
        .and_then(|source| line_of_error(&source.text, diagnostic))
        .or_else(|| origin.map(|origin| origin.line))
        .unwrap_or(1);
    let mut message = diagnostic.to_string();
    if let Some(help) = diagnostic.help() {
        message = format!("{message} ({help})");
    }
    let position = (
        origin.map_or(0, |origin| origin.source),
        line,
        message.clone(),
    );
    let error = PolicyError::Schema {
        source_name: source.map_or_else(String::new, |source| source.name.clone()),
        line,
        id: id.to_owned(),
        message,
    };
    (position, error)
}

fn parse_entities(source: &EntitySource, schema: &Schema) -> Result<Entities, PolicyError> {
    check_size(&source.name, &source.text)?;
    let entities = Entities::from_json_str(&source.text, Some(schema)).map_err(|error| {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            message = format!("{message}: {inner}");
            cause = inner.source();
        }
        PolicyError::Entities {
            source_name: source.name.clone(),
            message,
        }
    })?;
    if entities.len() > MAX_ENTITIES {
        return Err(PolicyError::TooManyEntities {
            source_name: source.name.clone(),
            entities: entities.len(),
            max_entities: MAX_ENTITIES,
        });
    }
    Ok(entities)
}

fn check_size(name: &str, text: &str) -> Result<(), PolicyError> {
    if text.len() > MAX_SOURCE_BYTES {
        return Err(PolicyError::SourceTooLarge {
            source_name: name.to_owned(),
            bytes: text.len(),
            max_bytes: MAX_SOURCE_BYTES,
        });
    }
    Ok(())
}

/// Cedar follows nesting on the stack and gives up checking a policy, without a
/// word, where the stack ends; so what could nest is counted before.
fn check_operators(source: &PolicySource) -> Result<(), PolicyError> {
    let bytes = source.text.as_bytes();
    let mut operators = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let length = match byte {
            b'"' => string_length(rest),
            b'/' if rest.starts_with(b"//") => line_length(rest),
            b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => word_length(rest),
            b'&' | b'|' if rest.get(1) == Some(&byte) => 2,
            _ => 1,
        };
        match byte {
            b';' => operators = 0,
            b'(' | b'[' | b'{' | b'.' | b'+' | b'-' | b'*' | b'!' | b'&' | b'|' => operators += 1,
            b'i' if &rest[..length] == b"if" => operators += 1,
            _ => {}
        }
        if operators > MAX_OPERATORS {
            return Err(PolicyError::TooComplex {
                source_name: source.name.clone(),
                line: line_at(&source.text, at),
                max_operators: MAX_OPERATORS,
            });
        }
        at += length;
    }
    Ok(())
}

/// Length of the string literal that `text` begins with, both quotes included.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

fn line_length(text: &[u8]) -> usize {
    let ends = |byte: &u8| matches!(byte, b'\n' | b'\r');
    text.iter().position(ends).unwrap_or(text.len())
}

fn word_length(text: &[u8]) -> usize {
    let ends = |byte: &u8| !(byte.is_ascii_alphanumeric() || *byte == b'_');
    text.iter().position(ends).unwrap_or(text.len())
}

fn is_id(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte))
}

fn line_of_error(text: &str, error: &(impl Diagnostic + ?Sized)) -> Option<usize> {
    let label = error.labels()?.next()?;
    Some(line_at(text, label.offset()))
}

/// The line, from 1, of a byte offset.
fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.split(|byte| *byte == b'\n').count()
}
