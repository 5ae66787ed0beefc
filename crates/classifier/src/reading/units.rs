//! What is judged one by one: commands, pipelines, layers, and the whole.
//!
//! The largest score counts, so a harmless line beside a harmful one takes nothing
//! from it.

use super::{
    Reading,
    features::{self, Act, Features, Surroundings},
};
use crate::render::join_words;

/// Units that are listed; the whole is always among them.
const MAX_UNITS: usize = 96;

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnitKind {
    Whole,
    /// A text inside another, by its number in [`Reading::layers`].
    Layer(usize),
    /// Commands joined by pipes.
    Pipeline,
    Command,
}

/// A part of a reading that is judged by itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unit {
    pub(crate) kind: UnitKind,
    /// What it says, constants evaluated and encodings undone.
    pub(crate) text: String,
    pub(crate) features: Features,
}

impl Reading {
    /// The features of the whole.
    pub(crate) fn features(&self, surroundings: &Surroundings) -> Features {
        Parts::of(self).whole(self, surroundings)
    }

    /// All units, the whole first. A reading of one command has one.
    pub(crate) fn units(&self, surroundings: &Surroundings) -> Vec<Unit> {
        let parts = Parts::of(self);
        let mut units = vec![Unit {
            kind: UnitKind::Whole,
            text: self
                .layers
                .first()
                .map_or_else(String::new, |layer| layer.text.clone()),
            features: parts.whole(self, surroundings),
        }];
        for (idx, layer) in self.layers.iter().enumerate().skip(1) {
            units.push(Unit {
                kind: UnitKind::Layer(idx),
                text: layer.text.clone(),
                features: parts.of_layer(self, idx),
            });
        }
        if self.commands.len() > 1 {
            for pipeline in parts.pipelines.iter().filter(|p| p.members.len() > 1) {
                let texts: Vec<String> = pipeline
                    .members
                    .iter()
                    .map(|idx| text_of(&parts.acts[*idx]))
                    .collect();
                units.push(Unit {
                    kind: UnitKind::Pipeline,
                    text: texts.join(" | "),
                    features: pipeline.features,
                });
            }
            for (act, features) in parts.acts.iter().zip(&parts.commands) {
                units.push(Unit {
                    kind: UnitKind::Command,
                    text: text_of(act),
                    features: *features,
                });
            }
        }
        // A flood of equal lines is one line.
        let mut seen = std::collections::HashSet::new();
        units.retain(|unit| unit.kind == UnitKind::Whole || seen.insert(unit.text.clone()));
        if units.len() > MAX_UNITS {
            // Those that show most stay.
            let weight = |unit: &Unit| unit.features.values().iter().sum::<f32>();
            units[1..].sort_by(|a, b| weight(b).total_cmp(&weight(a)));
            units.truncate(MAX_UNITS);
        }
        units
    }
}

fn text_of(act: &Act<'_>) -> String {
    let mut text = act.command.assignments.join(" ");
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(&join_words(&act.command.words));
    for redirect in &act.command.redirects {
        text.push_str(match (redirect.writes, redirect.duplicates) {
            (true, false) => " > ",
            (true, true) => " >&",
            (false, false) => " < ",
            (false, true) => " <&",
        });
        text.push_str(&redirect.target);
    }
    text
}

/// The features of every part, each worked out once.
struct Parts<'a> {
    acts: Vec<Act<'a>>,
    commands: Vec<Features>,
    pipelines: Vec<Pipeline>,
    layers: Vec<Features>,
}

struct Pipeline {
    layer: usize,
    members: Vec<usize>,
    features: Features,
}

impl<'a> Parts<'a> {
    fn of(reading: &'a Reading) -> Self {
        let acts = features::acts_of(&reading.commands);
        let commands: Vec<Features> = acts
            .iter()
            .map(|act| {
                let mut features = features::of_command(act);
                if reading.commands.len() == 1 || act.command.feeds.is_some() {
                    features.raise(&features::of_pipeline(&[act]));
                }
                features
            })
            .collect();
        let mut by_pipeline: Vec<(usize, Vec<usize>)> = Vec::new();
        for (idx, act) in acts.iter().enumerate() {
            let pipeline = act.command.pipeline;
            match by_pipeline
                .iter_mut()
                .rev()
                .find(|(known, _)| *known == pipeline)
            {
                Some((_, members)) => members.push(idx),
                None => by_pipeline.push((pipeline, vec![idx])),
            }
        }
        let pipelines = by_pipeline
            .into_iter()
            .map(|(_, members)| {
                let of_members: Vec<&Act<'_>> = members.iter().map(|idx| &acts[*idx]).collect();
                let mut features = features::of_pipeline(&of_members);
                for idx in &members {
                    features.raise(&commands[*idx]);
                }
                Pipeline {
                    layer: reading.commands[members[0]].layer,
                    members,
                    features,
                }
            })
            .collect();
        let layers = reading.layers.iter().map(features::of_layer).collect();
        Self {
            acts,
            commands,
            pipelines,
            layers,
        }
    }

    /// A layer with all that it opens.
    fn of_layer(&self, reading: &Reading, idx: usize) -> Features {
        let mut features = Features::default();
        for (other, of_text) in self.layers.iter().enumerate() {
            if !is_within(reading, other, idx) {
                continue;
            }
            features.raise(of_text);
            for pipeline in self.pipelines.iter().filter(|p| p.layer == other) {
                features.raise(&pipeline.features);
            }
        }
        if reading.layers[idx].is_decoded() {
            features.decoded_texts = features.decoded_texts.max(0.25);
        }
        features
    }

    fn whole(&self, reading: &Reading, surroundings: &Surroundings) -> Features {
        let mut features = features::of_whole(reading, &self.acts, surroundings);
        for part in self
            .layers
            .iter()
            .chain(self.pipelines.iter().map(|p| &p.features))
        {
            features.raise(part);
        }
        features
    }
}

/// Whether layer `idx` is `ancestor` or came out of it.
fn is_within(reading: &Reading, mut idx: usize, ancestor: usize) -> bool {
    loop {
        if idx == ancestor {
            return true;
        }
        match reading.layers[idx].parent {
            Some(parent) => idx = parent,
            None => return false,
        }
    }
}

#[cfg(test)]
#[path = "unit_tests.rs"]
mod tests;
