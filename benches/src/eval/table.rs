//! The report card for people.

use std::fmt::Write as _;

use serde_json::Value;

use super::Card;

/// `json`: the figures of `card`.
pub(super) fn of(card: &Card, json: &Value) -> String {
    let mut text = format!("{:#}\n", card.about);
    // Writing to a string cannot fail.
    let _infallible = write_card(&mut text, card, json);
    text
}

fn write_card(text: &mut String, card: &Card, json: &Value) -> std::fmt::Result {
    writeln!(
        text,
        "\n{:<34}{:>8}{:>8}  {:>20}  {:>20}  {:>20}{:>9}{:>9}",
        "", "attacks", "benign", "AUC", "recall at 1 %", "recall at 3 %", "recall", "false+"
    )?;
    for section in &card.sections {
        let name = section.kind.name();
        let figures = &json[name];
        line(text, name, figures, &figures["rows"])?;
        for (tier, figures) in fields(&figures["tiers"]) {
            line(text, &format!("  {tier}"), figures, figures)?;
        }
        for (group, figures) in fields(&figures["groups"]) {
            line(text, &format!("    {group}"), figures, figures)?;
        }
        if !figures["linear"].is_null() {
            let name = format!("  linear, {} rows", figures["linear"]["trained_on"]);
            line(text, &name, &figures["linear"], &Value::Null)?;
            let core = &figures["linear"]["tiers"]["core"];
            line(text, "  linear, core", core, &Value::Null)?;
        }
        for (part, figures) in fields(&json["ablations"]) {
            line(
                text,
                &format!("  without {part}"),
                &figures[name],
                &Value::Null,
            )?;
        }
    }
    for section in &card.sections {
        write_details(text, section.kind.name(), &json[section.kind.name()])?;
    }
    if let Some(reliability) = &card.reliability {
        writeln!(
            text,
            "\ncalibration error {:.4}; a perfect model of as many rows: {:.4}, at most {:.4} in 95 of 100",
            reliability.error, reliability.floor_mean, reliability.floor_p95
        )?;
    }
    let incidents = &json["incidents"];
    if !incidents.is_null() {
        writeln!(
            text,
            "incidents: {} of {} attacks detected, {} of {} benign touched, {} events of kinds that are not judged",
            incidents["detected"],
            incidents["attacks"],
            incidents["touched_benign"],
            incidents["benign"],
            incidents["unknown_events"],
        )?;
    }
    for name in &card.absent {
        writeln!(text, "ABSENT, NOT MEASURED: {name}")?;
    }
    Ok(())
}

fn write_details(text: &mut String, name: &str, figures: &Value) -> std::fmt::Result {
    writeln!(text, "\n{name}")?;
    for (tier, rates) in fields(&figures["benign_tiers"]) {
        writeln!(
            text,
            "  benign, {tier}: {} rows, false positives {} as shipped, {} at 1 %, {} at 3 %",
            rates["rows"],
            number(&rates["false_positive_rate"]),
            number(&rates["at_1"]),
            number(&rates["at_3"]),
        )?;
    }
    let shares = fields(&figures["settled_by"]);
    let shares = shares.map(|(stage, share)| format!("{stage} {}", number(share)));
    writeln!(
        text,
        "  settled by: {}",
        shares.collect::<Vec<_>>().join(", ")
    )?;
    let times = fields(&figures["time_ms"]).map(|(stage, time)| {
        let (p50, p95) = (number(&time["p50"]), number(&time["p95"]));
        format!("{stage} {p50} / {p95} ({} rows)", time["rows"])
    });
    writeln!(
        text,
        "  ms p50 / p95: {}",
        times.collect::<Vec<_>>().join(", ")
    )?;
    let near = &figures["near_duplicates"];
    writeln!(
        text,
        "  near-duplicates: {} corpus rows, {} rows left out of the numbers",
        near["corpus_rows"], near["evaluation_rows"]
    )
}

fn line(text: &mut String, name: &str, figures: &Value, rows: &Value) -> std::fmt::Result {
    let interval = |key: &str| {
        let bounds = &figures["intervals"][key];
        match bounds.is_null() {
            true => number(&figures[key]),
            false => format!(
                "{} ({} to {})",
                number(&figures[key]),
                number(&bounds[0]),
                number(&bounds[1])
            ),
        }
    };
    let count = |key: &str| {
        rows[key]
            .as_u64()
            .map_or_else(String::new, |n| n.to_string())
    };
    let shipped = &figures["at_shipped_threshold"];
    writeln!(
        text,
        "{name:<34}{:>8}{:>8}  {:>20}  {:>20}  {:>20}{:>9}{:>9}",
        count("attacks"),
        count("benign"),
        interval("auc"),
        interval("recall_at_1"),
        interval("recall_at_3"),
        number(&shipped["recall"]),
        number(&shipped["false_positive_rate"]),
    )
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn number(value: &Value) -> String {
    value
        .as_f64()
        .map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}
