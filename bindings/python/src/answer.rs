//! A judged case as Python sees it.

use std::collections::BTreeMap;

use inwarden::{CaseReport, JudgedCase};
use pyo3::prelude::*;

/// A judged case: read-only attributes, described in `_native.pyi`.
#[pyclass(frozen, module = "inwarden")]
pub(crate) struct Case {
    #[pyo3(get)]
    id: String,
    #[pyo3(get)]
    argv: Vec<String>,
    #[pyo3(get)]
    label: &'static str,
    #[pyo3(get)]
    score: f64,
    #[pyo3(get)]
    technique: Option<String>,
    #[pyo3(get)]
    settled_by: &'static str,
    #[pyo3(get)]
    source: Option<String>,
    #[pyo3(get)]
    undetermined: Option<String>,
    #[pyo3(get)]
    decision: &'static str,
    #[pyo3(get)]
    enforced: &'static str,
    #[pyo3(get)]
    mode: &'static str,
    #[pyo3(get)]
    reason: &'static str,
    #[pyo3(get)]
    policies: Vec<String>,
    #[pyo3(get)]
    outcome: &'static str,
    #[pyo3(get)]
    allowed: bool,
    #[pyo3(get)]
    stages_us: BTreeMap<&'static str, u128>,
    /// What feedback is about.
    pub(crate) judged: JudgedCase,
}

impl From<CaseReport> for Case {
    fn from(report: CaseReport) -> Self {
        let allowed = report.is_allowed();
        let judged = JudgedCase::of(&report);
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
            judged,
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
