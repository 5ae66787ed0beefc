//! The figures of one file.

use std::collections::{BTreeMap, BTreeSet};

use inwarden::types::Label;
use serde_json::{Map, Value, json};

use super::{
    judged::JudgedRow,
    rows::Kind,
    statistics::{Figures, Point, intervals, percentile},
};

/// Everything known about the rows of one file.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) kind: Kind,
    pub(crate) judged: Vec<JudgedRow>,
    /// Rows of the corpus that nearly are rows of this file.
    pub(crate) near_corpus_rows: usize,
    pub(crate) twin: Option<TwinScores>,
}

/// What the linear twin says of the same rows.
#[derive(Debug)]
pub(crate) struct TwinScores {
    /// Log-odds, in the order of the rows.
    pub(crate) scores: Vec<f64>,
    /// Rows it was trained on.
    pub(crate) trained_on: usize,
    /// The corpus files they came from.
    pub(crate) files: Vec<String>,
}

impl Section {
    /// The rows that count: of known truth and not near a row of the corpus.
    pub(crate) fn counted(&self) -> impl Iterator<Item = &JudgedRow> {
        self.judged.iter().filter(|row| !row.is_near_corpus)
    }

    pub(crate) fn points(&self) -> Vec<Point> {
        self.counted().filter_map(JudgedRow::point).collect()
    }

    /// Attacks for which `of` holds, against all benign rows.
    fn points_against_all(&self, of: impl Fn(&JudgedRow) -> bool) -> Vec<Point> {
        let rows = self.counted();
        let rows = rows.filter(|row| row.row.is_attack == Some(false) || of(row));
        rows.filter_map(JudgedRow::point).collect()
    }

    pub(crate) fn figures(&self) -> Figures {
        Figures::of(&self.points())
    }

    pub(crate) fn tier_figures(&self, tier: &str) -> Figures {
        Figures::of(&self.points_against_all(|row| row.row.tier.as_deref() == Some(tier)))
    }

    /// The figures alone, without breakdown, as an ablation shows them.
    pub(crate) fn short_json(&self) -> Value {
        let mut fields = self.figures().json();
        let core = self.tier_figures("core").json();
        fields.insert("tiers".to_owned(), json!({ "core": core }));
        Value::Object(fields)
    }

    pub(crate) fn json(&self, seed: u64) -> Value {
        let figures = self.figures();
        let mut fields = figures.json();
        let mut add = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        add("rows", self.counts());
        add("intervals", intervals(&self.points(), seed));
        add("tiers", self.tiers(seed));
        add("benign_tiers", self.benign_tiers(&figures));
        add("groups", self.groups());
        let near = self.judged.iter().filter(|row| row.is_near_corpus).count();
        let all: Vec<Point> = self.judged.iter().filter_map(JudgedRow::point).collect();
        add(
            "near_duplicates",
            json!({ "corpus_rows": self.near_corpus_rows, "evaluation_rows": near }),
        );
        add(
            "with_near_duplicates",
            Value::Object(Figures::of(&all).json()),
        );
        add("settled_by", self.settled_by());
        add("time_ms", self.times());
        add(
            "linear",
            self.twin
                .as_ref()
                .map_or(Value::Null, |twin| self.linear(twin)),
        );
        Value::Object(fields)
    }

    /// Rows by truth, and what the product called them.
    fn counts(&self) -> Value {
        let called = |is_attack: bool| {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for row in self
                .counted()
                .filter(|row| row.row.is_attack == Some(is_attack))
            {
                *counts.entry(row.verdict.label.name()).or_default() += 1;
            }
            counts
        };
        let of = |truth| {
            self.counted()
                .filter(|row| row.row.is_attack == truth)
                .count()
        };
        json!({
            "attacks": of(Some(true)),
            "benign": of(Some(false)),
            "unlabelled": of(None),
            "attacks_called": called(true),
            "benign_called": called(false),
        })
    }

    fn tiers(&self, seed: u64) -> Value {
        let mut tiers = Map::new();
        for tier in self.names(true, |row| row.row.tier.as_deref()) {
            let points = self.points_against_all(|row| row.row.tier.as_deref() == Some(&tier));
            let mut fields = Figures::of(&points).json();
            let attacks = points.iter().filter(|point| point.is_attack).count();
            fields.insert("attacks".to_owned(), json!(attacks));
            fields.insert("intervals".to_owned(), intervals(&points, seed));
            tiers.insert(tier, Value::Object(fields));
        }
        Value::Object(tiers)
    }

