//! The shape of a JSON object: keys in a fixed order, and what each value may be.

use std::{num::NonZeroUsize, ops::RangeInclusive, sync::Arc};

use super::automaton::{Automaton, Element};
use crate::error::InferenceError;

/// Far above what a model of this size answers well.
const MAX_FIELDS: usize = 64;
const MAX_ALTERNATIVES: usize = 4096;
const MAX_BYTES: usize = 64 * 1024;

/// What a field of a [`JsonShape`] may hold.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldKind {
    /// One of these strings; distinct, at least one.
    OneOf(Vec<String>),
    /// A whole number in this range, without leading zeros.
    Integer(RangeInclusive<i64>),
    /// `true` or `false`.
    Boolean,
    /// Any text, written as a JSON string, so no content can end it.
    Text {
        /// Tokens after which only its end is legal. A character or an escape
        /// that has been begun is finished first.
        max_tokens: NonZeroUsize,
    },
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// Which of the strings, counted from 0.
    OneOf(usize),
    /// The number.
    Integer(i64),
    /// The truth value.
    Boolean(bool),
    /// The text, its escapes undone.
    Text(String),
}

/// A JSON object with fixed keys in a fixed order, written without white space.
#[derive(Clone)]
pub struct JsonShape {
    fields: Vec<(String, FieldKind)>,
    automaton: Arc<Automaton>,
}

impl JsonShape {
    /// An object with these keys and values, in this order.
    ///
    /// # Errors
    /// [`InferenceError::Empty`] without fields, or a field without a legal
    /// value; [`InferenceError::InvalidOption`] for keys or strings that occur
    /// twice, and above 64 fields, 4,096 strings in one, or 64 KiB in all.
    ///
    /// # Examples
    /// ```
    /// use inwarden_inference::{FieldKind, FieldValue, JsonShape};
    ///
    /// # fn main() -> Result<(), inwarden_inference::InferenceError> {
    /// let colours = ["red".to_owned(), "green".to_owned()];
    /// let shape = JsonShape::new(vec![
    ///     ("colour".to_owned(), FieldKind::OneOf(colours.into())),
    ///     ("share".to_owned(), FieldKind::Integer(0..=100)),
    /// ])?;
    /// let values = shape.values(r#"{"colour":"green","share":7}"#);
    /// assert_eq!(values, [FieldValue::OneOf(1), FieldValue::Integer(7)]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(fields: Vec<(String, FieldKind)>) -> Result<Self, InferenceError> {
        check(&fields)?;
        let automaton = Arc::new(Automaton::new(elements(&fields)));
        Ok(Self { fields, automaton })
    }

    /// The values in `text`, in the order of the fields: all of them if `text`
    /// is complete, else those that ended before `text` does or leaves the shape.
    #[must_use]
    pub fn values(&self, text: &str) -> Vec<FieldValue> {
        let spans = self.automaton.spans(text.as_bytes());
        let values = self
            .fields
            .iter()
            .zip(spans)
            .map_while(|((_, kind), span)| {
                let value = text.get(span)?;
                Some(match kind {
                    FieldKind::OneOf(strings) => {
                        let string: String = serde_json::from_str(value).ok()?;
                        FieldValue::OneOf(strings.iter().position(|other| *other == string)?)
                    }
                    FieldKind::Integer(_) => FieldValue::Integer(serde_json::from_str(value).ok()?),
                    FieldKind::Boolean => FieldValue::Boolean(serde_json::from_str(value).ok()?),
                    FieldKind::Text { .. } => FieldValue::Text(serde_json::from_str(value).ok()?),
                })
            });
        values.collect()
    }

    pub(super) fn automaton(&self) -> &Arc<Automaton> {
        &self.automaton
    }

    /// After so many tokens the text of this field ends.
    pub(super) fn max_text_tokens(&self, field_idx: usize) -> Option<NonZeroUsize> {
        match self.fields.get(field_idx)?.1 {
            FieldKind::Text { max_tokens } => Some(max_tokens),
            _ => None,
        }
    }
}

fn check(fields: &[(String, FieldKind)]) -> Result<(), InferenceError> {
    let invalid = |name, allowed, value: &dyn ToString| InferenceError::InvalidOption {
        name,
        allowed,
        value: value.to_string(),
    };
    if fields.is_empty() {
        return Err(InferenceError::Empty { what: "fields" });
    }
    if fields.len() > MAX_FIELDS {
        return Err(invalid("fields", "at most 64", &fields.len()));
    }
    let mut n_bytes = 0;
    for (idx, (key, kind)) in fields.iter().enumerate() {
        if fields[..idx].iter().any(|(other, _)| other == key) {
            return Err(invalid("fields", "distinct keys", key));
        }
        n_bytes += key.len();
        match kind {
            FieldKind::OneOf(strings) if strings.is_empty() => {
                return Err(InferenceError::Empty { what: "strings" });
            }
            FieldKind::OneOf(strings) if strings.len() > MAX_ALTERNATIVES => {
                return Err(invalid("strings", "at most 4096", &strings.len()));
            }
            FieldKind::OneOf(strings) => {
                let mut sorted: Vec<_> = strings.iter().collect();
                sorted.sort_unstable();
                if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                    return Err(invalid("strings", "distinct", twice[0]));
                }
                n_bytes += strings.iter().map(String::len).sum::<usize>();
            }
            FieldKind::Integer(range) if range.is_empty() => {
                return Err(InferenceError::Empty { what: "range" });
            }
            FieldKind::Integer(_) | FieldKind::Boolean | FieldKind::Text { .. } => {}
        }
    }
    if n_bytes > MAX_BYTES {
        return Err(invalid("fields", "at most 65536 bytes in all", &n_bytes));
    }
    Ok(())
}

/// A literal before each value, and one at the end.
fn elements(fields: &[(String, FieldKind)]) -> Vec<Element> {
    let mut elements = Vec::new();
    for (idx, (key, kind)) in fields.iter().enumerate() {
        let before = if idx == 0 { "{" } else { "," };
        elements.push(Element::literal(&format!("{before}{}:", quoted(key))));
        elements.push(match kind {
            FieldKind::OneOf(strings) => {
                Element::one_of(strings.iter().map(|string| quoted(string)))
            }
            FieldKind::Integer(range) => Element::Integer(range.clone()),
            FieldKind::Boolean => Element::one_of(["true", "false"].map(str::to_owned)),
            FieldKind::Text { .. } => Element::Text,
        });
    }
    elements.push(Element::literal("}"));
    elements
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
