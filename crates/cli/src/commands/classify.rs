//! `inwarden classify [FILE|-]`: JSON lines in, JSON lines out, same order.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
};

use anyhow::Context;
use inwarden::{
    Analyst, feeds,
    types::{Case, Mode, Scope},
    verdict_json,
};

use crate::{Ended, Misuse, arguments::ClassifyOptions, config::Config, console, interrupt};

pub(crate) fn run(config: &Config, options: &ClassifyOptions) -> anyhow::Result<Ended> {
    let input: Box<dyn BufRead> = if options.file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(&options.file)
            .with_context(|| format!("{} cannot be read", options.file.display()))
            .context(Misuse)?;
        Box::new(BufReader::new(file))
    };
    // What is missing here is a matter of configuration.
    let analyst = config.load_analyst().context(Misuse)?;
    let output = BufWriter::new(io::stdout().lock());
    let tally = classify_lines(&analyst, input, output, options.explain)?;
    if tally.ignored_fields > 0 {
        let count = tally.ignored_fields;
        console::note(&format!("inwarden: {count} unknown fields were ignored"));
    }
    Ok(match tally {
        Tally {
            interrupted: true, ..
        } => Ended::Interrupted,
        Tally { malformed: 0, .. } => Ended::Done,
        _ => Ended::SomeMalformed,
    })
}

#[derive(Debug, Default)]
struct Tally {
    malformed: u64,
    ignored_fields: u64,
    interrupted: bool,
}

fn classify_lines(
    analyst: &Analyst,
    input: impl BufRead,
    mut output: impl Write,
    explain: bool,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let written = "standard output cannot be written";
    for line in feeds::EventReader::new(input) {
        if interrupt::is_asked() {
            tally.interrupted = true;
            break;
        }
        let decoded = match line.outcome {
            Ok(decoded) => decoded,
            Err(error) => {
                tally.malformed += 1;
                let error = anyhow::Error::from(error);
                console::note(&format!("inwarden: line {}: {error:#}", line.number));
                continue;
            }
        };
        tally.ignored_fields += decoded.ignored_fields;
        let case = Case::of(decoded.event);
        let verdict = analyst.classify(&case);
        let decision = analyst.decide(case.last(), &verdict, Mode::Monitor, &Scope::AlertOnly);
        let mut answer = verdict_json(case.last(), &verdict, &decision);
        if explain {
            answer["explanation"] = analyst.explain(&case, &verdict).to_json();
        }
        writeln!(output, "{answer}").context(written)?;
        output.flush().context(written)?;
    }
    output.flush().context(written)?;
    Ok(tally)
}
