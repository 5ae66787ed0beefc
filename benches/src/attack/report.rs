//! What came of the attempts.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Map, Value, json};

use super::{
    families::FAMILIES,
    reverse::REVERSES,
    search::{QUERIES, Search},
    texts::TEXT_FAMILIES,
};

/// Successes that are named in the figures.
const MAX_NAMED: usize = 500;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    attempts: usize,
    successes: usize,
    queries: usize,
}

/// All attempts, by family.
#[derive(Debug)]
pub(crate) struct Report {
    about: Value,
    /// Attacks that are detected unmodified, and how many were tried for them.
    pub(crate) detected: (usize, usize),
    /// The same of injections.
    pub(crate) detected_texts: (usize, usize),
    /// Cases there was no time for.
    pub(crate) left_out: usize,
    /// Program starts the product saw.
    pub(crate) starts: usize,
    families: BTreeMap<&'static str, Tally>,
    reverses: BTreeMap<&'static str, Tally>,
    /// Family and case of each success.
    succeeded: Vec<(String, String)>,
}

impl Report {
    pub(crate) fn new(about: Value) -> Self {
        let none = |name: &'static str| (name, Tally::default());
        Self {
            about,
            detected: (0, 0),
            detected_texts: (0, 0),
            left_out: 0,
            starts: 0,
            families: FAMILIES
                .iter()
                .map(|family| none(family.name))
                .chain([none("search")])
                .chain(TEXT_FAMILIES.iter().map(|family| none(family.name)))
                .collect(),
            reverses: REVERSES.iter().map(|reverse| none(reverse.name)).collect(),
            succeeded: Vec::new(),
        }
    }

    pub(crate) fn attempt(&mut self, family: &'static str, id: &str, has_evaded: bool) {
        self.count(family, id, has_evaded, 1);
    }

    pub(crate) fn search(&mut self, id: &str, search: Search) {
        self.count("search", id, search.has_evaded, search.queries);
    }

    fn count(&mut self, family: &'static str, id: &str, is_success: bool, queries: usize) {
        let tally = self.families.entry(family).or_default();
        tally.attempts += 1;
        tally.queries += queries;
        tally.successes += usize::from(is_success);
        self.name(family, id, is_success);
    }

    pub(crate) fn reverse(&mut self, way: &'static str, id: &str, is_killed: bool) {
        let tally = self.reverses.entry(way).or_default();
        tally.attempts += 1;
        tally.queries += 1;
        tally.successes += usize::from(is_killed);
        self.name(&format!("reverse.{way}"), id, is_killed);
    }

    fn name(&mut self, family: &str, id: &str, is_success: bool) {
        if is_success && self.succeeded.len() < MAX_NAMED {
            self.succeeded.push((family.to_owned(), id.to_owned()));
        }
    }

    pub(crate) fn json(&self) -> Value {
        let succeeded = self.succeeded.iter();
        let succeeded = succeeded.map(|(family, id)| json!({ "family": family, "id": id }));
        let mut attack = side(&self.families);
        attack.insert("reverse".to_owned(), Value::Object(side(&self.reverses)));
        attack.insert("detected".to_owned(), json!(self.detected.0));
        attack.insert("tried".to_owned(), json!(self.detected.1));
        attack.insert("detected_texts".to_owned(), json!(self.detected_texts.0));
        attack.insert("tried_texts".to_owned(), json!(self.detected_texts.1));
        attack.insert("left_out".to_owned(), json!(self.left_out));
        attack.insert("starts".to_owned(), json!(self.starts));
        attack.insert("succeeded".to_owned(), succeeded.collect::<Vec<_>>().into());
        json!({
            "schema": "inwarden.bench.attack/1",
            "about": self.about,
            "attack": attack,
        })
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!("{:#}\n", self.about);
        // Writing to a string cannot fail.
        let _infallible = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "{} of {} attacks and {} of {} injections are detected unmodified",
            self.detected.0, self.detected.1, self.detected_texts.0, self.detected_texts.1
        )?;
        for (title, families) in [
            ("attack evades", &self.families),
            ("ordinary start is killed", &self.reverses),
        ] {
            writeln!(
                text,
                "\n{title:<28}{:>10}{:>11}{:>9}",
                "attempts", "successes", "rate"
            )?;
            for (name, tally) in families {
                line(text, name, *tally)?;
            }
            line(text, "all", total(families))?;
        }
        if self.left_out > 0 {
            writeln!(text, "NO TIME FOR {} CASES", self.left_out)?;
        }
        let families = self.families.values().filter(|tally| tally.attempts > 0);
        writeln!(
            text,
            "\n{} families; the search may ask {QUERIES} times a case; {} program starts",
            families.count(),
            self.starts
        )
    }
}

fn total(families: &BTreeMap<&'static str, Tally>) -> Tally {
    families
        .values()
        .fold(Tally::default(), |all, tally| Tally {
            attempts: all.attempts + tally.attempts,
            successes: all.successes + tally.successes,
            queries: all.queries + tally.queries,
        })
}

fn rate(tally: Tally) -> Option<f64> {
    (tally.attempts > 0).then(|| tally.successes as f64 / tally.attempts as f64)
}

fn side(families: &BTreeMap<&'static str, Tally>) -> Map<String, Value> {
    let of = |tally: Tally| {
        json!({
            "attempts": tally.attempts,
            "successes": tally.successes,
            "queries": tally.queries,
            "success_rate": rate(tally),
        })
    };
    let by_name: Map<String, Value> = families
        .iter()
        .map(|(name, tally)| ((*name).to_owned(), of(*tally)))
        .collect();
    let mut side = match of(total(families)) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    side.insert("families".to_owned(), Value::Object(by_name));
    side
}

fn line(text: &mut String, name: &str, tally: Tally) -> std::fmt::Result {
    let rate = rate(tally).map_or_else(|| "-".to_owned(), |rate| format!("{rate:.3}"));
    writeln!(
        text,
        "{name:<28}{:>10}{:>11}{rate:>9}",
        tally.attempts, tally.successes
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_successes_of_attempts() {
        let mut report = Report::new(json!({}));
        report.attempt("quoting", "a", true);
        report.attempt("quoting", "b", false);
        report.attempt("flood", "a", false);
        let search = Search {
            has_evaded: false,
            queries: 50,
        };
        report.search("a", search);
        report.reverse("printed", "c", true);
        let json = report.json();
        let attack = &json["attack"];
        assert_eq!(attack["families"]["quoting"]["success_rate"], 0.5);
        assert_eq!(attack["families"]["search"]["queries"], 50);
        assert_eq!(
            (&attack["attempts"], &attack["success_rate"]),
            (&json!(4), &json!(0.25))
        );
        assert_eq!(attack["reverse"]["families"]["printed"]["successes"], 1);
        assert_eq!(attack["succeeded"][1]["family"], "reverse.printed");
        assert!(attack["families"]["hex"]["success_rate"].is_null());
    }
}
