//! Fits the weights of sequences on the shipped ones and prints the file.
//!
//! ```text
//! cargo run --release -p inwarden-classifier --example fit_cases > data/weights-cases.toml
//! ```
//!
//! Own verdicts come from rules, words and features; there is no model in it, so the
//! result is the same everywhere.

use std::{error::Error, io::Write as _, sync::Arc};

use inwarden_classifier::{PlainJudges, SequenceVerdict, fit_cases, play, shipped_sequences};
use inwarden_types::Event;

fn main() -> Result<(), Box<dyn Error>> {
    let judges = PlainJudges::shipped()?;
    let own = |event: &Event| judges.judge(event);
    let (sequences, corpus) = shipped_sequences()?;
    let fitted = fit_cases(&sequences, &corpus, &own, 8);
    let weights = Arc::new(fitted.weights);
    let mut notes = std::io::stderr().lock();
    for (sequence, held_out) in sequences.iter().zip(&fitted.verdicts) {
        let all = play(sequence, &weights, &own);
        let needed = if sequence.is_alert { 0.5 } else { 0.9 };
        let is_wrong = |played: &SequenceVerdict| match sequence.decisive {
            Some(_) => played.in_time.unwrap_or(0.0) < needed,
            None => played.by_case.unwrap_or(0.0) >= 0.5,
        };
        if is_wrong(&all) || is_wrong(held_out) {
            let id = &sequence.id;
            writeln!(notes, "{id}: fitted {all:?}, held out {held_out:?}")?;
        }
    }
    std::io::stdout().write_all(weights.to_text()?.as_bytes())?;
    Ok(())
}