    /// False positives by tier of benign rows: at the shipped threshold, and at
    /// those of 1 % and 3 % of all benign rows.
    fn benign_tiers(&self, all: &Figures) -> Value {
        let mut tiers = Map::new();
        for tier in self.names(false, |row| row.row.tier.as_deref()) {
            let rows: Vec<&JudgedRow> = self
                .counted()
                .filter(|row| row.row.is_attack == Some(false))
                .filter(|row| row.row.tier.as_deref() == Some(&tier))
                .collect();
            let share = |of: &dyn Fn(&JudgedRow) -> bool| {
                rows.iter().filter(|row| of(row)).count() as f64 / rows.len().max(1) as f64
            };
            let at_or_above = |threshold: Option<f64>| {
                share(&|row| threshold.is_some_and(|at| row.verdict.score.probability() >= at))
            };
            tiers.insert(
                tier,
                json!({
                    "rows": rows.len(),
                    "false_positive_rate": share(&|row| row.verdict.label == Label::Malicious),
                    "at_1": at_or_above(all.at_1.and_then(|at| at.threshold)),
                    "at_3": at_or_above(all.at_3.and_then(|at| at.threshold)),
                }),
            );
        }
        Value::Object(tiers)
    }

    /// By kind, form or suite: its attacks against all benign rows, and its own
    /// benign rows at the shipped threshold.
    fn groups(&self) -> Value {
        let mut groups = Map::new();
        let mut names = self.names(true, |row| row.row.group.as_deref());
        names.extend(self.names(false, |row| row.row.group.as_deref()));
        for name in names {
            let is_of = |row: &JudgedRow| row.row.group.as_deref() == Some(&name);
            let points = self.points_against_all(is_of);
            let mut fields = Figures::of(&points).json();
            let own = self.counted().filter(|row| is_of(row));
            let own = Figures::of(&own.filter_map(JudgedRow::point).collect::<Vec<_>>());
            fields.insert(
                "at_shipped_threshold".to_owned(),
                json!({ "recall": own.recall, "false_positive_rate": own.false_positive_rate }),
            );
            let count = |truth| {
                let of_truth = self
                    .counted()
                    .filter(|row| row.row.is_attack == Some(truth));
                of_truth.filter(|row| is_of(row)).count()
            };
            fields.insert("attacks".to_owned(), json!(count(true)));
            fields.insert("benign".to_owned(), json!(count(false)));
            groups.insert(name, Value::Object(fields));
        }
        Value::Object(groups)
    }

    /// The names that `of` gives rows of this truth.
    fn names<'a>(
        &'a self,
        is_attack: bool,
        of: impl Fn(&'a JudgedRow) -> Option<&'a str>,
    ) -> BTreeSet<String> {
        self.counted()
            .filter(|row| row.row.is_attack == Some(is_attack))
            .filter_map(of)
            .map(str::to_owned)
            .collect()
    }

    /// The share of all judged rows that each stage settled.
    fn settled_by(&self) -> Value {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &self.judged {
            *counts.entry(row.verdict.settled_by.name()).or_default() += 1;
        }
        let total = self.judged.len().max(1) as f64;
        let shares = counts
            .into_iter()
            .map(|(name, count)| (name.to_owned(), json!(count as f64 / total)));
        Value::Object(shares.collect())
    }

    /// Milliseconds in each stage, of the rows that reached it.
    fn times(&self) -> Value {
        let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for row in &self.judged {
            let stages = row.verdict.stages.as_slice();
            let all = stages.iter().map(|(stage, time)| (stage.name(), *time));
            for (name, time) in all.chain([("total", row.verdict.stages.total())]) {
                times
                    .entry(name)
                    .or_default()
                    .push(time.as_secs_f64() * 1e3);
            }
        }
        let figures = times.into_iter().map(|(name, mut values)| {
            values.sort_by(f64::total_cmp);
            let figures = json!({
                "p50": percentile(&values, 50.0),
                "p95": percentile(&values, 95.0),
                "rows": values.len(),
            });
            (name.to_owned(), figures)
        });
        Value::Object(figures.collect())
    }

    /// The twin on the same rows: those that count for the product.
    fn linear(&self, twin: &TwinScores) -> Value {
        let points = |of: &dyn Fn(&JudgedRow) -> bool| {
            let rows = self.judged.iter().zip(&twin.scores);
            let rows = rows.filter(|(row, _)| !row.is_near_corpus && of(row));
            let points = rows.filter_map(|(row, &score)| {
                Some(Point {
                    score,
                    is_attack: row.row.is_attack?,
                    is_flagged: false,
                })
            });
            Figures::of(&points.collect::<Vec<_>>())
        };
        // It has no threshold that anybody ships.
        let json_of = |figures: Figures| {
            let mut fields = figures.json();
            fields.remove("at_shipped_threshold");
            fields
        };
        let core = points(&|row| {
            row.row.is_attack == Some(false) || row.row.tier.as_deref() == Some("core")
        });
        let mut fields = json_of(points(&|_| true));
        fields.insert("tiers".to_owned(), json!({ "core": json_of(core) }));
        fields.insert("trained_on".to_owned(), json!(twin.trained_on));
        fields.insert("files".to_owned(), json!(twin.files));
        Value::Object(fields)
    }
}
