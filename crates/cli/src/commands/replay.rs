//! `inwarden replay FILE`: the cases of a recording, one JSON line each.

use std::{fs::File, io::BufReader, sync::Arc};

use anyhow::Context;
use inwarden::{
    ReplayConfig, Warden, feeds,
    types::{Mode, Scope},
    verdict_json,
};

use crate::{Ended, Misuse, arguments::ReplayOptions, config::Config, console, interrupt};

pub(crate) fn run(config: &Config, options: &ReplayOptions) -> anyhow::Result<Ended> {
    let path = options.file.display();
    let file = File::open(&options.file)
        .with_context(|| format!("recording {path} cannot be read"))
        .context(Misuse)?;
    let events = feeds::RecordingReader::new(BufReader::new(file))
        .with_context(|| format!("recording {path}"))?;
    let analyst = Arc::new(config.load_analyst()?);
    let replay = ReplayConfig {
        mode: Mode::Monitor,
        scope: Scope::AlertOnly,
    };
    let mut malformed = false;
    for report in Warden::replay(analyst, replay, events) {
        if interrupt::is_asked() {
            return Ok(Ended::Interrupted);
        }
        match report {
            Err(error) => {
                malformed = true;
                console::note(&format!(
                    "inwarden: {path}: {:#}",
                    anyhow::Error::from(error)
                ));
            }
            Ok(report) => {
                let mut line = verdict_json(report.case.last(), &report.verdict, &report.decision);
                if options.no_times
                    && let Some(fields) = line.as_object_mut()
                {
                    fields.remove("stages_us");
                }
                console::line(&line.to_string())?;
            }
        }
    }
    Ok(match malformed {
        true => Ended::SomeMalformed,
        false => Ended::Done,
    })
}
