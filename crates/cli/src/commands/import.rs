//! `inwarden import stix|sigma|runbook PATH`: what others wrote down, into the memory.

use indicatif::{ProgressBar, ProgressStyle};
use inwarden::{EngineError, ImportError, KnowledgeKind};

use crate::{
    Ended, Misuse,
    arguments::{ImportOptions, KindName},
    config::Config,
    console,
};

pub(crate) fn run(config: &Config, options: &ImportOptions) -> anyhow::Result<Ended> {
    let kind = match options.kind {
        KindName::Stix => KnowledgeKind::Stix,
        KindName::Sigma => KnowledgeKind::Sigma,
        KindName::Runbook => KnowledgeKind::Runbook,
    };
    let knowledge = config.open_knowledge().map_err(whose_fault)?;
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {eta}");
    let bar = ProgressBar::new(0)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message("storing");
    let imported = knowledge.import(kind, &options.path, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    console::line(&format!("{} documents stored", imported.documents))?;
    if imported.removed > 0 {
        console::line(&format!("{} outdated ones removed", imported.removed))?;
    }
    for (reason, n) in &imported.skipped {
        console::line(&format!("{n} left out: {reason}"))?;
    }
    for path in &imported.skipped_files {
        let shown = console::command(&[path.display().to_string()]);
        console::note(&format!("inwarden: left out: {shown}"));
    }
    Ok(Ended::Done)
}

/// What the caller must change is misuse.
fn whose_fault(error: EngineError) -> anyhow::Error {
    let is_misuse = matches!(error, EngineError::Import(ImportError::NoStore));
    let error = anyhow::Error::from(error);
    match is_misuse {
        true => error.context(Misuse),
        false => error,
    }
}
