//! `inwarden watch`: this machine, until interrupted.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Context;
use inwarden::{
    EngineError, Warden, WardenConfig, WardenLimits,
    sensor::SensorConfig,
    types::{CgroupId, Label, Mode, Scope},
};

use crate::{Ended, Misuse, arguments::WatchOptions, config::Config, console, interrupt, scene};

pub(crate) fn run(config: &Config, options: &WatchOptions) -> anyhow::Result<Ended> {
    let cgroups: BTreeSet<CgroupId> = options
        .cgroup
        .iter()
        .map(|dir| scene::cgroup_id(dir))
        .collect::<anyhow::Result<_>>()
        .context(Misuse)?;
    let scope = match cgroups.is_empty() {
        true => Scope::AlertOnly,
        false => Scope::Cgroups(cgroups.clone()),
    };
    let audit_log = options
        .audit
        .clone()
        .unwrap_or_else(|| config.state_dir.join("audit.jsonl"));
    console::note("inwarden: loading the model, rules, precedents and policies");
    let analyst = Arc::new(config.load_analyst()?);
    let (warden, reports) = Warden::start(
        analyst,
        WardenConfig {
            mode: match options.enforce {
                true => Mode::Enforce,
                false => Mode::Monitor,
            },
            scope,
            audit_log,
            recording: options.record.clone(),
            sensor: SensorConfig {
                cgroups: (!cgroups.is_empty()).then_some(cgroups),
                ..SensorConfig::default()
            },
            limits: WardenLimits::default(),
        },
    )
    .map_err(with_unwritten_records)?;
    console::note("inwarden: watching; Ctrl-C ends it");
    let mut printed = Ok(());
    while warden.is_running() && !interrupt::is_asked() && printed.is_ok() {
        if let Ok(report) = reports.recv_timeout(Duration::from_millis(200))
            && (options.all || report.verdict.label != Label::Benign)
        {
            printed = console::line(&console::case_line(&report));
        }
    }
    // Detach and flush before anything else can fail.
    let summary = warden.stop().map_err(with_unwritten_records)?;
    printed?;
    for (name, value) in summary.counters.named() {
        console::note(&format!("  {name} {value}"));
    }
    let losses = summary.losses;
    console::note(&format!(
        "  seen {} emitted {} dropped {} filtered {} read {}\n  audit {}",
        losses.seen,
        losses.emitted,
        losses.dropped,
        losses.filtered,
        losses.read,
        summary.audit_log.display()
    ));
    Ok(Ended::Done)
}

/// Puts records that are not in the audit log on standard error, so that a full
/// disk loses nothing.
pub(crate) fn with_unwritten_records(error: EngineError) -> anyhow::Error {
    if let EngineError::AuditWrite { unwritten, .. } = &error {
        for record in unwritten {
            console::note(record);
        }
    }
    error.into()
}
