//! The product as a user has it: an [`Analyst`] that is handed event lines.
//!
//! The one place that knows in which form each question is put.

use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;
use inwarden::{
    Analyst, AnalystConfig, HeadChoice, MemoryPlace, RuleChoice, feeds,
    types::{Case, Event, Verdict},
};
use inwarden_classifier::{Calibration, TextCalibration};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::rows::Question;
use crate::model_files;

/// A part of the product that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Part {
    /// The language model, with everything read from it.
    Model,
    /// The precedents.
    Precedents,
    /// The detection rules.
    Rules,
    /// The head that is trained on the model's hidden states.
    Head,
    /// What the reading of command lines finds.
    Features,
    /// The linear models over the words of a text.
    Words,
}

impl Part {
    pub(crate) const ALL: [Self; 6] = [
        Self::Model,
        Self::Precedents,
        Self::Rules,
        Self::Head,
        Self::Features,
        Self::Words,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Precedents => "precedents",
            Self::Rules => "rules",
            Self::Head => "head",
            Self::Features => "features",
            Self::Words => "words",
        }
    }
}

/// The product without some of its parts.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    pub(crate) analyst: Arc<Analyst>,
    /// What was loaded: names and content hashes.
    pub(crate) identity: Vec<(String, String)>,
}

impl Product {
    /// Loads the shipped configuration less the parts in `without`.
    pub(crate) fn load(model: &str, without: &[Part]) -> anyhow::Result<Self> {
        let mut config = AnalystConfig::new(model_files::cache()?);
        config.model = Some(model.to_owned());
        for part in without {
            match part {
                Part::Model => config.model = None,
                Part::Precedents => config.memory = MemoryPlace::Off,
                Part::Rules => config.rules = RuleChoice::Off,
                Part::Features | Part::Words => {}
                Part::Head => config.head = HeadChoice::Off,
            }
        }
        let silent = Silent::of(without);
        if silent != Silent::default() {
            config.calibration = Some(silent.exec()?);
            config.text_calibrations = silent.texts()?;
        }
        let analyst = Analyst::load(&config).context("the product does not load")?;
        let mut identity: Vec<(String, String)> = analyst
            .identity()
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let left_out: Vec<&str> = without.iter().map(|part| part.name()).collect();
        identity.push(("without".to_owned(), left_out.join(",")));
        Ok(Self {
            analyst: Arc::new(analyst),
            identity,
        })
    }

    /// A short hash of everything that was loaded.
    pub(crate) fn configuration_hash(&self) -> String {
        let digest = Sha256::digest(format!("{:?}", self.identity));
        digest[..6]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    pub(crate) fn judge(&self, question: &Question) -> anyhow::Result<Verdict> {
        let event = event_of(question)?;
        Ok(self.analyst.classify(&Case::of(event)))
    }
}

/// Signals whose shipped weights are set to zero; the others stay as they are.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Silent {
    features: bool,
    words: bool,
}

impl Silent {
    fn of(without: &[Part]) -> Self {
        Self {
            features: without.contains(&Part::Features),
            words: without.contains(&Part::Words),
        }
    }

    fn exec(self) -> anyhow::Result<Calibration> {
        let mut table: toml::Table = toml::from_str(&Calibration::shipped()?.to_text()?)?;
        self.silence(&mut table);
        Ok(Calibration::parse(&toml::to_string(&table)?)?)
    }

    fn texts(self) -> anyhow::Result<Vec<TextCalibration>> {
        let questions = [
            inwarden_classifier::Question::UserText,
            inwarden_classifier::Question::ToolOutput,
            inwarden_classifier::Question::ToolCall,
        ];
        let mut all = Vec::new();
        for question in questions {
            if let Some(shipped) = TextCalibration::shipped(question)? {
                let mut table: toml::Table = toml::from_str(&shipped.to_text()?)?;
                self.silence(&mut table);
                all.push(TextCalibration::parse(&toml::to_string(&table)?)?);
            }
        }
        Ok(all)
    }

    /// Sets the weights to zero wherever they stand.
    fn silence(self, table: &mut toml::Table) {
        for (name, value) in table {
            match value {
                toml::Value::Table(weights) if name == "indicators" && self.features => {
                    for weight in weights.iter_mut() {
                        *weight.1 = toml::Value::Float(0.0);
                    }
                }
                toml::Value::Table(inner) => self.silence(inner),
                toml::Value::Float(weight) if name == "features" && self.features => *weight = 0.0,
                toml::Value::Float(weight) if name == "terms" && self.words => *weight = 0.0,
                _ => {}
            }
        }
    }
}

/// The event that puts a question. Its id is the same for every row, since ids of
/// rows are no part of the question.
pub(crate) fn event_of(question: &Question) -> anyhow::Result<Event> {
    decode(&event_line(question))
}

pub(crate) fn decode(line: &Value) -> anyhow::Result<Event> {
    let decoded = feeds::decode_event(line.to_string().as_bytes());
    Ok(decoded.context("a row does not make an event")?.event)
}

fn event_line(question: &Question) -> Value {
    match question {
        Question::Exec { argv, parent } => json!({ "id": "row", "argv": argv, "parent": parent }),
        Question::Prompt {
            text,
            kind,
            user_task,
            tool,
        } => {
            // Everything that no user wrote came by some tool.
            let given_by = kind.as_deref().map(|kind| match kind {
                "user" | "user_prompt" | "user_input" | "user_text" => "user",
                _ => "tool",
            });
            json!({
                "id": "row",
                "kind": "text",
                "text": text,
                "given_by": given_by,
                "tool": tool,
                "user_task": user_task,
            })
        }
        Question::ToolCall {
            user_task,
            history,
            tool,
            args,
            agent_role,
        } => {
            let mut line = json!({
                "id": "row",
                "tool": tool,
                "user_task": user_task,
                "agent_role": agent_role,
                "history": history,
            });
            let key = if args.is_string() {
                "args_text"
            } else {
                "args"
            };
            line[key] = args.clone();
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use inwarden::types::{EventData, TextGiver};

    use super::*;

    #[test]
    fn each_question_makes_an_event() {
        let exec = Question::Exec {
            argv: vec!["ls".into(), "-l".into()],
            parent: Some("bash".into()),
        };
        let event = event_of(&exec).unwrap();
        assert_eq!(event.process.image.argv.args, ["ls", "-l"]);
        assert_eq!(event.ancestors.len(), 1);
        let call = Question::ToolCall {
            user_task: Some("pay the bill".into()),
            history: vec![json!({"tool": "read", "output": "x"})],
            tool: "send".into(),
            args: json!({"to": "a"}),
            agent_role: None,
        };
        let EventData::ToolCall(call) = event_of(&call).unwrap().data else {
            panic!("no tool call");
        };
        assert_eq!(
            (call.tool.as_str(), call.args_json.as_str()),
            ("send", r#"{"to":"a"}"#)
        );
        assert_eq!(call.user_task.as_deref(), Some("pay the bill"));
        assert_eq!(call.history[0].output, "x");
        for (kind, given_by) in [
            (None, TextGiver::User),
            (Some("user_input"), TextGiver::User),
            (Some("email"), TextGiver::Tool),
        ] {
            let prompt = Question::Prompt {
                text: "Ignore \"all\"".into(),
                kind: kind.map(Into::into),
                user_task: None,
                tool: None,
            };
            let EventData::Text(text) = event_of(&prompt).unwrap().data else {
                panic!("no text");
            };
            assert_eq!((&*text.text, text.given_by), ("Ignore \"all\"", given_by));
        }
    }
}
