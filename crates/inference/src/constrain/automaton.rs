//! Which byte may follow which in a JSON object of a given shape.
//!
//! Source for strings and numbers: RFC 8259, sections 6 and 7; for well-formed
//! UTF-8: Unicode Standard 17.0, table 3-7.

use std::ops::{Range, RangeInclusive};

/// The shape's parts one behind the other: literals, and a value between each
/// two. The byte that ends one decides alone that it has ended.
pub(super) struct Automaton(Vec<Element>);

pub(super) enum Element {
    /// These bytes, at least one.
    Literal(Box<[u8]>),
    /// One of these, sorted; none is a prefix of another.
    OneOf(Box<[Box<[u8]>]>),
    Integer(RangeInclusive<i64>),
    /// A JSON string with its quotes.
    Text,
}

/// Where an output is: which element, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    element_idx: usize,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// Before any byte of the element.
    Start,
    /// After so many bytes of a literal.
    Literal(usize),
    /// The alternatives `low..high` begin with the first `depth` bytes.
    OneOf {
        low: usize,
        high: usize,
        depth: usize,
    },
    Integer(Digits),
    Text {
        inside: Inside,
        /// Only what ends the string soonest is legal.
        closing: bool,
    },
}

/// The start of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Digits {
    is_negative: bool,
    magnitude: u64,
    n_digits: u32,
}

/// Where in a JSON string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Inside {
    /// Between characters.
    Between,
    /// Within a character: the next byte lies in `low..=high`, and `more` follow it.
    Character { low: u8, high: u8, more: u8 },
    /// Behind a backslash.
    Escape,
    /// Behind `\u` and this many digits; `is_d` if the first was a D, behind
    /// which a surrogate must not begin.
    Hex { n_digits: u8, is_d: bool },
}

impl Element {
    /// This text, of at least one byte.
    pub(super) fn literal(text: &str) -> Self {
        Self::Literal(text.as_bytes().into())
    }

    /// One of these, of which none is a prefix of another.
    pub(super) fn one_of(alternatives: impl IntoIterator<Item = String>) -> Self {
        let bytes = alternatives
            .into_iter()
            .map(|text| text.into_bytes().into());
        let mut sorted: Vec<Box<[u8]>> = bytes.collect();
        sorted.sort_unstable();
        Self::OneOf(sorted.into())
    }
}

impl Automaton {
    pub(super) fn new(elements: Vec<Element>) -> Self {
        Self(elements)
    }

    pub(super) fn start(&self) -> State {
        start_of(0)
    }

    pub(super) fn is_complete(&self, state: State) -> bool {
        state.element_idx == self.0.len()
    }

    /// The same state, if in a text one from which only its end is legal.
    pub(super) fn closing(&self, mut state: State) -> State {
        if let Place::Text { closing, .. } = &mut state.place {
            *closing = true;
        }
        state
    }

    /// Which field's text this is within: its quote is open.
    pub(super) fn text_field(&self, state: State) -> Option<usize> {
        // A literal stands before each value.
        matches!(state.place, Place::Text { .. }).then_some(state.element_idx / 2)
    }

    /// The state after `byte`, if it is legal.
    pub(super) fn step(&self, state: State, byte: u8) -> Option<State> {
        let next = start_of(state.element_idx + 1);
        let at = |place| State { place, ..state };
        match self.0.get(state.element_idx)? {
            Element::Literal(bytes) => {
                let depth = match state.place {
                    Place::Literal(depth) => depth,
                    _ => 0,
                };
                let is_last = depth + 1 == bytes.len();
                let reached = if is_last {
                    next
                } else {
                    at(Place::Literal(depth + 1))
                };
                (bytes[depth] == byte).then_some(reached)
            }
            Element::OneOf(alternatives) => {
                let (low, high, depth) = match state.place {
                    Place::OneOf { low, high, depth } => (low, high, depth),
                    _ => (0, alternatives.len(), 0),
                };
                let left = &alternatives[low..high];
                // Sorted and none the prefix of another: all have a byte here,
                // and those with this byte lie together.
                let high = low + left.partition_point(|bytes| bytes[depth] <= byte);
                let low = low + left.partition_point(|bytes| bytes[depth] < byte);
                let depth = depth + 1;
                let first = alternatives[low..high].first()?;
                let is_last = depth == first.len();
                Some(if is_last {
                    next
                } else {
                    at(Place::OneOf { low, high, depth })
                })
            }
            Element::Integer(range) => {
                let digits = match state.place {
                    Place::Integer(digits) => digits,
                    _ => Digits::default(),
                };
                match digits.push(byte, range) {
                    Some(digits) => Some(at(Place::Integer(digits))),
                    None if digits.is_value(range) => self.step(next, byte),
                    None => None,
                }
            }
            Element::Text => {
                let Place::Text { inside, closing } = state.place else {
                    let (inside, closing) = (Inside::Between, false);
                    return (byte == b'"').then_some(at(Place::Text { inside, closing }));
                };
                match (inside, byte) {
                    (Inside::Between, b'"') => Some(next),
                    (Inside::Between, _) if closing => None,
                    _ => Some(at(Place::Text {
                        inside: inside.step(byte)?,
                        closing,
                    })),
                }
            }
        }
    }

