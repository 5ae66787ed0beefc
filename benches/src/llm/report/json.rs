//! The keys that stay; `benches/README.md` documents them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Report;
use crate::{
    llm::compare::{Comparison, MEASURES, Measure, Measured, PREFILL_TOKENS},
    sample::Sample,
    subject::Way,
};

/// The name under which the best of each number stands.
pub(in crate::llm) const BEST: &str = "best";

impl Report {
    pub(crate) fn json(&self) -> Value {
        let mut figures = json!({
            "schema": "inwarden.bench.llm/1",
            "about": self.about,
        });
        if let Some(comparison) = &self.comparison {
            add_comparison(&mut figures, comparison);
        }
        if !self.grid.is_empty() {
            figures["grid"] = self.grid.iter().map(|cell| cell.json()).collect();
        }
        if let Some(cold_start) = &self.cold_start {
            figures["cold_start_ms"] = json!(cold_start.saved_prefix.median());
            figures["peak_rss_bytes"] = json!(cold_start.peak_rss_bytes);
            figures["cold_start"] = cold_start.json();
        }
        figures
    }
}

fn add_comparison(figures: &mut Value, comparison: &Comparison) {
    let Some((ours, peers)) = comparison.subjects.split_first() else {
        return;
    };
    let longest = PREFILL_TOKENS[PREFILL_TOKENS.len() - 1];
    let verdict = ours.sample(Measure::Verdict(Way::OneToken));
    figures["prefill_tokens_per_s"] = json!(ours.sample(Measure::Prefill(longest)).median());
    figures["decode_tokens_per_s"] = json!(ours.sample(Measure::Decode).median());
    figures["verdict_ms"] = verdict.figures();
    figures["verdicts_per_s"] = json!(ours.sample(Measure::Verdicts).median());
    figures["ours"] = subject(ours);
    let named = |peer: &Measured| (peer.name.clone(), subject(peer));
    figures["peers"] = peers.iter().map(named).collect::<Map<_, _>>().into();
    figures["ratio"] = json!(ratios(comparison));
}

fn subject(measured: &Measured) -> Value {
    let mut figures = Map::new();
    for measure in MEASURES {
        let sample = measured.sample(measure);
        if !sample.is_empty() {
            figures.insert(key(measure), sample.figures());
        }
    }
    figures.into()
}

fn key(measure: Measure) -> String {
    match measure {
        Measure::Prefill(n_tokens) => format!("prefill_{n_tokens}_tokens_per_s"),
        Measure::Decode => "decode_tokens_per_s".to_owned(),
        Measure::Verdict(Way::OneToken) => "verdict_one_token_ms".to_owned(),
        Measure::Verdict(Way::Constrained) => "verdict_json_ms".to_owned(),
        Measure::Verdicts => "verdicts_per_s".to_owned(),
    }
}

/// How many times faster ours is than each peer, by measurement; above 1 is
/// faster throughout. `best` holds the lowest of each.
pub(super) fn ratios(comparison: &Comparison) -> BTreeMap<String, BTreeMap<String, f64>> {
    let mut all: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    let Some((ours, peers)) = comparison.subjects.split_first() else {
        return all;
    };
    for peer in peers {
        let ratios = ratios_to(ours, peer);
        let best = all.entry(BEST.to_owned()).or_default();
        for (key, &ratio) in &ratios {
            let lowest = best.entry(key.clone()).or_insert(ratio);
            *lowest = lowest.min(ratio);
        }
        all.insert(peer.name.clone(), ratios);
    }
    all
}

fn ratios_to(ours: &Measured, peer: &Measured) -> BTreeMap<String, f64> {
    let rate = |measure| ours.sample(measure).ratios(peer.sample(measure));
    let verdict = ours.sample(Measure::Verdict(Way::OneToken));
    let by_way = |way| peer.sample(Measure::Verdict(way)).ratios(verdict);
    let prefill = PREFILL_TOKENS.map(|n_tokens| rate(Measure::Prefill(n_tokens)));
    let lowest = prefill
        .iter()
        .map(Sample::median)
        .fold(f64::INFINITY, f64::min);
    let samples = [
        ("prefill_64", prefill[0].clone()),
        ("prefill_128", prefill[1].clone()),
        ("decode", rate(Measure::Decode)),
        ("verdict", peer.fastest_verdict().ratios(verdict)),
        ("verdict_json", by_way(Way::Constrained)),
        ("verdict_one_token", by_way(Way::OneToken)),
        ("verdicts_per_s", rate(Measure::Verdicts)),
    ];
    let mut ratios: BTreeMap<String, f64> = samples
        .into_iter()
        .filter(|(_, sample)| !sample.is_empty())
        .map(|(key, sample)| (key.to_owned(), sample.median()))
        .collect();
    ratios.insert("prefill".to_owned(), lowest);
    ratios
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &str, values: [Option<f64>; MEASURES.len()]) -> Measured {
        let samples = values.map(|value| {
            let mut sample = Sample::default();
            value.into_iter().for_each(|value| sample.push(value));
            sample
        });
        Measured::new(name, samples)
    }

    #[test]
    fn ratios_say_how_many_times_faster_ours_is() {
        let comparison = Comparison {
            subjects: vec![
                measured(
                    "inwarden",
                    [
                        Some(400.0),
                        Some(440.0),
                        Some(30.0),
                        Some(100.0),
                        None,
                        Some(12.0),
                    ],
                ),
                measured(
                    "a",
                    [
                        Some(100.0),
                        Some(88.0),
                        Some(15.0),
                        Some(600.0),
                        Some(500.0),
                        Some(3.0),
                    ],
                ),
                measured(
                    "b",
                    [Some(80.0), Some(110.0), Some(60.0), Some(400.0), None, None],
                ),
            ],
        };
        let ratios = ratios(&comparison);
        assert_eq!(ratios["a"]["prefill"], 4.0);
        assert_eq!(ratios["a"]["prefill_128"], 5.0);
        assert_eq!(ratios["a"]["verdict"], 5.0);
        assert_eq!(ratios["a"]["verdict_one_token"], 6.0);
        assert_eq!(ratios["a"]["verdicts_per_s"], 4.0);
        assert_eq!(ratios["b"]["decode"], 0.5);
        assert!(!ratios["b"].contains_key("verdict_json"));
        assert_eq!(ratios[BEST]["verdict"], 4.0);
        assert_eq!(ratios[BEST]["prefill"], 4.0);
        assert_eq!(ratios[BEST]["decode"], 0.5);
    }
}
