//! A trained head: what it was made with, and its file.
//!
//! A head answers only for the model, the prompt, the way of computing and the
//! rendering of cases that it was trained with; with any other its numbers would
//! mean nothing, so it is refused. The file is JSON; the weights in it are f32,
//! little endian, in base64.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use inwarden_inference::LanguageModel;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::states::{Position, StateChoice};
use crate::judge::{Prompt, Question};

const FORMAT: u32 = 1;
/// Longer files are none of ours: a head of 64 states of 8192 numbers has 2.8 MB.
const MAX_FILE_BYTES: usize = 4 << 20;
const MAX_STATES: usize = 64;

/// Why a head cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// The file is of another version: whoever trained it must do so again.
    #[error("head of format {got}, this program reads {FORMAT}")]
    OtherFormat {
        /// The file's format.
        got: u32,
    },
    /// The file is damaged.
    #[error("head file: {problem}")]
    Corrupt {
        /// What is wrong.
        problem: String,
    },
    /// The head is of something else: it must be trained anew for what is in use.
    #[error("the head was trained with {what} {trained}, in use is {used}")]
    Differs {
        /// `model`, `prompt`, `compute`, `rendering`, `question` or `width`.
        what: &'static str,
        /// What it was trained with.
        trained: String,
        /// What it was to be used with.
        used: String,
    },
}

/// What a head was trained with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadOrigin {
    /// [`Question::name`] of what it answers.
    pub question: String,
    /// The id of the model.
    pub model: String,
    /// How the model's weights were kept: the numbers depend on it.
    pub compute: String,
    /// [`Prompt::content_hash`].
    pub prompt: String,
    /// [`crate::rendering_hash`] of the program that trained it.
    pub rendering: String,
    /// Hash of the rows it was trained on.
    pub corpus: String,
    /// How many these were.
    pub rows: usize,
}

/// A linear model over hidden states.
#[derive(Clone, PartialEq)]
pub struct Head {
    origin: HeadOrigin,
    choice: StateChoice,
    intercept: f64,
    /// As many as the states have numbers together.
    weights: Vec<f32>,
    hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadFile {
    format: u32,
    origin: HeadOrigin,
    positions: Vec<String>,
    layers: Vec<usize>,
    intercept: f64,
    weights: String,
}

impl Head {
    /// A head of these; `weights` are those of all states of `choice`, in its order.
    pub(crate) fn new(
        origin: HeadOrigin,
        choice: StateChoice,
        intercept: f64,
        weights: Vec<f32>,
    ) -> Self {
        let mut head = Self {
            origin,
            choice,
            intercept,
            weights,
            hash: String::new(),
        };
        head.hash = hex(&Sha256::digest(head.to_text())[..6]);
        head
    }

    /// The head that comes with this crate for `model_id` and `question`, if one does.
    ///
    /// # Errors
    /// [`HeadError`]; a test makes sure that there is none.
    pub fn shipped(model_id: &str, question: Question) -> Result<Option<Self>, HeadError> {
        let found = SHIPPED
            .iter()
            .find(|(model, asked, _)| *model == model_id && *asked == question);
        found.map(|(_, _, text)| Self::parse(text)).transpose()
    }

    /// Reads a head's file.
    ///
    /// # Errors
    /// [`HeadError::OtherFormat`], [`HeadError::Corrupt`].
    pub fn parse(text: &str) -> Result<Self, HeadError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let corrupt = |problem: String| HeadError::Corrupt { problem };
        if text.len() > MAX_FILE_BYTES {
            return Err(corrupt(format!("more than {MAX_FILE_BYTES} bytes")));
        }
        let version: Version = serde_json::from_str(text).map_err(|e| corrupt(e.to_string()))?;
        if version.format != FORMAT {
            return Err(HeadError::OtherFormat {
                got: version.format,
            });
        }
        let file: HeadFile = serde_json::from_str(text).map_err(|e| corrupt(e.to_string()))?;
        let positions = file.positions.iter().map(|name| {
            Position::from_name(name).ok_or_else(|| corrupt(format!("no position {name}")))
        });
        let choice = StateChoice {
            positions: positions.collect::<Result<_, _>>()?,
            layers: file.layers,
        };
        let n_states = choice.n_states();
        if n_states == 0 || n_states > MAX_STATES {
            return Err(corrupt(format!("{n_states} states")));
        }
        if choice.positions.contains(&Position::Windows) && !choice.is_of_windows() {
            return Err(corrupt("windows beside another position".to_owned()));
        }
        let bytes = STANDARD
            .decode(&file.weights)
            .map_err(|e| corrupt(e.to_string()))?;
        let (numbers, rest) = bytes.as_chunks::<4>();
        let weights: Vec<f32> = numbers.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if !rest.is_empty() || weights.is_empty() || !weights.len().is_multiple_of(n_states) {
            return Err(corrupt(format!("{} bytes of weights", bytes.len())));
        }
        if !file.intercept.is_finite() || weights.iter().any(|weight| !weight.is_finite()) {
            return Err(corrupt("a weight is not finite".to_owned()));
        }
        Ok(Self::new(file.origin, choice, file.intercept, weights))
    }

