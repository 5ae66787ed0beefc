//! A judged case as Python sees it.

use std::collections::BTreeMap;

use inwarden::CaseReport;
use pyo3::prelude::*;

/// A judged case: read-only attributes, described in `_native.pyi`.
#[pyclass(frozen, get_all, module = "inwarden")]
pub(crate) struct Case {
    id: String,
    argv: Vec<String>,
    label: &'static str,
    score: f64,
    technique: Option<String>,
    settled_by: &'static str,
    source: Option<String>,
    undetermined: Option<String>,
    decision: &'static str,
    enforced: &'static str,
    mode: &'static str,
    reason: &'static str,
    policies: Vec<String>,
    outcome: &'static str,
    allowed: bool,
    stages_us: BTreeMap<&'static str, u128>,
}

impl From<CaseReport> for Case {
    fn from(report: CaseReport) -> Self {
        let allowed = report.is_allowed();
        let verdict = report.verdict;
        let decision = report.decision;
        Self {
            id: report.case.last().id.to_string(),
            argv: report.case.last().process.image.argv.args.clone(),
            label: verdict.label.name(),
            score: verdict.score.probability(),
            technique: verdict.technique.map(|technique| technique.0),
            settled_by: verdict.settled_by.name(),
            source: verdict.settled_by.source_id().map(str::to_owned),
            undetermined: verdict.undetermined.map(|reason| reason.to_string()),
            decision: decision.action.name(),
            enforced: decision.enforced.name(),
            mode: decision.mode.name(),
            reason: decision.reason.name(),
            policies: decision.policies.into_iter().map(|id| id.0).collect(),
            outcome: report.action.outcome.name(),
            allowed,
            stages_us: report
                .stages
                .as_slice()
                .iter()
                .map(|(stage, elapsed)| (stage.name(), elapsed.as_micros()))
                .collect(),
        }
    }
}

#[pymethods]
impl Case {
    fn __repr__(&self) -> String {
        format!(
            "<Case {} {} {:.3} by {}: {}>",
            self.id, self.label, self.score, self.settled_by, self.enforced
        )
    }
}
