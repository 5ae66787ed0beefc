//! Verdicts over a sequence: what an event means after those before it.
//!
//! [`Cases`] takes events in order ([`Cases::observe`]), keeps what matters for each
//! tree of processes, cgroup and agent session within fixed bounds, and then weighs
//! what an event shows in that light with the verdict on the event itself
//! ([`Cases::conclude`]). Files, connections and lookups have no other judge. The
//! model is logistic, with one non-negative weight a kind of evidence.
//!
//! An observation holds all that its verdict needs, so nothing that comes later
//! changes it. Event time alone counts; a clock that goes backwards ages nothing.

mod activity;
mod bounded;
mod dialogue;
mod facts;
mod fit;
mod kinds;
mod programs;
mod secrets;
mod sequences;
mod session;
mod starts;
#[cfg(test)]
mod tests;
mod weights;

use std::{ops::Range, sync::Arc};

use inwarden_types::{
    Ancestor, CgroupId, Event, EventData, EventKind, Evidence, Label, Process, ProcessKey,
    Provenance, Score, SettledBy, SourceKind, StageTimes, Technique, Verdict,
};

use self::{
    activity::Scene,
    bounded::Bounded,
    facts::{Facts, path_hash},
    kinds::{Kind, Shown},
    programs::{Above, is_boundary, name_of},
    secrets::SecretKind,
    session::Session,
    starts::StartWords,
};
pub use self::{
    facts::CaseCounters,
    fit::{FittedCases, OwnVerdict, PlainJudges, SequenceVerdict, fit_cases, play},
    sequences::{Sequence, shipped_sequences},
    weights::CaseWeights,
};
use crate::{
    more_severe,
    reading::{Reader, Surroundings},
};

/// Command lines of which is kept what they say, about 300 bytes each.
const START_WORDS: usize = 16_384;
/// The cgroup that everything without one of its own is in; it joins nothing.
const ROOT_CGROUP: CgroupId = CgroupId(1);
/// Own verdicts count at most this much for an attack, in nats.
const MAX_OWN: f64 = 4.0;
/// And this much against one: what makes a case is what they do not see.
const MIN_OWN: f64 = -1.0;

/// How many of each are remembered; the one that was untouched for longest goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaseLimits {
    /// Processes: about 200 bytes each.
    pub processes: usize,
    /// Trees of processes: at most about 2 KiB each.
    pub trees: usize,
    /// Cgroups and agents without one: at most about 2 KiB each.
    pub groups: usize,
    /// Agent sessions: at most about 70 KiB each.
    pub sessions: usize,
}

impl Default for CaseLimits {
    fn default() -> Self {
        Self {
            processes: 16_384,
            trees: 4_096,
            groups: 1_024,
            sessions: 256,
        }
    }
}

/// What an event shows in the light of those before it.
#[derive(Clone, Debug)]
pub struct Observation {
    kind: EventKind,
    shown: Shown,
    /// Length of the text that the evidence is about, if it is about one.
    text_bytes: Option<usize>,
    tree: Option<ProcessKey>,
    group: Option<GroupKey>,
    session: Option<SessionKey>,
    /// The text that an agent is about to read.
    text: Option<u64>,
}

/// What events have in common that are no one's descendants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum GroupKey {
    Cgroup(CgroupId),
    /// Hash of an agent's id.
    Agent(u64),
}

type SessionKey = (Option<CgroupId>, u64);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    root: Option<ProcessKey>,
    /// What stands above its children.
    above_children: Above,
}

/// What the words of program starts say to their cases, kept for who starts the same
/// again; shared by all watchers of one analyst.
#[derive(Clone, Debug)]
pub struct CaseReader(Arc<Reader<StartWords>>);

impl Default for CaseReader {
    fn default() -> Self {
        Self(Arc::new(Reader::new(START_WORDS)))
    }
}

/// The cases of one watcher.
#[derive(Debug)]
pub struct Cases {
    weights: Arc<CaseWeights>,
    words: CaseReader,
    processes: Bounded<ProcessKey, Known>,
    trees: Bounded<ProcessKey, Facts>,
    groups: Bounded<GroupKey, Facts>,
    sessions: Bounded<SessionKey, Session>,
}

impl Cases {
    /// None yet.
    #[must_use]
    pub fn new(weights: Arc<CaseWeights>, words: CaseReader, limits: CaseLimits) -> Self {
        Self {
            weights,
            words,
            processes: Bounded::new(limits.processes),
            trees: Bounded::new(limits.trees),
            groups: Bounded::new(limits.groups),
            sessions: Bounded::new(limits.sessions),
        }
    }

    /// Says of a call or a tool's text what its agent was asked for and did before,
    /// where the event itself does not; to be called before it is observed.
    pub fn complete(&mut self, event: &mut Event) {
        if let Some(key) = session_of(event)
            && let Some(session) = self.sessions.find_mut(&key)
        {
            session.dialogue().complete(&mut event.data);
        }
    }