    /// The head as [`Head::parse`] reads it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let bytes: Vec<u8> = self.weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        let file = HeadFile {
            format: FORMAT,
            origin: self.origin.clone(),
            positions: self
                .choice
                .positions
                .iter()
                .map(|at| at.name().to_owned())
                .collect(),
            layers: self.choice.layers.clone(),
            intercept: self.intercept,
            weights: STANDARD.encode(bytes),
        };
        let mut text = serde_json::to_string_pretty(&file)
            .expect("a struct of strings and numbers has a JSON form");
        text.push('\n');
        text
    }

    /// That this head belongs to what is in use.
    ///
    /// # Errors
    /// [`HeadError::Differs`] with the first difference.
    pub fn check(
        &self,
        model: &LanguageModel,
        model_id: &str,
        prompt: &Prompt,
    ) -> Result<(), HeadError> {
        let compute = model.arithmetic();
        let width = self.weights.len() / self.choice.n_states();
        let pairs = [
            ("model", &self.origin.model, model_id.to_owned()),
            ("prompt", &self.origin.prompt, prompt.content_hash()),
            ("compute", &self.origin.compute, compute),
            ("rendering", &self.origin.rendering, crate::rendering_hash()),
            (
                "width",
                &width.to_string(),
                model.config().hidden_size.to_string(),
            ),
        ];
        for (what, trained, used) in pairs {
            if *trained != used {
                return Err(HeadError::Differs {
                    what,
                    trained: trained.clone(),
                    used,
                });
            }
        }
        Ok(())
    }

    /// The log-odds of malicious in nats, of the states of [`Head::choice`]; of
    /// windows, the highest of any.
    pub(crate) fn log_odds(&self, states: &[f32]) -> f64 {
        let width = self.weights.len();
        let (parts, rest) = (states.chunks_exact(width), states.len() % width);
        if rest != 0 || parts.len() == 0 || (parts.len() > 1 && !self.choice.is_of_windows()) {
            return f64::NAN;
        }
        let of_part = |part: &[f32]| {
            let products = self.weights.iter().zip(part);
            let products = products.map(|(w, x)| f64::from(*w) * f64::from(*x));
            self.intercept + products.sum::<f64>()
        };
        // `f64::max` would drop a state that is not a number.
        let highest = |a: f64, b: f64| if a.is_nan() || a > b { a } else { b };
        parts.map(of_part).fold(f64::NEG_INFINITY, highest)
    }

    /// What it was trained with.
    #[must_use]
    pub fn origin(&self) -> &HeadOrigin {
        &self.origin
    }

    /// Which states it reads.
    #[must_use]
    pub fn choice(&self) -> &StateChoice {
        &self.choice
    }

    /// The first 12 hexadecimal digits of the SHA-256 of its file.
    #[must_use]
    pub fn content_hash(&self) -> &str {
        &self.hash
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Head")
            .field("origin", &self.origin)
            .field("choice", &self.choice)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const CODER_0_5B: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m";

/// Model, question, file.
const SHIPPED: &[(&str, Question, &str)] = &[
    (
        CODER_0_5B,
        Question::Exec,
        include_str!("../../data/heads/qwen2.5-coder-0.5b-instruct-q4_k_m.exec.json"),
    ),
    (
        CODER_0_5B,
        Question::UserText,
        include_str!("../../data/heads/qwen2.5-coder-0.5b-instruct-q4_k_m.user_text.json"),
    ),
    (
        CODER_0_5B,
        Question::ToolOutput,
        include_str!("../../data/heads/qwen2.5-coder-0.5b-instruct-q4_k_m.tool_output.json"),
    ),
    (
        CODER_0_5B,
        Question::ToolCall,
        include_str!("../../data/heads/qwen2.5-coder-0.5b-instruct-q4_k_m.tool_call.json"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let origin = HeadOrigin {
            question: "exec".to_owned(),
            model: "m".to_owned(),
            compute: "Int8".to_owned(),
            prompt: "p".to_owned(),
            rendering: crate::rendering_hash(),
            corpus: "c".to_owned(),
            rows: 7,
        };
        let choice = StateChoice {
            positions: vec![Position::Answer, Position::EventMean],
            layers: vec![3],
        };
        Head::new(origin, choice, -0.5, vec![1.0, -2.0, 0.25, 4.0])
    }

    #[test]
    fn a_head_comes_back_from_its_file() {
        let head = head();
        let read = Head::parse(&head.to_text()).unwrap();
        assert_eq!(read, head);
        assert_eq!(read.log_odds(&[1.0, 1.0, 4.0, 0.5]), 1.5);
        assert!(read.log_odds(&[1.0]).is_nan());
        assert!(read.log_odds(&[1.0; 8]).is_nan(), "it has no windows");
    }

    #[test]
    fn of_windows_the_highest_counts_and_what_is_no_number_shows() {
        let choice = StateChoice {
            positions: vec![Position::Windows],
            layers: vec![3, 5],
        };
        let head = Head::new(head().origin, choice, 0.5, vec![1.0, -2.0]);
        assert_eq!(Head::parse(&head.to_text()).as_ref(), Ok(&head));
        assert_eq!(head.log_odds(&[0.0, 1.0, 3.0, 1.0, 1.0, 1.0]), 1.5);
        assert!(head.log_odds(&[1.0, 1.0, f32::NAN, 1.0, 1.0, 1.0]).is_nan());
        assert!(head.log_odds(&[1.0, 1.0, 1.0, f32::NAN]).is_nan());
        assert!(head.log_odds(&[]).is_nan());
    }

    #[test]
    fn the_shipped_heads_parse_and_are_of_these_prompts() {
        for (model, question, _) in SHIPPED {
            let head = Head::shipped(model, *question).unwrap().unwrap();
            let origin = head.origin();
            assert_eq!(origin.model, *model);
            assert_eq!(origin.question, question.name());
            assert_eq!(origin.prompt, Prompt::of(*question).content_hash());
            assert_eq!(origin.rendering, crate::rendering_hash());
        }
        assert!(Head::shipped(CODER_0_5B, Question::Exec).unwrap().is_some());
        assert_eq!(Head::shipped("another", Question::Exec), Ok(None));
    }

    #[test]
    fn a_damaged_or_foreign_file_is_refused() {
        let text = head().to_text();
        let other = text.replace("\"format\": 1", "\"format\": 2");
        assert_eq!(Head::parse(&other), Err(HeadError::OtherFormat { got: 2 }));
        for (from, to) in [
            ("event_mean", "everywhere"),
            ("event_mean", "windows"),
            ("-0.5", "1e999"),
            ("\"weights\": \"", "\"weights\": \"!"),
            ("\"layers\": [\n    3\n  ]", "\"layers\": []"),
            ("\"rows\"", "\"rows_\""),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            let refused = Head::parse(&changed);
            assert!(matches!(refused, Err(HeadError::Corrupt { .. })), "{to}");
        }
        let mut nan = head();
        nan.weights[2] = f32::NAN;
        assert!(Head::parse(&nan.to_text()).is_err());
    }

    #[test]
    fn every_part_of_a_head_is_in_its_hash() {
        let head = head();
        let mut other = head.weights.clone();
        other[1] += 0.5;
        let other = Head::new(head.origin.clone(), head.choice.clone(), -0.5, other);
        assert_ne!(other.content_hash(), head.content_hash());
    }
}
