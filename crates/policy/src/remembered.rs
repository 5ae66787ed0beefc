//! Decisions that were taken, so that what comes again is not asked again.
//!
//! A decision depends on the policies, which do not change while they are loaded,
//! and on what [`Asked`] holds. Asking Cedar takes about 100 us, remembering about
//! one. What is remembered is bounded and forgotten by age, in two halves.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, PoisonError},
};

use inwarden_types::{
    CgroupId, Decision, EventData, EventKind, Label, Mode, Uid, UndeterminedReason,
};

use crate::{Counters, ResponseQuery, Target};

/// Decisions in one half, about 1 KiB each.
const HALF: usize = 2_048;
/// What names more is asked each time.
const MAX_NAME_BYTES: usize = 512;

/// Everything that [`crate::query::Question::of_response`] reads of a query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    workload: Option<CgroupId>,
    kind: EventKind,
    /// An agent with the role it claims.
    agent: Option<(String, Option<String>)>,
    label: Label,
    undetermined: Option<&'static str>,
    score_bp: u32,
    settled_by: (&'static str, Option<String>),
    technique: Option<String>,
    in_scope: bool,
    mode: Mode,
    target: Target,
    protected: bool,
    counters: Counters,
    exe: String,
    comm: String,
    uid: Option<Uid>,
}

impl Asked {
    /// `None` where a name is too long to be remembered. Counters that no policy
    /// reads are left out: they change with every doubtful event of a case.
    fn of(query: &ResponseQuery<'_>, with_counters: bool) -> Option<Self> {
        let (process, verdict) = (&query.event.process, query.verdict);
        let agent = match &query.event.data {
            EventData::ToolCall(call) => Some((&call.agent, &call.role)),
            EventData::Text(text) => Some((&text.agent, &text.role)),
            _ => None,
        };
        let technique = verdict.technique.as_ref().map(|technique| &technique.0);
        let source = verdict.settled_by.source_id();
        let lengths = [
            process.image.exe.len(),
            process.image.comm.len(),
            agent.map_or(0, |(id, _)| id.len()),
            agent
                .and_then(|(_, role)| role.as_ref())
                .map_or(0, String::len),
            technique.map_or(0, String::len),
            source.map_or(0, str::len),
        ];
        if lengths.into_iter().any(|n_bytes| n_bytes > MAX_NAME_BYTES) {
            return None;
        }
        Some(Self {
            workload: process.cgroup_id,
            kind: query.event.kind(),
            agent: agent.map(|(id, role)| (id.clone(), role.clone())),
            label: verdict.label,
            undetermined: verdict.undetermined.as_ref().map(UndeterminedReason::name),
            score_bp: u32::from(verdict.score.basis_points()),
            settled_by: (verdict.settled_by.name(), source.map(str::to_owned)),
            technique: technique.cloned(),
            in_scope: query.in_scope,
            mode: query.mode,
            target: query.target,
            protected: query.protected,
            counters: match with_counters {
                true => query.counters,
                false => Counters::default(),
            },
            exe: process.image.exe.clone(),
            comm: process.image.comm.clone(),
            uid: process.uid,
        })
    }
}

/// The decisions of one policy set.
#[derive(Debug)]
pub(crate) struct Remembered {
    halves: Mutex<Halves>,
    /// Whether a policy reads the counters of a case.
    with_counters: bool,
}

#[derive(Debug, Default)]
struct Halves {
    young: HashMap<Asked, Decision>,
    old: HashMap<Asked, Decision>,
}

impl Remembered {
    /// For policies that read the counters of a case, or do not.
    pub(crate) fn new(with_counters: bool) -> Self {
        Self {
            halves: Mutex::default(),
            with_counters,
        }
    }

    /// The decision on `query`, by `decide` where it is not known.
    pub(crate) fn or_else(
        &self,
        query: &ResponseQuery<'_>,
        decide: impl FnOnce() -> Decision,
    ) -> Decision {
        let Some(asked) = Asked::of(query, self.with_counters) else {
            return decide();
        };
        // Whole after any panic: each change is one insertion.
        let lock = || self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().find(&asked) {
            return known;
        }
        let decision = decide();
        lock().insert(asked, decision.clone());
        decision
    }
}

impl Halves {
    fn find(&mut self, asked: &Asked) -> Option<Decision> {
        if let Some(known) = self.young.get(asked) {
            return Some(known.clone());
        }
        let (asked, known) = self.old.remove_entry(asked)?;
        self.insert(asked, known.clone());
        Some(known)
    }