    /// The one legal byte, if there is just one.
    pub(super) fn forced(&self, state: State) -> Option<(u8, State)> {
        let mut legal = (0..=u8::MAX).filter_map(|byte| Some((byte, self.step(state, byte)?)));
        let only = legal.next()?;
        legal.next().is_none().then_some(only)
    }

    /// Where in `text` the elements other than literals lie that it completes.
    pub(super) fn spans(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        let mut state = self.start();
        let mut start = 0;
        for (at, &byte) in text.iter().enumerate() {
            let Some(reached) = self.step(state, byte) else {
                break;
            };
            if reached.element_idx > state.element_idx {
                let end = match self.0[state.element_idx] {
                    // Ended by the byte behind it.
                    Element::Integer(_) => at,
                    _ => at + 1,
                };
                if !matches!(self.0[state.element_idx], Element::Literal(_)) {
                    spans.push(start..end);
                }
                start = at + 1;
            }
            state = reached;
        }
        spans
    }
}

fn start_of(element_idx: usize) -> State {
    let place = Place::Start;
    State { element_idx, place }
}

impl Digits {
    /// The digits with one more character, if that can become a number in `range`.
    fn push(mut self, byte: u8, range: &RangeInclusive<i64>) -> Option<Self> {
        match byte {
            b'-' if !self.is_negative && self.n_digits == 0 => self.is_negative = true,
            b'0'..=b'9' if !self.is_zero() => {
                let digit = u64::from(byte - b'0');
                self.magnitude = self.magnitude.checked_mul(10)?.checked_add(digit)?;
                self.n_digits += 1;
            }
            _ => return None,
        }
        self.can_reach(range).then_some(self)
    }

    fn is_value(self, range: &RangeInclusive<i64>) -> bool {
        self.n_digits > 0 && self.reaches(0, range)
    }

    /// A number by itself, not the start of one.
    fn is_zero(self) -> bool {
        self.magnitude == 0 && self.n_digits > 0
    }

    fn can_reach(self, range: &RangeInclusive<i64>) -> bool {
        // i64 has at most 19 digits. Zero is a whole number, not the start of one.
        let is_zero = self.magnitude == 0 && self.n_digits > 0;
        let most = if is_zero {
            0
        } else {
            19 - self.n_digits.min(19)
        };
        let is_bare_sign = self.n_digits == 0;
        (0..=most).any(|n_more| {
            // Behind a sign alone the first digit is not zero.
            !(is_bare_sign && n_more == 0) && self.reaches(n_more, range)
        }) && !(self.is_negative && self.is_zero())
    }

    /// Whether some number with `n_more` digits behind these lies in `range`.
    fn reaches(self, n_more: u32, range: &RangeInclusive<i64>) -> bool {
        let scale = 10_i128.pow(n_more);
        let mut smallest = i128::from(self.magnitude) * scale;
        let largest = smallest + scale - 1;
        if self.n_digits == 0 {
            smallest = scale / 10;
        }
        let (low, high) = if self.is_negative {
            (-largest, -smallest)
        } else {
            (smallest, largest)
        };
        low <= i128::from(*range.end()) && high >= i128::from(*range.start())
    }
}

