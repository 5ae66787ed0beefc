//! The thread that decides, acts, and alone writes the audit log.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crossbeam_channel::{Receiver, Sender};
use inwarden_types::Losses;
use serde_json::{Map, Value, json};

use super::{Judged, Outgoing, stop::Stop};
use crate::{
    audit::AuditLog,
    pipeline::{CaseReport, Pipeline},
    record::case_record,
};

pub(super) struct ResponseLoop {
    pub(super) pipeline: Pipeline,
    pub(super) audit: AuditLog,
    pub(super) reports: Sender<CaseReport>,
    pub(super) stop: Arc<Stop>,
}

impl ResponseLoop {
    /// Answers every case, then hands the audit log back for its last record.
    pub(super) fn run(mut self, outgoing: &Receiver<Outgoing>) -> AuditLog {
        for message in outgoing {
            match message {
                Outgoing::Judged(judged) => self.answer(*judged),
                Outgoing::Losses(losses) => self.write("loss", losses_record(&losses)),
            }
        }
        self.stop.all_answered();
        self.audit
    }

    fn answer(&mut self, judged: Judged) {
        let Judged {
            case,
            arrived,
            seen,
            verdict,
        } = judged;
        let queued = arrived.elapsed().saturating_sub(verdict.stages.total());
        // One event's panic must not stop the service; its case is recorded by
        // name, and nothing more is known of what was done about it.
        let name = case.id().to_string();
        let finished = catch_unwind(AssertUnwindSafe(|| {
            let report = self.pipeline.finish(case, Some(verdict), seen, queued);
            let record = case_record(&report);
            (report, record)
        }));
        let Ok((report, record)) = finished else {
            self.pipeline.counters.panics.add_one();
            tracing::error!("deciding or acting panicked on one case");
            let failed = ("case".to_owned(), json!(name));
            self.write("failed_case", Map::from_iter([failed]));
            return;
        };
        self.write("case", record);
        if self.reports.try_send(report).is_err() {
            self.pipeline.counters.reports_dropped.add_one();
        }
    }

    fn write(&mut self, kind: &str, record: Map<String, Value>) {
        if self.audit.append(kind, record) {
            return;
        }
        self.pipeline.counters.audit_failures.add_one();
        // Fail closed for our own actions: none without a record.
        if let Some(live) = &mut self.pipeline.live {
            live.unrecorded = true;
        }
        if self.stop.ask() {
            let path = self.audit.path().display();
            tracing::error!(%path, "the audit log cannot be written: stopping");
        }
    }
}

pub(super) fn losses_record(losses: &Losses) -> Map<String, Value> {
    Map::from_iter([
        ("seen".to_owned(), json!(losses.seen)),
        ("emitted".to_owned(), json!(losses.emitted)),
        ("dropped".to_owned(), json!(losses.dropped)),
        ("filtered".to_owned(), json!(losses.filtered)),
        ("read".to_owned(), json!(losses.read)),
        ("undecodable".to_owned(), json!(losses.undecodable)),
    ])
}