    /// Takes the next event. Its own verdict, if it gets one, comes later.
    #[must_use]
    pub fn observe(&mut self, event: &Event) -> Observation {
        let tree = self.root_of(event);
        let above = self.above(event);
        let group = group_of(event);
        self.know(event, tree, above);
        let mut scratch = (Facts::default(), Facts::default());
        let (lone_tree, lone_group) = (&mut scratch.0, &mut scratch.1);
        let session = session_of(event);
        let mut scene = Scene {
            event,
            above,
            now_ns: now_ns(event),
            tree: tree.map_or(lone_tree, |key| self.trees.touch(&key)),
            group: group.map_or(lone_group, |key| self.groups.touch(&key)),
        };
        let suspicion = scene.tree.suspicion.max(scene.group.suspicion / 2.0);
        let (mut text_bytes, mut text) = (None, None);
        let mut shown = match &event.data {
            EventData::Exec => {
                let names: Vec<&str> = event.ancestors.iter().map(|a| name_of(&a.image)).collect();
                let around = Surroundings::of_parents(&names);
                let args = &event.process.image.argv.args;
                let words = self.words.0.of_argv(args, &around, StartWords::of);
                scene.start(&words)
            }
            EventData::File(access) => {
                text_bytes = Some(access.path.len());
                scene.file(access)
            }
            EventData::Connect(connection) => {
                text_bytes = Some(connection.peer.to_string().len());
                scene.connection(connection)
            }
            EventData::Dns(query) => {
                text_bytes = Some(query.name.len());
                scene.lookup(&query.name)
            }
            EventData::ToolCall(call) => {
                let shown =
                    session.map_or_else(Shown::default, |key| self.sessions.touch(&key).call(call));
                if shown.of(Kind::SecretUnasked) > 0.0 {
                    scene.group.read_secret(SecretKind::Ssh, scene.now_ns);
                }
                shown
            }
            EventData::Text(read) => {
                text = session.map(|key| self.sessions.touch(&key).read(read));
                Shown::default()
            }
            _ => Shown::default(),
        };
        if !shown.is_empty() {
            shown.raise(Kind::EarlierSuspicion, (suspicion - 1.0) / MAX_OWN);
        }
        Observation {
            kind: event.kind(),
            shown,
            text_bytes,
            tree,
            group,
            session,
            text,
        }
    }

    /// The verdict on an observed event: the more severe of `own`, what was said of
    /// the event by itself, and what its case shows. Events that nobody judges by
    /// themselves have no `own`.
    #[must_use]
    pub fn conclude(&mut self, seen: &Observation, own: Option<Verdict>) -> Verdict {
        let own_log_odds = own.as_ref().map_or(0.0, |own| log_odds(own.score));
        let verdict = match own {
            // What settled alone needs no more.
            Some(own) if seen.shown.is_empty() || is_settled(&own) => own,
            None => self.of_case(seen, own_log_odds),
            Some(own) => {
                let case = self.of_case(seen, own_log_odds);
                match case.label {
                    Label::Malicious => more_severe(own, case),
                    _ => own,
                }
            }
        };
        if let (Some(session), Some(text)) = (&seen.session, seen.text)
            && let Some(session) = self.sessions.find_mut(session)
        {
            session.judged(text, own_log_odds);
            let instructed = session.instructed();
            if let Some(facts) = seen.group.and_then(|group| self.groups.find_mut(&group)) {
                facts.instructed = facts.instructed.max(instructed);
            }
        }
        let is_start = seen.kind == EventKind::Exec;
        self.each_fact(seen, |facts| {
            if is_start {
                facts.suspicion = facts.suspicion.max(own_log_odds);
            }
            match verdict.label {
                Label::Malicious => facts.counters.malicious += 1,
                Label::Undetermined => facts.counters.undetermined += 1,
                Label::Benign => {}
            }
        });
        verdict
    }

    /// What happened before in the case of an observed event: in its tree of
    /// processes, else where it is.
    #[must_use]
    pub fn counters(&self, seen: &Observation) -> CaseCounters {
        let tree = seen.tree.and_then(|tree| self.trees.find(&tree));
        let group = || seen.group.and_then(|group| self.groups.find(&group));
        let facts = tree.or_else(group);
        facts.map_or_else(CaseCounters::default, |facts| facts.counters)
    }

    /// Remembers what was done about an observed event.
    pub fn acted(&mut self, seen: &Observation, acted: Acted) {
        self.each_fact(seen, |facts| match acted {
            Acted::Denied => facts.counters.denied += 1,
            Acted::Killed => facts.counters.killed += 1,
        });
    }