    fn insert(&mut self, asked: Asked, decision: Decision) {
        if self.young.len() >= HALF {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(asked, decision);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use inwarden_types::{
        Action, AgentText, Connection, DecisionReason, DnsQuery, Event, Peer, Protocol, Score,
        SettledBy, Technique, Verdict,
    };

    use super::*;

    fn decision(action: Action) -> Decision {
        Decision {
            action,
            enforced: action,
            mode: Mode::Enforce,
            reason: DecisionReason::Permitted,
            policies: Vec::new(),
        }
    }

    fn verdict() -> Verdict {
        Verdict {
            label: Label::Benign,
            score: Score::new(0.25).unwrap(),
            technique: None,
            settled_by: SettledBy::Model,
            undetermined: None,
            evidence: Vec::new(),
            stages: inwarden_types::StageTimes::default(),
        }
    }

    fn start() -> Event {
        Event {
            id: inwarden_types::EventId::External("1".to_owned()),
            at: None,
            wall: None,
            process: inwarden_types::Process::default(),
            ancestors: Vec::new(),
            data: EventData::Exec,
        }
    }

    /// None, and one of each.
    fn counters() -> [Counters; 5] {
        let mut all = [Counters::default(); 5];
        all[1].malicious = 1;
        all[2].undetermined = 1;
        all[3].denied = 1;
        all[4].killed = 1;
        all
    }

    #[test]
    fn whatever_a_policy_sees_is_told_apart() {
        let base_event = start();
        let event = |change: &dyn Fn(&mut Event)| {
            let mut event = base_event.clone();
            change(&mut event);
            event
        };
        let text = |agent: &str, role: Option<&str>| {
            EventData::Text(AgentText {
                agent: agent.to_owned(),
                role: role.map(str::to_owned),
                ..AgentText::default()
            })
        };
        let events = [
            base_event.clone(),
            event(&|event| event.process.uid = Some(Uid(0))),
            event(&|event| event.process.uid = Some(Uid(1))),
            event(&|event| event.process.cgroup_id = Some(CgroupId(7))),
            event(&|event| event.process.image.exe = "/bin/a".to_owned()),
            event(&|event| event.process.image.comm = "a".to_owned()),
            event(&|event| {
                event.data = EventData::Dns(DnsQuery {
                    name: "a.example".to_owned(),
                });
            }),
            event(&|event| {
                event.data = EventData::Connect(Connection {
                    peer: Peer::of("192.0.2.1"),
                    port: None,
                    protocol: Protocol::Tcp,
                });
            }),
            event(&|event| event.data = text("a", None)),
            event(&|event| event.data = text("b", None)),
            event(&|event| event.data = text("a", Some("r"))),
        ];
        let mut verdicts = vec![verdict(); 8];
        verdicts[1].label = Label::Malicious;
        verdicts[2].score = Score::new(0.26).unwrap();
        verdicts[3].settled_by = SettledBy::Fallback;
        verdicts[4].settled_by = SettledBy::Rule("a".to_owned());
        verdicts[5].technique = Some(Technique("T1059".to_owned()));
        verdicts[6].undetermined = Some(UndeterminedReason::AbstainBand);
        verdicts[7].undetermined = Some(UndeterminedReason::Overloaded);
        let counters = counters();
        let base = ResponseQuery {
            event: &base_event,
            verdict: &verdicts[0],
            in_scope: true,
            mode: Mode::Enforce,
            target: Target::Decided,
            protected: false,
            counters: counters[0],
        };
        let mut queries: Vec<ResponseQuery<'_>> = Vec::new();
        queries.extend(events.iter().map(|event| ResponseQuery { event, ..base }));
        let others = verdicts.iter().skip(1);
        queries.extend(others.map(|verdict| ResponseQuery { verdict, ..base }));
        let others = counters.into_iter().skip(1);
        queries.extend(others.map(|counters| ResponseQuery { counters, ..base }));
        queries.extend([
            ResponseQuery {
                in_scope: false,
                ..base
            },
            ResponseQuery {
                mode: Mode::Monitor,
                ..base
            },
            ResponseQuery {
                target: Target::OldestLiveAncestor,
                ..base
            },
            ResponseQuery {
                protected: true,
                ..base
            },
        ]);
        let remembered = Remembered::new(true);
        let n_asked = Cell::new(0);
        for _ in 0..2 {
            for query in &queries {
                remembered.or_else(query, || {
                    n_asked.set(n_asked.get() + 1);
                    decision(Action::Allow)
                });
            }
        }
        assert_eq!(n_asked.get(), queries.len(), "each is asked once");
        let without_counters = Remembered::new(false);
        for counters in counters {
            let query = ResponseQuery { counters, ..base };
            without_counters.or_else(&query, || {
                n_asked.set(n_asked.get() + 1);
                decision(Action::Allow)
            });
        }
        assert_eq!(n_asked.get(), queries.len() + 1, "counters are no matter");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let remembered = Remembered::new(false);
        let verdict = verdict();
        let mut event = start();
        for n in 0..3 * HALF {
            event.process.image.exe = match n % 2 {
                0 => format!("/bin/{n}"),
                _ => "x".repeat(MAX_NAME_BYTES + 1),
            };
            let query = ResponseQuery {
                event: &event,
                verdict: &verdict,
                in_scope: true,
                mode: Mode::Enforce,
                target: Target::Decided,
                protected: false,
                counters: Counters::default(),
            };
            let answer = remembered.or_else(&query, || decision(Action::Alert));
            assert_eq!(answer.action, Action::Alert);
        }
        let halves = remembered.halves.lock().unwrap();
        assert!(halves.young.len() + halves.old.len() <= 2 * HALF);
        let mut names = halves.young.keys().chain(halves.old.keys());
        assert!(names.all(|asked| asked.exe.len() <= MAX_NAME_BYTES));
    }
}
