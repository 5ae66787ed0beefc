//! The figures for people.

use std::fmt::Write;

use super::{Report, json::ratios};
use crate::{
    llm::compare::{Comparison, MEASURES, Measure},
    sample::Sample,
    subject::Way,
};

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{:#}\n", self.about);
        // Writing to a string cannot fail.
        let _infallible = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        if let Some(comparison) = &self.comparison {
            write_comparison(text, comparison)?;
        }
        if !self.grid.is_empty() {
            self.write_grid(text)?;
        }
        if let Some(start) = &self.cold_start {
            writeln!(
                text,
                "\nfirst verdict of a fresh process: {} ms with a saved prefix, \
                 {:.0} ms with the prefix run",
                spread(&start.saved_prefix),
                start.fresh_ms,
            )?;
            writeln!(
                text,
                "peak memory: {} MB, {:.2} times the file without the prefix's {} MB",
                start.peak_rss_bytes / 1_000_000,
                start.memory_ratio(),
                start.prefix_bytes / 1_000_000,
            )?;
        }
        Ok(())
    }

    fn write_grid(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\n{:>7} {:>6} {:>5} {:>5}  {:>24}  {:>32}  {:>10}",
            "threads",
            "prefix",
            "event",
            "batch",
            "prefill tok/s",
            "verdict ms p50, p95",
            "verdicts/s",
        )?;
        for cell in &self.grid {
            writeln!(
                text,
                "{:>7} {:>6} {:>5} {:>5}  {:>24}  {:>32}  {:>10.2}",
                cell.threads,
                cell.prefix_tokens,
                cell.event_tokens,
                cell.batch,
                spread(&cell.prefill),
                format!(
                    "{}, {:.1}",
                    spread(&cell.verdict),
                    cell.verdict.percentile(95)
                ),
                cell.verdicts_per_s(),
            )?;
        }
        Ok(())
    }
}

fn write_comparison(text: &mut String, comparison: &Comparison) -> std::fmt::Result {
    write!(text, "\n{:<26}", "median (lowest to highest)")?;
    for subject in &comparison.subjects {
        write!(text, "  {:>26}", subject.name)?;
    }
    writeln!(text)?;
    for measure in MEASURES {
        write!(text, "{:<26}", title(measure))?;
        for subject in &comparison.subjects {
            write!(text, "  {:>26}", spread(subject.sample(measure)))?;
        }
        writeln!(text)?;
    }
    for (name, ratios) in ratios(comparison) {
        write!(text, "ratio to {name}:")?;
        for (key, ratio) in ratios {
            write!(text, " {key} {ratio:.2}")?;
        }
        writeln!(text)?;
    }
    Ok(())
}

pub(super) fn title(measure: Measure) -> String {
    match measure {
        Measure::Prefill(n_tokens) => format!("prefill of {n_tokens}, tok/s"),
        Measure::Decode => "decode, tok/s".to_owned(),
        Measure::Verdict(Way::OneToken) => "verdict, one pass, ms".to_owned(),
        Measure::Verdict(Way::Constrained) => "verdict as JSON, ms".to_owned(),
        Measure::Verdicts => "16 at once, verdicts/s".to_owned(),
    }
}

fn spread(sample: &Sample) -> String {
    if sample.is_empty() {
        return "-".to_owned();
    }
    format!(
        "{:.1} ({:.1} to {:.1})",
        sample.median(),
        sample.smallest(),
        sample.largest()
    )
}