    /// How many cases, processes and sessions were forgotten for want of room.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.processes.evicted + self.trees.evicted + self.groups.evicted + self.sessions.evicted
    }

    /// How many of each are remembered now: processes, trees, groups, sessions.
    #[must_use]
    pub fn sizes(&self) -> [usize; 4] {
        [
            self.processes.len(),
            self.trees.len(),
            self.groups.len(),
            self.sessions.len(),
        ]
    }

    fn each_fact(&mut self, seen: &Observation, mut change: impl FnMut(&mut Facts)) {
        if let Some(facts) = seen.tree.and_then(|tree| self.trees.find_mut(&tree)) {
            change(facts);
        }
        if let Some(facts) = seen.group.and_then(|group| self.groups.find_mut(&group)) {
            change(facts);
        }
    }

    fn of_case(&self, seen: &Observation, own_log_odds: f64) -> Verdict {
        let total = self.weights.log_odds(&seen.shown, own_log_odds);
        let score = Score::from_log_odds(total);
        let is_malicious = score.probability() >= self.weights.malicious_threshold;
        let mut kinds: Vec<(Kind, f64)> = Kind::ALL
            .iter()
            .map(|kind| (*kind, self.weights.share(*kind, &seen.shown)))
            .filter(|(_, share)| *share > 0.0)
            .collect();
        kinds.sort_by(|a, b| b.1.total_cmp(&a.1));
        let evidence = kinds
            .iter()
            .map(|(kind, share)| self.evidence(*kind, *share, seen.text_bytes.map(|end| 0..end)));
        Verdict {
            label: if is_malicious {
                Label::Malicious
            } else {
                Label::Benign
            },
            score,
            technique: kinds
                .first()
                .filter(|_| is_malicious)
                .map(|(kind, _)| Technique(kind.technique().to_owned())),
            settled_by: SettledBy::Case,
            undetermined: None,
            evidence: evidence.collect(),
            stages: StageTimes::default(),
        }
    }

    fn evidence(&self, kind: Kind, share: f64, span: Option<Range<usize>>) -> Evidence {
        Evidence {
            provenance: Provenance {
                kind: SourceKind::Rule,
                source_id: format!("case:{}", kind.name()),
                version: self.weights.short_hash().to_owned(),
                observed: None,
                span,
                score: None,
            },
            log_odds: share,
            summary: kind.summary().to_owned(),
        }
    }

    /// The process that the tree of this one begins with.
    fn root_of(&self, event: &Event) -> Option<ProcessKey> {
        let Process { key, parent, .. } = &event.process;
        let mut root = *key;
        if event.ancestors.is_empty() {
            let known = |key: ProcessKey| self.processes.find(&key).and_then(|known| known.root);
            return key
                .and_then(known)
                .or_else(|| parent.and_then(known))
                .or(root);
        }
        for Ancestor { key, image } in &event.ancestors {
            if is_boundary(name_of(image)) {
                break;
            }
            let Some(key) = key else { continue };
            if let Some(known) = self.processes.find(key).and_then(|known| known.root) {
                return Some(known);
            }
            root = Some(*key);
        }
        root
    }

    fn above(&self, event: &Event) -> Above {
        if !event.ancestors.is_empty() {
            return Above::of(&event.ancestors);
        }
        let parent = event.process.parent;
        let known = parent.and_then(|parent| self.processes.find(&parent));
        known.map_or_else(Above::default, |known| known.above_children)
    }

    fn know(&mut self, event: &Event, root: Option<ProcessKey>, above: Above) {
        let name = name_of(&event.process.image);
        let Some(key) = event.process.key else { return };
        if matches!(event.data, EventData::Exit(_) | EventData::Loss(_)) {
            return;
        }
        *self.processes.touch(&key) = Known {
            root: if is_boundary(name) { None } else { root },
            above_children: above.below(name),
        };
    }
}

/// What was done about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acted {
    /// It was refused.
    Denied,
    /// Its process was killed.
    Killed,
}

/// Whether a rule or a precedent says by itself that it is an attack.
fn is_settled(own: &Verdict) -> bool {
    own.label == Label::Malicious
        && matches!(own.settled_by, SettledBy::Rule(_) | SettledBy::Precedent(_))
}

fn group_of(event: &Event) -> Option<GroupKey> {
    let cgroup = event.process.cgroup_id.filter(|id| *id != ROOT_CGROUP);
    let agent = || session_of(event).map(|(_, agent)| GroupKey::Agent(agent));
    cgroup.map(GroupKey::Cgroup).or_else(agent)
}

fn session_of(event: &Event) -> Option<SessionKey> {
    let agent = match &event.data {
        EventData::ToolCall(call) => &call.agent,
        EventData::Text(text) => &text.agent,
        _ => return None,
    };
    Some((event.process.cgroup_id, path_hash(agent)))
}

fn now_ns(event: &Event) -> u64 {
    let wall = || event.wall.map(|wall| wall.0);
    event.at.map(|at| at.0).or_else(wall).unwrap_or(0)
}

fn log_odds(score: Score) -> f64 {
    let probability = score.probability().clamp(1e-6, 1.0 - 1e-6);
    (probability / (1.0 - probability))
        .ln()
        .clamp(MIN_OWN, MAX_OWN)
}
