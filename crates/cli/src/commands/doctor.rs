//! `inwarden doctor`: what this host offers and what is missing.

use inwarden::{
    HeadSource, gpu, head_sources,
    models::Manifest,
    sensor::{self, CheckState},
};

use crate::{Ended, config::Config, console};

pub(crate) fn run(config: &Config) -> anyhow::Result<Ended> {
    console::line("sensor")?;
    for check in sensor::probe().checks {
        let mark = match check.state {
            CheckState::Present => "ok     ",
            CheckState::Missing => "missing",
            CheckState::Unknown => "unknown",
        };
        console::line(&format!("  {mark} {}: {}", check.name, check.found))?;
        if let Some(fix) = check.fix {
            console::line(&format!("          {fix}"))?;
        }
    }
    console::line("models")?;
    for id in config.model_ids() {
        match config.models.locate(&id) {
            Ok(files) => console::line(&format!("  ok      {id}: {}", files.dir.display()))?,
            Err(error) => console::line(&format!("  missing {id}: {error}"))?,
        }
    }
    console::line(&format!(
        "  known: {}",
        Manifest::builtin()
            .models()
            .iter()
            .map(|model| model.id.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    ))?;
    if let Some(model) = &config.analyst().model {
        console::line(&format!("heads for {model}"))?;
        for (question, source) in head_sources(model, config.learned_dir.as_deref()) {
            let name = question.name();
            console::line(&match source {
                HeadSource::Learned(file) => format!("  learnt  {name}: {}", file.display()),
                HeadSource::Shipped => format!("  shipped {name}"),
                HeadSource::Absent => format!(
                    "  missing {name}: verdicts from labels and words alone; to make one: \
                     inwarden --model {model} learn --question {name}"
                ),
            })?;
        }
    }
    console::line("processor")?;
    console::line(&format!(
        "  {} threads",
        std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
    ))?;
    console::line("graphics card")?;
    match gpu::gpus() {
        Ok(cards) if cards.is_empty() => console::line("  none    a driver without a card")?,
        Ok(cards) => {
            for card in cards {
                console::line(&format!("  ok      {card}"))?;
            }
        }
        Err(error) => console::line(&format!("  none    {error}"))?,
    }
    Ok(Ended::Done)
}