impl Inside {
    /// The place after `byte`, which is not the quote between two characters.
    fn step(self, byte: u8) -> Option<Self> {
        let character = |low, high, more| Some(Self::Character { low, high, more });
        match self {
            Self::Between => match byte {
                b'\\' => Some(Self::Escape),
                0x20..=0x7f => Some(Self::Between),
                0xc2..=0xdf => character(0x80, 0xbf, 0),
                0xe0 => character(0xa0, 0xbf, 1),
                0xe1..=0xec | 0xee | 0xef => character(0x80, 0xbf, 1),
                0xed => character(0x80, 0x9f, 1),
                0xf0 => character(0x90, 0xbf, 2),
                0xf1..=0xf3 => character(0x80, 0xbf, 2),
                0xf4 => character(0x80, 0x8f, 2),
                _ => None,
            },
            Self::Character { low, high, more } => match more.checked_sub(1) {
                _ if !(low..=high).contains(&byte) => None,
                Some(more) => character(0x80, 0xbf, more),
                None => Some(Self::Between),
            },
            Self::Escape => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(Self::Between),
                b'u' => Some(Self::Hex {
                    n_digits: 0,
                    is_d: false,
                }),
                _ => None,
            },
            Self::Hex { n_digits, is_d } => {
                let digit = char::from(byte).to_digit(16)?;
                match n_digits {
                    0 => Some(Self::Hex {
                        n_digits: 1,
                        is_d: digit == 0xd,
                    }),
                    1 if is_d && digit >= 8 => None,
                    3 => Some(Self::Between),
                    _ => Some(Self::Hex {
                        n_digits: n_digits + 1,
                        is_d: false,
                    }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `text` is one of the shape `[element]`.
    fn accepts(element: Element, text: &[u8]) -> bool {
        let automaton = Automaton::new(vec![Element::literal("["), element, Element::literal("]")]);
        let mut bytes = text.iter();
        let end = bytes.try_fold(automaton.start(), |state, &byte| {
            automaton.step(state, byte)
        });
        end.is_some_and(|state| automaton.is_complete(state))
    }

    #[test]
    fn numbers_are_those_in_the_range_and_no_others() {
        for range in [
            0..=0,
            0..=9,
            7..=105,
            -3..=12,
            -120..=-7,
            995..=1003,
            -1..=1,
            i64::MIN..=i64::MAX,
            i64::MIN..=i64::MIN,
            i64::MAX..=i64::MAX,
        ] {
            let near = [*range.start(), *range.end(), 0]
                .into_iter()
                .flat_map(|number| (-130..=130).map(move |offset| i128::from(number) + offset));
            for number in near {
                let expected = i64::try_from(number).is_ok_and(|number| range.contains(&number));
                let text = format!("[{number}]");
                let accepted = accepts(Element::Integer(range.clone()), text.as_bytes());
                assert_eq!(accepted, expected, "{text} in {range:?}");
            }
            for text in [
                "[-0]", "[00]", "[01]", "[-]", "[]", "[+1]", "[1.0]", "[-01]", "[1e1]",
            ] {
                assert!(
                    !accepts(Element::Integer(range.clone()), text.as_bytes()),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn every_prefix_of_a_number_can_be_finished() {
        for range in [7..=105, -3..=12, -120..=-7, 995..=1003, i64::MIN..=i64::MAX] {
            let automaton = Automaton::new(vec![Element::Integer(range), Element::literal("]")]);
            let after = |state: &State| {
                let bytes = 0..=u8::MAX;
                let next = bytes.filter_map(|byte| automaton.step(*state, byte));
                next.collect::<Vec<State>>()
            };
            let mut states = vec![automaton.start()];
            for _ in 0..3 {
                states = states.iter().flat_map(after).collect();
                states.retain(|&state| !automaton.is_complete(state));
                assert!(states.iter().all(|state| !after(state).is_empty()));
            }
        }
    }

    #[test]
    fn a_text_is_what_a_json_parser_takes_for_a_string() {
        let check = |content: &[u8]| {
            let text = [b"[\"", content, b"\"]"].concat();
            let parsed: Result<Vec<String>, _> = serde_json::from_slice(&text);
            assert_eq!(
                accepts(Element::Text, &text),
                parsed.is_ok(),
                "{content:x?}"
            );
        };
        for first in 0..=u8::MAX {
            check(&[first]);
            check(&[b'\\', first]);
            check(&[b'\\', b'u', b'0', first, b'0', b'0']);
            check(&[b'\\', b'u', b'0', b'0', b'0', first]);
            for second in 0..=u8::MAX {
                check(&[first, second]);
                for third in [0x7f, 0x80, 0xbf, 0xc0] {
                    check(&[first, second, third]);
                    check(&[first, second, third, 0x80]);
                    check(&[first, second, 0xbf, third]);
                }
            }
        }
    }

    /// A JSON parser takes two surrogates for one character; we take neither.
    #[test]
    fn no_escape_spells_a_surrogate() {
        for (text, expected) in [
            (r#"["\ud7ff"]"#, true),
            (r#"["\uD800"]"#, false),
            (r#"["\udfff"]"#, false),
            (r#"["\ud83d\ude00"]"#, false),
            (r#"["\ue000\uDDDD"]"#, false),
            (r#"["\u0dDD"]"#, true),
        ] {
            assert_eq!(accepts(Element::Text, text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn one_of_takes_its_strings_and_no_others() {
        let alternatives = || Element::one_of(["\"a\"", "\"ab\"", "\"b\""].map(str::to_owned));
        for (text, expected) in [
            ("[\"a\"]", true),
            ("[\"ab\"]", true),
            ("[\"b\"]", true),
            ("[\"\"]", false),
            ("[\"abc\"]", false),
            ("[\"ab]", false),
        ] {
            assert_eq!(accepts(alternatives(), text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_closing_finishes_its_character_and_ends() {
        let automaton = Automaton::new(vec![Element::Text]);
        for (begun, legal) in [
            (&b"\"x"[..], &b"\""[..]),
            (b"\"x\xf0\x9f\x98", b"\x80"),
            (b"\"x\\", b"u"),
            (b"\"x\\u00", b"7"),
        ] {
            let mut bytes = begun.iter();
            let state = bytes.try_fold(automaton.start(), |state, &byte| {
                automaton.step(state, byte)
            });
            let state = automaton.closing(state.unwrap());
            assert!(automaton.step(state, legal[0]).is_some());
            assert!(automaton.step(state, b'x').is_none());
        }
    }
}
