//! What a play came to.

use std::time::Duration;

use inwarden::{
    CaseReport, CounterSnapshot,
    types::{Action, ActionOutcome, Losses, Mode},
};
use serde_json::{Value, json};

use super::{Scene, observe::Observed};
use crate::console;

/// Everything the summary says about one play.
#[derive(Debug)]
pub(crate) struct PlaySummary {
    pub(crate) mode: Mode,
    pub(crate) counters: CounterSnapshot,
    /// `None` for a replay.
    pub(crate) losses: Option<Losses>,
    /// Titles with what was read; empty for a replay.
    pub(crate) observed: Vec<(String, Observed)>,
    tally: Tally,
}

/// What is added up case by case.
#[derive(Debug)]
pub(crate) struct Tally {
    /// For each step of the scene, how many exec events name its script.
    seen_steps: Vec<u64>,
    scripts: Vec<String>,
    /// Command lines of everything that an action stronger than an alert was
    /// decided for, with what came of it.
    acted_on: Vec<(String, Action, ActionOutcome)>,
    alerted: u64,
    longest_to_action: Option<Duration>,
}

impl Tally {
    pub(crate) fn of(scene: &Scene) -> Self {
        Self {
            seen_steps: vec![0; scene.steps.len()],
            scripts: scene.steps.iter().map(|step| step.script.clone()).collect(),
            acted_on: Vec::new(),
            alerted: 0,
            longest_to_action: None,
        }
    }

    pub(crate) fn add(&mut self, report: &CaseReport) {
        let argv = &report.case.last().process.image.argv.args;
        for (seen, script) in self.seen_steps.iter_mut().zip(&self.scripts) {
            *seen += u64::from(argv.iter().any(|arg| arg.contains(script.as_str())));
        }
        match report.decision.enforced {
            Action::Allow => {}
            Action::Alert => self.alerted += 1,
            action => {
                let command = console::command(argv);
                self.acted_on.push((command, action, report.action.outcome));
                self.longest_to_action = self.longest_to_action.max(report.event_to_action);
            }
        }
    }
}

impl PlaySummary {
    pub(crate) fn new(
        mode: Mode,
        tally: Tally,
        counters: CounterSnapshot,
        losses: Option<Losses>,
    ) -> Self {
        Self {
            mode,
            counters,
            losses,
            observed: Vec::new(),
            tally,
        }
    }

    pub(crate) fn print(&self, scene: &Scene) -> anyhow::Result<()> {
        let counters = &self.counters;
        console::line(&format!(
            "cases {}: settled by rule {}, precedent {}, model {}, case {}, fallback {}",
            counters.cases,
            counters.settled_by_rule,
            counters.settled_by_precedent,
            counters.settled_by_model,
            counters.settled_by_case,
            counters.settled_by_fallback
        ))?;
        console::line(&format!("alerts {}", self.tally.alerted))?;
        for (command, action, outcome) in &self.tally.acted_on {
            console::line(&format!("{}: {} {command}", action.name(), outcome.name()))?;
        }
        if let Some(longest) = self.tally.longest_to_action {
            let shown = console::millis(longest);
            console::line(&format!("longest from event to end of action: {shown}"))?;
        }
        if let Some(losses) = &self.losses {
            console::line(&format!(
                "events seen {}, emitted {}, lost {}, read {}",
                losses.seen, losses.emitted, losses.dropped, losses.read
            ))?;
        }
        for (step, seen) in scene.steps.iter().zip(&self.tally.seen_steps) {
            let seen = match seen {
                0 => "NOT VISIBLE: no exec event names it".to_owned(),
                count => format!("visible in {count} exec events"),
            };
            console::line(&format!("step {} ({}): {seen}", step.id, step.title))?;
        }
        for (title, observed) in &self.observed {
            console::line(&format!("{title}: {}", observed.text()))?;
        }
        Ok(())
    }

    pub(crate) fn to_json(&self) -> Value {
        let counters: serde_json::Map<String, Value> = self
            .counters
            .named()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        let observed: Vec<Value> = self
            .observed
            .iter()
            .map(|(title, observed)| json!({"title": title, "value": observed.text()}))
            .collect();
        let acted_on: Vec<Value> = self
            .tally
            .acted_on
            .iter()
            .map(|(command, action, outcome)| {
                json!({"command": command, "action": action.name(), "outcome": outcome.name()})
            })
            .collect();
        json!({
            "mode": self.mode.name(),
            "counters": counters,
            "lost": self.losses.map(|losses| losses.dropped),
            "alerts": self.tally.alerted,
            "acted_on": acted_on,
            "longest_event_to_action_ms": self.tally.longest_to_action.map(|d| d.as_secs_f64() * 1e3),
            "steps_seen": self.tally.seen_steps,
            "observed": observed,
        })
    }
}
